"""Virtual time: the program waits on it, the test moves it."""

import asyncio
import heapq

from order_monitor.core.clock import Event
from order_monitor.watch.engine import Engine
from order_monitor.watch.system_clock import SystemClock
from tests.support.shops import NOW

_CALM = 8
"""Idle turns of the loop: up to five pass between setting an event and the task that waits for
it.
"""

_TURNS = 20


class UpForLong(SystemClock):
    """The machine's own clocks, as if it had been running for a while: within ten minutes of boot
    no order ends by its age.
    """

    def boot(self) -> float:
        return self.monotonic() + 100_000.0


def quicken(rate: float) -> None:
    """Run this process's clock this many times as fast from now on.

    External parties keep their speed.
    """
    monotonic, sleep, wait = SystemClock.monotonic, SystemClock.sleep, SystemClock.wait
    began = SystemClock().monotonic()

    async def shorter(clock: SystemClock, event: Event, seconds: float | None) -> bool:
        return await wait(clock, event, seconds if seconds is None else seconds / rate)

    SystemClock.monotonic = lambda clock: began + (monotonic(clock) - began) * rate  # type: ignore[method-assign, assignment]
    SystemClock.sleep = lambda clock, seconds: sleep(clock, seconds / rate)  # type: ignore[method-assign, assignment]
    SystemClock.wait = shorter  # type: ignore[method-assign, assignment]


class ManualClock:
    """A clock that moves only when it is advanced."""

    def __init__(self, epoch: float = NOW) -> None:
        self.epoch = epoch
        self.elapsed = 0.0
        self.up = 100_000.0
        """The machine's uptime in seconds at the start."""
        self.asleep: dict[str, int] = {}
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def time(self) -> float:
        return self.epoch + self.elapsed

    def monotonic(self) -> float:
        return self.elapsed

    def boot(self) -> float:
        return self.up + self.elapsed

    async def sleep(self, seconds: float) -> None:
        await self.wait(asyncio.Event(), seconds)

    async def wait(self, event: Event, seconds: float | None) -> bool:
        if event.is_set() or (seconds is not None and seconds <= 0):
            await asyncio.sleep(0)
            return event.is_set()
        alarm = asyncio.get_running_loop().create_future()
        if seconds is not None:
            self._count += 1
            heapq.heappush(self._sleepers, (self.elapsed + seconds, self._count, alarm))
        waiter = asyncio.ensure_future(event.wait())
        name = self._task_name()
        self.asleep[name] = self.asleep.get(name, 0) + 1
        try:
            await asyncio.wait({waiter, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.asleep[name] -= 1
            waiter.cancel()
            alarm.cancel()
        return event.is_set()

    @staticmethod
    def _task_name() -> str:
        task = asyncio.current_task()
        return task.get_name() if task else ""

    def next_alarm(self) -> float | None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def ring(self, at: float) -> None:
        self.elapsed = max(self.elapsed, at)
        while (alarm := self.next_alarm()) is not None and alarm <= self.elapsed:
            heapq.heappop(self._sleepers)[2].set_result(None)


class Drive:
    """Runs an engine and its writer through virtual time.

    Real I/O is awaited, however long it takes.
    """

    def __init__(self, engine: Engine, clock: ManualClock) -> None:
        self.engine = engine
        self.clock = clock
        self.tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Drive":
        self.tasks = [
            asyncio.create_task(self.engine.writer.run(), name="writer"),
            asyncio.create_task(self.engine.run(), name="engine"),
        ]
        await self.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)

    def is_settled(self) -> bool:
        engine, asleep = self.engine, self.clock.asleep
        if any(task.done() for task in self.tasks):
            return True
        under_way = len(engine.dispatcher.calls) + len(engine.dispatcher.refresh.reads)
        resting = asleep.get("engine", 0) > 0 and not engine.context.wake.is_set() and not under_way
        return resting and (not len(engine.writer) or asleep.get("writer", 0) > 0)

    async def settle(self) -> None:
        """Wait until nothing more can happen at the current time."""
        calm = turns = 0
        while calm < _CALM:
            # Real I/O takes time: after a few turns all that is left is to wait for it.
            await asyncio.sleep(0 if calm or turns < _TURNS else 0.0005)
            calm, turns = (calm + 1 if self.is_settled() else 0), turns + 1

    async def run(self, seconds: float, *, scan_every: float | None = None) -> None:
        """Advance by ``seconds``."""
        end = self.clock.elapsed + seconds
        next_scan = self.clock.elapsed if scan_every else float("inf")
        while True:
            if self.clock.elapsed >= next_scan and scan_every:
                await self.engine.scan()
                next_scan += scan_every
            await self.settle()
            alarm = self.clock.next_alarm()
            now = min(x for x in (alarm, next_scan, end) if x is not None)
            self.clock.ring(now)
            if now >= end:
                await self.settle()
                return
