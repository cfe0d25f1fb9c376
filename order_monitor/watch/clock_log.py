"""Logs changes of the clocks: a leap, a difference, and whether ages may end orders."""

from __future__ import annotations

from typing import Final

import structlog

from order_monitor.core.clocks import ClockWatch, Leap

_EVERY: Final = 60.0
"""Seconds within which repeated leaps of a clock are logged once."""

_GRACE: Final = 60.0
"""Seconds after the start during which missing knowledge of the clocks is not logged."""


class ClockLog:
    """Remembers what was logged."""

    def __init__(self) -> None:
        """Start with nothing logged."""
        self._began: float | None = None
        self._told: dict[str, float] = {}
        self._differs = False
        self._is_stopped = False
        self._log = structlog.get_logger("order_monitor.clocks")

    def leapt(self, leap: Leap | None, boot: float) -> None:
        """Log a leap."""
        if leap is None or boot - self._told.get(leap.clock, float("-inf")) < _EVERY:
            return
        self._told[leap.clock] = boot
        self._log.warning("clock.leapt", clock=str(leap.clock), seconds=round(leap.seconds, 1))

    def log_changes(self, clocks: ClockWatch, boot: float) -> None:
        """Log what has changed since the last look."""
        self._began = boot if self._began is None else self._began
        if clocks.difference is not None and clocks.differs is not self._differs:
            self._differs = clocks.differs
            seconds = round(clocks.difference, 1)
            if self._differs:
                self._log.warning("clock.differs", seconds=seconds)
            else:
                self._log.info("clock.agrees", seconds=seconds)
        why = clocks.why(boot)
        if why and not self._is_stopped and (not clocks.is_unknown or boot - self._began > _GRACE):
            self._is_stopped = True
            self._log.warning("ends_by_age.stopped", why=why)
        elif not why and self._is_stopped:
            self._is_stopped = False
            self._log.info("ends_by_age.resumed")
