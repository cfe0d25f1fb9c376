"""Carry findings into the database: many in one transaction, none ever dropped while the process lives.

A finding leaves this module only with its fate. While the database is away it waits here; a commit whose outcome is unknown is
recorded again, and the row itself tells what happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog
import tenacity

from order_monitor.clock import Clock
from order_monitor.errors import ShopError, ShopUnavailableError
from order_monitor.finding import Fate, Finding, Result

BATCH: Final = 200
LINGER: Final = 0.02
"""Seconds a first finding waits for company: one commit for many."""

_LOCKED_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


class Recorder(Protocol):
    """What writes a batch; `order_monitor.shop.orders.Orders` does."""

    async def record(self, findings: list[Finding]) -> list[Result]:
        """Write, and return one result for each finding."""


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
    ) -> None:
        """Give each finding's fate to ``on_result``; give up after ``patience`` seconds without progress, None: never.

        ``on_batch`` is told how many findings each batch took to the database, and in how many seconds.
        """
        self._recorder = recorder
        self._clock = clock
        self._on_result = on_result
        self._on_batch = on_batch
        self._linger = linger
        self._patience = patience
        self._progress_at = clock.monotonic()
        self._pending: dict[str, Finding] = {}
        self._filled = asyncio.Event()
        self._closing = asyncio.Event()
        self._log = structlog.get_logger("order_monitor.writer")

    def __len__(self) -> int:
        """How many findings are not in the database yet."""
        return len(self._pending)

    def submit(self, finding: Finding) -> None:
        """Take over a finding. A second one about the same order is refused while the first is on its way."""
        if finding.order.id in self._pending:
            self._log.error("order.answered_twice", order_id=finding.order.id)
            return
        if not self._pending:
            self._progress_at = self._clock.monotonic()
        self._pending[finding.order.id] = finding
        self._filled.set()

    def close(self) -> None:
        """Let `run` return once everything is written."""
        self._closing.set()
        self._filled.set()

    async def run(self) -> None:
        """Write until closed and empty.

        Raises:
            ShopError: patience ended; what is not written is still counted by ``len``.
        """
        while True:
            await self._filled.wait()
            if self._pending:
                await self._company()
                await self._flush()
            elif self._closing.is_set():
                return
            else:
                self._filled.clear()

    async def _company(self) -> None:
        if len(self._pending) < BATCH and not self._closing.is_set():
            await self._clock.wait(self._closing, self._linger)

    async def _flush(self) -> None:
        batch = list(self._pending.values())[:BATCH]
        results: list[Result] = await self._retrying()(self._record, batch)
        for result in results:
            self._settle(result)
        if all(result.fate is Fate.LOCKED for result in results):
            if self._is_out_of_patience():
                msg = "the rows are locked by somebody else"
                raise ShopUnavailableError(msg)
            await self._clock.sleep(_LOCKED_PAUSE)
        else:
            self._progress_at = self._clock.monotonic()

    async def _record(self, batch: list[Finding]) -> list[Result]:
        began = self._clock.monotonic()
        results = await self._recorder.record(batch)
        self._on_batch(len(batch), self._clock.monotonic() - began)
        return results

    def _settle(self, result: Result) -> None:
        order_id = result.finding.order.id
        finding = self._pending.pop(order_id)
        if result.fate is Fate.LOCKED:
            self._pending[order_id] = finding
        else:
            self._on_result(result)

    def _is_out_of_patience(self, *_: object) -> bool:
        return self._patience is not None and self._clock.monotonic() - self._progress_at > self._patience

    def _retrying(self) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(ShopError),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=_LONGEST_PAUSE),
            stop=self._is_out_of_patience,
            sleep=self._clock.sleep,
            before_sleep=self._say,
            reraise=True,
        )

    def _say(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:
            error = state.outcome.exception() if state.outcome else None
            self._log.warning("writes.waiting", pending=len(self._pending), why=str(error))
