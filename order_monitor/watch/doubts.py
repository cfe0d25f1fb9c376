"""Cancellations that wait for a second answer outlive a restart: kept as they come, and taken up again at the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.entry import Stage
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.watch.engine import Engine

_LOOK: Final = 1.0


class Shelf(Protocol):
    """Where they are kept; `order_monitor.shop.unconfirmed.Unconfirmed` is it."""

    async def read(self) -> dict[str, float]:
        """Return when each was first read (epoch seconds), by the order's id."""

    async def keep(self, fresh: Mapping[str, str], settled: Sequence[str]) -> None:
        """Keep what is fresh, and close what is settled."""


class Doubts:
    """Keeps an engine's confirmations on a shelf."""

    def __init__(self, engine: Engine, shelf: Shelf, clock: Clock, confirm: float) -> None:
        """Confirmations wait ``confirm`` seconds for their second answer."""
        self._engine = engine
        self._shelf = shelf
        self._clock = clock
        self._confirm = confirm
        self._has_recalled = False
        self._fresh: dict[str, str] = {}
        self._settled: set[str] = set()
        self._log = structlog.get_logger("order_monitor.doubts")

    async def run(self) -> None:
        """Keep them for ever."""
        while True:
            try:
                await self.step()
            except (ShopError, SettingsError) as error:
                self._log.debug("doubts.waiting", why=str(error))
            await self._clock.sleep(_LOOK)

    async def step(self) -> None:
        """Take up what was kept, once; keep what is new.

        Raises:
            ShopError: the database could not be asked; what is new is kept at the next step.
            SettingsError: the table is not as it must be.
        """
        if self._engine.state.scans and not self._has_recalled:
            self._recall(await self._shelf.read())
            self._has_recalled = True
        confirmations = self._engine.confirmations
        fresh, settled = confirmations.changes()
        gone = {order_id for order_id in confirmations.open if self._engine.queue.get(order_id) is None}
        confirmations.open.difference_update(gone)
        self._fresh |= fresh
        self._settled |= settled | gone
        for order_id in settled | gone:
            self._fresh.pop(order_id, None)
        if self._fresh or self._settled:
            await self._shelf.keep(dict(self._fresh), sorted(self._settled))
            self._fresh, self._settled = {}, set()

    def _recall(self, kept: Mapping[str, float]) -> None:
        """Go on waiting where it was left; what is open no more is settled."""
        queue, open_ = self._engine.queue, self._engine.confirmations.open
        for order_id, since in kept.items():
            entry = queue.get(order_id)
            if entry is None:
                self._settled.add(order_id)
            elif entry.stage is not Stage.WRITING and (
                entry.memo.cancelled_at is None or since < entry.memo.cancelled_at
            ):
                entry.note(cancelled_at=since)
                if entry.is_waiting:
                    open_.add(order_id)
                    queue.schedule(entry, since + self._confirm)
        if kept:
            self._engine.board.wake.set()
