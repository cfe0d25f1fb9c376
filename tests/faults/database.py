"""A PostgreSQL that can be killed and restarted, with durable commits."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg

from order_monitor.demo.postgres import EmbeddedPostgres

SETTINGS = {
    # A reported commit must survive the server's death: otherwise the server would lose it, not the
    # program.
    "synchronous_commit": "on",
    "max_connections": "30",
    "deadlock_timeout": "100ms",
    "wal_level": "replica",
}


class MortalPostgres(EmbeddedPostgres):
    """Kept in one directory while it dies and restarts."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        super().__init__({**SETTINGS, **(settings or {})})
        self.binaries = Path()

    def _start(self, binaries: Path, data: Path) -> None:
        self.binaries = binaries
        super()._start(binaries, data)

    def die(self) -> None:
        """Kill all its processes at once without a flush to disk, like a power cut."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(20)

    def freeze(self) -> None:
        """Stop all its processes where they stand: connections stay open, and nothing answers."""
        assert self._process is not None
        first = self._process.pid
        # The first process stands still first, so that it starts no other meanwhile.
        os.kill(first, signal.SIGSTOP)
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for pid in children:
            os.kill(int(pid), signal.SIGSTOP)

    def vanish(self) -> None:
        """Kill a frozen server for good."""
        assert self._process is not None
        first = self._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for pid in [str(first), *children]:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self._process.wait(20)

    def come_back(self) -> None:
        """Start on the same data."""
        data = self.directory / "data"
        (data / "postmaster.pid").unlink(missing_ok=True)
        self._start(self.binaries, data)

    def reconfigure(self, setting: str) -> None:
        """Change one setting of the running server, which needs no restart."""
        with (self.directory / "data" / "postgresql.auto.conf").open("a") as file:
            file.write(f"{setting}\n")
        self._run(self.binaries / "pg_ctl", "-D", self.directory / "data", "reload")


class Standby(MortalPostgres):
    """Follows another server until it is promoted."""

    def __init__(self, primary: MortalPostgres) -> None:
        super().__init__()
        self._primary = primary
        self._password = unquote(urlsplit(primary.dsn()).password or "")

    def _run(self, *command: str | Path) -> None:
        """Copy the primary, like for a new server."""
        if Path(command[0]).name != "initdb":
            super()._run(*command)
            return
        binaries, data = Path(command[0]).parent, Path(command[2])
        super()._run(
            binaries / "pg_basebackup", "-d", self._primary.dsn(), "-D", data, "-R", "-X", "stream"
        )

    def _start(self, binaries: Path, data: Path) -> None:
        self.binaries = binaries
        options = " ".join(f"-c {name}={value}" for name, value in self._settings.items() if value)
        options += f" -c listen_addresses= -k {self.directory}"
        super(MortalPostgres, self)._run(
            binaries / "pg_ctl",
            "-D",
            data,
            "-w",
            "-l",
            self.directory / "log",
            "-o",
            options,
            "start",
        )

    def promote(self) -> None:
        """Make it the primary."""
        self._run(self.binaries / "pg_ctl", "-D", self.directory / "data", "-w", "promote")

    def die(self) -> None:
        """End all its processes at once."""
        if (self.directory / "data" / "postmaster.pid").exists():
            self._run(
                self.binaries / "pg_ctl",
                "-D",
                self.directory / "data",
                "-w",
                "-m",
                "immediate",
                "stop",
            )

    def __exit__(self, *given: object) -> None:
        self.die()
        super().__exit__(None, None, None)


async def connect(dsn: str) -> asyncpg.Connection:
    """The shop's writes, which work even if the default is read-only."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await asyncpg.connect(dsn, server_settings={"application_name": "the shop"})
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.1)
