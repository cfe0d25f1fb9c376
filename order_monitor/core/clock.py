"""What the program knows of time: nothing here reads a clock, everything that needs one is given it."""

from __future__ import annotations

from typing import Protocol


class Event(Protocol):
    """Something to wait for, as `asyncio.Event` is."""

    def is_set(self) -> bool:
        """Whether it has happened."""

    async def wait(self) -> bool:
        """Wait until it has."""


class Clock(Protocol):
    """Time, and waiting for it."""

    def time(self) -> float:
        """Return epoch seconds, UTC; may jump when the machine's clock is set."""

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations."""

    def boot(self) -> float:
        """Return seconds since this machine's boot, suspend included: what its other clocks are held against."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def wait(self, event: Event, seconds: float | None) -> bool:
        """Wait for ``event``, at most ``seconds`` (None: for ever); return whether it is set."""
