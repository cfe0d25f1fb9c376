"""Where what was learned of timing is kept between two runs: in the shop's database, or nowhere, which is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.timing.memory import Key
from order_monitor.core.timing.planner import Timing
from order_monitor.core.timing.sketch import Sketch


class PastEnd(Protocol):
    """An end of the past; `order_monitor.shop.timings.KeptEnd` is one."""

    @property
    def key(self) -> Key:
        """What its timing is learned under."""

    @property
    def order_id(self) -> str:
        """Whose."""

    @property
    def age(self) -> float:
        """Seconds from ``sent_at`` until it was found."""

    @property
    def at(self) -> float:
        """When it was found, epoch seconds."""

    @property
    def is_end(self) -> bool:
        """Whether the provider ended it, and not the time limit."""


class Keeper(Protocol):
    """Where sketches are kept; `order_monitor.shop.timings.Timings` does."""

    async def read(self) -> Mapping[Key, str] | None:
        """Return what is kept, None where there is no place for it."""

    async def history(self) -> Sequence[PastEnd]:
        """Return ends of the past, oldest first."""

    async def add(self, learned: Mapping[Key, Sketch]) -> None:
        """Add what was learned since the last time to what is kept."""


class TimingShelf:
    """Brings a timing's learning there and back."""

    def __init__(self, timing: Timing, keeper: Keeper) -> None:
        """Keep what ``timing`` has learned with ``keeper``."""
        self._timing = timing
        self._keeper = keeper
        self._kept = True
        self._log = structlog.get_logger("order_monitor.timing")

    async def save(self) -> None:
        """Keep what was learned; while the database is away it waits for the next time."""
        learned = self._timing.take()
        if not learned:
            return
        try:
            await self._keeper.add(learned)
        except ShopError as error:
            self._timing.give_back(learned)
            self._say(str(error))

    async def read(self, now: float) -> Sequence[PastEnd]:
        """Take up what is kept; where nothing is, return ends of the past to learn from. ``now`` is epoch seconds."""
        try:
            kept = await self._keeper.read()
            past = [] if kept else await self._keeper.history()
        except (ShopError, SettingsError) as error:
            self._say(str(error))
            return []
        if kept is None:
            self._say("there is no table order_monitor_timing; run order-monitor migrate")
        self._timing.load(kept or {}, now)
        return past

    def _say(self, why: str) -> None:
        if self._kept:
            self._kept = False
            self._log.warning("timing.not_kept", why=why)
