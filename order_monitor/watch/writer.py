"""Carry findings into the database: many in one transaction, none ever dropped while the process lives.

A finding leaves this module only with its fate. While the database is away it waits here; a commit whose outcome is unknown is
recorded again, and the row itself tells what happened. A batch that is refused is halved down to the rows at fault, and what
somebody's lock holds up is tried again beside the others, never before them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog
import tenacity

from order_monitor.core.backlog import Backlog
from order_monitor.core.clock import Clock
from order_monitor.core.errors import RowRejectedError, ShopError, ShopUnavailableError
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.core.standstill import STANDSTILL, Hindered
from order_monitor.core.throttle import CALM_AFTER, Throttle

LINGER: Final = 0.05
"""Seconds a finding waits for company: one commit for many."""

UNHURRIED: Final = 0.5
"""Seconds it waits where no order in the company has ended: the shop's server has the less to do."""

_LOCKED_PAUSE: Final = 0.5
_LONGEST_LOCKED: Final = 10.0
_LONGEST_BLOCKED: Final = 30.0
_LONGEST_PAUSE: Final = 10.0
_ALONE_SHARE: Final = 5.0
"""What is tried alone, and may wait for a lock each time, takes a sixth of the time at most."""


class Recorder(Protocol):
    """What writes a batch; `order_monitor.shop.repository.Orders` does."""

    async def record(self, findings: list[Finding], lock_wait: float) -> list[Result]:
        """Write, and return one result for each finding."""


class Persistence:
    """Records a batch for as long as it takes, while the database is away or the table is not as it must be."""

    def __init__(self, recorder: Recorder, clock: Clock, on_batch: Callable[[int, float], None]) -> None:
        """Tell ``on_batch`` how many findings each batch took to the database, and in how many seconds."""
        self._recorder = recorder
        self._clock = clock
        self._on_batch = on_batch
        self._log = structlog.get_logger("order_monitor.writer")

    async def record(self, batch: list[Finding], lock_wait: float, is_over: Callable[[], bool]) -> list[Result]:
        """Record ``batch``, again and again until it is done or ``is_over``.

        Raises:
            RowRejectedError: some of it is refused.
            ShopError: it is over.
        """
        results: list[Result] = await self._retrying(is_over)(self._once, batch, lock_wait)
        return results

    async def _once(self, batch: list[Finding], lock_wait: float) -> list[Result]:
        began = self._clock.monotonic()
        results = await self._recorder.record(batch, lock_wait)
        self._on_batch(len(batch), self._clock.monotonic() - began)
        return results

    def _retrying(self, is_over: Callable[[], bool]) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_is_for_all),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=_LONGEST_PAUSE),
            stop=lambda _: is_over(),
            sleep=self._clock.sleep,
            before_sleep=self._say,
            reraise=True,
        )

    def _say(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:
            error = state.outcome.exception() if state.outcome else None
            self._log.warning("writes.waiting", pending=len(state.args[0]), why=str(error))


class Progress:
    """When a finding last met its fate, whatever that was; and whether that is too long ago."""

    def __init__(self, clock: Clock, patience: float | None) -> None:
        """Give up after ``patience`` seconds, None: never."""
        self._clock = clock
        self._patience = patience
        self.at = clock.monotonic()

    def made(self) -> None:
        """A finding has left the queue, or there was none in it that could be written."""
        self.at = self._clock.monotonic()

    def is_lost(self, after: float) -> bool:
        """Whether none has for so many seconds."""
        return self._clock.monotonic() - self.at > after

    def is_given_up(self) -> bool:
        """Whether patience has ended."""
        return self._patience is not None and self.is_lost(self._patience)


class Company:
    """What a finding waits for before it is written: that one transaction serves many."""

    def __init__(self, clock: Clock, linger: float) -> None:
        """Wait ``linger`` seconds for it where an order has ended."""
        self._clock = clock
        self._linger = linger
        self._hurry = asyncio.Event()
        self.closed = asyncio.Event()

    def joined_by(self, finding: Finding, backlog: Backlog, limit: int) -> None:
        """Wait no longer than for an end where ``finding`` is one, or where there is company enough."""
        if finding.is_urgent or not backlog.could_grow_to(limit):
            self._hurry.set()

    def close(self) -> None:
        """No more is to come: nothing waits for it."""
        self.closed.set()
        self._hurry.set()

    async def gather(self, backlog: Backlog, limit: int) -> None:
        """Wait for more, unless there is enough or nothing, or no more is to come; what somebody held up does not wait for it."""
        if backlog.could_grow_to(limit, unhurried=True) and (most := self._most(backlog, UNHURRIED)):
            self._hurry.clear()
            await self._clock.wait(self._hurry, most)
        if backlog.could_grow_to(limit) and (most := self._most(backlog, self._linger)):
            await self._clock.wait(self.closed, most)

    def _most(self, backlog: Backlog, seconds: float) -> float:
        """How long to wait at the most: until what somebody held up can be tried again."""
        at = backlog.parked.next_at()
        most = seconds if at is None else max(0.0, min(seconds, at - self._clock.monotonic()))
        return 0.0 if self.closed.is_set() else most


class Writer:
    """The queue between the provider's answers and the database."""

    def __init__(
        self,
        recorder: Recorder,
        clock: Clock,
        on_result: Callable[[Result], None],
        *,
        on_batch: Callable[[int, float], None] = lambda *_: None,
        linger: float = LINGER,
        patience: float | None = None,
        is_stuck: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Give each finding's fate to ``on_result``; give up after ``patience`` seconds without progress, None: never.

        ``on_batch`` is told how many findings each batch took to the database, and in how many seconds. ``is_stuck`` says of an
        order whose write was refused whether it is still open, ours, and not written.
        """
        self._persistence = Persistence(recorder, clock, on_batch)
        self._clock = clock
        self.on_result = on_result
        self.backlog = Backlog()
        self._throttle = Throttle()
        self._progress = Progress(clock, patience)
        self._hindered = Hindered()
        self._is_stuck = is_stuck
        self._told_at = float("-inf")
        self._filled = asyncio.Event()
        self._company = Company(clock, linger)
        self._log = structlog.get_logger("order_monitor.writer")

    def __len__(self) -> int:
        """How many findings are not in the database yet."""
        return len(self.backlog)

    def oldest_seconds(self) -> float:
        """Return for how long the answer waits that waits longest; 0 where none does."""
        since = self.backlog.oldest()
        return 0.0 if since is None else self._clock.monotonic() - since

    def stands_still(self) -> bool:
        """Whether nothing is written although something should be: see `problem`."""
        return bool(self.problem())

    def problem(self) -> str:
        """Say why nothing is written: for a minute nothing could be, or the writes of several orders were refused or waited.

        Nothing where writing goes on, or there is nothing to write. That answers came which need no write is neither.
        """
        if self.backlog.free.total() > 0 and self._progress.is_lost(STANDSTILL):
            return f"nothing written for {STANDSTILL:g} s: {len(self)} answers wait"
        return self._hindered.problem(self._clock.monotonic(), self._is_stuck)

    def submit(self, finding: Finding) -> None:
        """Take over a finding. A second one about the same order is refused while the first is on its way."""
        if finding.order.id in self.backlog:
            self._log.error("order.answered_twice", order_id=finding.order.id)
            return
        if not self.backlog.free.total():
            self._progress.made()
        self.backlog.add(finding, self._clock.monotonic())
        self._filled.set()
        self._company.joined_by(finding, self.backlog, self._throttle.limit)

    def close(self) -> None:
        """Let `run` return once everything is written that can be."""
        self._company.close()
        self.backlog.last_round(self._clock.monotonic())
        self._filled.set()

    async def run(self) -> None:
        """Write until closed, and all is written but what somebody holds up.

        Raises:
            ShopError: patience ended; what is not written is still counted by ``len``.
        """
        while True:
            await self._company.gather(self.backlog, self._throttle.limit)
            batch = self.backlog.next(self._clock.monotonic(), self._throttle.limit)
            if batch:
                await self._write(batch)
            elif self._company.closed.is_set():
                return
            else:
                await self._wait()
            if len(self.backlog) and self._progress.is_given_up():
                raise ShopUnavailableError("the rows are locked by somebody else")

    async def _wait(self) -> None:
        """Wait for a finding, or until one that was held up can be tried again."""
        self._filled.clear()
        at = self.backlog.parked.next_at()
        if at is None:
            await self._filled.wait()
        else:
            await self._clock.wait(self._filled, max(0.0, at - self._clock.monotonic()))

    async def _write(self, batch: list[Finding]) -> None:
        began = self._clock.monotonic()
        try:
            results = await self._persistence.record(batch, self._throttle.lock_wait(began), self._progress.is_given_up)
        except RowRejectedError as error:
            self._refused(batch, error, began)
            return
        for result in results:
            self._settle(result)
        if any(result.finding.tries and result.fate is not Fate.LOCKED for result in results):
            self.backlog.parked.hurry(self._progress.at)
        self._throttle.passed(len(batch), self._clock.monotonic())

    def _refused(self, batch: list[Finding], error: RowRejectedError, began: float) -> None:
        """Halve a refused batch; one alone that is refused for now waits, and longer each time."""
        now = self._clock.monotonic()
        self._throttle.refused(len(batch), error, now)
        if len(batch) > 1:
            self.backlog.split(batch)
            return
        if not self._company.closed.is_set():
            self.backlog.parked.rest(now + _ALONE_SHARE * (now - began))
        self._hold(batch[0], _LONGEST_BLOCKED, str(error), alone=True)

    def _settle(self, result: Result) -> None:
        finding = result.finding
        if result.fate is Fate.LOCKED:
            self._hold(finding, _LONGEST_LOCKED, "somebody else holds the row", alone=False)
            return
        self.backlog.done(finding)
        self._progress.made()
        now = self._clock.monotonic()
        if result.fate is Fate.WRITTEN:
            self._hindered.written(now)
        if result.is_refused:
            self._hindered.refused(finding.order.id, result.detail, now)
        else:
            self._hindered.passed(finding.order.id)
        self.on_result(result)

    def _hold(self, finding: Finding, longest: float, why: str, *, alone: bool) -> None:
        now = self._clock.monotonic()
        pause = min(_LOCKED_PAUSE * 2.0 ** min(finding.tries, 16), longest)
        finding.tries += 1
        self._hindered.held_up(finding.order.id, now)
        self.backlog.park(finding, now + pause, alone=alone)
        if now - self._told_at >= CALM_AFTER:
            self._told_at = now
            self._log.warning("writes.held_up", order_id=finding.order.id, why=why, pending=len(self.backlog))


def _is_for_all(error: BaseException) -> bool:
    """Whether a failure concerns every batch alike, so that the same one is to be tried again."""
    return isinstance(error, ShopError) and not isinstance(error, RowRejectedError)
