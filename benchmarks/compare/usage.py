"""Resource use of processes, as the kernel counts it (Linux's /proc), and the cores they may
use.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024


def tree(pids: Iterable[int]) -> set[int]:
    """Return the processes and all their descendants."""
    found, waiting = set[int](), list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            with suppress(OSError):
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of the processes and their descendants, including those that have
    ended.
    """
    return sum(_ticks(pid) for pid in tree(pids)) / _TICKS


def _ticks(pid: int) -> int:
    with suppress(OSError):
        # The second field is a name in parentheses, which may contain blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))
    return 0


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the resident memory of the processes and their descendants."""
    return sum(_resident(pid) for pid in tree(pids))


def _resident(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * _KIB
    return 0


def halves() -> tuple[set[int], set[int]] | None:
    """Return this machine's cores in two halves; None on a machine with one core."""
    cores = sorted(os.sched_getaffinity(0))
    middle = len(cores) // 2
    return (set(cores[:middle]), set(cores[middle:])) if middle else None


def pin(pids: Iterable[int], cores: set[int]) -> None:
    """Pin the processes, their descendants and all their threads to these cores."""
    for pid in tree(pids):
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)
