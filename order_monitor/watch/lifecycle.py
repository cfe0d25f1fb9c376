"""How the program starts, runs and stops: side tasks are supervised, a first signal stops it
gracefully, a second one at once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import structlog
import tenacity

from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError, ShopError, TableError
from order_monitor.watch.engine import Engine

CLUSTER: Final = "cluster"
"""The task that keeps others from asking the same accounts, until the last call has its answer."""

_CALLS_SHARE: Final = 0.8
"""Share of the grace period for the calls in flight; the rest is for writing their answers."""

_OUTLIVE_CALLS: Final = ("engine", CLUSTER)
_LONGEST_PAUSE: Final = 30.0
_SAID_EVERY: Final = 300.0
"""Seconds after which the reason for a failing scan is logged again."""

_NAMED: Final = 20


class Stop:
    """A request to stop, by signal or by code."""

    def __init__(self) -> None:
        """Start without a request."""
        self.event = asyncio.Event()
        self._log = structlog.get_logger("order_monitor.life")

    @contextmanager
    def on_signals(self, hang_up: Callable[[], None] | None = None) -> Iterator[None]:
        """Treat SIGTERM and SIGINT as requests to stop.

        A second one exits at once with 128 + its number. SIGHUP calls ``hang_up``, if given.
        Afterwards its previous handler is restored, and at no moment in between does it end the
        process.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._signalled, number)
        # The event loop restores a handler in a way that leaves a moment in which the signal ends
        # the process.
        before = signal.getsignal(signal.SIGHUP)
        if hang_up is not None:
            call = hang_up
            signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(call))
            signal.siginterrupt(signal.SIGHUP, False)
        try:
            yield
        finally:
            if hang_up is not None:
                signal.signal(signal.SIGHUP, before or signal.SIG_DFL)
            for number in signals:
                loop.remove_signal_handler(number)
                signal.signal(
                    number,
                    signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler,
                )

    def _signalled(self, number: signal.Signals) -> None:
        if self.event.is_set():
            os._exit(128 + number)
        self._log.info("stopping", signal=number.name)
        self.event.set()


class Lifecycle:
    """Runs an engine from its first scan to its last write."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        stop: Stop,
        *,
        grace: float = 25.0,
        scan_interval: float = 10.0,
        background: Mapping[str, Callable[[], Coroutine[Any, Any, None]]] | None = None,
    ) -> None:
        """Stop within ``grace`` seconds after a request.

        Scan for orders every ``scan_interval`` seconds. ``background`` are tasks that run as long as
        the daemon, by name; if one ends, so does the program.
        """
        self._engine = engine
        self._clock = clock
        self._stop = stop
        self._grace = grace
        self._interval = scan_interval
        self._background = background or {}
        self._waits_for, self._said_at = "", float("-inf")
        self._log = structlog.get_logger("order_monitor.life")

    def reconfigure(self, *, grace: float, scan_interval: float) -> None:
        """Apply other settings."""
        self._grace, self._interval = grace, scan_interval

    async def once(self, before: Callable[[], Coroutine[Any, Any, None]] | None = None) -> bool:
        """Make a single pass, with ``before`` between the scan and the first call.

        Return whether everything was written.

        Raises:
            ShopError: the open orders could not be read.
            SettingsError: the table is not as expected.
        """
        await self._engine.scan()
        if before is not None:
            await before()
        writing = asyncio.create_task(self._engine.writer.run(), name="writer")
        asking = asyncio.create_task(self._engine.run(), name="engine")
        failed = await self._watch([writing, asking], until=asking)
        return await self._drain(writing, [asking]) and not failed

    async def forever(self, before: Callable[[], Coroutine[Any, Any, None]] | None = None) -> bool:
        """Run until asked to stop, with ``before`` ahead of the first scan.

        Return whether the stop was clean. What may become available later is waited for: the
        database, a table, a right, the end of another process.

        Raises:
            SettingsError: at the start, for a problem that waiting cannot fix.
        """
        writing = asyncio.create_task(self._engine.writer.run(), name="writer")
        asking = asyncio.create_task(self._engine.run(), name="engine")
        scanning = asyncio.create_task(self._scan_for_ever(before), name="scanner")
        background = [
            asyncio.create_task(make(), name=name) for name, make in self._background.items()
        ]
        failed = await self._watch([writing, asking, scanning, *background])
        clean = await self._drain(writing, [asking, scanning, *background])
        if failed is not None and isinstance(failed, SettingsError):
            raise failed
        return clean and failed is None

    async def _watch(
        self, tasks: list[asyncio.Task[None]], until: asyncio.Task[None] | None = None
    ) -> BaseException | None:
        """Wait for the stop, ``until``, or a task that ends unexpectedly: return its error."""
        stopped = asyncio.create_task(self._stop.event.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        dead = [
            task for task in done if task is not stopped and (task is not until or task.exception())
        ]
        for task in dead:
            error = task.exception()
            if isinstance(error, ShopError):
                self._log.error("writes.given_up", why=str(error))
            elif not isinstance(error, SettingsError):
                self._log.critical("task.died", task=task.get_name(), error=type(error).__name__)
        return (dead[0].exception() or RuntimeError(dead[0].get_name())) if dead else None

    async def _scan_for_ever(self, before: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """Scan and pause until cancelled; the pauses grow while the database or a table fails."""
        while True:
            if self._engine.state.scans == 0:
                await self._retrying()(self.first_scan, before)
            else:
                await self._retrying()(self._engine.scan)
            self._waits_for = ""
            await self._clock.sleep(self._interval)

    async def first_scan(
        self, before: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Scan without the garbage collector, which would traverse everything that was read again
        and again; afterwards those objects are excluded from it for good.
        """
        if before is not None:
            try:
                await before()
            except ShopError as error:
                self._engine.state.scan_problem = str(error)
                self._engine.state.short_of = getattr(error, "short_of", "")
                raise
        gc.disable()
        try:
            await self._engine.scan()
            gc.freeze()
        finally:
            gc.enable()

    def _retrying(self) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE),
            sleep=self._clock.sleep,
            before_sleep=self._log_retry,
            reraise=True,
        )

    def _may_pass(self, error: BaseException) -> bool:
        """Whether waiting may fix the error: after a first scan only the table can change."""
        is_late = isinstance(error, SettingsError) and self._engine.state.scans > 0
        return isinstance(error, (ShopError, TableError)) or is_late

    def _log_retry(self, _: tenacity.RetryCallState) -> None:
        """Log what the scan waits for: once, again if it changes, and every few minutes."""
        why, now = self._engine.state.scan_problem or "", self._clock.monotonic()
        if why != self._waits_for or now - self._said_at >= _SAID_EVERY:
            self._waits_for, self._said_at = why, now
            self._log.warning("scan.waiting", why=why)

    async def _drain(self, writing: asyncio.Task[None], others: list[asyncio.Task[None]]) -> bool:
        """Finish calls and write their answers, in the grace period; return if all is written."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._grace
        self._engine.dispatcher.stop()
        for task in others:
            if task.get_name() not in _OUTLIVE_CALLS:
                task.cancel()
        await self._engine.dispatcher.refresh.reads.finish(0.0)
        cut = await self._engine.dispatcher.calls.finish(self._grace * _CALLS_SHARE)
        self._engine.writer.close()
        await asyncio.wait([writing], timeout=max(0.0, end - loop.time()))
        unwritten = len(self._engine.writer)
        if cut:
            self._log.warning("calls.cut", count=cut)
        if unwritten:
            self._log.error(
                "answers.unwritten",
                count=unwritten,
                orders=list(islice(self._engine.writer.backlog, _NAMED)),
            )
        for task in (writing, *others):
            task.cancel()
        await asyncio.wait([writing, *others], timeout=1.0)
        return not unwritten
