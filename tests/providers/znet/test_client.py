"""The client: every way in which a server can go wrong is an answer, never an exception, and shows
no URL.
"""

import asyncio
import gzip
import logging
import ssl
from typing import Any

import httpx
import pytest
import respx

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Completed,
    Garbled,
    Unreachable,
    Waiting,
)
from order_monitor.core.pin import Pin
from order_monitor.providers.http.transport import FreshConnections
from order_monitor.providers.provider import Reply
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock
from tests.support.connections import answering
from tests.support.servers import Handler, RawServer, answer, says

CONTEXT = ssl.create_default_context()
WAITING = b"OK|1| |bekleniyor"


def account(
    base_url: str, *, timeout: float = 5.0, max_body: int = 65_536, connect_timeout: float = 1.0
) -> ZnetAccount:
    return ZnetAccount(
        base_url,
        "KOD-CANARY",
        "SIFRE-CANARY",
        timeout=timeout,
        max_body=max_body,
        connect_timeout=connect_timeout,
    )


def client(base_url: str, **options: Any) -> Znet:
    return Znet(account(base_url, **options), FreshConnections(CONTEXT), SystemClock())


async def ask_server(handler: Handler, **options: float) -> tuple[Reply, RawServer]:
    async with RawServer(handler) as server:
        znet = client(f"http://127.0.0.1:{server.port}", **options)
        try:
            return await znet.ask("1760885915220128"), server
        finally:
            await znet.aclose()


async def test_the_call_is_the_documented_one() -> None:
    router = respx.MockRouter()
    route = router.get("https://bayi.example.com/servis/pin_kontrol.php").respond(
        text="OK|2|PIN-1|Yüklendi"
    )
    account = ZnetAccount("https://bayi.example.com/", "KOD-CANARY", "SIFRE-CANARY")
    reply = await Znet(account, answering(router), SystemClock()).ask("1760885915220128")
    assert reply == Reply(Completed(Pin("PIN-1"), "Yüklendi"), 1)
    request = route.calls.last.request
    assert dict(request.url.params) == {
        "kod": "KOD-CANARY",
        "sifre": "SIFRE-CANARY",
        "tahsilat_api_islem_id": "1760885915220128",
    }
    assert request.headers["accept-encoding"] == "identity"


async def test_login_and_reference_are_escaped() -> None:
    router = respx.MockRouter()
    route = router.get("https://x.example/servis/pin_kontrol.php").respond(text="OK|1| |x")
    znet = Znet(
        ZnetAccount("https://x.example", "k&d=1", "p@s s/?#%"), answering(router), SystemClock()
    )
    await znet.ask("1&sifre=x")
    params = route.calls.last.request.url.params
    assert (params["kod"], params["sifre"], params["tahsilat_api_islem_id"]) == (
        "k&d=1",
        "p@s s/?#%",
        "1&sifre=x",
    )


async def test_blanks_about_a_reference_are_not_asked_with() -> None:
    """A panel would not know it, while everything else here takes it for the same reference."""
    router = respx.MockRouter()
    route = router.get("https://x.example/servis/pin_kontrol.php").respond(text="OK|1| |x")
    znet = Znet(ZnetAccount("https://x.example", "k", "s"), answering(router), SystemClock())
    await znet.ask(" 1760885915220128\r\n")
    assert route.calls.last.request.url.params["tahsilat_api_islem_id"] == "1760885915220128"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (answer(b"OK|2|P|x"), Completed(Pin("P"), "x")),
        (answer(b"", headers="Content-Type: text/html\r\n"), Blocked("empty_answer")),
        (
            answer(b"x", status="302 Found", headers="Location: https://elsewhere.example/\r\n"),
            Blocked("redirect"),
        ),
        (
            answer(b"x", status="302 Found", headers="Location: http://[bad\r\n"),
            Blocked("redirect"),
        ),
        (answer(b"x", status="429 Slow down", headers="Retry-After: 9\r\n"), Busy("http_429", 9.0)),
        (answer(b"OK|2|P|x", status="500 Oops"), Busy("http_500")),
        (b"nonsense\r\n\r\n", Unreachable("protocol_error")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\nOK|2|P|x", Unreachable("protocol_error")),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", Unreachable("protocol_error")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nOK|\r\n5\r\n2|P|x\r\n0\r\n\r\n",
            Completed(Pin("P"), "x"),
        ),
        (
            answer(gzip.compress(b"OK|2|P|x", mtime=0), headers="Content-Encoding: gzip\r\n"),
            Completed(Pin("P"), "x"),
        ),
        (
            answer(gzip.compress(b"0" * 50_000_000, mtime=0), headers="Content-Encoding: gzip\r\n"),
            Garbled("bad_encoding"),
        ),
    ],
)
async def test_whatever_a_server_says_is_an_answer(data: bytes, expected: Answer) -> None:
    """B1, D6."""
    reply, _ = await ask_server(says(data))
    assert reply.answer == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nOK|2|AB12-CD",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\nOK|2|AB12-",
    ],
    ids=["closed at once", "in the head", "in the body", "in a chunk"],
)
async def test_a_cut_connection_brings_no_half_pin(data: bytes) -> None:
    """B1: whether the question arrived is unknown; nothing is concluded."""
    reply, server = await ask_server(says(data, then=lambda w: w.close()))
    assert isinstance(reply.answer, Unreachable)
    assert len(server.requests) == 1, (
        "on a fresh connection a lost answer is not asked for again at once"
    )


async def test_a_reset_is_an_answer_too() -> None:
    reply, _ = await ask_server(says(b"", then=lambda w: w.transport.abort()))
    assert isinstance(reply.answer, Unreachable)


async def test_an_answer_without_length_that_stops_inside_the_pin_is_garbled() -> None:
    """Closed by the server, this is a whole answer to HTTP.

    Only its own form shows that it is cut.
    """
    reply, _ = await ask_server(
        says(b"HTTP/1.0 200 OK\r\n\r\nOK|2|AB12-CD", then=lambda w: w.close())
    )
    assert reply.answer == Garbled("cut_short")


@pytest.mark.slow
async def test_a_drip_ends_at_the_total_timeout() -> None:
    """D5: httpx's own timeouts are per read, and a drip beats them for ever."""

    async def drip(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    reply, _ = await ask_server(drip, timeout=0.3)
    assert reply.answer == Unreachable("timeout")


async def test_a_stall_ends_at_the_total_timeout() -> None:
    async def stall(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await asyncio.sleep(60)

    reply, _ = await ask_server(stall, timeout=0.2)
    assert reply.answer == Unreachable("timeout")


async def test_a_flood_is_cut_off() -> None:
    sent = 0

    async def flood(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nOK|2|P|")
        while sent < 200_000_000:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    reply, _ = await ask_server(flood, max_body=1000)
    assert reply.answer == Garbled("too_long")
    assert sent < 50_000_000


async def test_nobody_there_is_tried_twice_and_no_more() -> None:
    async with RawServer(says(b"")) as server:
        port = server.port
    znet = client(f"http://127.0.0.1:{port}")
    assert await znet.ask("1") == Reply(Unreachable("connect_error"), 2)
    await znet.aclose()


@pytest.mark.slow
async def test_cancelled_calls_leak_no_connection() -> None:
    """D4: httpcore leaks a pool's places when calls are cancelled while waiting.

    Here there is no pool.
    """

    async def slow(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(answer(WAITING))

    async with RawServer(slow) as server:
        znet = client(f"http://127.0.0.1:{server.port}")
        for n in range(30):
            tasks = [asyncio.create_task(znet.ask(str(i))) for i in range(20)]
            await asyncio.sleep(0.001 * (n % 12))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        replies = await asyncio.gather(*[znet.ask(str(i)) for i in range(10)])
        await znet.aclose()
    assert {reply.answer for reply in replies} == {Waiting("bekleniyor")}


async def test_no_cookie_is_ever_sent_back() -> None:
    """B2: a session of one account must not answer for another.

    Addressed by name, since jars treat numbers otherwise.
    """
    async with RawServer(
        says(answer(WAITING, headers="Set-Cookie: PHPSESSID=abc; Path=/\r\n"))
    ) as server:
        znet = client(f"http://localhost:{server.port}")
        await znet.ask("1")
        await znet.ask("2")
        await znet.aclose()
        assert len(server.requests) == 2
        assert not any(b"cookie" in r.lower() for r in server.requests)


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """F10."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    reply, _ = await ask_server(says(answer(WAITING)))
    assert reply.answer == Waiting("bekleniyor")


async def test_no_failure_shows_the_login(caplog: pytest.LogCaptureFixture) -> None:
    """C3: neither httpx's log at its most talkative, nor an answer, nor a repr, nor a raised error."""
    caplog.set_level(logging.WARNING)
    shown = [repr(account("http://127.0.0.1:1"))]
    for data in (
        b"",
        b"nonsense\r\n\r\n",
        answer(b"x", status="302 F", headers="Location: /?sifre=SIFRE-CANARY\r\n"),
    ):
        reply, _ = await ask_server(says(data, then=lambda w: w.close()))
        shown.append(repr(reply))
    assert "CANARY" not in " ".join(shown) + caplog.text


async def test_a_client_error_of_any_kind_is_an_answer() -> None:
    class Broken(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise ValueError(str(request.url))

    znet = Znet(ZnetAccount("https://x.example", "k", "s"), Broken(), SystemClock())
    assert await znet.ask("1") == Reply(Unreachable("client_error"), 1)
    await znet.aclose()


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        ("https://x.example", "/servis/pin_kontrol.php"),
        ("https://x.example/", "/servis/pin_kontrol.php"),
        ("https://x.example/servis", "/servis/pin_kontrol.php"),
        ("https://x.example/servis/", "/servis/pin_kontrol.php"),
        ("https://x.example/servis/pin_kontrol.php", "/servis/pin_kontrol.php"),
        ("https://x.example/panel/servis", "/panel/servis/pin_kontrol.php"),
        ("https://x.example/panel", "/panel/servis/pin_kontrol.php"),
        ("https://x.example/myservis", "/myservis/servis/pin_kontrol.php"),
    ],
)
async def test_an_address_that_holds_the_path_already_is_taken_as_meant(
    base_url: str, asked: str
) -> None:
    router = respx.MockRouter(assert_all_called=False)
    paths = []

    def note(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, content=WAITING)

    router.route().mock(side_effect=note)
    znet = Znet(ZnetAccount(base_url, "k", "s"), answering(router), SystemClock())
    assert (await znet.ask("1")).answer == Waiting("bekleniyor")
    await znet.balance()
    await znet.aclose()
    assert paths == [asked, asked.replace("pin_kontrol", "bakiye_kontrol")]


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "503 Service Unavailable"])
async def test_an_error_page_that_repeats_the_address_shows_no_login(status: str) -> None:
    """Words that look like no code: such are hidden anyway."""
    kod, sifre = "dealer", "hunter"
    page = f"<html><title>No {kod} for {sifre}</title>".encode()
    async with RawServer(says(answer(page, status=status))) as server:
        login = ZnetAccount(f"http://127.0.0.1:{server.port}", kod, sifre)
        znet = Znet(login, FreshConnections(CONTEXT), SystemClock())
        reply = await znet.ask("1760885915220128")
        await znet.aclose()
    assert isinstance(reply.answer, (Blocked, Busy))
    assert reply.answer.message == "No **** for ****"


async def test_a_login_in_an_address_is_blotted_out_too() -> None:
    account = ZnetAccount("https://x.example", "a b&c", "p/w d")
    said = "bad address ?kod=a%20b%26c&sifre=p%2Fw+d and a+b%26c"
    masked = account.masked(Garbled("not_understood", said))
    assert isinstance(masked, Garbled)
    assert masked.message == "bad address ?kod=****&sifre=**** and ****"
