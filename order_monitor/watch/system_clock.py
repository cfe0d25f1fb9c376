"""The one place that reads the machine's clocks."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from order_monitor.core.clock import Event

_BOOT: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


class SystemClock:
    """The machine's own clocks."""

    def time(self) -> float:
        """Return epoch seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return monotonic seconds; a machine that slept has not stood still, where the system can tell."""
        return time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def wait(self, event: Event, seconds: float | None) -> bool:
        """Wait for ``event``."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True
