"""Observes next to another monitor without writing: orders take the same path, over a shop that
stores what would have been written.

An order whose end was observed is not asked about again for that dispatch. An order that the other
monitor ended first is asked about once more, at its own next time, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from order_monitor.core.answer import Cancelled
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.clock import Clock
from order_monitor.core.confirmation import Unconfirmed, confirmation
from order_monitor.core.errors import ShopError
from order_monitor.core.order import Order
from order_monitor.core.schedule import Plan
from order_monitor.shop.observations import EndedElsewhere, Key, ObservationStore, end_words, key_of
from order_monitor.shop.reading.orders import ALL, Part, Scan, Slice, Take
from order_monitor.shop.schema.table_config import TableConfig
from order_monitor.watch.account import Account
from order_monitor.watch.discovery import Shop
from order_monitor.watch.routing import Directory, asked_of

AT_A_TIME: Final = 500
"""The most orders ended first by another monitor that are in the queue at a time."""

_FORGOTTEN_AFTER: Final = 86_400.0
"""Seconds after which a cancellation without a second answer is forgotten."""

_SHARE: Final = 100.0
"""A read without an index repeats after this many times its duration."""


@dataclass(frozen=True, slots=True)
class ObservingPlan:
    """A plan that checks an order ended by another monitor once."""

    plan: Plan
    table_config: TableConfig

    def first(self, order: Order, now: float) -> float | None:
        """The wrapped plan's time."""
        return self.plan.first(order, now)

    def again(self, order: Order, now: float) -> float | None:
        """The wrapped plan's time while the order is open."""
        is_ended = order.status in end_words(self.table_config)
        return None if is_ended else self.plan.again(order, now)


class ObservingShop:
    """The shop, with writes replaced by observations. It raises what the shop and the store do."""

    def __init__(
        self,
        shop: Shop,
        store: ObservationStore,
        directory: Directory,
        clock: Clock,
        confirm_cancelled: float = 0.0,
    ) -> None:
        """Read ``shop``, and store what would be written in ``store``.

        Orders ended by another monitor are asked about if ``directory`` has an account for them. A
        cancellation is believed when a second answer confirms it ``confirm_cancelled`` seconds
        later.
        """
        self._confirm = confirm_cancelled
        self._cancelled: dict[str, Unconfirmed] = {}
        """The orders whose last answer was a cancellation, each with the first one: there is no
        table for that while nothing may be written.
        """
        self._shop = shop
        self._store = store
        self._directory = directory
        self._clock = clock
        self._done: set[Key] = set()
        self._done_since: set[Key] = set()
        self._done_again_at = self._ended_again_at = float("-inf")
        self._ended: dict[str, tuple[Order, float | None]] = {}
        """Orders another monitor ended first, each with the time of it if known (epoch seconds)."""
        self._began: float | None = None
        self._log = structlog.get_logger("order_monitor.observe")

    @property
    def records_every_check(self) -> bool:
        """Always true: an order's last check is part of the observation."""
        return True

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        """Return open orders without an observed end, and those another monitor ended first."""
        await self._read_done()

        def give(read: Slice) -> None:
            assert take is not None
            take(replace(read, orders=self._open(read.orders)))

        scan = await self._shop.scan(part, None if take is None else give)
        await self._read_ended(scan.now)
        oldest = scan.now - self._confirm - _FORGOTTEN_AFTER
        self._cancelled = {i: first for i, first in self._cancelled.items() if first.since > oldest}
        orders = [*self._open(scan.orders), *(order for order, _ in self._ended.values())]
        return replace(scan, orders=orders, awaiting=[], held=())

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return the current rows of the orders that must still be asked about."""
        found = self._open(await self._shop.reread(orders))
        ids = {order.id for order in found}
        ended = [self._ended[o.id][0] for o in orders if o.id in self._ended and o.id not in ids]
        return [*found, *ended]

    async def record(self, findings: list[CheckResult], lock_wait: float) -> list[WriteResult]:
        """Store what would be written."""
        their_ends = {order_id: at for order_id, (_, at) in self._ended.items()}
        confirm_at = {f.order.id: at for f in findings if (at := self._confirm_at(f)) is not None}
        results = await self._store.record(findings, their_ends, lock_wait, confirm_at)
        for result in results:
            finding = result.finding
            if result.fate is WriteStatus.OBSERVED:
                self._done_since.add(key_of(finding.order, finding.account))
            if result.fate in (WriteStatus.OBSERVED, WriteStatus.RESENT, WriteStatus.GONE):
                self._ended.pop(finding.order.id, None)
                self._cancelled.pop(finding.order.id, None)
        return results

    def _confirm_at(self, finding: CheckResult) -> float | None:
        """Return when to ask for a second answer (epoch seconds), None if none is needed."""
        order_id, reference = finding.order.id, finding.order.reference.strip()
        if not self._confirm or not isinstance(finding.answer, Cancelled):
            if finding.is_told:
                self._cancelled.pop(order_id, None)
            return None
        found = confirmation(self._cancelled.get(order_id), finding, self._confirm, None)
        if found.since is not None:
            first = Unconfirmed(order_id, found.since, finding.account, reference)
            self._cancelled[order_id] = first
        return found.again_at

    def _open(self, orders: Sequence[Order]) -> list[Order]:
        """Return orders without an observed end, and without the other monitor's checks."""
        return [
            order._replace(last_sync_at=None)
            for order in orders
            if (key := key_of(order)) not in self._done and key not in self._done_since
        ]

    async def _read_done(self) -> None:
        """Load what was observed before the start, and by other processes.

        This process's own observations in the meantime are already known, and are in the next read
        too.
        """
        began = self._clock.monotonic()
        if began < self._done_again_at:
            return
        self._done |= self._done_since
        self._done_since = set()
        self._done = await self._store.done()
        took = self._clock.monotonic() - began
        self._done_again_at = began + took * _SHARE

    async def _read_ended(self, now: float) -> None:
        """Load orders another monitor ended first, in at most a hundredth of the time."""
        began = self._clock.monotonic()
        if began < self._ended_again_at:
            return
        try:
            found = await self._store.ended_elsewhere(now)
        except ShopError as error:
            # Only the comparison needs this: orders are found and asked about without it.
            self._log.warning("observe.not_compared", why=str(error))
            found = None
        self._ended_again_at = began + (self._clock.monotonic() - began) * _SHARE
        if found is None:
            return
        is_first, self._began = self._began is None, now if self._began is None else self._began
        known, self._ended = self._ended, {}
        for one in found:
            if len(self._ended) >= AT_A_TIME:
                break
            if isinstance(asked_of(self._directory, one.order, now), Account):
                before = known.get(one.order.id)
                is_known = before is not None and key_of(before[0]) == key_of(one.order)
                at = before[1] if before and is_known else self._seen(one, now, is_first)
                self._ended[one.order.id] = one.order._replace(last_sync_at=None), at

    def _seen(self, one: EndedElsewhere, now: float, is_first: bool) -> float | None:  # noqa: FBT001 - private
        """Return when another monitor ended an order, if this process was running then (epoch
        seconds): earlier ends must not count as found late.
        """
        assert self._began is not None
        if one.ended_at is None:
            return None if is_first else now
        return one.ended_at if one.was_asked or one.ended_at >= self._began else None
