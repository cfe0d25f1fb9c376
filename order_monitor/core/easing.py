"""Fewer calls while this machine is short of something: ports, files, memory, threads. Pure; times are monotonic seconds.

No account is to blame for it, so none is closed: all of them together go slower, until what is under way has given back enough.
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
"""What to do about each."""

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
"""Seconds without a shortage after which it is over."""

_DOUBLES: Final = 10.0
"""Seconds in which twice as many calls may be under way again."""

_MOST_DOUBLINGS: Final = 16


@dataclass(slots=True)
class Easing:
    """How hard this process may ask just now. ``reason`` is what it is short of; nothing where it is short of nothing."""

    reason: str = ""
    until: float = float("-inf")
    """No call starts before."""
    _pause: float = 0.0
    _places: int = 0
    _last: float = float("-inf")

    def ran_out(self, now: float, reason: str, under_way: int) -> bool:
        """Take note of a call that failed because something ran out, with so many ``under_way``; return whether that is news.

        Calls that fail while nothing may start were under way before: they are one shortage, not many.
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
        """Whether one more call may start while so many are ``under_way``."""
        if not self.reason:
            return True
        doublings = min(max(0.0, now - self.until) / _DOUBLES, _MOST_DOUBLINGS)
        return now >= self.until and under_way < self._places * 2.0**doublings


def shortage_of(error: BaseException | None) -> str:
    """Return what a failed connection says has run out here, nothing where it says nothing of the kind.

    ``no_local_ports`` may also mean that there is no way to an address of that family: who knows the address has to see.
    """
    return _BY_NUMBER.get(error.errno or 0, "") if isinstance(error, OSError) else ""
