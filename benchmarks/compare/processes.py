"""Processes that end with their measurement."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.compare.usage import cpu_seconds, resident_bytes, tree

LONGEST: Final = 1200
"""Seconds after which a process is killed even if its parent is gone."""

_PATIENCE: Final = 5.0
"""Seconds to start, and to end before the process is killed.

``timeout`` kills its own child before we kill ``timeout``.
"""

_GRACE: Final = 1.0
_TAIL: Final = 600


class ContestantFailedError(Exception):
    """A contestant did not do its work; the text says what went wrong."""


@dataclass(frozen=True, slots=True)
class Command:
    """A process of a contestant: ``role`` is ``own`` or ``broker``.

    ``socket`` is a file that exists once it serves.
    """

    role: str
    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    socket: Path | None = None


class Running:
    """A contestant's processes, by role."""

    def __init__(self, log: Path) -> None:
        """Write their output to ``log``."""
        self.log = log
        self._processes: list[tuple[str, asyncio.subprocess.Process]] = []

    async def start(self, command: Command, directory: Path) -> None:
        """Start one more process in ``directory``."""
        # ``timeout`` bounds it too: it ends even if this process is killed.
        argv = ("timeout", f"--kill-after={_GRACE:g}", str(LONGEST), *command.argv)
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=directory,
                env=dict(command.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append((command.role, process))
        async with asyncio.timeout(_PATIENCE):
            while command.socket is not None and not command.socket.exists():
                await asyncio.sleep(0.02)

    def pids(self, role: str) -> list[int]:
        """Return the processes of a role."""
        return [process.pid for kind, process in self._processes if kind == role]

    def cpu(self, role: str) -> float:
        """Return the CPU seconds used by a role."""
        return cpu_seconds(self.pids(role))

    def resident(self, role: str) -> int:
        """Return the resident bytes of a role."""
        return resident_bytes(self.pids(role))

    def signal(self, role: str, number: int) -> None:
        """Send a signal to the processes of a role and their descendants."""
        for pid in tree(self.pids(role)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def check(self) -> None:
        """Check that all processes still run.

        Raises:
            ContestantFailedError: one has ended.
        """
        for role, process in self._processes:
            if process.returncode is not None:
                tail = self.log.read_text(errors="replace")[-_TAIL:]
                raise ContestantFailedError(
                    f"a process ({role}) ended with {process.returncode}: {tail}"
                )

    async def stop(self) -> None:
        """End them in reverse order: a broker after its clients."""
        for _, process in reversed(self._processes):
            await stopped(process)


@asynccontextmanager
async def started(commands: Sequence[Command], directory: Path) -> AsyncIterator[Running]:
    """Run a contestant's processes for the duration of the block."""
    running = Running(directory / "log")
    try:
        for command in commands:
            await running.start(command, directory)
        yield running
    finally:
        await running.stop()


async def stopped(process: asyncio.subprocess.Process) -> None:
    """Terminate a process, and kill it if that fails."""
    for end in (process.terminate, process.kill):
        with suppress(ProcessLookupError):
            end()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
                return
