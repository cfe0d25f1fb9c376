"""``order-monitor resolve`` for many orders: chosen by property, counted, confirmed, and then
decided one by one.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from order_monitor.app import table_config_of
from order_monitor.commands.agreement import agreed
from order_monitor.commands.exits import ExitCode, NotDoneError, report
from order_monitor.commands.lookup import account_of
from order_monitor.commands.resolve import SENT_AGAIN, Decision, decision_of, resolve_one
from order_monitor.commands.review import KINDS
from order_monitor.commands.session import PEOPLES, Session, command
from order_monitor.commands.times import local
from order_monitor.core.order import Order, SkipReason
from order_monitor.shop.reading.history import OrderHistory, read_order_history
from order_monitor.shop.reading.orders import Part
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import Reviews
from order_monitor.tell.streams import say, show
from order_monitor.watch.routing import Directory

_LONGEST_ANSWER: Final = 100


@dataclass(frozen=True, slots=True)
class Many:
    """Which orders to decide: those that match all criteria.

    ``older_than`` is seconds since they were sent. ``confirm`` is the number of orders that a
    person expects; with ``dry_run`` they are listed, and nothing is written.
    """

    kind: str | None = None
    account: str | None = None
    older_than: float | None = None
    confirm: int | None = None
    dry_run: bool = False

    def mistake(self, order_id: str | None, *, with_pin: bool) -> str:
        """Return what is wrong with the choice, in combination with a named order and a PIN.

        Empty if it is valid.
        """
        is_chosen = (self.kind, self.account, self.older_than) != (None, None, None)
        if is_chosen is (order_id is not None):
            return "name one order, or choose many by --kind, --account or --older-than"
        if not is_chosen and (self.dry_run or self.confirm is not None):
            return "--dry-run and --confirm go with --kind, --account or --older-than"
        if is_chosen and with_pin:
            return "many orders never get a PIN: --pin-stdin and --same-as go with one"
        if self.kind is not None and self.kind not in KINDS:
            return f"there is no kind {self.kind!r}; there are {', '.join(sorted(KINDS))}"
        return ""

    def is_old_enough(self, order: Order, now: float) -> bool:
        """Whether an order was sent long enough ago at ``now`` (epoch seconds).

        False for an order without a date.
        """
        if self.older_than is None:
            return True
        sent = order.sent_at
        return sent is not None and math.isfinite(sent) and now - sent >= self.older_than


def run_resolve_many(
    config: Path | None, many: Many, *, how: str, reason: str, by: str | None, accept: bool
) -> int:
    """Decide each of ``many`` as if it were the only one.

    Return 1 if some were not decided, or the count differs from the confirmed one.
    """
    need = ("provider",) if many.account is not None else ()
    decision = decision_of(how, reason, by, many.kind)
    return command(*need)(_resolve)(config, many, decision, accept=accept)


async def _resolve(session: Session, many: Many, decision: Decision, *, accept: bool) -> int:
    await session.need(*PEOPLES)
    # Agreeing would store settings that are not stored yet.
    if not many.dry_run:
        session = await agreed(session, accept=accept, by=decision.by)
    if many.account is None:
        return await _Crowd(session, None, many).decide(decision)
    async with session.accounts() as directory:
        many = replace(many, account=account_of(directory, many.account).key)
        return await _Crowd(session, directory, many).decide(decision)


class _Crowd:
    """The orders to decide."""

    def __init__(self, session: Session, directory: Directory | None, many: Many) -> None:
        self._session = session
        self._directory = directory
        self._many = many
        table_config = table_config_of(session.settings)
        # A choice by kind of review includes orders of any age. A choice by other properties covers
        # only the watched orders.
        if many.kind is not None:
            table_config = replace(table_config, ignore_before=None)
        self._orders = Orders(session.database, table_config)

    async def decide(self, decision: Decision) -> int:
        """List, count and confirm the orders, then decide each on its own locked row, and print how
        many were decided.
        """
        chosen = await self._chosen()
        if self._many.dry_run:
            for order in chosen:
                show(f"{order.id}: {order.status!r}, sent {local(order.sent_at)}")
            show(f"{_count(len(chosen))}; nothing was written (--dry-run)")
            return ExitCode.OK
        if not chosen and self._many.confirm in (None, 0):
            show("no order is all of that; there is nothing to decide")
            return ExitCode.OK
        if not self._is_confirmed(len(chosen), decision):
            return ExitCode.NOT_DONE
        done = tried = 0
        try:
            for order in chosen:
                tried += 1
                done += await self._decide(order, decision)
        finally:
            left = f", {len(chosen) - tried} not tried" if tried < len(chosen) else ""
            show(f"{_count(len(chosen))}: {done} decided, {tried - done} not{left}")
        return ExitCode.OK if done == len(chosen) else ExitCode.NOT_DONE

    async def _decide(self, order: Order, decision: Decision) -> bool:
        """Decide one order, if it still matches the choice."""
        history = await self._history(order.id)
        if history is not None and not self._takes(history.order, history.now):
            say(f"{order.id}: {SENT_AGAIN}")
            return False
        try:
            await resolve_one(self._session, order.id, replace(decision, chosen=order))
        except NotDoneError as error:
            report(error)
            return False
        return True

    async def _chosen(self) -> list[Order]:
        """Return the matching orders, oldest first."""
        await self._orders.complete()
        ids = None
        if self._many.kind is not None:
            async with self._session.database.transaction() as connection:
                ids = await Reviews(self._session.schema).of_kind(connection, self._many.kind)
        scan = await self._orders.scan(Part(only=ids))
        found = {order.id: order for order in scan.orders}
        for order_id in ids or ():
            # An order that has ended may also have an open review.
            if order_id not in found and (history := await self._history(order_id)) is not None:
                found[order_id] = history.order
        wanted = [order for order in found.values() if self._takes(order, scan.now)]
        return sorted(
            wanted,
            key=lambda order: (order.sent_at if order.sent_at is not None else math.inf, order.id),
        )

    async def _history(self, order_id: str) -> OrderHistory | None:
        return await read_order_history(self._session.database, self._orders, order_id)

    def _takes(self, order: Order, now: float) -> bool:
        if not self._many.is_old_enough(order, now):
            return False
        if self._directory is None:
            return True
        found = self._directory.account_of(order)
        return not isinstance(found, SkipReason) and found.key == self._many.account

    def _is_confirmed(self, count: int, decision: Decision) -> bool:
        """Whether a person has confirmed the count: by option, or typed on a terminal."""
        given = self._many.confirm
        if given is None and sys.stdin.isatty():
            say(f"{_count(count)} to be decided ({decision.how}). Type the number to go on:")
            typed = sys.stdin.readline(_LONGEST_ANSWER).strip()
            given = int(typed) if typed.isascii() and typed.isdigit() else -1
        if given == count:
            return True
        if given is None:
            do = f"--dry-run shows them, --confirm {count} decides them"
            say(f"order-monitor: {_count(count)}; nothing was written; {do}")
        else:
            say(f"order-monitor: {_count(count)}, not {max(given, 0)}; nothing was written")
        return False


def _count(number: int) -> str:
    return "1 order" if number == 1 else f"{number} orders"
