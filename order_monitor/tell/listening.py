"""Why an address cannot be listened on, in the system's words: which process has the port, or which
addresses this machine has.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OURS: Final = "order-monitor"
_PROC: Final = Path("/proc")
_LISTEN: Final = "0A"
"""The state of a listening socket in ``/proc/net/tcp``."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong: the setting, the system's ``cause``, and what to do about it."""

    key: str
    cause: str
    do: str
    holder: str = ""
    number: int = 0

    @property
    def is_taken(self) -> bool:
        """Whether some process has the port."""
        return self.number == errno.EADDRINUSE

    @property
    def is_ours(self) -> bool:
        """Whether the port is held by a process of this program."""
        return self.holder.startswith(f"{OURS} ")

    def __str__(self) -> str:
        """Return one line for the log."""
        return f"{self.key}: {self.cause}; {self.do}"


def trouble_of(host: str, port: int, error: Exception) -> Trouble:
    """Explain why listening on ``host`` and ``port`` fails."""
    number = getattr(error, "errno", None) or 0
    cannot = f"cannot listen on {host}:{port}"
    why = (
        os.strerror(number)
        if number > 0
        else "the name is not resolved"
        if isinstance(error, socket.gaierror)
        else ""
    )
    cause = f"{cannot}: {why}" if why else cannot
    if number == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        own = ", ".join(own_addresses())
        return Trouble(
            "health.host",
            cause,
            f"give an address of this machine ({own}), or 0.0.0.0 or :: for all of them",
        )
    if number == errno.EACCES:
        return Trouble(
            "health.port",
            cause,
            "choose a port from 1024 on (0 = any free one), or health.enabled = false",
        )
    holder = holder_of(port) if number == errno.EADDRINUSE else None
    by = f", by {holder}" if holder else ""
    stop = "stop that, " if holder else ""
    do = f"{stop}choose a free port (0 = any), or health.enabled = false"
    return Trouble("health.port", f"{cause}{by}", do, holder or "", number)


def trial(host: str, port: int) -> Trouble | None:
    """Try to listen, and stop at once; None if that works."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
            tried.listen(1)
    except (OSError, ValueError, OverflowError) as error:
        return trouble_of(host, port, error)
    return None


def holder_of(port: int) -> str | None:
    """Return the process that listens on a TCP port, like ``nginx (pid 812)``.

    None if it cannot be determined.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_on(port)}
    if not sockets:
        return None
    for process in _PROC.iterdir():
        if process.name.isdigit() and sockets & _open_in(process):
            return f"{_name_of(process)} (pid {process.name})"
    return None


def _listening_on(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port, over IPv4 and IPv6."""
    found = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _open_in(process: Path) -> set[str]:
    """Return the files that a process has open; empty if that is not visible."""
    found = set()
    with suppress(OSError):
        for file in (process / "fd").iterdir():
            with suppress(OSError):
                found.add(str(file.readlink()))
    return found


def _name_of(process: Path) -> str:
    """Return a process's name; for this program the full name, because the interpreter's says
    little.
    """
    with suppress(OSError):
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        if any("order_monitor" in word or "order-monitor" in word for word in words[:3]):
            return OURS
        return (process / "comm").read_text("utf-8", "replace").strip()
    return "a process"


def own_addresses() -> list[str]:
    """Return this machine's addresses."""
    found = {"127.0.0.1"}
    with suppress(OSError):
        found |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        # Nothing is sent: the kernel only chooses the source address.
        tried.connect(("192.0.2.1", 9))
        found.add(str(tried.getsockname()[0]))
    return sorted(found)
