"""An event loop whose time goes on only when nobody has anything to do: hours pass in milliseconds, and always alike."""

import asyncio
import gc
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from order_monitor.core.clocks import SETTLING, WIDEST
from order_monitor.watch.system_clock import SystemClock

Result = TypeVar("Result")

BUSY = 50_000
"""How many turns the loop may take without time going on."""


class _Leap(selectors.DefaultSelector):
    """Never waits: what would have been waited for is leapt over."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            msg = "nothing will ever happen again"
            raise RuntimeError(msg)
        self._turns = 0 if timeout > 0 else self._turns + 1
        if self._turns > BUSY:
            msg = "time stands still: somebody goes round and round without waiting"
            raise RuntimeError(msg)
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time begins at zero."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run ``main`` in virtual time, and leave no task behind; never in debug mode, which makes each step eight times slower."""
    try:
        with asyncio.Runner(debug=False, loop_factory=VirtualLoop) as runner:
            return runner.run(main)
    finally:
        # Each start of the program spares what is there from the collector, for good: here many start in one interpreter.
        gc.unfreeze()


PLAIN_LEAP = 100.0
"""Seconds beyond which a change of a clock is no drift, however long nobody has read it."""

READ_BY = 90.0
"""Seconds within which a process has read its clock."""


class SimClock(SystemClock):
    """A machine's clock: right, ahead or behind by ``step`` seconds, which may change while it runs."""

    def __init__(self, epoch: float) -> None:
        self._epoch = epoch
        self.step = 0.0
        self._read = 0.0
        self._since = float("-inf")
        """How far it was ahead when it was surely read last before its newest leap, and when that was."""

    def leap(self, step: float) -> None:
        """Be ahead by so much from now on."""
        now = self.monotonic()
        if now - self._since >= READ_BY:
            self._read = self.step
        self.step, self._since = step, now

    def is_believed(self, began: float) -> bool:
        """Whether a process that ``began`` then may go by it; what had happened by then, or for a moment only, it cannot know."""
        is_known = self._since > began + READ_BY and abs(self.step - self._read) > PLAIN_LEAP
        has_leapt = is_known and self.monotonic() - self._since < SETTLING
        return not has_leapt and abs(self.step) < WIDEST + PLAIN_LEAP

    def time(self) -> float:
        return self._epoch + self.step + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def boot(self) -> float:
        return self.monotonic() + 100_000.0
