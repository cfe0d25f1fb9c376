"""Make fewer calls while this machine is short of ports, files, memory or threads.

Pure; times are monotonic seconds. A shortage is not an account's fault, so no account is closed:
all of them together slow down until the calls under way have released enough.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

SHORTAGE_WORDS: Final = {
    "no_local_ports": "this machine has no local port left for one more connection",
    "no_files": "this process, or this machine, may open no more files",
    "no_memory": "this machine has no memory left for one more connection",
    "no_threads": "this machine can start no more threads",
}
"""What this machine or process can run out of, in words."""

SHORTAGE_REMEDIES: Final = {
    "no_local_ports": "connections to one address use up net.ipv4.ip_local_port_range: widen it, or lower limits.calls_per_second",
    "no_files": "raise LimitNOFILE (systemd), ulimit -n or fs.file-max, or lower limits.concurrency",
    "no_memory": "see what takes this machine's memory, or the memory of its network (net.ipv4.tcp_mem)",
    "no_threads": "raise TasksMax (systemd), or ulimit -u",
}
"""What to do about each shortage."""

_BY_NUMBER: Final = {
    errno.EADDRNOTAVAIL: "no_local_ports",
    errno.EADDRINUSE: "no_local_ports",
    errno.EMFILE: "no_files",
    errno.ENFILE: "no_files",
    errno.ENOBUFS: "no_memory",
    errno.ENOMEM: "no_memory",
}

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
CALM_AFTER: Final = 60.0
"""Seconds without a new shortage after which it is over."""

_DOUBLES: Final = 10.0
"""Seconds in which the allowed number of concurrent calls doubles."""

_MOST_DOUBLINGS: Final = 16


@dataclass(slots=True)
class Easing:
    """How many calls this process may make during a shortage.

    ``reason`` names the shortage; empty if there is none.
    """

    reason: str = ""
    until: float = float("-inf")
    """No call starts before this time."""
    _pause: float = 0.0
    _places: int = 0
    _last: float = float("-inf")

    def ran_out(self, now: float, reason: str, under_way: int) -> bool:
        """Record a call that failed because something ran out, with ``under_way`` calls running.

        Return whether a shortage begins. Calls that fail during the pause were started before it:
        they belong to the same shortage.
        """
        is_news = not self.reason
        if now >= self.until:
            self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
            self._places = max(1, under_way // 2)
            self.until = now + self._pause
        self.reason, self._last = reason, now
        return is_news

    def is_over(self, now: float) -> bool:
        """Whether a shortage has just ended: nothing ran out for long enough."""
        if not self.reason or now < max(self._last, self.until) + CALM_AFTER:
            return False
        self.reason, self._pause = "", 0.0
        return True

    def has_room(self, now: float, under_way: int) -> bool:
        """Whether one more call may start while ``under_way`` are running."""
        if not self.reason:
            return True
        doublings = min(max(0.0, now - self.until) / _DOUBLES, _MOST_DOUBLINGS)
        return now >= self.until and under_way < self._places * 2.0**doublings


def shortage_of(error: BaseException | None) -> str:
    """Return which shortage a failed connection points to, empty if none.

    ``no_local_ports`` may also mean that this machine has no route to addresses of that family; a
    caller that knows the address has to check.
    """
    return _BY_NUMBER.get(error.errno or 0, "") if isinstance(error, OSError) else ""
