"""Keeps a summary of the open orders: computed on demand, or in the background if there are very
many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from order_monitor.core.clock import Clock
from order_monitor.tell.queue_summary import Counting, QueueSummary
from order_monitor.watch.engine import Engine

_FRESH: Final = 0.5
MANY: Final = 10_000
"""Number of orders above which counting them all in one step would delay the loop noticeably."""

_WANTED_FOR: Final = 60.0
_CENSUS_SHARE: Final = 50
"""Counting may take at most a fiftieth of the time: the more orders there are, the less often they
are counted.
"""


class QueueSummarizer:
    """Counts an engine's orders."""

    def __init__(self, engine: Callable[[], Engine], clock: Clock) -> None:
        """Count the orders of the engine that ``engine`` returns.

        An order counts as overdue after ``give_up_after`` seconds.
        """
        self._engine = engine
        self._clock = clock
        self.give_up_after = 0.0
        self._queue_summary: QueueSummary = QueueSummary()
        self._counted_until = self._wanted_at = self.counted_at = float("-inf")
        """When the summary that `count` returns was made, in monotonic seconds."""
        self._counts_beside = False

    def count(self) -> QueueSummary:
        """Return the summary, which may be slightly old.

        Very many orders are counted in the background, as long as the summary is requested.
        """
        now = self._clock.monotonic()
        self._wanted_at = now
        if now >= self._counted_until and not (self._counts_beside and self._is_many()):
            self._counted(self._counting().at_once(), now)
        return self._queue_summary

    async def run(self) -> None:
        """Count very many orders in the background, in slices, while a summary was requested
        recently.

        Runs until cancelled.
        """
        self._counts_beside = True
        while True:
            now = self._clock.monotonic()
            is_wanted = now - self._wanted_at < _WANTED_FOR and now >= self._counted_until
            if is_wanted and self._is_many():
                self._counted(await self._counting().in_turns(), now)
            await self._clock.sleep(_FRESH)

    def _is_many(self) -> bool:
        context = self._engine().context
        return len(context.queue) + context.elsewhere.steps() > MANY

    def _counting(self) -> Counting:
        engine, now = self._engine(), self._clock.monotonic()
        return Counting(
            engine.queue,
            engine.skips,
            engine.now(),
            self.give_up_after,
            elsewhere=engine.context.elsewhere,
            asked_elsewhere={k for k, one in engine.accounts.items() if not one.is_held(now)},
            shown=engine.discovery.shown,
            skipped=engine.state.skipped,
        )

    def _counted(self, found: QueueSummary, began: float) -> None:
        now = self._clock.monotonic()
        self.counted_at = began
        self._queue_summary = found
        self._counted_until = began + max(_FRESH, (now - began) * _CENSUS_SHARE)
