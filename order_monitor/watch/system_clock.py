"""The only module that reads the machine's clocks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from order_monitor.core.clock import Event

_BOOT: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return an id that is unique to this boot; empty if the system does not provide one."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


class SystemClock:
    """The clocks of this machine."""

    def time(self) -> float:
        """Return epoch seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return monotonic seconds, with those of a suspended machine if the system can tell."""
        return time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()

    def boot(self) -> float:
        """Return seconds since boot, including suspend if the system can tell."""
        return self.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``."""
        await asyncio.sleep(seconds)

    async def wait(self, event: Event, seconds: float | None) -> bool:
        """Wait for ``event``, at most ``seconds``; return whether it is set."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True
