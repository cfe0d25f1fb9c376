"""Tell systemd that the daemon is ready, alive, reloading or stopping (sd_notify(3)); silent where nobody listens.

The watchdog is fed from the event loop, and only while the engine ticks: a loop that hangs, or an engine that does, is restarted.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

from order_monitor.core.clock import Clock
from order_monitor.core.text import visible
from order_monitor.tell.overview import Overview

_USUALLY: Final = 2.0
_FEEDS: Final = 3.0
"""How often in a watchdog's time it is fed."""


class Notifier:
    """Speaks to the socket that ``NOTIFY_SOCKET`` names."""

    def __init__(self, view: Overview, clock: Clock, environ: Mapping[str, str] | None = None) -> None:
        """Tell of ``view``; ``environ`` is this process's own by default."""
        environ = os.environ if environ is None else environ
        self._view = view
        self._clock = clock
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog = _watchdog(environ)
        self._told = ""
        self._is_ready = False

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address is not None

    async def run(self) -> None:
        """Tell until cancelled, which is the stop."""
        try:
            while True:
                self._look()
                await self._clock.sleep(min(_USUALLY, self._watchdog / _FEEDS) if self._watchdog else _USUALLY)
        finally:
            self.send("STOPPING=1")

    def _look(self) -> None:
        state, accounts = self._view.engine.state, self._view.engine.accounts.values()
        if state.scans and not self._is_ready:
            self._is_ready = True
            self.send("READY=1")
        if self._watchdog and self._view.probe.is_live():
            self.send("WATCHDOG=1")
        shut = sum(not account.gate.is_open for account in accounts)
        text = f"{state.open} open orders, {len(accounts) - shut} of {len(accounts)} accounts open"
        problem = state.scan_problem
        status = f"STATUS={text}; database: {problem}" if problem else f"STATUS={text}"
        if status != self._told:
            self._told = status
            self.send(status)

    def reloading(self) -> None:
        """Tell that settings are read again."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def reloaded(self) -> None:
        """Tell that this is over."""
        if self._is_ready:
            self.send("READY=1")

    def send(self, *assignments: str) -> None:
        """Send a message of so many lines, whatever stands in them; what goes wrong with it is no matter of the orders."""
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
                out.sendto("\n".join(map(visible, assignments)).encode(), self._address)
        except OSError:
            return


def _address(name: str) -> bytes | None:
    """Return the socket's address; a leading ``@`` stands for the NUL of the abstract namespace."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None


def _watchdog(environ: Mapping[str, str]) -> float:
    """Return the watchdog's time in seconds, 0 where there is none or it is meant for another process."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    is_ours = not pid or pid == str(os.getpid())
    return int(microseconds) / 1_000_000 if microseconds.isdecimal() and is_ours else 0.0
