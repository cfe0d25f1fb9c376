"""An event loop whose time advances only when every task is idle: hours pass in milliseconds, and
runs are deterministic.
"""

import asyncio
import gc
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from order_monitor.core.clocks import SETTLING, WIDEST
from order_monitor.watch.system_clock import SystemClock

Result = TypeVar("Result")

BUSY = 50_000
"""The most turns of the loop without an advance of time."""


class _Leap(selectors.DefaultSelector):
    """Never waits: it advances the time instead."""

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
    """Run ``main`` in virtual time, and leave no task behind.

    Never in debug mode, which makes each step eight times slower.
    """
    try:
        with asyncio.Runner(debug=False, loop_factory=VirtualLoop) as runner:
            return runner.run(main)
    finally:
        # Each start of the program freezes the existing objects out of the collector for good: here
        # one interpreter has many starts.
        gc.unfreeze()


PLAIN_LEAP = 100.0
"""Seconds beyond which a clock change counts as a jump instead of drift, regardless of the time
since the last reading.
"""

READ_BY = 90.0
"""Seconds within which a process has read its clock."""


class SimClock(SystemClock):
    """A machine's clock: right, ahead or behind by ``step`` seconds, which may change at run
    time.
    """

    def __init__(self, epoch: float) -> None:
        self._epoch = epoch
        self.step = 0.0
        self._read = 0.0
        self._since = float("-inf")
        """Return how far it was ahead at the last certain reading before its newest jump, and when
        that was.
        """

    def leap(self, step: float) -> None:
        """Be ahead by this much from now on."""
        now = self.monotonic()
        if now - self._since >= READ_BY:
            self._read = self.step
        self.step, self._since = step, now

    def is_believed(self, began: float) -> bool:
        """Whether a process that ``began`` at that time may rely on it.

        It cannot know about earlier or momentary changes.
        """
        is_known = self._since > began + READ_BY and abs(self.step - self._read) > PLAIN_LEAP
        has_leapt = is_known and self.monotonic() - self._since < SETTLING
        return not has_leapt and abs(self.step) < WIDEST + PLAIN_LEAP

    def time(self) -> float:
        return self._epoch + self.step + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def boot(self) -> float:
        return self.monotonic() + 100_000.0
