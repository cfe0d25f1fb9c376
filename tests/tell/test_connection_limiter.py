"""The door before the health endpoint, on real sockets: whoever says nothing is shown out, and
locks nobody else out.
"""

import asyncio
import itertools
import json
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from order_monitor.tell.connection_limiter import ConnectionLimiter, room_for
from tests.support.health import Bench, listening
from tests.support.processes import Run, settings
from tests.support.shops import Shop

HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Knock:
    """A client by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self) -> bytes:
        self.writer.write(HEAD)
        return await self.reader.readuntil(b"\r\n")

    async def is_cut(self) -> bool:
        async with asyncio.timeout(30):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def knocking(bench: Bench, count: int) -> AsyncIterator[list[Knock]]:
    host, port = bench.server.bound()
    knocks = [Knock(*await asyncio.open_connection(host, port)) for _ in range(count)]
    try:
        yield knocks
    finally:
        for knock in knocks:
            knock.writer.transport.abort()


@pytest.mark.parametrize(
    ("files", "room"), [(None, 128), (1024, 128), (256, 64), (64, 16), (16, 8)]
)
def test_the_room_is_well_below_the_limit_of_files(files: int | None, room: int) -> None:
    assert room_for(files) == room


async def test_silence_locks_nobody_out_and_is_one_line() -> None:
    bench = Bench(door=ConnectionLimiter(8, head=3600))
    with capture_logs() as logs:
        async with listening(bench) as client, knocking(bench, 300):
            for _ in range(5):
                assert (await client.get("/livez")).status_code == 503
    lines = [line for line in logs if line["event"] == "health.crowded"]
    # One after the first second, and at the end what came since.
    assert len(lines) <= 2
    assert {line["connections"] for line in lines} == {8}
    assert sum(line["refused"] for line in lines) > 250


async def test_a_head_must_come_in_time_however_it_drips() -> None:
    bench = Bench(door=ConnectionLimiter(8, head=0.3))
    async with listening(bench), knocking(bench, 2) as (silent, dripping):
        for n in range(20):
            if dripping.reader.at_eof() or dripping.writer.is_closing():
                break
            dripping.writer.write(HEAD[n : n + 1])
            await asyncio.sleep(0.05)
        assert await silent.is_cut()
        assert await dripping.is_cut()


async def test_a_kept_connection_may_be_idle_for_a_while_and_no_longer() -> None:
    bench = Bench(door=ConnectionLimiter(8, head=5.0, idle=0.2))
    async with listening(bench), knocking(bench, 1) as (kept,):
        assert b"503" in await kept.ask()
        await kept.reader.readuntil(b"\r\n\r\n")
        await kept.reader.readline()
        assert await kept.is_cut()


class Stream:
    """A server that writes a byte from time to time, until it is stopped."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.ending = asyncio.Event()

    def routes(self) -> dict[str, Any]:
        return {"/api/stream": self._stream}

    def close(self) -> None:
        pass

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(self.most):
            await response.write(b"x")
            await asyncio.sleep(0.05)
            if self.ending.is_set():
                break
        return response


async def test_an_answer_that_goes_on_is_not_cut() -> None:
    """The page's stream has no end; only silence is timed."""
    bench = Bench(site=Stream(8), door=ConnectionLimiter(8, head=0.1, idle=0.1))
    async with listening(bench) as client:
        assert (await client.get("/api/stream")).text == "x" * 8


async def test_where_all_are_being_answered_one_more_is_refused() -> None:
    stream = Stream(10_000)
    bench = Bench(site=stream, door=ConnectionLimiter(1))
    async with listening(bench), knocking(bench, 1) as (first,):
        first.writer.write(HEAD.replace(b"/livez", b"/api/stream"))
        await first.reader.readuntil(b"x")
        async with knocking(bench, 1) as (second,):
            assert await second.is_cut()
        stream.ending.set()
        await first.reader.readuntil(b"0\r\n\r\n")
        assert b"503" in await first.ask()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:1@evil",
        "evil@127.0.0.1",
        "127.0.0.1:1:2",
        "127.0.0.1:",
        "127.0.0.1:99999",
        "127.0.0.1:\u0661",
        "localhost/x",
        "localhost evil",
        "localhost,evil",
        "[::1",
        "[::1]x:80",
        "::1",
        "localhost:80#@evil",
    ],
)
async def test_what_is_no_host_and_port_is_not_answered(host: str) -> None:
    """F4."""
    bench = Bench()
    async with listening(bench) as client:
        assert (await client.get("/livez", headers=[(b"Host", host.encode())])).status_code in (
            400,
            403,
        )


async def test_two_hosts_are_none() -> None:
    bench = Bench()
    async with listening(bench), knocking(bench, 1) as (knock,):
        knock.writer.write(HEAD.replace(b"\r\n\r\n", b"\r\nHost: localhost\r\n\r\n"))
        assert (await knock.reader.readline()).split()[1] in (b"400", b"403")


async def is_cut(knock: socket.socket) -> None:
    with suppress(ConnectionError):
        assert await asyncio.get_running_loop().sock_recv(knock, 1) == b""


WAVE = 40
"""Connections that come at once: fewer than the kernel keeps waiting for a program, of which more
it drops.
"""


@pytest.mark.long
async def test_a_flood_leaves_files_for_the_work(plain_shop: Shop, tmp_path: Path) -> None:
    """400 silent connections at 256 files: the database stays reached, and the log short."""
    (tmp_path / "monitor.toml").write_text(settings(plain_shop.dsn, "http://127.0.0.1:9"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "order_monitor",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
    )
    run = Run(process)
    where = await run.event("health.listening")
    assert (where["connections"], where["files"]) == (64, 256)
    knocks: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    address = ("127.0.0.1", where["port"])
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(10):
                wave = [socket.socket() for _ in range(WAVE)]
                knocks += wave
                for knock in wave:
                    knock.setblocking(False)
                await asyncio.gather(*(loop.sock_connect(knock, address) for knock in wave))
                # It is answered in its turn: those before it have come to the program too.
                livez = await client.get(
                    f"http://127.0.0.1:{where['port']}/livez", headers={"Connection": "close"}
                )
                assert livez.status_code == 200
        cuts = [asyncio.create_task(is_cut(knock)) for knock in knocks]
        for cut in itertools.islice(asyncio.as_completed(cuts), len(knocks) - where["connections"]):
            await cut
        for task in cuts:
            task.cancel()
        await asyncio.wait(cuts)
    finally:
        for knock in knocks:
            knock.close()
    process.send_signal(signal.SIGTERM)
    assert await run.end() == 0
    told = [json.loads(line) for line in run.err.decode().splitlines()]
    # How many of them is the machine's speed: on a slow one some were silent for too long before
    # they were crowded out.
    assert sum(line.get("refused", 0) for line in told) > 0
    events = [line["event"] for line in told]
    assert len(events) < 20
    assert "database.lost" not in events


@pytest.mark.parametrize(
    "target", [b"http://evil.example/livez", b"http://127.0.0.1:1@evil/livez", b"http:///livez"]
)
async def test_a_target_that_names_another_host_is_not_answered(target: bytes) -> None:
    """RFC 9112, 3.2.2: an absolute target goes before the Host header."""
    bench = Bench()
    async with listening(bench), knocking(bench, 1) as (knock,):
        knock.writer.write(HEAD.replace(b"/livez", target))
        assert (await knock.reader.readline()).split()[1] in (b"400", b"403")


async def test_whoever_was_answered_last_goes_last() -> None:
    bench = Bench(door=ConnectionLimiter(3))
    async with listening(bench), knocking(bench, 1) as (kept,), knocking(bench, 2) as (silent, _):
        assert b"503" in await kept.ask()
        async with knocking(bench, 1):
            assert await silent.is_cut()
            assert not kept.reader.at_eof()
