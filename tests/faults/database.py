"""A PostgreSQL that can be killed and started again, and whose every commit is meant."""

import asyncio
import signal
from pathlib import Path

import asyncpg

from order_monitor.demo.postgres import EmbeddedPostgres

SETTINGS = {
    # A commit that was told must outlive the server's death: else not the program, but the server would lose it.
    "synchronous_commit": "on",
    "max_connections": "30",
    "deadlock_timeout": "100ms",
    "wal_level": "replica",
}


class MortalPostgres(EmbeddedPostgres):
    """Kept in one place while it dies and comes back."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        super().__init__({**SETTINGS, **(settings or {})})
        self.binaries = Path()

    def _start(self, binaries: Path, data: Path) -> None:
        self.binaries = binaries
        super()._start(binaries, data)

    def die(self) -> None:
        """All its processes at once, without a word to disk: what a power cut leaves to be recovered from."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
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
        self._password = primary._password

    def _run(self, *command: str | Path) -> None:
        """Copy the primary where a new server would be made."""
        if Path(command[0]).name != "initdb":
            super()._run(*command)
            return
        binaries, data = Path(command[0]).parent, Path(command[2])
        super()._run(binaries / "pg_basebackup", "-d", self._primary.dsn(), "-D", data, "-R", "-X", "stream")

    def _start(self, binaries: Path, data: Path) -> None:
        self.binaries = binaries
        options = " ".join(f"-c {name}={value}" for name, value in self._settings.items() if value)
        options += f" -c listen_addresses= -k {self.directory}"
        super(MortalPostgres, self)._run(
            binaries / "pg_ctl", "-D", data, "-w", "-l", self.directory / "log", "-o", options, "start"
        )

    def promote(self) -> None:
        """Make it the primary."""
        self._run(self.binaries / "pg_ctl", "-D", self.directory / "data", "-w", "promote")

    def __exit__(self, *given: object) -> None:
        if (self.directory / "data" / "postmaster.pid").exists():
            self._run(self.binaries / "pg_ctl", "-D", self.directory / "data", "-w", "-m", "immediate", "stop")
        super().__exit__(None, None, None)


async def connect(dsn: str) -> asyncpg.Connection:
    """The shop's hand, which writes also where the default is read-only."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await asyncpg.connect(dsn, server_settings={"application_name": "the shop"})
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.1)
