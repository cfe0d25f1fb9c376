"""How the program starts, lives and stops: side tasks are watched, signals stop it gently, a second one at once."""

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
"""The task that keeps others from asking what is asked here: it goes on until the last question is answered."""

_CALLS_SHARE: Final = 0.8
"""Of the grace, for the calls under way; the rest is for writing what they brought."""

_OUTLIVE_CALLS: Final = ("engine", CLUSTER)
_LONGEST_PAUSE: Final = 30.0
_SAID_EVERY: Final = 300.0
"""Seconds after which it is said again why nothing is read."""

_NAMED: Final = 20


class Stop:
    """The wish to stop, by signal or by hand."""

    def __init__(self) -> None:
        """Nobody wishes to, yet."""
        self.event = asyncio.Event()
        self._log = structlog.get_logger("order_monitor.life")

    @contextmanager
    def on_signals(self, hang_up: Callable[[], None] | None = None) -> Iterator[None]:
        """Let SIGTERM and SIGINT ask for a stop; the second one leaves at once with 128 + its number.

        SIGHUP calls ``hang_up``, where there is one. Afterwards it does what it did before, and at no moment between
        does it end the process.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._signalled, number)
        # The loop's own way of taking a handler back leaves a moment in which the signal ends the process.
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
                signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)

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
        beside: Mapping[str, Callable[[], Coroutine[Any, Any, None]]] | None = None,
    ) -> None:
        """Stop within ``grace`` seconds once asked to; look for orders every ``scan_interval`` seconds.

        ``beside`` are tasks that run as long as the daemon does, by name; if one ends, so does the program.
        """
        self._engine = engine
        self._clock = clock
        self._stop = stop
        self._grace = grace
        self._interval = scan_interval
        self._beside = beside or {}
        self._waits_for, self._said_at = "", float("-inf")
        self._log = structlog.get_logger("order_monitor.life")

    def adopt(self, *, grace: float, scan_interval: float) -> None:
        """Go on by other settings."""
        self._grace, self._interval = grace, scan_interval

    async def once(self, before: Callable[[], Coroutine[Any, Any, None]] | None = None) -> bool:
        """Make one pass, with ``before`` between the look and the first question; return whether nothing was left unwritten.

        Raises:
            ShopError: the open orders could not be read.
            SettingsError: the table is not as it must be.
        """
        await self._engine.scan()
        if before is not None:
            await before()
        writing = asyncio.create_task(self._engine.writer.run(), name="writer")
        asking = asyncio.create_task(self._engine.run(), name="engine")
        failed = await self._watch([writing, asking], until=asking)
        return await self._drain(writing, [asking]) and not failed

    async def forever(self, before: Callable[[], Coroutine[Any, Any, None]] | None = None) -> bool:
        """Run until asked to stop, with ``before`` ahead of the first scan; return whether the stop was clean.

        What may be there later is waited for: the database, a table, a right, another process's end.

        Raises:
            SettingsError: what no waiting mends, at the start.
        """
        writing = asyncio.create_task(self._engine.writer.run(), name="writer")
        asking = asyncio.create_task(self._engine.run(), name="engine")
        scanning = asyncio.create_task(self._scan_for_ever(before), name="scanner")
        beside = [asyncio.create_task(make(), name=name) for name, make in self._beside.items()]
        failed = await self._watch([writing, asking, scanning, *beside])
        clean = await self._drain(writing, [asking, scanning, *beside])
        if failed is not None and isinstance(failed, SettingsError):
            raise failed
        return clean and failed is None

    async def _watch(
        self, tasks: list[asyncio.Task[None]], until: asyncio.Task[None] | None = None
    ) -> BaseException | None:
        """Wait for the stop, for ``until``, or for a task that ends although it should not; return its error."""
        stopped = asyncio.create_task(self._stop.event.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        dead = [task for task in done if task is not stopped and (task is not until or task.exception())]
        for task in dead:
            error = task.exception()
            if isinstance(error, ShopError):
                self._log.error("writes.given_up", why=str(error))
            elif not isinstance(error, SettingsError):
                self._log.critical("task.died", task=task.get_name(), error=type(error).__name__)
        return (dead[0].exception() or RuntimeError(dead[0].get_name())) if dead else None

    async def _scan_for_ever(self, before: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """Scan, and pause; while the database is away, or a table is not as it must be, the pauses grow."""
        while True:
            if self._engine.state.scans == 0:
                await self._retrying()(self.first_scan, before)
            else:
                await self._retrying()(self._engine.scan)
            self._waits_for = ""
            await self._clock.sleep(self._interval)

    async def first_scan(self, before: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Scan without the collector of cycles, which would walk all that was read again and again; after it, it never does."""
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
            before_sleep=self._say,
            reraise=True,
        )

    def _may_pass(self, error: BaseException) -> bool:
        """Whether waiting may mend it. Once it was read, the table alone can have changed: the settings are what they were."""
        is_late = isinstance(error, SettingsError) and self._engine.state.scans > 0
        return isinstance(error, (ShopError, TableError)) or is_late

    def _say(self, _: tenacity.RetryCallState) -> None:
        """Say in one line what is waited for: once, again where that changes, and every few minutes."""
        why, now = self._engine.state.scan_problem or "", self._clock.monotonic()
        if why != self._waits_for or now - self._said_at >= _SAID_EVERY:
            self._waits_for, self._said_at = why, now
            self._log.warning("scan.waiting", why=why)

    async def _drain(self, writing: asyncio.Task[None], others: list[asyncio.Task[None]]) -> bool:
        """Finish the calls under way and write their answers, within the grace; return whether all were written."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._grace
        self._engine.dispatcher.stop()
        for task in others:
            if task.get_name() not in _OUTLIVE_CALLS:
                task.cancel()
        await self._engine.dispatcher.rereading.looks.finish(0.0)
        cut = await self._engine.dispatcher.calls.finish(self._grace * _CALLS_SHARE)
        self._engine.writer.close()
        await asyncio.wait([writing], timeout=max(0.0, end - loop.time()))
        unwritten = len(self._engine.writer)
        if cut:
            self._log.warning("calls.cut", count=cut)
        if unwritten:
            self._log.error(
                "answers.unwritten", count=unwritten, orders=list(islice(self._engine.writer.backlog, _NAMED))
            )
        for task in (writing, *others):
            task.cancel()
        await asyncio.wait([writing, *others], timeout=1.0)
        return not unwritten
