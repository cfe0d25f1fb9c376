"""Heads as panels send them, and what of them says where an answer ends."""

import asyncio
import itertools

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from order_monitor.core.answer import Answer, Completed, Unreachable
from order_monitor.core.pin import Pin
from order_monitor.providers.http.response_head import ResponseReader, head_of
from tests.support.connections import client
from tests.support.servers import RawServer

BODY = b"OK|2|PIN-1|tamam"
LENGTH = b"Content-Length: 16\r\n"
WHOLE = Completed(Pin("PIN-1"), "tamam")
REFUSED = Unreachable("protocol_error")
CHUNKED_BODY = b"10\r\n" + BODY + b"\r\n0\r\n\r\n"


async def heard(data: bytes, *, closes: bool, piece: int = 0) -> Answer:
    """Return what is made of ``data``, which comes at once, or in pieces of so many bytes."""

    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for at in range(0, len(data), piece or len(data)):
            writer.write(data[at : at + (piece or len(data))])
            await writer.drain()
            if piece:
                await asyncio.sleep(0)
        if closes:
            writer.close()

    async with RawServer(handler) as server:
        znet = client(f"http://127.0.0.1:{server.port}")
        told = (await znet.ask("1")).answer
        await znet.aclose()
    return told


def response(head: bytes, body: bytes = BODY) -> bytes:
    return head + b"\r\n" + body


OK = b"HTTP/1.1 200 OK\r\n"
READ = {
    "a blank in a name": response(OK + b"X Powered By: PHP/5.4\r\n" + LENGTH),
    "a slash in a name": response(OK + b"X/Panel: 1\r\n" + LENGTH),
    "brackets in a name": response(OK + b"[X]: 1\r\n(Server): x\r\n" + LENGTH),
    "letters beyond ASCII in a name": response(OK + "Ö-Sürüm: 1\r\n".encode() + LENGTH),
    "no name": response(OK + b": nothing\r\n" + LENGTH),
    "a blank before the colon": response(
        OK + b"Server : x\r\nContent-Length\t : 16\r\n", BODY + b"surplus"
    ),
    "no colon": response(OK + b"nothing at all\r\n" + LENGTH),
    "a status line twice": response(OK + OK + LENGTH),
    "a warning of PHP": response(
        OK
        + b"<br />\n<b>Warning</b>:  Cannot modify header information in <b>/a.php</b> on line <b>3</b><br />\n"
        + LENGTH
    ),
    "a warning of PHP in plain text": response(
        OK + b"PHP Warning:  Module 'x' already loaded in Unknown on line 0\n" + LENGTH
    ),
    "a folded line": response(OK + b"X: a\r\n b\r\n\tc\r\n" + LENGTH),
    "a folded length": response(OK + b"Content-Length:\r\n 16\r\n", BODY + b"surplus"),
    "a fold with nothing above it": response(OK + b"  stray\r\n" + LENGTH),
    "a fold below what is left out": response(OK + b"X Y: a\r\n Content-Length: 3\r\n" + LENGTH),
    "bare line feeds": (OK + LENGTH).replace(b"\r\n", b"\n") + b"\n" + BODY,
    "bare line feeds here and there": OK + LENGTH.replace(b"\r\n", b"\n") + b"X: y\n\r\n" + BODY,
    "control characters in a value": response(OK + b"X: a\0b\x07\rc\x7f\r\n" + LENGTH),
    "the same length twice": response(OK + LENGTH * 2, BODY + b"surplus"),
    "chunked said twice": response(OK + b"Transfer-Encoding: chunked\r\n" * 2, CHUNKED_BODY),
    "chunked with a blank before its colon": response(
        OK + b"transfer-encoding : Chunked\r\n", CHUNKED_BODY
    ),
    "identity": response(OK + b"Transfer-Encoding: identity\r\n" + LENGTH),
    "no reason": response(b"HTTP/1.1 200\r\n" + LENGTH),
    "blanks in the status line": response(b"HTTP/1.1  200   OK \r\n" + LENGTH),
    "a reason beyond ASCII": response("HTTP/1.1 200 Başarılı\r\n".encode() + LENGTH),
    "another version": response(b"HTTP/2 200 OK\r\n" + LENGTH),
    "small letters": response(b"http/1.0 200 ok\r\n" + LENGTH),
    "blank lines before it": b"\r\n\r\n" + response(OK + LENGTH),
    "announced": b"HTTP/1.1 103 Early Hints\r\nLink Me: x\r\n\r\n"
    + response(OK + b"X Y: z\r\n" + LENGTH),
    "announced twice": b"HTTP/1.1 100\n\n" * 2 + response(OK + b"X Y: z\r\n" + LENGTH),
}


@pytest.mark.parametrize("data", READ.values(), ids=READ)
async def test_a_head_is_read_as_curl_and_browsers_read_it(data: bytes) -> None:
    assert await heard(data, closes=False) == WHOLE


@pytest.mark.parametrize("data", READ.values(), ids=READ)
async def test_however_it_comes_in_pieces(data: bytes) -> None:
    assert await heard(data, closes=True, piece=7) == WHOLE


CLOSED = {
    "no length": response(OK + b"X Y: z\r\n"),
    "a length by a name that is none": response(OK + b"Content Length: 3\r\n"),
    "identity without a length": response(OK + b"Transfer-Encoding: identity\r\n"),
}


@pytest.mark.parametrize("data", CLOSED.values(), ids=CLOSED)
async def test_without_a_length_the_answer_ends_with_its_connection(data: bytes) -> None:
    assert await heard(data, closes=True) == WHOLE


UNFRAMED = {
    "two lengths": response(OK + LENGTH + b"Content-Length: 12\r\n"),
    "two lengths, one behind a blank": response(OK + LENGTH + b"Content-Length : 12\r\n"),
    "two lengths in one": response(OK + b"Content-Length: 16, 12\r\n"),
    "two lengths by a fold": response(OK + b"Content-Length: 1\r\n 6\r\n"),
    "a length that is none": response(OK + b"Content-Length: -16\r\n"),
    "a length with a control character": response(OK + b"Content-Length: 16\x07\r\n"),
    "a coding that nobody knows": response(
        OK + b"Transfer-Encoding: gzip, chunked\r\n", CHUNKED_BODY
    ),
    "broken chunks": response(OK + b"Transfer-Encoding: chunked\r\n"),
    "chunks that do not end": response(OK + b"Transfer-Encoding: chunked\r\n", CHUNKED_BODY[:-5]),
    "a length that does not come": response(OK + b"Content-Length: 17\r\n"),
    "no status line": b"OK|2|PIN-1|tamam\r\n\r\n",
    "a status that is none": response(b"HTTP/1.1 20 OK\r\n" + LENGTH),
    "a head that does not end": OK + LENGTH + BODY,
    "a head without end": OK + b"X: y\r\n" * 20_000,
    "switching": response(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n", response(OK + LENGTH)),
    "nothing": b"\r\n",
}


@pytest.mark.parametrize("data", UNFRAMED.values(), ids=UNFRAMED)
async def test_what_does_not_say_where_it_ends_is_refused(data: bytes) -> None:
    assert await heard(data, closes=True) == REFUSED


LINE = st.sampled_from(
    [
        b"X: y",
        b"X Y: z",
        b" fold",
        b"\tfold",
        b"Content-Length: 5",
        b"no colon",
        b"<b>W</b>: x",
        b"X : y",
        b":",
        b"\r",
        b"\xff: \0",
    ]
)
HEAD = st.lists(LINE | st.binary(max_size=12), max_size=8).map(
    lambda lines: b"\r\n".join([b"HTTP/1.1 200 OK", *lines]) + b"\r\n\r\n"
)


@pytest.mark.slow
@given(head=HEAD, body=st.binary(max_size=30), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_in_whatever_pieces_it_comes_it_is_read_alike(
    head: bytes, body: bytes, cuts: list[int]
) -> None:
    data = head + body
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert read(*(data[start:end] for start, end in itertools.pairwise(at))) == read(data)


@given(HEAD)
def test_what_was_made_tidy_stays_as_it_is(head: bytes) -> None:
    once = head_of(head)
    assert once is not None
    lines = [b"HTTP/1.1 %d" % once.status, *(b": ".join(pair) for pair in once.headers)]
    again = head_of(b"\r\n".join(lines) + b"\r\n\r\n")
    assert again == once


def test_a_head_takes_no_more_than_its_limit() -> None:
    reader = ResponseReader(100)
    assert reader.feed(b"HTTP/1.1 200 OK\r\n") == b""
    with pytest.raises(ValueError, match="too long"):
        reader.feed(b"X" * 100)


def read(*pieces: bytes) -> tuple[int, bytes] | None:
    """Return the status and the body of what comes in ``pieces`` and ends, None if it is refused."""
    reader, body = ResponseReader(65_536), b""
    try:
        for piece in (*filter(None, pieces), b""):
            body += reader.feed(piece)
    except ValueError:
        return None
    assert reader.head is not None
    assert reader.is_over
    return reader.head.status, body


def by_h11(data: bytes) -> tuple[int, bytes] | None:
    """Return what a strict reader makes of it."""
    http, status, body = h11.Connection(h11.CLIENT), 0, b""
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    http.send(h11.EndOfMessage())
    try:
        http.receive_data(data)
        http.receive_data(b"")
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            body += bytes(event.data) if isinstance(event, h11.Data) else b""
            assert event is not h11.NEED_DATA
            if isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None
    return status, body


STRICT = st.sampled_from(
    [
        b"X: y",
        b"Connection: close",
        b"Content-Length: 5",
        b"Content-Length: 5, 5",
        b"Content-Length: 5, 6",
        b"Content-Length: 05",
        b"content-length: 0",
        b"Content-Length: 7",
        b"Content-Length: +5",
        b"Content-Length: 5;",
        b"Content-Length: 123456789012345678901",
    ]
)
CODING = st.sampled_from(
    [b"", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"te: chunked"]
)
STATUS = st.sampled_from([b"200", b"204", b"304", b"404", b"099", b"100", b"101", b"999"])
PIECE = st.binary(min_size=1, max_size=9)
CHUNKS = st.lists(PIECE, max_size=4).map(
    lambda pieces: b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
)


@pytest.mark.long
@settings(max_examples=500)
@given(
    version=st.sampled_from([b"1.0", b"1.1"]),
    statuses=st.lists(STATUS, min_size=1, max_size=3),
    lines=st.lists(STRICT, max_size=3),
    coding=CODING,
    body=st.binary(max_size=12) | CHUNKS,
    cut=st.integers(0, 300),
)
def test_the_end_of_a_response_is_where_a_strict_reader_finds_it(
    version: bytes, statuses: list[bytes], lines: list[bytes], coding: bytes, body: bytes, cut: int
) -> None:
    """Compared with h11: a correct response is read the same, and a wrong length is refused.

    Chunks alone are read more leniently.
    """
    more = [*lines, coding] if coding else lines
    head = b"".join(b"%b\r\n" % line for line in more) + b"\r\n"
    data = b"".join(b"HTTP/%b %b x\r\n%b" % (version, one, head) for one in statuses) + body
    data = data[: cut or None]
    strict = by_h11(data)
    assert read(data) == strict or (strict is None and b"chunked" in coding)
