"""Finds open orders: what a scan of the shop's table adds to the queue, changes in it, and removes
from it.

With few orders, each scan reads all of them. With many, most scans are quick: they read only what
was sent recently, from one end of an index. From time to time a full scan finds what quick scans
cannot: orders put back by hand, sent late or with another date, or ended by others. In between, no
call relies on stale data: an order that was not read recently is read again before it is asked
about.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Final, Protocol

import structlog

from order_monitor.core.errors import NotMigratedError, SettingsError, ShopError
from order_monitor.core.order import NOBODY_ASKED, Order, SkipReason
from order_monitor.core.queue import READ_AGAIN
from order_monitor.core.tracked_order import Stage, TrackedOrder
from order_monitor.providers.provider import Provider
from order_monitor.shop.reading.orders import ALL, Apart, Part, Scan, Take
from order_monitor.watch.cancellations import UnconfirmedCancellations
from order_monitor.watch.context import Context
from order_monitor.watch.held import HeldEnds
from order_monitor.watch.intake import Intake, LeftTo
from order_monitor.watch.routing import Directory
from order_monitor.watch.scan_run import NAMED, ScanRun, Skipped, skipped_of
from order_monitor.watch.turns import unhurried
from order_monitor.watch.write_queue import Recorder

_OWN_TABLES: Final = "own tables"
"""The name of the hold while one of our tables is missing."""

_NOTED_AT_A_TIME: Final = 1000

_UNREAD_HOLD: Final = 5.0
"""Seconds until the next attempt to read an order that could not be read, and that is not asked
about before.
"""


class Shop(Recorder, Protocol):
    """Where open orders are found and answers are written.

    Implemented by `order_monitor.shop.repository.Orders`.
    """

    @property
    def records_every_check(self) -> bool:
        """Whether a check that changed nothing is written too."""

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        """Return the open orders, all or a part of them, or pass them to ``take`` in slices."""

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return the given orders that are still open, with their current rows."""


class Discovery:
    """Keeps the queue in step with the table."""

    def __init__(
        self,
        context: Context,
        shop: Shop,
        directory: Directory,
        held: HeldEnds,
        cancellations: UnconfirmedCancellations,
    ) -> None:
        """Fill the context's queue from ``shop``; ``held`` receives the held ends, and
        ``cancellations`` those that wait for a second answer.
        """
        self._held = held
        self._cancellations = cancellations
        self._context = context
        self._queue = context.queue
        self._state = context.state
        self.shop = shop
        self._directory = directory
        self.intake = Intake(context, directory)
        self.skips: dict[str, SkipReason] = {}
        self.shown: dict[str, Skipped] = {}
        """Details of some skipped orders, those that a person can fix."""
        self._awaiting: AbstractSet[str] = frozenset()
        self._apart = Apart()
        self.full_scan_at = self._began = float("-inf")
        self._last_sent = float("-inf")
        self.dropped: list[Provider] = []
        self._log = structlog.get_logger("order_monitor.intake")

    async def scan(self) -> list[Provider]:
        """Scan for open orders, and add and remove orders in the queue accordingly.

        Return clients that are no longer needed.

        Raises:
            ShopError: the database is not available; the orders known so far are kept, including
                those read until then.
            SettingsError: the table is not as expected.
        """
        run = self._begin_run(is_whole=self._context.clock.monotonic() >= self.full_scan_at)
        known = set(self._directory.accounts)
        part = ALL if run.is_whole else Part(since=self._since())
        self.intake.scanning_since = run.began
        try:
            scan = await self.shop.scan(part, run.receive)
            await run.rest(scan)
        except (ShopError, SettingsError) as error:
            self._state.scan_problem = str(error)
            self._state.short_of = getattr(error, "short_of", "")
            if self._state.short_of:
                self._context.ran_out(self._state.short_of)
            if isinstance(error, NotMigratedError):
                self._context.hold_for(_OWN_TABLES, str(error))
            raise
        finally:
            self.intake.scanning_since = math.inf
            self._last_sent = max(self._last_sent, run.last_sent)
            # What a scan has taken over stays valid even if the scan fails later: the next one
            # returns it.
            self.dropped += run.dropped
            # Orders that were skipped may have an account now.
            is_changed = bool(run.dropped) or known != set(self._directory.accounts)
            self.full_scan_at = float("-inf") if is_changed else self.full_scan_at
        self._context.elsewhere.finish(run.counts, is_whole=run.is_whole)
        self._take_apart(scan.apart)
        await self._let_go(run)
        self._plan_scans(run, is_changed=is_changed)
        self._held.after_scan(scan.held, scan.pauses, run.began)
        self._cancellations.after_scan(scan.unconfirmed, run.began, is_whole=run.is_whole)
        self._state.events_waiting, self._state.reviews = scan.waiting, scan.reviews
        self._state.oldest_reviews = scan.oldest_reviews
        self._state.scans += 1
        self._state.scan_problem, self._state.short_of = None, ""
        self._context.hold_for(_OWN_TABLES, "")
        self._state.scanned_at = self._context.clock.monotonic()
        dropped, self.dropped = self.dropped, []
        return dropped

    async def merge(self, scan: Scan, began: float) -> None:
        """Update the queue with the result of a scan that ``began`` at this time (monotonic
        seconds).
        """
        run = ScanRun(
            self._context, self._directory, self.intake, self.skips, began, is_whole=scan.is_whole
        )
        await run.meet_all(scan)
        self._context.elsewhere.finish(run.counts, is_whole=run.is_whole)
        self._take_apart(scan.apart)
        await self._let_go(run)

    async def read_accounts(self, keys: Collection[str]) -> None:
        """Read the open orders of some accounts, which another process may have asked until now,
        and let go of those that are no longer open.

        Raises:
            ShopError: the database is not available; what was read until then is kept.
            SettingsError: the table is not as expected.
        """
        run = self._begin_run(is_whole=False)
        # Not those that a scan at the same time finds, which this one may not see yet.
        before = [e async for e in unhurried(list(self._queue)) if e.account in keys]
        known = set(self._directory.accounts)
        try:
            scan = await self.shop.scan(Part(of=keys), run.receive)
            await run.rest(scan)
        finally:
            self.dropped += run.dropped
            if run.dropped or known != set(self._directory.accounts):
                self.full_scan_at = float("-inf")
        self._context.elsewhere.finish(run.counts, is_whole=False)
        await self._let_go(run)
        async for entry in unhurried(before):
            is_unmet = READ_AGAIN < entry.read_at < run.began and entry.id not in run.met
            if is_unmet and not entry.is_in_hand and self._queue.get(entry.id) is entry:
                self.intake.let_go(entry)

    async def leave_accounts(self, keys: Collection[str]) -> None:
        """Keep the orders of some accounts no longer, unless this process gets them meanwhile."""
        elsewhere = self._context.elsewhere
        async for entry in unhurried(list(self._queue)):
            is_left = entry.account in keys and elsewhere.has(entry.account)
            if is_left and not entry.is_in_hand and self._queue.get(entry.id) is entry:
                self.intake.drop(entry)

    async def note_unasked(self) -> None:
        """Record the dispatches of orders that a single pass finds too young to ask about, because
        the next pass has no other memory of them.

        Otherwise an order whose ``sent_at`` the shop moves with each save would be too young for
        every pass.

        Raises:
            ShopError: the database is not available.
            SettingsError: the table is not as expected.
        """
        idle = [
            entry.order
            for entry in self._queue
            if entry.stage is Stage.IDLE and not entry.registered
        ]
        for start in range(0, len(idle), _NOTED_AT_A_TIME):
            await self.shop.reread(idle[start : start + _NOTED_AT_A_TIME])

    def _begin_run(self, *, is_whole: bool) -> ScanRun:
        """Start a scan. No two start at the same moment, because the start time identifies the
        scan.
        """
        self._began = max(self._context.clock.monotonic(), math.nextafter(self._began, math.inf))
        return ScanRun(
            self._context, self._directory, self.intake, self.skips, self._began, is_whole=is_whole
        )

    def _since(self) -> float:
        return min(self._last_sent, self._context.now()) - self._context.policy.reading.overlap

    def _plan_scans(self, run: ScanRun, *, is_changed: bool) -> None:
        """Decide when all orders are read again, and which orders count as stale."""
        reading, now = self._context.policy.reading, self._context.clock.monotonic()
        if not run.is_whole:
            self._context.stale_before = now - reading.fresh_for
            return
        self._context.stale_before = float("-inf")
        is_small = run.found <= reading.small
        pause = (
            0.0
            if is_small or is_changed
            else min(reading.longest, (now - run.began) * reading.share)
        )
        self.full_scan_at = now + pause

    def is_unread(self, entry: TrackedOrder) -> bool:
        """Whether an order must be read before it is asked about, however long that takes: its
        dispatch is not recorded, or another process could ask its account when it was read.
        """
        account = self._directory.accounts.get(entry.account)
        return not entry.registered or (account is not None and entry.read_at < account.held_since)

    async def refresh(self, entries: Sequence[TrackedOrder]) -> None:
        """Read stale orders again: some that are about to be asked about, and some that are due
        soon.

        The former are due again afterwards, even if the read failed; those that must be read first
        (`is_unread`) a little later.
        """
        read_at, queue = self._context.clock.monotonic(), self._queue
        in_hand = [entry for entry in entries if entry.stage is Stage.ASKING]
        found: dict[str, Order] | None = None
        try:
            found = {
                order.id: order
                for order in await self.shop.reread([entry.order for entry in entries])
            }
        except (ShopError, SettingsError) as error:
            self._log.debug("order.not_reread", why=str(error))
        finally:
            for entry in in_hand:
                if queue.get(entry.id) is entry:
                    is_lost = found is None and self.is_unread(entry)
                    queue.schedule(
                        entry,
                        entry.due,
                        wake=self._context.now() + (_UNREAD_HOLD if is_lost else 0.0),
                    )
                    if not is_lost:
                        entry.read_at = read_at
        if found is None:
            return
        skips: dict[str, SkipReason] = {}
        for entry in entries:
            if queue.get(entry.id) is not entry or entry.is_in_hand:
                continue
            reason = self._take_again(entry, found.get(entry.id), read_at)
            if reason is not None:
                skips[entry.id] = reason
        if skips:
            shown = {i: skipped_of(found[i], self._directory) for i in skips}
            self._note_skips({**self.skips, **skips}, found, {**self.shown, **shown})

    def _take_again(
        self, entry: TrackedOrder, order: Order | None, read_at: float
    ) -> SkipReason | None:
        """Take over an order that was read again, or let it go if it is no longer open.

        Return why it is skipped now, None if it is not.
        """
        if order is None:
            self.intake.let_go(entry)
            return None
        taken = self.intake.take_in(order, self._context.now(), read_at)
        if isinstance(taken, LeftTo):
            self._context.elsewhere.drop(entry, taken.account)
        elif isinstance(taken, SkipReason):
            self.intake.let_go(entry)
            return taken
        else:
            entry.reference, entry.registered = order.reference, order.registered
        return None

    async def _let_go(self, run: ScanRun) -> None:
        """Remove orders that are no longer open or are skipped, and log what is newly skipped."""
        for entry in await self._gone(run):
            # An order that was read again after the scan began is more recent than the scan.
            if entry.read_at <= run.began and not entry.is_in_hand:
                self.intake.let_go(entry)
        if run.is_whole:
            self._state.open = run.found + self._apart.left_alone
            self._note_skips(run.skips, run.named, run.shown)
            return
        kept = {
            i: r
            for i, r in self.skips.items()
            if i not in run.met and r is not SkipReason.UNKNOWN_STATUS
        }
        skips = {**kept, **run.skips}
        nobodys = sum(reason is not SkipReason.UNKNOWN_STATUS for reason in skips.values())
        self._state.open = (
            max(0, len(self._queue) - len(run.awaiting))
            + len(self._context.elsewhere)
            + nobodys
            + self._apart.left_alone
        )
        self._note_skips(skips, run.named, {**self.shown, **run.shown})

    async def _gone(self, run: ScanRun) -> list[TrackedOrder]:
        """Return orders that are no longer open, that are skipped, or whose PIN is no longer
        awaited.
        """
        before, self._awaiting = self._awaiting, run.awaiting
        if run.is_whole:
            # An order to read again at once has lost its mark, which does not mean that the scan
            # missed it.
            began, met = run.began, run.met
            return [
                e
                async for e in unhurried(list(self._queue))
                if READ_AGAIN < e.read_at < began and e.id not in met
            ]
        known = [self._queue.get(i) for i in before - run.awaiting | run.skips.keys()]
        return [e for e in known if e is not None and (e.awaits_pin or e.id in run.skips)]

    def _note_skips(
        self,
        skips: dict[str, SkipReason],
        orders: Mapping[str, Order],
        shown: Mapping[str, Skipped],
    ) -> None:
        """Log what is newly skipped, some orders individually and the rest of very many in one
        line.
        """
        mendable = (i for i in shown if i in skips and skips[i].is_mendable)
        self.shown = {order_id: shown[order_id] for order_id in islice(mendable, NAMED)}
        counts = Counter(reason for reason in skips.values() if reason in NOBODY_ASKED)
        for reason, count in counts.items():
            if not self._state.skipped[reason]:
                self._log.info("orders.left_alone", count=count, reason=str(reason))
        fresh = [
            (order_id, reason)
            for order_id, reason in skips.items()
            if self.skips.get(order_id) is not reason and reason not in NOBODY_ASKED
        ]
        named = [(i, reason) for i, reason in fresh[:NAMED] if i in orders]
        for order_id, reason in named:
            order = orders[order_id]
            told = {"tenant_id": order.tenant_id, "reason": str(reason), "status": order.status}
            # An order that is skipped on purpose is not a problem.
            level = logging.WARNING if reason.is_mendable else logging.INFO
            self._log.log(level, "order.skipped", order_id=order_id, **told)
        if more := Counter(str(reason) for _, reason in fresh) - Counter(str(r) for _, r in named):
            self._log.warning("orders.skipped", more=dict(more))
        self.skips = skips
        self._state.skipped.clear()
        self._state.skipped.update(skips.values())
        if self._apart.left_alone:
            self._state.skipped[SkipReason.BEFORE_START] = self._apart.left_alone

    def _take_apart(self, apart: Apart) -> None:
        """Take over what is only counted, and log once that it exists: one line, whatever the
        number.
        """
        before, self._apart = self._apart, apart
        self._state.first_start_held = apart.held
        if apart.left_alone and not before.left_alone:
            self._log.info(
                "orders.left_alone", count=apart.left_alone, reason=str(SkipReason.BEFORE_START)
            )
