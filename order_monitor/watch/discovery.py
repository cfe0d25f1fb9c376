"""Found open: what looks at the shop's table add to the queue, change in it, and take out of it.

Of few orders all are read at each look. Of many the looks are quick: they read what was sent lately, from one end of an index;
and now and then all are read, to find what the quick looks cannot (put back by hand, sent late or with another date, ended by
others). In between nothing is asked on stale knowledge: an order that was not read lately is read again before it is asked about.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import structlog

from order_monitor.core.entry import Entry, Stage
from order_monitor.core.errors import NotMigratedError, SettingsError, ShopError
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.queue import READ_AGAIN
from order_monitor.providers.provider import Provider
from order_monitor.shop.order_reader import Apart, Scan, Take
from order_monitor.watch.board import Board
from order_monitor.watch.held import HeldEnds
from order_monitor.watch.intake import Intake
from order_monitor.watch.look import NAMED, Look
from order_monitor.watch.routing import Directory
from order_monitor.watch.turns import unhurried
from order_monitor.watch.writer import Recorder

_OWN_TABLES: Final = "own tables"
"""The name under which the board is held while one of ours is missing."""

_NOTED_AT_A_TIME: Final = 1000

_UNREAD_HOLD: Final = 5.0
"""Seconds after which an order is read again that could not be, and whose reference is not kept."""


class Shop(Recorder, Protocol):
    """Where open orders are found and answers are written; `order_monitor.shop.repository.Orders` is it."""

    @property
    def records_every_check(self) -> bool:
        """Whether a check that changed nothing is written too."""

    async def scan(self, *, since: float | None = None, take: Take | None = None) -> Scan:
        """Return the open orders, all of them or those sent ``since`` (epoch seconds), or give them to ``take`` part by part."""

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return those among some orders that are open, as they are now."""


class Discovery:
    """Keeps the queue in step with the table."""

    def __init__(self, board: Board, shop: Shop, directory: Directory, held: HeldEnds) -> None:
        """Fill the board's queue from ``shop``; ``held`` is told which ends are."""
        self._held = held
        self._board = board
        self._queue = board.queue
        self._state = board.state
        self.shop = shop
        self._directory = directory
        self.intake = Intake(board, directory)
        self.skips: dict[str, SkipReason] = {}
        self._awaiting: AbstractSet[str] = frozenset()
        self._apart = Apart()
        self._whole_again_at = self._began = float("-inf")
        self._last_sent = float("-inf")
        self._dropped: list[Provider] = []
        self._log = structlog.get_logger("order_monitor.intake")

    async def scan(self) -> list[Provider]:
        """Look for open orders, and take up and let go accordingly; return clients that are no longer needed.

        Raises:
            ShopError: the database could not be asked; the orders known so far are kept, and so are those read until then.
            SettingsError: the table is not as it must be.
        """
        look = self._look(is_whole=self._board.clock.monotonic() >= self._whole_again_at)
        known = set(self._directory.accounts)
        since = None if look.is_whole else self._since()
        self.intake.looking_since = look.began
        try:
            scan = await self.shop.scan(since=since, take=look.take)
            await look.rest(scan)
        except (ShopError, SettingsError) as error:
            self._state.scan_problem = str(error)
            self._state.short_of = getattr(error, "short_of", "")
            if self._state.short_of:
                self._board.ran_out(self._state.short_of)
            if isinstance(error, NotMigratedError):
                self._board.hold_for(_OWN_TABLES, str(error))
            raise
        finally:
            self.intake.looking_since = math.inf
            self._last_sent = max(self._last_sent, look.last_sent)
            # What a look has taken over holds, also where the look fails after that: it is the next one's to tell.
            self._dropped += look.dropped
            # Whose orders were skipped may have an account now.
            is_changed = bool(look.dropped) or known != set(self._directory.accounts)
            self._whole_again_at = float("-inf") if is_changed else self._whole_again_at
        self._take_apart(scan.apart)
        await self._let_go(look)
        self._plan_looks(look, is_changed=is_changed)
        self._held.look(scan.held, scan.pauses, look.began)
        self._state.events_waiting, self._state.reviews = scan.waiting, scan.reviews
        self._state.scans += 1
        self._state.scan_problem, self._state.short_of = None, ""
        self._board.hold_for(_OWN_TABLES, "")
        self._state.scanned_at = self._board.clock.monotonic()
        dropped, self._dropped = self._dropped, []
        return dropped

    async def merge(self, scan: Scan, began: float) -> None:
        """Bring the queue in step with what a scan that ``began`` (monotonic seconds) read."""
        look = Look(self._board, self._directory, self.intake, self.skips, began, is_whole=scan.is_whole)
        await look.meet_all(scan)
        self._take_apart(scan.apart)
        await self._let_go(look)

    async def note_unasked(self) -> None:
        """Have the dispatches noted of those that one pass finds too young to ask about: the next pass remembers nothing else.

        An order whose ``sent_at`` the shop moves each time it saves would be too young for each of them.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        idle = [entry.order for entry in self._queue if entry.stage is Stage.IDLE and not entry.registered]
        for start in range(0, len(idle), _NOTED_AT_A_TIME):
            await self.shop.reread(idle[start : start + _NOTED_AT_A_TIME])

    def _look(self, *, is_whole: bool) -> Look:
        """Begin a look; no two begin at the same moment, since that tells what was read by which."""
        self._began = max(self._board.clock.monotonic(), math.nextafter(self._began, math.inf))
        return Look(self._board, self._directory, self.intake, self.skips, self._began, is_whole=is_whole)

    def _since(self) -> float:
        return min(self._last_sent, self._board.now()) - self._board.policy.reading.overlap

    def _plan_looks(self, look: Look, *, is_changed: bool) -> None:
        """Decide when all are read again, and which orders have not been read lately."""
        reading, now = self._board.policy.reading, self._board.clock.monotonic()
        if not look.is_whole:
            self._board.stale_before = now - reading.fresh_for
            return
        self._board.stale_before = float("-inf")
        is_small = look.found <= reading.small
        pause = 0.0 if is_small or is_changed else min(reading.longest, (now - look.began) * reading.share)
        self._whole_again_at = now + pause

    async def look_again(self, entries: Sequence[Entry]) -> None:
        """Read orders again that were not read lately: some that are to be asked about, and some that are due soon.

        Those to be asked about are due again afterwards, even where nothing could be read; without their reference a little later.
        """
        read_at, queue = self._board.clock.monotonic(), self._queue
        in_hand = [entry for entry in entries if entry.stage is Stage.ASKING]
        found: dict[str, Order] | None = None
        try:
            found = {order.id: order for order in await self.shop.reread([entry.order for entry in entries])}
        except (ShopError, SettingsError) as error:
            self._log.debug("order.not_reread", why=str(error))
        finally:
            for entry in in_hand:
                if queue.get(entry.id) is entry:
                    is_lost = found is None and (entry.referans is None or not entry.registered)
                    queue.schedule(entry, entry.due, wake=self._board.now() + (_UNREAD_HOLD if is_lost else 0.0))
                    entry.read_at = read_at
        if found is None:
            return
        for entry in entries:
            if queue.get(entry.id) is entry and not entry.is_in_hand:
                self._compare(entry, found.get(entry.id), read_at)

    async def _let_go(self, look: Look) -> None:
        """Forget what is open no more or is skipped, and say what is skipped from now on."""
        for entry in await self._gone(look):
            # What was read again since the look began is known better than by it.
            if entry.read_at <= look.began and not entry.is_in_hand:
                self.intake.let_go(entry)
        if look.is_whole:
            self._state.open = look.found + self._apart.left_alone
            self._note_skips(look.skips, look.named)
            return
        kept = {i: r for i, r in self.skips.items() if i not in look.met and r is not SkipReason.UNKNOWN_STATUS}
        skips = {**kept, **look.skips}
        nobodys = sum(reason is not SkipReason.UNKNOWN_STATUS for reason in skips.values())
        self._state.open = max(0, len(self._queue) - len(look.awaiting)) + nobodys + self._apart.left_alone
        self._note_skips(skips, look.named)

    async def _gone(self, look: Look) -> list[Entry]:
        """Return what is open no more, what is skipped, and whose PIN is not awaited any more."""
        before, self._awaiting = self._awaiting, look.awaiting
        if look.is_whole:
            # What is to be read again at once has lost its mark, and not because nobody met it.
            began, met = look.began, look.met
            return [e async for e in unhurried(list(self._queue)) if READ_AGAIN < e.read_at < began and e.id not in met]
        known = [self._queue.get(order_id) for order_id in before - look.met | look.skips.keys()]
        return [e for e in known if e is not None and (e.awaits_pin or e.id in look.skips)]

    def _compare(self, entry: Entry, order: Order | None, read_at: float) -> None:
        if order is None:
            self.intake.let_go(entry)
        elif reason := self.intake.take(order, self._board.now(), read_at):
            self.intake.let_go(entry)
            self._note_skips({**self.skips, order.id: reason}, {order.id: order})
        else:
            entry.referans, entry.registered = order.referans, order.registered

    def _note_skips(self, skips: dict[str, SkipReason], orders: Mapping[str, Order]) -> None:
        """Say what is skipped from now on, some by name and of very many the rest in one line."""
        fresh = [(order_id, reason) for order_id, reason in skips.items() if self.skips.get(order_id) is not reason]
        for order_id, reason in fresh[:NAMED]:
            order = orders[order_id]
            told = {"tenant_id": order.tenant_id, "reason": str(reason), "status": order.status}
            # What is meant so is no fault.
            level = logging.WARNING if reason.is_mendable else logging.INFO
            self._log.log(level, "order.skipped", order_id=order_id, **told)
        if more := Counter(str(reason) for _, reason in fresh[NAMED:]):
            self._log.warning("orders.skipped", more=dict(more))
        self.skips = skips
        self._state.skipped.clear()
        self._state.skipped.update(skips.values())
        if self._apart.left_alone:
            self._state.skipped[SkipReason.BEFORE_START] = self._apart.left_alone

    def _take_apart(self, apart: Apart) -> None:
        """Take over what is only counted, and say once that there is such a thing: one line, however many they are."""
        before, self._apart = self._apart, apart
        self._state.first_start_held = apart.held
        if apart.left_alone and not before.left_alone:
            self._log.info("orders.left_alone", count=apart.left_alone, reason=str(SkipReason.BEFORE_START))
