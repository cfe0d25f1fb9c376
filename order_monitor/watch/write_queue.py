"""Writes results to the database: many in one transaction, and none dropped while the process
lives.

A result leaves this module only when its write is settled. While the database is unavailable it
waits here; a commit whose outcome is unknown is repeated, and the row itself shows what happened. A
batch that is refused is halved down to the rows at fault. Writes held up by a lock are retried
alongside the others, never ahead of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

import structlog
import tenacity

from order_monitor.core.backlog import Backlog
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.clock import Clock
from order_monitor.core.errors import RowRejectedError, ShopError, ShopUnavailableError
from order_monitor.core.standstill import STANDSTILL, StalledWrites
from order_monitor.core.throttle import Throttle

LINGER: Final = 0.05
"""Seconds an end waits for others when there are many: one commit for several."""

FEW: Final = 50.0
"""Ends per second up to which each is written at once."""

_COUNTED: Final = 16
"""Number of recent ends from which that rate is measured."""

UNHURRIED: Final = 0.5
"""Seconds to wait if no order in the batch has ended: less load for the shop's server."""

LOGGED_EVERY: Final = 60.0
"""Seconds between two log lines about writes that a lock holds up."""

_LOCKED_PAUSE: Final = 0.5
_LONGEST_LOCKED: Final = 10.0
_LONGEST_BLOCKED: Final = 30.0
_LONGEST_PAUSE: Final = 10.0
_ALONE_SHARE: Final = 5.0
"""Writes that are tried alone may each wait for a lock. They take at most a sixth of the time."""


class Recorder(Protocol):
    """Writes a batch; implemented by `order_monitor.shop.repository.Orders`."""

    async def record(self, findings: list[CheckResult], lock_wait: float) -> list[WriteResult]:
        """Write, and return one result for each finding."""


class Results(Protocol):
    """Receives each write's result, as `order_monitor.watch.result_handler.ResultHandler` does."""

    def handle(self, result: WriteResult) -> None:
        """Process one result."""

    def wrote(self, count: int, seconds: float) -> None:
        """A batch of ``count`` results reached the database in ``seconds``."""

    def is_stuck(self, order_id: str) -> bool:
        """Whether an order whose write was refused is still open, ours, and not written."""


class BatchDelay:
    """How long a finding waits before it is written, so that one transaction serves many."""

    def __init__(self, clock: Clock, linger: float) -> None:
        """Wait ``linger`` seconds for others when ends are frequent."""
        self._clock = clock
        self._linger = linger
        self._ends: deque[float] = deque(maxlen=_COUNTED)
        self._hurry = asyncio.Event()
        self.closed = asyncio.Event()

    def joined_by(self, finding: CheckResult, backlog: Backlog, limit: int) -> None:
        """End the wait early if ``finding`` is an end, or if the batch is full."""
        if finding.is_urgent:
            self._ends.append(self._clock.monotonic())
        if finding.is_urgent or not backlog.could_grow_to(limit):
            self._hurry.set()

    def close(self) -> None:
        """No more findings will come: stop waiting."""
        self.closed.set()
        self._hurry.set()

    async def gather(self, backlog: Backlog, limit: int) -> None:
        """Wait for more findings, unless the batch is full or empty, one was held up, or no more
        come.
        """
        if backlog.could_grow_to(limit, unhurried=True) and (
            most := self._longest_wait(backlog, UNHURRIED)
        ):
            self._hurry.clear()
            await self._clock.wait(self._hurry, most)
        if not self._are_many():
            return
        if backlog.could_grow_to(limit) and (most := self._longest_wait(backlog, self._linger)):
            await self._clock.wait(self.closed, most)

    def _are_many(self) -> bool:
        """Whether orders have recently ended more often than `FEW` times per second."""
        ends = self._ends
        return len(ends) == _COUNTED and (self._clock.monotonic() - ends[0]) * FEW < _COUNTED

    def _longest_wait(self, backlog: Backlog, seconds: float) -> float:
        """The longest wait: until a finding that was held up can be tried again."""
        at = backlog.blocked.next_at()
        most = seconds if at is None else max(0.0, min(seconds, at - self._clock.monotonic()))
        return 0.0 if self.closed.is_set() else most


class WriteQueue:
    """The queue between the provider's answers and the database."""

    def __init__(
        self,
        recorder: Recorder,
        clock: Clock,
        results: Results,
        *,
        linger: float = LINGER,
        patience: float | None = None,
    ) -> None:
        """Pass the results to ``results``; give up after ``patience`` seconds, None for never."""
        self._recorder = recorder
        self.results = results
        self._clock = clock
        self.backlog = Backlog()
        self._throttle = Throttle()
        self._patience = patience
        self._progress_at = clock.monotonic()
        """When a write was last settled, with any result, or there was none that could be."""
        self._stalled = StalledWrites()
        self._told_at = float("-inf")
        self._filled = asyncio.Event()
        self._batch_delay = BatchDelay(clock, linger)
        self._log = structlog.get_logger("order_monitor.writer")

    def __len__(self) -> int:
        """Return the number of findings that are not in the database yet."""
        return len(self.backlog)

    def oldest_seconds(self) -> float:
        """Return how many seconds the oldest answer has waited; 0 if none waits."""
        since = self.backlog.oldest()
        return 0.0 if since is None else self._clock.monotonic() - since

    def stands_still(self) -> bool:
        """Whether nothing is written although something should be: see `problem`."""
        return bool(self.problem())

    def problem(self) -> str:
        """Return why nothing is written: nothing could be for a minute, or the writes of several
        orders were refused or waited.

        Empty while writes succeed, or if there is nothing to write. Answers that need no write do
        not count either way.
        """
        if self.backlog.free.total() > 0 and self._has_stood(STANDSTILL):
            return f"nothing written for {STANDSTILL:g} s: {len(self)} answers wait"
        return self._stalled.problem(self._clock.monotonic(), self.results.is_stuck)

    def _has_stood(self, seconds: float) -> bool:
        """Whether there was no progress for longer than that."""
        return self._clock.monotonic() - self._progress_at > seconds

    def _is_given_up(self) -> bool:
        return self._patience is not None and self._has_stood(self._patience)

    def submit(self, finding: CheckResult) -> None:
        """Accept a finding; a second one for the same order is refused while one is pending."""
        if finding.order.id in self.backlog:
            self._log.error("order.answered_twice", order_id=finding.order.id)
            return
        now = self._clock.monotonic()
        if not self.backlog.free.total():
            self._progress_at = now
        finding.since_read = lambda: self._clock.monotonic() - now
        self.backlog.add(finding, now)
        self._filled.set()
        self._batch_delay.joined_by(finding, self.backlog, self._throttle.limit)

    def close(self) -> None:
        """Let `run` return once everything that can be written is written."""
        self._batch_delay.close()
        self.backlog.last_round(self._clock.monotonic())
        self._filled.set()

    async def run(self) -> None:
        """Write until closed and everything is written except what is held up.

        Raises:
            ShopError: the patience is exhausted; ``len`` still counts what is not written.
        """
        while True:
            await self._batch_delay.gather(self.backlog, self._throttle.limit)
            batch = self.backlog.next(self._clock.monotonic(), self._throttle.limit)
            if batch:
                await self._write(batch)
            elif self._batch_delay.closed.is_set():
                return
            else:
                await self._wait()
            if len(self.backlog) and self._is_given_up():
                raise ShopUnavailableError("the rows are locked by another session")

    async def _wait(self) -> None:
        """Wait for a finding, or until one that was held up can be tried again."""
        self._filled.clear()
        at = self.backlog.blocked.next_at()
        if at is None:
            await self._filled.wait()
        else:
            await self._clock.wait(self._filled, max(0.0, at - self._clock.monotonic()))

    async def _write(self, batch: list[CheckResult]) -> None:
        began = self._clock.monotonic()
        try:
            results: list[WriteResult] = await self._retrying()(
                self._record, batch, self._throttle.lock_wait(began)
            )
        except RowRejectedError as error:
            self._refused(batch, error, began)
            return
        for result in results:
            self._settle(result)
        if any(
            result.finding.tries and result.fate is not WriteStatus.LOCKED for result in results
        ):
            self.backlog.blocked.hurry(self._progress_at)
        self._throttle.passed(len(batch), self._clock.monotonic())

    async def _record(self, batch: list[CheckResult], lock_wait: float) -> list[WriteResult]:
        began = self._clock.monotonic()
        results = await self._recorder.record(batch, lock_wait)
        self.results.wrote(len(batch), self._clock.monotonic() - began)
        return results

    def _retrying(self) -> tenacity.AsyncRetrying:
        """Retry a batch for as long as the database is away or the table is not as expected."""
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_is_for_all),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=_LONGEST_PAUSE),
            stop=lambda _: self._is_given_up(),
            sleep=self._clock.sleep,
            before_sleep=self._log_retry,
            reraise=True,
        )

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:
            error = state.outcome.exception() if state.outcome else None
            self._log.warning("writes.waiting", pending=len(state.args[0]), why=str(error))

    def _refused(self, batch: list[CheckResult], error: RowRejectedError, began: float) -> None:
        """Halve a refused batch; a single finding waits, longer each time."""
        now = self._clock.monotonic()
        self._throttle.refused(len(batch), error, now)
        if len(batch) > 1:
            self.backlog.split(batch)
            return
        if not self._batch_delay.closed.is_set():
            self.backlog.blocked.rest(now + _ALONE_SHARE * (now - began))
        self._hold(batch[0], _LONGEST_BLOCKED, str(error), alone=True)

    def _settle(self, result: WriteResult) -> None:
        finding = result.finding
        if result.fate is WriteStatus.LOCKED:
            self._hold(finding, _LONGEST_LOCKED, "another session holds the row", alone=False)
            return
        self.backlog.done(finding)
        now = self._progress_at = self._clock.monotonic()
        if result.fate is WriteStatus.WRITTEN:
            self._stalled.written(now)
        if result.is_refused:
            self._stalled.refused(finding.order.id, result.detail, now)
        else:
            self._stalled.passed(finding.order.id)
        self.results.handle(result)

    def _hold(self, finding: CheckResult, longest: float, why: str, *, alone: bool) -> None:
        now = self._clock.monotonic()
        pause = min(_LOCKED_PAUSE * 2.0 ** min(finding.tries, 16), longest)
        finding.tries += 1
        self._stalled.held_up(finding.order.id, now)
        self.backlog.block(finding, now + pause, alone=alone)
        if now - self._told_at >= LOGGED_EVERY:
            self._told_at = now
            self._log.warning(
                "writes.held_up", order_id=finding.order.id, why=why, pending=len(self.backlog)
            )


def _is_for_all(error: BaseException) -> bool:
    """Whether a failure affects every batch alike, so that the same batch must be retried."""
    return isinstance(error, ShopError) and not isinstance(error, RowRejectedError)
