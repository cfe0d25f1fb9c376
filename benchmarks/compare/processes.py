"""Processes that never outlive their measurement."""

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
"""Seconds after which a process is ended even if nobody is left to end it."""

_PATIENCE: Final = 5.0
"""Seconds to start, or to end before the process is killed; ``timeout`` kills its own child before we kill ``timeout``."""

_GRACE: Final = 1.0
_TAIL: Final = 600


class ContestantFailedError(Exception):
    """A contestant did not do its work; the text says how."""


@dataclass(frozen=True, slots=True)
class Command:
    """A process of a contestant: ``role`` is ``own`` or ``broker``. ``socket`` is a file that is there once it serves."""

    role: str
    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    socket: Path | None = None


class Running:
    """A contestant's processes, by role."""

    def __init__(self, log: Path) -> None:
        """Keep their output in ``log``."""
        self.log = log
        self._processes: list[tuple[str, asyncio.subprocess.Process]] = []

    async def start(self, command: Command, directory: Path) -> None:
        """Start one more process, in ``directory``."""
        # Bounded by another program too: should we be killed, it still ends.
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
        """Return the CPU seconds that a role has used."""
        return cpu_seconds(self.pids(role))

    def resident(self, role: str) -> int:
        """Return the bytes that a role has in memory."""
        return resident_bytes(self.pids(role))

    def signal(self, role: str, number: int) -> None:
        """Send a signal to the processes of a role and their descendants."""
        for pid in tree(self.pids(role)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def check(self) -> None:
        """See that all still run.

        Raises:
            ContestantFailedError: one does not.
        """
        for role, process in self._processes:
            if process.returncode is not None:
                tail = self.log.read_text(errors="replace")[-_TAIL:]
                raise ContestantFailedError(f"a process ({role}) ended with {process.returncode}: {tail}")

    async def stop(self) -> None:
        """End them, the last one first: a broker goes after those who use it."""
        for _, process in reversed(self._processes):
            await stopped(process)


@asynccontextmanager
async def started(commands: Sequence[Command], directory: Path) -> AsyncIterator[Running]:
    """Run a contestant's processes while the block does."""
    running = Running(directory / "log")
    try:
        for command in commands:
            await running.start(command, directory)
        yield running
    finally:
        await running.stop()


async def stopped(process: asyncio.subprocess.Process) -> None:
    """End a process: politely, then not."""
    for end in (process.terminate, process.kill):
        with suppress(ProcessLookupError):
            end()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
                return
