"""Floods: a server that never comes to its answer costs a bounded number of bytes, and keeps the
loop from nothing else.
"""

import asyncio
import gzip
import time
import zlib
from contextlib import suppress

import pytest

from order_monitor.core.answer import Answer, Garbled, Unreachable
from order_monitor.providers.http.response_head import HEADS, LINES, ResponseReader
from order_monitor.providers.http.transport import FreshConnections
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock
from tests.support.connections import client_context
from tests.support.servers import RawServer, answer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024
BOMB = gzip.compress(bytes(64 * MIB))
REFUSED = Unreachable("protocol_error")


def filled(unit: bytes, size: int = 8 * MIB) -> bytes:
    return unit * (size // len(unit))


FLOODS: dict[str, tuple[bytes, bytes, Answer]] = {
    "early hints": (b"", filled(b"HTTP/1.1 103 Early Hints\r\n\r\n"), REFUSED),
    "early hints with headers": (
        b"",
        filled(b"HTTP/1.1 103 E\r\n" + b"Link: x\r\n" * 90 + b"\r\n"),
        REFUSED,
    ),
    "continue": (b"", filled(b"HTTP/1.1 100 Continue\r\n\r\n"), REFUSED),
    "blank lines": (b"", filled(b"\r\n"), REFUSED),
    "header lines": (OK, filled(b"a:\r\n"), REFUSED),
    "header lines that are none": (OK, filled(b"<b>Warning</b>\r\n"), REFUSED),
    "folded lines": (OK + b"X: y\r\n", filled(b" z\r\n"), REFUSED),
    "one header": (OK + b"X: ", filled(b"y"), REFUSED),
    "a status line": (b"HTTP/1.1 200 ", filled(b"OK "), REFUSED),
    "no HTTP": (b"", filled(b"x"), REFUSED),
    "tiny chunks": (CHUNKED, filled(b"1\r\nx\r\n"), REFUSED),
    "chunk extensions": (CHUNKED, filled(b"1;" + b"e" * 60_000 + b"\r\nx\r\n"), REFUSED),
    "one chunk extension": (CHUNKED + b"1;", filled(b"e=f;"), REFUSED),
    "a chunk size": (CHUNKED, filled(b"0"), REFUSED),
    "a trailer": (CHUNKED + b"0\r\n", filled(b"a:\r\n"), REFUSED),
    "one trailer line": (CHUNKED + b"0\r\nX: ", filled(b"y"), REFUSED),
    "a large chunk": (CHUNKED + b"fffffff\r\n", filled(b"x"), Garbled("too_long")),
    "chunks": (CHUNKED, filled(b"1000\r\n" + b"x" * 4096 + b"\r\n"), Garbled("too_long")),
    "a body without length": (OK + b"\r\n", filled(b"x"), Garbled("too_long")),
    "a long body": (OK + b"Content-Length: 99999999\r\n\r\n", filled(b"x"), Garbled("too_long")),
    "gzip": (
        answer(BOMB, headers="Content-Encoding: gzip\r\n"),
        b"",
        Garbled("bad_encoding"),
    ),
    "gzip twice": (
        answer(
            gzip.compress(BOMB),
            headers="Content-Encoding: gzip, gzip\r\n",
        ),
        b"",
        Garbled("bad_encoding"),
    ),
    "deflate": (
        answer(zlib.compress(bytes(32 * MIB)), headers="Content-Encoding: deflate\r\n"),
        b"",
        Garbled("bad_encoding"),
    ),
}


async def longest_turn(over: asyncio.Event) -> float:
    """Return the longest time, in seconds of this thread's work, that anything else had to wait for
    the loop.
    """
    longest, before = 0.0, time.thread_time()
    while not over.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    return longest


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize(("begins", "flood", "told"), FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_is_bounded(begins: bytes, flood: bytes, told: Answer) -> None:
    """Twenty at a time: the other accounts are asked meanwhile."""
    sent = 0

    async def floods(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        writer.write(begins)
        with suppress(OSError):
            for at in range(0, len(flood), 65_536):
                writer.write(flood[at : at + 65_536])
                await writer.drain()
                sent += 65_536

    over = asyncio.Event()
    async with RawServer(floods) as server:
        account = ZnetAccount(f"http://127.0.0.1:{server.port}", "k", "s", timeout=30.0)
        znet = Znet(account, FreshConnections(client_context()), SystemClock())
        watch = asyncio.create_task(longest_turn(over))
        replies = await asyncio.gather(*[znet.ask(str(n)) for n in range(20)])
        over.set()
        turn = await watch
        await znet.aclose()
    assert [reply.answer for reply in replies] == [told] * 20
    assert [reply.requests for reply in replies] == [1] * 20
    # What the sockets of this machine hold between the two comes to some MiB each.
    assert sent <= 20 * 7 * MIB
    assert turn < 0.5


@pytest.mark.slow
async def test_a_body_in_many_small_pieces_is_still_an_answer() -> None:
    """PHP that flushes after each word, and a server that announces its answer a few times."""
    body = b"OK|2|PIN-1|" + b"x" * 900
    pieces = b"".join(b"1\r\n" + body[n : n + 1] + b"\r\n" for n in range(len(body)))
    said = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * (HEADS - 1)
        + CHUNKED
        + pieces
        + b"0\r\nX: y\r\n\r\n"
    )

    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(said)

    async with RawServer(handler) as server:
        account = ZnetAccount(f"http://127.0.0.1:{server.port}", "k", "s")
        znet = Znet(account, FreshConnections(client_context()), SystemClock())
        assert (await znet.ask("1")).answer.outcome == "completed"
        await znet.aclose()


def test_heads_are_bounded_in_number_lines_and_bytes_together() -> None:
    hint = b"HTTP/1.1 103 X\r\n\r\n"
    reader = ResponseReader(65_536)
    assert (reader.feed(hint * HEADS), reader.head) == (b"", None)
    head = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (LINES - 2) + b"\r\n"
    reader = ResponseReader(65_536)
    assert reader.feed(head) == b""
    assert reader.head is not None
    padded = b"HTTP/1.1 103 X\r\nX: " + b"x" * 40_000 + b"\r\n\r\n"
    for flood in (
        hint * (HEADS + 1),
        head.replace(b"\r\n\r\n", b"\r\na: b\r\n\r\n"),
        padded * 2,
        b"\r\n" * 40_000,
    ):
        for size in (len(flood), 1000, 7):
            reader = ResponseReader(65_536)
            with pytest.raises(ValueError, match="too"):
                for at in range(0, len(flood), size):
                    reader.feed(flood[at : at + size])
