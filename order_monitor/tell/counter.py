"""Keeps the census: counted when somebody wants to know, and of very many orders beside everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from order_monitor.core.clock import Clock
from order_monitor.tell.census import Census, Counting
from order_monitor.watch.engine import Engine

_FRESH: Final = 0.5
_MANY: Final = 10_000
"""Orders beyond which counting them all in one step would be felt."""

_WANTED_FOR: Final = 60.0
_CENSUS_SHARE: Final = 50
"""A census may take a fiftieth of the time at most: the more orders there are, the less often they are counted."""


class CensusTaker:
    """Counts an engine's orders."""

    def __init__(self, engine: Callable[[], Engine], clock: Clock) -> None:
        """Count the orders of what ``engine`` returns; one counts as overdue after ``give_up_after`` seconds."""
        self._engine = engine
        self._clock = clock
        self.give_up_after = 0.0
        self._census: Census = Census()
        self._counted_until = self._wanted_at = float("-inf")
        self._counts_beside = False

    def count(self) -> Census:
        """Return the census, at most a little old; of very many orders it is counted beside, while somebody wants to know."""
        now = self._clock.monotonic()
        self._wanted_at = now
        if now >= self._counted_until and not (self._counts_beside and len(self._engine().queue) > _MANY):
            self._counted(self._counting().at_once(), now)
        return self._census

    async def run(self) -> None:
        """Count very many orders in turns with others, for ever, as long as somebody has asked lately."""
        self._counts_beside = True
        while True:
            now = self._clock.monotonic()
            is_wanted = now - self._wanted_at < _WANTED_FOR and now >= self._counted_until
            if is_wanted and len(self._engine().queue) > _MANY:
                self._counted(await self._counting().in_turns(), now)
            await self._clock.sleep(_FRESH)

    def _counting(self) -> Counting:
        engine, now = self._engine(), self._clock.monotonic()
        elsewhere = {key for key, account in engine.accounts.items() if not account.is_held(now)}
        return Counting(engine.queue, engine.skips, engine.now(), self.give_up_after, elsewhere)

    def _counted(self, found: Census, began: float) -> None:
        now = self._clock.monotonic()
        self._census, self._counted_until = found, began + max(_FRESH, (now - began) * _CENSUS_SHARE)
