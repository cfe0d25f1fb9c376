"""Starts the program as real processes, without each importing Python's modules again.

One process imports them once, and each start is a fork of it, with separate arguments, directory,
environment, streams, signals and exit code. Tests of the start itself (closed streams, an early
signal, limits on files) use the slow way: ``python -m order_monitor``.
"""

import asyncio
import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal, cast

import order_monitor
from order_monitor.__main__ import main
from order_monitor.app import trusting_of
from order_monitor.watch.system_clock import SystemClock
from tests.support.clocks import UpForLong, quicken

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL


class Process:
    """The part of ``asyncio.create_subprocess_exec``'s result that the tests use."""

    def __init__(self, pid: int, end: asyncio.StreamReader) -> None:
        """Take the new process's id, and the file for its exit code."""
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._ended = asyncio.create_task(self._end(end))

    async def _end(self, told: asyncio.StreamReader) -> int:
        self.returncode = int(await told.read())
        return self.returncode

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def communicate(self, given: bytes = b"") -> tuple[bytes, bytes]:
        if self.stdin:
            self.stdin.write(given)
            self.stdin.close()
        output = await asyncio.gather(_all_of(self.stdout), _all_of(self.stderr))
        await self.wait()
        return output[0], output[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, like `subprocess.Popen`: a process that has just ended, unnoticed so far,
        gets none.
        """
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def _all_of(reader: asyncio.StreamReader | None) -> bytes:
    return await reader.read() if reader else b""


class Nursery:
    """The process from which all others are forked."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.support.launch", str(theirs.fileno())]
            root = Path(__file__).parents[2]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], cwd=root, stdin=DEVNULL
            )
        atexit.register(self.end)

    def end(self) -> None:
        self._ours.close()
        self._process.wait(20)

    def fork(
        self, arguments: tuple[str, ...], cwd: Path, env: dict[str, str], files: list[int]
    ) -> int:
        """Return the new process's id.

        ``files`` are its three streams, and the file for its exit code.
        """
        socket.send_fds(self._ours, [json.dumps([arguments, str(cwd), env]).encode()], files)
        return int(self._ours.recv(64))


nursery = functools.cache(Nursery)

CLOCK_AHEAD = "TESTS_CLOCK_AHEAD"
"""An environment variable: seconds by which the process's machine clock is ahead, negative if
behind.
"""

CLOCK_RATE = "TESTS_CLOCK_RATE"
"""The speed of the process's clock as a multiple of the machine's, so that a minute passes
faster.
"""


async def start(
    *arguments: str,
    cwd: Path,
    stdin: int = DEVNULL,
    stdout: int = PIPE,
    stderr: int = PIPE,
    env: dict[str, str] | None = None,
) -> Process:
    """Start ``order-monitor ARGUMENTS`` in the directory ``cwd``.

    Each stream is PIPE or DEVNULL.
    """
    streams = [
        _stream(stdin, "wb"),
        _stream(stdout, "rb"),
        _stream(stderr, "rb"),
        _stream(PIPE, "rb"),
    ]
    ours, theirs = [end for end, _ in streams], [end for _, end in streams]
    pid = nursery().fork(arguments, cwd, dict(os.environ if env is None else env), theirs)
    for file in theirs:
        os.close(file)
    process = Process(pid, await _reader(ours[3]))
    process.stdin = await _writer(ours[0]) if ours[0] else None
    process.stdout = await _reader(ours[1]) if ours[1] else None
    process.stderr = await _reader(ours[2]) if ours[2] else None
    return process


def _stream(kind: int, mode: Literal["rb", "wb"]) -> tuple[BinaryIO | None, int]:
    """Return our end of a stream, opened in ``mode``, and the other end."""
    if kind == DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    reading, writing = os.pipe()
    ours, theirs = (writing, reading) if mode == "wb" else (reading, writing)
    return cast("BinaryIO", os.fdopen(ours, mode, buffering=0)), theirs


async def _reader(pipe: BinaryIO | None) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader


async def _writer(pipe: BinaryIO) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)


# --- in the nursery itself


def _nurse(knock: socket.socket) -> None:
    """Fork for each message, and report each exit code; returns only in a child."""
    telling: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(knock, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(key.data, 0)
                    _tell(telling.pop(key.data), status)
                    continue
                message, files, _, _ = socket.recv_fds(knock, 1_000_000, 4)
                if not message:
                    _save_coverage()
                    os._exit(0)
                if not (pid := os.fork()):
                    # An open copy here would keep another process's exit-code pipe open.
                    for file in (
                        *telling.values(),
                        files[3],
                        *(k.fd for k in selector.get_map().values()),
                    ):
                        os.close(file)
                    knock.detach()
                    return _become(message, files[:3])
                for file in files[:3]:
                    os.close(file)
                telling[pid] = files[3]
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                knock.send(str(pid).encode())


def _save_coverage() -> None:
    """Modules imported here count as covered, though no fork imports them again."""
    coverage = sys.modules.get("coverage")
    measuring = coverage.Coverage.current() if coverage else None
    if measuring is not None:
        measuring.stop()
        measuring.save()


def _tell(end: int, status: int) -> None:
    os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(end)


def _become(message: bytes, streams: list[int]) -> None:
    arguments, cwd, env = json.loads(message)
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    if ahead := float(os.environ.pop(CLOCK_AHEAD, "0")):
        right = time.time
        time.time = lambda: right() + ahead
    # The machine that runs the tests may have just booted.
    if (rate := float(os.environ.pop(CLOCK_RATE, "1"))) != 1:
        quicken(rate)
    SystemClock.boot = UpForLong.boot  # type: ignore[method-assign, assignment]
    sys.argv = ["order-monitor", *arguments]
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - for the process's whole life
    sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115


def _read_everything() -> None:
    for module in pkgutil.walk_packages(order_monitor.__path__, "order_monitor."):
        if not module.name.startswith(
            "order_monitor.contrib"
        ):  # a Django app's modules need a project around them
            importlib.import_module(module.name)
    trusting_of(None)  # a hundred and forty certificates, loaded once
    gc.collect()
    gc.freeze()


def _end(code: int) -> None:
    """Exit like Python, but without dismantling modules: that would copy the parent's memory page
    by page.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    # If a stream cannot be flushed, Python itself exits: it has an exit code for that.
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _read_everything()
    _nurse(socket.socket(fileno=int(sys.argv[1])))
    try:
        main()
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            _end(left.code or 0)
        raise
