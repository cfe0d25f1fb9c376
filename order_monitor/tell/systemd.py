"""Tell systemd that the daemon is ready, alive, reloading or stopping (sd_notify(3)).

Does nothing without a notify socket. The watchdog is fed from the event loop, and only while the
engine ticks, so that systemd restarts a loop or an engine that hangs.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

from order_monitor.core.clock import Clock
from order_monitor.core.text import visible
from order_monitor.tell.status_view import StatusView

_USUALLY: Final = 2.0
_FEEDS: Final = 3.0
"""How many times the watchdog is fed within its timeout."""


class Notifier:
    """Writes to the socket in ``NOTIFY_SOCKET``."""

    def __init__(
        self, view: StatusView, clock: Clock, environ: Mapping[str, str] | None = None
    ) -> None:
        """Report the state of ``view``; ``environ`` is by default the environment of this
        process.
        """
        environ = os.environ if environ is None else environ
        self._view = view
        self._clock = clock
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog = _watchdog(environ)
        """The watchdog's timeout in seconds, 0 if there is none."""
        self._told = ""
        self._is_ready = False

    @property
    def listens(self) -> bool:
        """Whether there is a socket to write to."""
        return self._address is not None

    async def run(self) -> None:
        """Notify until cancelled; the cancellation is reported as the stop."""
        try:
            while True:
                self.report()
                await self._clock.sleep(
                    min(_USUALLY, self.watchdog / _FEEDS) if self.watchdog else _USUALLY
                )
        finally:
            self.send("STOPPING=1")

    def report(self) -> None:
        """Send what is new, and feed the watchdog while the engine ticks."""
        state, accounts = self._view.engine.state, self._view.engine.accounts.values()
        if state.scans and not self._is_ready:
            self._is_ready = True
            self.send("READY=1")
        if self.watchdog and self._view.probe.is_live():
            self.send("WATCHDOG=1")
        shut = sum(not account.gate.is_open for account in accounts)
        text = f"{state.open} open orders, {len(accounts) - shut} of {len(accounts)} accounts open"
        problem = state.scan_problem
        status = f"STATUS={text}; database: {problem}" if problem else f"STATUS={text}"
        if status != self._told:
            self._told = status
            self.send(status)

    def reloading(self) -> None:
        """Report that the settings are being reloaded."""
        self.send(
            "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )

    def reloaded(self) -> None:
        """Report that the reload is finished."""
        if self._is_ready:
            self.send("READY=1")

    def send(self, *assignments: str) -> None:
        """Send one message with these lines, cleaned.

        Errors are ignored: they must not affect the orders.
        """
        if self._address is None:
            return
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as out:
                out.sendto("\n".join(map(visible, assignments)).encode(), self._address)
        except OSError:
            return


def _address(name: str) -> bytes | None:
    """Return the socket's address; a leading ``@`` stands for the NUL of the abstract namespace."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None


def _watchdog(environ: Mapping[str, str]) -> float:
    """Return the watchdog's timeout in seconds; 0 if there is none, or if it is meant for another
    process.
    """
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    is_ours = not pid or pid == str(os.getpid())
    return int(microseconds) / 1_000_000 if microseconds.isdecimal() and is_ours else 0.0
