"""One scan of the shop's table: orders are taken in as they are read, and remembered only as far as
the end of the scan needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Final, NamedTuple

import structlog

from order_monitor.core.gate import Pause
from order_monitor.core.order import NOBODY_ASKED, Order, SkipReason
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.providers.provider import Provider
from order_monitor.shop.reading.orders import Scan, Slice
from order_monitor.watch.context import Context
from order_monitor.watch.intake import Intake, LeftTo
from order_monitor.watch.routing import Directory
from order_monitor.watch.turns import unhurried

NAMED: Final = 100
"""Maximum number of skipped orders to log individually per scan, and of fixable ones to show."""


class Skipped(NamedTuple):
    """The displayed details of an order that is not asked about: when it was sent (epoch seconds),
    its reference, its account's key.
    """

    sent_at: float | None
    reference: str
    account: str | None


class ScanRun:
    """What one scan has read so far; ``began`` is monotonic seconds.

    ``named`` are some of the orders that were not skipped before, ``shown`` the details of some
    that a person can fix. ``met`` are the orders taken in that carry no mark of it themselves
    (`TrackedOrder.read_at`), because they are being asked about or written; and, where not all are
    read, those that were skipped before. ``counts`` are those that other members ask about.
    """

    def __init__(
        self,
        context: Context,
        directory: Directory,
        intake: Intake,
        known: Mapping[str, SkipReason],
        began: float,
        *,
        is_whole: bool,
    ) -> None:
        """Take orders in through ``intake``.

        ``known`` are the orders skipped before; ``is_whole`` means that all orders are read.
        """
        self._context = context
        self._directory = directory
        self._intake = intake
        self._is_open = False
        self._known = known
        self.began = began
        self.is_whole = is_whole
        self.met: set[str] = set()
        self.awaiting: set[str] = set()
        self.skips: dict[str, SkipReason] = {}
        self.named: dict[str, Order] = {}
        self.shown: dict[str, Skipped] = {}
        self.found = 0
        self.last_sent = float("-inf")
        self._took_at = began
        horizon = context.now() - 2 * context.policy.reading.overlap
        self.counts = context.elsewhere.begin(began, horizon, is_whole=is_whole)
        self.dropped: list[Provider] = []
        self._log = structlog.get_logger("order_monitor.intake")

    def receive(self, part: Slice) -> None:
        """Take in some orders, after the accounts and pauses that they depend on."""
        if part.integrations is not None:
            self.dropped += self._directory.update(part.integrations)
        if not self._is_open:
            self._context.follow(part.now, self.began)
        if not self._is_open or part.integrations is not None:
            self._pause(part.pauses)
        self._is_open = True
        for order in part.orders:
            self._meet(order, part.now)
        self._context.state.taking_at = self._took_at = self._context.clock.monotonic()
        self._context.wake.set()

    async def rest(self, scan: Scan) -> None:
        """Take in what is not read in parts."""
        since = self._took_at
        if not self._is_open:
            self.receive(Slice(scan.now, (), scan.integrations, scan.pauses))
        self._context.follow(scan.now, since)
        await self.meet_all(scan)

    async def meet_all(self, scan: Scan) -> None:
        """Take in the orders of a scan."""
        for order in scan.unknown:
            self._skip(order, SkipReason.UNKNOWN_STATUS)
        async for order in unhurried(chain(scan.orders, scan.awaiting)):
            if not order.awaits_pin or not self._has_met(order.id):
                self._meet(order, scan.now)

    def _has_met(self, order_id: str) -> bool:
        entry = self._context.queue.get(order_id)
        is_marked = entry is not None and entry.read_at == self.began and not entry.awaits_pin
        return is_marked or order_id in self.met or order_id in self.skips

    def _meet(self, order: Order, now: float) -> None:
        taken = self._intake.take_in(order, now, self.began)
        if order.ended_at is None:
            self.found += 1
            if order.sent_at is not None and self.last_sent < order.sent_at:
                self.last_sent = min(order.sent_at, now)
        elif not isinstance(taken, (SkipReason, LeftTo)):
            self.awaiting.add(order.id)
        is_in_hand = False
        if isinstance(taken, TrackedOrder):
            is_in_hand = taken.is_in_hand
        elif isinstance(taken, LeftTo):
            self.counts.count(order, taken.account)
        elif taken is not None:
            self._skip(order, taken)
            return
        if is_in_hand or (not self.is_whole and order.id in self._known):
            self.met.add(order.id)

    def _skip(self, order: Order, reason: SkipReason) -> None:
        self.skips[order.id] = reason
        is_new = self._known.get(order.id) is not reason and reason not in NOBODY_ASKED
        if is_new and len(self.named) < NAMED:
            self.named[order.id] = order
        if reason.is_mendable and len(self.shown) < NAMED:
            self.shown[order.id] = skipped_of(order, self._directory)

    def _pause(self, pauses: Mapping[str, Pause]) -> None:
        """Take over what people have paused and resumed."""
        self._directory.note_pauses(pauses)
        for key, account in self._directory.accounts.items():
            before, account.paused = account.paused, pauses.get(key)
            if account.paused is not None and before is None:
                self._log.warning(
                    "account.paused",
                    account=account.name,
                    reason=account.paused.reason,
                    by=account.paused.by,
                )
            elif account.paused is None and before is not None:
                account.gate.restart()
                self._log.info("account.resumed", account=account.name)


def skipped_of(order: Order, directory: Directory) -> Skipped:
    """Return the displayed details of an order that is not asked about."""
    account = directory.account_of(order)
    key = order.integration if isinstance(account, SkipReason) else account.key
    return Skipped(order.sent_at, order.reference.strip(), key)
