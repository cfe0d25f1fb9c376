"""``order-monitor review``: list what waits for a person and what to do about it, and close it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Final

from order_monitor.commands.exits import ExitCode, NotDoneError
from order_monitor.commands.lookup import account_names, name_of, when
from order_monitor.commands.session import PEOPLES, Session, command
from order_monitor.core.decision import StuckReason
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.order import Order
from order_monitor.shop.money_settings import refuse_while_observed
from order_monitor.shop.reading.history import OrderHistory
from order_monitor.shop.reading.search import look_up
from order_monitor.shop.reviews import Review, Reviews
from order_monitor.tell.history import iso
from order_monitor.tell.streams import show, show_json

_CLOSE: Final = "order-monitor review --close {id} --kind {kind} --reason WHY"
_DECIDE: Final = "order-monitor resolve {id} --completed or --failed --reason WHY"
_GIVE_PIN: Final = "order-monitor resolve {id} --completed --pin-stdin"

_DIGESTS: Final = {
    StuckReason.HELD_BY_BRAKE: "see whether the provider means it, then order-monitor release {account}; review --json names them",
    StuckReason.NOT_KNOWN: "see there whether it ever got them (order-monitor review --json names them), "
    "then order-monitor resolve --kind not_known --account {account} --failed --reason WHY",
}
"""Kinds that many orders of an account have at the same time: shown as one line for all of them,
with what to do.
"""


DO: Final[dict[str, str]] = {
    "pin_missing": f"get its PIN from the provider, then {_GIVE_PIN}; needs it none, {_CLOSE}",
    "completed_after_failed": f"the provider completed it after it had failed: settle that with the customer, then {_CLOSE}",
    "cancelled_after_completed": f"the provider cancelled it after it was completed: settle that with the customer, then {_CLOSE}",
    StuckReason.PIN_TOO_WIDE: f"widen the PIN's column; or {_DECIDE}",
    StuckReason.PIN_DIFFERS: f"see which of the two PINs is right; then {_DECIDE}",
    StuckReason.PIN_NOT_STORABLE: f"ask the provider for the PIN in words, then {_GIVE_PIN}",
    StuckReason.FAILED_WITH_PIN: f"it was given a PIN, and the provider has cancelled it since: {_DECIDE}",
    StuckReason.REJECTED_BY_DATABASE: (
        f"see which trigger or constraint refuses its row, then order-monitor ask {{id}}; or {_DECIDE}"
    ),
    StuckReason.CHANGED_BY_TRIGGER: f"see which trigger changes its row, then order-monitor ask {{id}}; or {_DECIDE}",
    StuckReason.UNKNOWN_STATE: f"ask the provider what its answer means; then {_DECIDE}",
    StuckReason.TWO_ANSWERS: f"ask the provider which of the two answers is this order's; then {_DECIDE}",
    StuckReason.PIN_UNREADABLE: f"get its PIN from the provider, then {_GIVE_PIN}",
    StuckReason.PIN_DUPLICATE: f"if both orders rightly have the code, {_GIVE_PIN} --same-as ORDER; else {_DECIDE}",
    StuckReason.PIN_FOR_ENDED: f"its PIN came after it had ended: order-monitor explain {{id}} --now, settle it, then {_CLOSE}",
    StuckReason.PIN_FOR_OTHER_DISPATCH: (
        f"the account it was sent to before has given a PIN: ask there, settle it, then {_CLOSE}; or {_DECIDE}"
    ),
    StuckReason.REFERENCE_TWICE: f"say whose it is: order-monitor resolve {{id}} --meant --reason WHY; or {_DECIDE}",
    StuckReason.NOT_KNOWN: f"the provider does not know it: see there whether it ever got it; then {_DECIDE}",
    StuckReason.REPEAT_SENT_ANEW: f"it failed again after it was sent anew: see whether a second refund is due, then {_CLOSE}",
    StuckReason.HELD_BY_BRAKE: (
        f"many were cancelled at once: see whether the provider means it, then order-monitor release {{account}}; or {_DECIDE}"
    ),
}
"""What a person can do about each kind; each entry names a command that closes it."""


KINDS: Final = frozenset(map(str, (*DO, *StuckReason)))
"""Every kind of review."""


def what_to_do(order_id: str, kind: str, account: str = "") -> str:
    """Return what a person can do about a review of this kind."""
    return DO.get(kind, f"{_DECIDE}; or {_CLOSE}").format(
        id=shlex.quote(order_id), kind=kind, account=_named(account)
    )


def _named(account: str) -> str:
    return shlex.quote(account) if account else "ACCOUNT"


def do_of(review: Review) -> str:
    """Return what a person can do about a review."""
    return what_to_do(review.order_id, review.kind, review.account)


@command()
async def run_review(session: Session, *, as_json: bool) -> int:
    """List what waits for a person."""
    await session.need(*PEOPLES)
    async with session.database.transaction() as connection:
        open_ones = await Reviews(session.schema).read(connection)
    names, rows = await _known(session, open_ones)
    # People type and read names; the id is shown only if there is no name.
    open_ones = [replace(one, account=names.get(one.account, one.account)) for one in open_ones]
    if as_json:
        listed = [
            {**asdict(one), **_of(rows.get(one.order_id)), "do": do_of(one)} for one in open_ones
        ]
        show_json(listed)
        return ExitCode.OK
    for review, more in _grouped(open_ones):
        if more:
            show(
                f"account {review.account or '-'}  {when(review.since)}  {review.kind}: {more + 1} orders"
            )
            show(
                f"  -> {_DIGESTS[StuckReason(review.kind)].format(account=_named(review.account))}"
            )
            continue
        detail = f": {review.detail}" if review.detail else ""
        show(f"{review.order_id}  {when(review.since)}  {review.kind}{detail}")
        show(f"  {_in_words(review, rows.get(review.order_id))}")
        show(f"  -> {do_of(review)}")
    if not open_ones:
        show("nothing waits for an operator")
    return ExitCode.OK


async def _known(
    session: Session, reviews: Sequence[Review]
) -> tuple[dict[str, str], dict[str, Order]]:
    """Return the names of accounts, and the orders' rows.

    What cannot be read is left out, because the list matters most in exactly that situation.
    """
    rows: dict[str, Order] = {}
    if not reviews:
        return {}, rows
    names = await account_names(session)
    with suppress(SettingsError, ShopError):
        rows = await session.orders().reader.among([review.order_id for review in reviews])
    return names, rows


def _of(order: Order | None) -> dict[str, str | None]:
    """Return the fields that a person needs to find an order at the provider and in the shop."""
    if order is None:
        return {"status": None, "referans": None, "sent_at": None}
    return {"status": order.status, "referans": order.reference, "sent_at": iso(order.sent_at)}


def _in_words(review: Review, order: Order | None) -> str:
    at = f"account {review.account}, " if review.account else ""
    if order is None:
        return f"{at}its row is gone, or cannot be read"
    reference = f"referans {order.reference}" if order.reference.strip() else "no referans"
    return f"{at}now {order.status!r}, {reference}, sent {when(order.sent_at)}"


def _grouped(reviews: Sequence[Review]) -> list[tuple[Review, int]]:
    """Return each review, with 0. Of a digest kind, return only the oldest per account, with the
    number of others.
    """
    counts = Counter((r.account, r.kind) for r in reviews)
    found: list[tuple[Review, int]] = []
    seen: set[tuple[str, str]] = set()
    for review in reviews:
        key = (review.account, review.kind)
        if review.kind not in _DIGESTS:
            found.append((review, 0))
        elif key not in seen:
            seen.add(key)
            found.append((review, counts[key] - 1))
    return found


@command()
async def run_close(
    session: Session, typed: str, *, kind: str | None, reason: str, by: str | None
) -> int:
    """Close the open reviews of an order.

    Raises:
        NotDoneError: there are none.
    """
    orders, by = session.orders(), name_of(by)
    await session.need(*PEOPLES)
    table = await orders.prepare()
    found = await look_up(session.database, orders, typed)
    # The row may be deleted; its reviews must be closed even so.
    order_id = found.order.id if isinstance(found, OrderHistory) else typed.strip()
    async with session.database.transaction() as connection:
        await refuse_while_observed(connection, session.schema)
        count = await Reviews(session.schema).close(
            connection, table, [order_id], by, reason, kind=kind
        )
    if not count:
        of_kind = f" of kind {kind}" if kind else ""
        raise NotDoneError(f"order-monitor: nothing{of_kind} is open about {order_id}")
    show(f"{order_id}: {count} closed by {by}: {reason}")
    return ExitCode.OK
