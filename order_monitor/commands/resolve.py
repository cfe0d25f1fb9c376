"""``order-monitor resolve``: a person's decision about one order, through the same guarded code as
the daemon's.
"""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, assert_never

from order_monitor.app import table_config_of
from order_monitor.commands.agreement import agreed
from order_monitor.commands.exits import ExitCode, NotDoneError
from order_monitor.commands.lookup import ended, history_of, name_of
from order_monitor.commands.session import PEOPLES, Session, command
from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.check_result import ANY_ORDER, CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.errors import ShopMisfitError
from order_monitor.core.order import SAME_TIME, Order
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import NoPin, Pin, Unreadable, read_pin
from order_monitor.shop.database import Database
from order_monitor.shop.marks import add_mark
from order_monitor.shop.money_settings import refuse_while_observed
from order_monitor.shop.reading.history import OrderHistory, stored_pin
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import UNCONFIRMED, Reviews
from order_monitor.shop.writing.dispatches import account_of
from order_monitor.shop.writing.pins import names
from order_monitor.shop.writing.reopening import Reopener, ReopenRefusedError
from order_monitor.shop.writing.row_writer import RowWriter, package_mark
from order_monitor.tell.streams import show

_TRIES: Final = 20
_PAUSE: Final = 0.25
SENT_AGAIN: Final = "not decided: it was sent again, or is of another account by now"
_SETTLED: Final = "not decided: nothing of kind {} is open about it any more"
_LONGEST_INPUT: Final = 65_536
_FOR_REVIEW: Final = {
    StuckReason.REPEAT_SENT_ANEW: "it was sent again since that end, and a second refund may be due",
    StuckReason.PIN_FOR_ENDED: "the provider has sent another PIN for it, which was not written",
}
"""What a decision leaves for a person, in words."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's decision. ``how`` is ``completed``, ``failed``, ``reopen`` or ``meant``.

    ``same_as`` identifies, as typed, another order that rightly has the same code; ``is_shared``
    extends that to all orders of its package. With a ``kind``, the order is decided only if it has
    an open review of that kind; with ``chosen``, the order as it was chosen, only if it was not
    sent again since.
    """

    how: str
    reason: str
    by: str
    pin: Pin | None = None
    same_as: str | None = None
    is_shared: bool = False
    kind: str | None = None
    chosen: Order | None = None

    @property
    def outcome(self) -> Outcome:
        """The outcome that the decision gives the order.

        Raises:
            ValueError: the decision does not end the order.
        """
        return Outcome(self.how)

    def answer(self) -> Answer:
        """Return the equivalent answer of a provider."""
        match self.outcome:
            case Outcome.COMPLETED:
                return Completed(self.pin, self.reason)
            case Outcome.FAILED:
                return Cancelled(self.reason)
            case Outcome.PROCESSING:
                return Waiting(self.reason)
            case _:
                assert_never(self.outcome)


@command()
async def run_resolve(  # noqa: PLR0913 - one a flag
    session: Session,
    order_id: str,
    *,
    how: str,
    reason: str,
    by: str | None,
    accept: bool,
    with_pin: bool,
    same_as: str | None,
    is_shared: bool,
) -> int:
    """Resolve one order.

    With ``accept``, use the settings in force if this file's differ.

    Raises:
        NotDoneError: it was not decided.
    """
    pin = None
    if with_pin:
        text = _typed() if sys.stdin.isatty() else _piped()
        pin = _pin_of(text, session.settings.provider.no_pin)
        session.redactor.learn([pin.reveal(), *pin.reveal().split("\n")])
    decision = replace(decision_of(how, reason, by), pin=pin, same_as=same_as, is_shared=is_shared)
    await session.need(*PEOPLES)
    await resolve_one(await agreed(session, accept=accept, by=decision.by), order_id, decision)
    return ExitCode.OK


def decision_of(how: str, reason: str, by: str | None, kind: str | None = None) -> Decision:
    """Return a decision in the name of ``by``, or of who is logged in."""
    name = name_of(by)
    return Decision(how, reason.strip() or f"Resolved by {name}", name, kind=kind)


def _no_pin(why: str) -> NotDoneError:
    """Return the error for input that is no PIN; ``why`` shows none of it."""
    return NotDoneError(f"order-monitor: {why}; nothing was written")


def _typed() -> str:
    """Prompt for the PIN on a terminal, without echo.

    A command-line argument would show up in the process list and in the shell's history.
    """
    try:
        return getpass.getpass("PIN: ")
    except EOFError:
        return ""


def _piped() -> str:
    """Return all of standard input, because a PIN may have several lines and must not be cut."""
    given = sys.stdin.buffer.read(_LONGEST_INPUT + 1)
    if len(given) > _LONGEST_INPUT:
        raise _no_pin(
            f"there are more than {_LONGEST_INPUT} bytes on standard input, which is no PIN"
        )
    try:
        return given.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _no_pin("standard input is not UTF-8") from None


def _pin_of(text: str, no_pin: Collection[str]) -> Pin:
    match read_pin(text, no_pin):
        case Pin() as pin:
            return pin
        case NoPin():
            raise _no_pin(
                "no PIN was given on standard input: it is empty, or says that there is none"
            )
        case Unreadable(holds=holds):
            raise _no_pin(f"what was given as a PIN holds {holds}, and cannot be stored as one")


async def resolve_one(session: Session, order_id: str, decision: Decision) -> None:
    """Decide one order, and print the result.

    Raises:
        NotDoneError: it was not decided.
        ShopError: the database is not available.
    """
    orders = Orders(
        session.database, replace(table_config_of(session.settings), author=decision.by)
    )
    history = await history_of(session, orders, order_id)
    if decision.kind is not None and decision.kind not in history.reviews:
        raise _not_decided(history.order.id, _SETTLED.format(decision.kind))
    if decision.chosen is not None and _is_sent_again(decision.chosen, history.order):
        raise _not_decided(history.order.id, SENT_AGAIN)
    if decision.how == "reopen":
        await _reopen(session.database, orders, history, decision)
    elif decision.how == "meant":
        await _mean(session.database, orders, history, decision)
    else:
        await _decide(session, orders, history, decision)


def _is_sent_again(before: Order, now: Order) -> bool:
    """Whether an order was sent again between two reads of it."""
    known, sent_at = before.sent_at, now.sent_at
    is_moved = known != sent_at and (
        known is None or sent_at is None or abs(sent_at - known) >= SAME_TIME
    )
    is_elsewhere = None not in (before.integration, now.integration) and (
        before.integration != now.integration
    )
    return is_moved or is_elsewhere or before.reference.strip() != now.reference.strip()


async def _decide(
    session: Session, orders: Orders, history: OrderHistory, decision: Decision
) -> None:
    # The review already reports that another order has this code: a person who still gives it does
    # so on purpose.
    same_as = ANY_ORDER if StuckReason.PIN_DUPLICATE in history.reviews else None
    if decision.same_as is not None:
        same_as = (await history_of(session, orders, decision.same_as)).order.id
        pin = decision.pin or await _pin_in_row(session.database, orders, same_as)
        if pin is None:
            raise NotDoneError(f"{same_as} has no PIN; nothing was written")
        decision = replace(decision, pin=pin)
    finding = result_of(orders, history, decision)
    if finding is None:
        raise _not_decided(history.order.id, ended(history))
    finding.same_as = same_as
    if decision.is_shared:
        await _share(session.database, orders, history, decision)
    await _end(session.database, orders, finding, decision)


def _not_decided(order_id: str, why: str) -> NotDoneError:
    return NotDoneError(f"{order_id}: {why}")


async def _pin_in_row(database: Database, orders: Orders, order_id: str) -> Pin | None:
    """Return the PIN stored in an order's row."""
    async with database.transaction() as connection:
        stored = await stored_pin(connection, orders.table, order_id)
    pin = read_pin(stored or "", orders.row_writer.rules.no_pin)
    return pin if isinstance(pin, Pin) else None


def result_of(orders: Orders, history: OrderHistory, decision: Decision) -> CheckResult | None:
    """Return the decision as a check result for the order.

    None if the order has ended and nothing can be added to it.
    """
    order, row_writer = history.order, orders.row_writer
    if order.status not in row_writer.statements.open_statuses:
        is_completed = order.status in row_writer.rules.words(Outcome.COMPLETED)
        if (
            decision.outcome is not Outcome.COMPLETED
            or decision.pin is None
            or history.has_pin
            or not is_completed
        ):
            return None
        # Its PIN came another way, for example by telephone: it is stored like a PIN that arrives
        # late.
        order = order._replace(ended_at=history.now)
    return CheckResult(
        order, decision.answer(), history.now, account=account_of(order), by_person=True
    )


async def _share(
    database: Database, orders: Orders, history: OrderHistory, decision: Decision
) -> None:
    """Record for all processes that the orders of this order's package share their codes."""
    async with database.transaction() as connection:
        await refuse_while_observed(connection, orders.table.schema)
        (name,) = names([package_mark(history.order)])
        await add_mark(connection, orders.table.schema, name, decision.reason, decision.by)
    await orders.complete(again=True)


async def _mean(
    database: Database, orders: Orders, history: OrderHistory, decision: Decision
) -> None:
    """Record that an order's reference is its own, although another order has it too."""
    order_id = history.order.id
    async with database.transaction() as connection:
        await refuse_while_observed(connection, orders.table.schema)
        if not await orders.row_writer.dispatches.mean(connection, order_id, decision.by):
            raise _not_decided(
                order_id, "not asked about yet, so there is nothing to say of its reference"
            )
        how, kind = f"reference: {decision.reason}", str(StuckReason.REFERENCE_TWICE)
        await Reviews(orders.table.schema).close(
            connection, orders.table, [order_id], decision.by, how, kind=kind
        )
    show(f"{order_id}: its reference is its own, by {decision.by}; its next answer is believed")


async def _end(
    database: Database, orders: Orders, finding: CheckResult, decision: Decision
) -> None:
    order_id = finding.order.id
    for _ in range(_TRIES):
        result = await write_decision(database, orders, finding, decision)
        if result.fate is not WriteStatus.LOCKED:
            break
        await asyncio.sleep(_PAUSE)
    else:
        raise _not_decided(order_id, "another session holds the row; try again")
    assert result.write is not None
    pin = " with its PIN" if result.write.pin is not None else ""
    repeat = "; its event is a repeat: this end was reported before" if result.repeat else ""
    show(f"{order_id}: now {result.write.status!r}{pin}, by {decision.by}{repeat}")
    if result.review in _FOR_REVIEW:
        show(f"{order_id}: {_FOR_REVIEW[result.review]}; it is for review: {result.review}")


async def write_decision(
    database: Database, orders: Orders, finding: CheckResult, decision: Decision
) -> WriteResult:
    """Write the decision, its event, and the end of its review in one transaction.

    If the notification is refused, write without it.

    Raises:
        NotDoneError: it cannot be written, or nothing waits for it any more.
    """
    try:
        return await _write_by(orders.row_writer, database, orders, finding, decision)
    except ShopMisfitError:
        return await _write_by(
            replace(orders.row_writer, hints=False), database, orders, finding, decision
        )


async def _write_by(
    row_writer: RowWriter,
    database: Database,
    orders: Orders,
    finding: CheckResult,
    decision: Decision,
) -> WriteResult:
    """Write all of it or nothing."""
    table, order_id = orders.table, finding.order.id
    async with database.transaction() as connection:
        (result,) = await row_writer.write(connection, [finding], with_notes=True)
        if result.fate is WriteStatus.LOCKED:
            return result
        if result.fate is not WriteStatus.WRITTEN or result.write is None:
            why = f"{result.stuck or result.detail or result.fate} {result.detail}"
            raise _not_decided(order_id, f"not written: {why}".rstrip())
        reviews = Reviews(table.schema)
        if decision.kind is not None:
            about = await reviews.about(connection, table, [order_id])
            if decision.kind not in (kind for _, kind in about):
                raise _not_decided(order_id, _SETTLED.format(decision.kind))
        how = f"{decision.how}: {decision.reason}"
        await reviews.close(connection, table, [order_id], decision.by, how)
        waits = [(order_id, UNCONFIRMED)]
        await reviews.mend(connection, table, waits, "decided by a person")
        # After the others are closed: it is about what this very decision has left undone.
        await reviews.open(connection, table, [result])
        if await row_writer.held_pins.settle(connection, [order_id]):
            result = replace(result, review=StuckReason.PIN_FOR_ENDED)
    return result


async def _reopen(
    database: Database, orders: Orders, history: OrderHistory, decision: Decision
) -> None:
    order_id = history.order.id
    reopener = Reopener(orders.row_writer.table, orders.row_writer.table_config)
    try:
        async with database.transaction() as connection:
            status = await reopener.reopen(connection, order_id, decision.reason, decision.by)
    except ReopenRefusedError as error:
        raise _not_decided(order_id, f"not reopened: {error}") from None
    show(f"{order_id}: {status!r} again; its end was withdrawn before the shop acted on it")
