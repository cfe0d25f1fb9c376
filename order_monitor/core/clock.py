"""Interfaces for time. Nothing here reads a clock: code that needs one receives it."""

from __future__ import annotations

from typing import Protocol


class Event(Protocol):
    """Something to wait for, like `asyncio.Event`."""

    def is_set(self) -> bool:
        """Whether it has happened."""

    async def wait(self) -> bool:
        """Wait until it has happened."""


class Clock(Protocol):
    """Time, and waiting for it."""

    def time(self) -> float:
        """Return epoch seconds, UTC; may jump when the machine's clock is set."""

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations."""

    def boot(self) -> float:
        """Return seconds since this machine's boot, suspend included; other clocks are compared
        with it.
        """

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""

    async def wait(self, event: Event, seconds: float | None) -> bool:
        """Wait for ``event`` up to ``seconds`` (None: no limit); return whether it is set."""
