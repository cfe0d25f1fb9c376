"""Asking through a proxy: what is asked of it, and that what it says itself is the network's fault,
never an answer.
"""

import asyncio
import functools

import httpx
import pytest
import trustme

from order_monitor.core.answer import Answer, Blocked, Busy, Cancelled, Completed, Unreachable
from order_monitor.core.judge import Fault, Judge
from order_monitor.core.pin import Pin
from order_monitor.core.proxy import parse_proxy
from order_monitor.providers.http.address_guard import is_loopback, public_addresses
from order_monitor.providers.http.transport import FreshConnections, ProxyRoute, WireExchange
from order_monitor.providers.provider import Balance, NoBalance
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock
from tests.support.connections import CA, client_context, own, referans_of, server_context
from tests.support.servers import Handler, ProxyServer, RawServer, answer

LOGIN = ("user", "p@s:s/%")
WRITTEN = "user:p%40s%3As%2F%25@"
PANEL = "panel.example"
SCHEMES = ["http", "https", "socks5", "socks5h"]
PAGE = b"<html><body>OK|2|PROXY-PIN|x</body></html>"


async def answers(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(own(referans_of(head)), headers="Content-Type: text/html\r\n"))


async def resolves(host: str, port: int) -> list[str]:
    """Know the proxy, and some public addresses for everything else: nothing there is ever
    connected to.
    """
    return ["127.0.0.1"] if is_loopback(host) else ["2001:4860::1", "93.184.216.34"]


def znet(url: str, proxy: str, *, guarded: bool = False, timeout: float = 5.0) -> Znet:
    proxy_route = ProxyRoute(
        parse_proxy(proxy), resolves, takes_names=not guarded and not proxy.startswith("socks5:")
    )
    resolve = functools.partial(public_addresses, resolve=resolves) if guarded else resolves
    account = ZnetAccount(
        url, "KOD-CANARY", "SIFRE-CANARY", timeout=timeout, connect_timeout=timeout / 2
    )
    return Znet(account, FreshConnections(client_context(), resolve, proxy_route), SystemClock())


async def ask(
    url: str, proxy: str, *, guarded: bool = False, seconds: float = 5.0, reference: str = "1"
) -> Answer:
    client = znet(url, proxy, guarded=guarded, timeout=seconds)
    reply = await client.ask(reference)
    await client.aclose()
    return reply.answer


@pytest.mark.slow
@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_the_panel_is_asked_through_each_kind_of_proxy(
    scheme: str, login: tuple[str, str] | None, *, tls: bool
) -> None:
    panel_tls = server_context(CA.issue_cert(PANEL)) if tls else None
    proxy_tls = server_context(CA.issue_cert("localhost")) if scheme == "https" else None
    async with (
        RawServer(answers, tls=panel_tls) as panel,
        ProxyServer(panel.port, login=login, tls=proxy_tls) as proxy,
    ):
        url = f"http{'s' if tls else ''}://{PANEL}"
        client = znet(url, f"{scheme}://{WRITTEN if login else ''}localhost:{proxy.port}")
        told = await asyncio.gather(*[client.ask(str(n)) for n in range(3)])
        await client.aclose()
    assert [reply.answer for reply in told] == [
        Completed(Pin(f"PIN-{n}"), "tamam") for n in range(3)
    ]
    assert (panel.connections, len(proxy.asked)) == (3, 3), (
        "a connection of its own for each question"
    )
    is_forwarded = not tls and scheme.startswith("http")
    host = "93.184.216.34" if scheme == "socks5" else PANEL
    assert set(proxy.asked) == {host if is_forwarded else f"{host}:{443 if tls else 80}"}
    assert all(f"\r\nhost: {PANEL}\r\n".encode() in head.lower() for head in panel.requests)
    assert not any(b"proxy-authorization" in head.lower() for head in panel.requests)
    if tls:
        assert not any(b"CANARY" in head for head in proxy.heads)


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_where_private_addresses_are_forbidden_the_proxy_is_given_a_checked_one(
    scheme: str, *, tls: bool
) -> None:
    """A name would be looked up by the proxy, and could lead anywhere."""
    panel_tls = server_context(CA.issue_cert(PANEL)) if tls else None
    proxy_tls = server_context(CA.issue_cert("localhost")) if scheme == "https" else None
    async with (
        RawServer(answers, tls=panel_tls) as panel,
        ProxyServer(panel.port, tls=proxy_tls) as proxy,
    ):
        url, by = f"http{'s' if tls else ''}://{PANEL}", f"{scheme}://localhost:{proxy.port}"
        assert await ask(url, by, guarded=True) == Completed(Pin("PIN-1"), "tamam")
        assert proxy.asked == [f"93.184.216.34:{443 if tls else 80}"]


async def test_a_name_that_leads_to_a_private_address_is_not_asked_for() -> None:
    async def inside(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.7"]

    async with RawServer(answers) as panel, ProxyServer(panel.port) as proxy:
        proxy_route = ProxyRoute(parse_proxy(f"http://127.0.0.1:{proxy.port}"), takes_names=False)
        resolve = functools.partial(public_addresses, resolve=inside)
        account = ZnetAccount(f"https://{PANEL}", "k", "s")
        client = Znet(
            account, FreshConnections(client_context(), resolve, proxy_route), SystemClock()
        )
        assert (await client.ask("1")).answer == Blocked("private_address")
        await client.aclose()
    assert proxy.asked == []


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "LOCALHOST.",
            "panel.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0.0.0.0",
        ),
        *("::1", "[::1]", "::ffff:127.0.0.1", "::"),
    ],
)
def test_this_machine_by_any_of_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", [PANEL, "localhost.example", "128.0.0.1", "10.0.0.7", "::2", "", "127.0.0.1.example"]
)
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_no_proxy_stands_between_this_machine_and_itself(host: str) -> None:
    async with RawServer(answers) as panel, ProxyServer(panel.port) as proxy:
        by = f"http://127.0.0.1:{proxy.port}"
        assert await ask(f"http://{host}:{panel.port}", by) == Completed(Pin("PIN-1"), "tamam")
    assert proxy.asked == []


@pytest.mark.slow
async def test_a_name_that_was_looked_up_here_and_is_this_machine_needs_no_proxy_either() -> None:
    async def home(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with RawServer(answers) as panel, ProxyServer(panel.port) as proxy:
        proxy_route = ProxyRoute(parse_proxy(f"socks5://127.0.0.1:{proxy.port}"), takes_names=False)
        account = ZnetAccount(f"http://{PANEL}:{panel.port}", "k", "s")
        client = Znet(account, FreshConnections(client_context(), home, proxy_route), SystemClock())
        assert (await client.ask("1")).answer == Completed(Pin("PIN-1"), "tamam")
        await client.aclose()
    assert proxy.asked == []


def says(status: str, body: bytes = PAGE, headers: str = "") -> bytes:
    return answer(body, status=status, headers=headers)


CONNECT_REFUSED = {
    "407": (says("407 Proxy Authentication Required"), "proxy_login"),
    "403": (says("403 Forbidden"), "proxy_refused"),
    "405": (says("405 Method Not Allowed"), "proxy_refused"),
    "302": (says("302 Found", headers="Location: http://login.example/\r\n"), "proxy_refused"),
    "502": (says("502 Bad Gateway"), "proxy_failed"),
    "503": (says("503 Service Unavailable", headers="Retry-After: 3600\r\n"), "proxy_failed"),
    "504": (says("504 Gateway Timeout"), "proxy_failed"),
    "announced": (b"HTTP/1.1 100 Continue\r\n\r\n" + says("502 Bad Gateway"), "proxy_failed"),
    "old": (b"HTTP/1.0 403\n\nno", "proxy_refused"),
    "no HTTP": (b"220 smtp.example\r\n\r\n", "proxy_protocol_error"),
    "nothing": (b"", "proxy_refused"),
    "half a head": (b"HTTP/1.1 200 OK\r\nX: y", "proxy_protocol_error"),
    "a page behind its yes": (b"HTTP/1.1 200 OK\r\n\r\n" + PAGE, "proxy_protocol_error"),
    "a head without end": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, "proxy_protocol_error"),
    "announcements without end": (b"HTTP/1.1 103 X\r\n\r\n" * 50_000, "proxy_protocol_error"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("said", "why"), CONNECT_REFUSED.values(), ids=CONNECT_REFUSED.keys())
async def test_what_a_proxy_says_in_place_of_a_tunnel(said: bytes, why: str) -> None:
    async with RawServer(answers) as panel, ProxyServer(panel.port) as proxy:
        proxy.says = said
        told = await ask(f"https://{PANEL}", f"http://127.0.0.1:{proxy.port}")
    assert told == Unreachable(why)
    assert panel.connections == 0


FORWARDED = {
    "407": (says("407 Proxy Authentication Required"), "proxy_login"),
    "its page for a rule": (says("403 Forbidden"), "proxy_refused"),
    "its page as if all were well": (says("200 OK"), "proxy_refused"),
    "its page behind a blank": (
        says("200 OK", b"\r\n \xef\xbb\xbf<!DOCTYPE html><p>blocked"),
        "proxy_refused",
    ),
    "a login elsewhere": (
        says("302 Found", b"", "Location: http://login.example/\r\n"),
        "proxy_refused",
    ),
    "squid": (says("200 OK", b"ERR", "X-Squid-Error: ERR_ACCESS_DENIED 0\r\n"), "proxy_refused"),
    "RFC 9209": (
        says("200 OK", b"OK|3| |x", "Proxy-Status: p; error=dns_error\r\n"),
        "proxy_refused",
    ),
    "500": (says("500 Internal Server Error", b""), "proxy_failed"),
    "502": (says("502 Bad Gateway", b"OK|3| |x"), "proxy_failed"),
    "503": (says("503 Service Unavailable", b"", "Retry-After: 3600\r\n"), "proxy_failed"),
    "504": (says("504 Gateway Timeout"), "proxy_failed"),
    "400": (says("400 Bad Request", b"3|bad"), "proxy_refused"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("said", "why"), FORWARDED.values(), ids=FORWARDED.keys())
async def test_what_a_proxy_says_in_place_of_an_answer(said: bytes, why: str) -> None:
    """Nothing is encrypted, and the proxy is handed the question: what it says must not be read as
    the panel's.
    """
    async with RawServer(answers) as panel, ProxyServer(panel.port) as proxy:
        proxy.says = said
        client = znet(f"http://{PANEL}", f"http://127.0.0.1:{proxy.port}")
        assert (await client.ask("1")).answer == Unreachable(why)
        assert await client.balance() == NoBalance(why)
        await client.aclose()


@pytest.mark.slow
async def test_what_a_panel_says_through_a_proxy_is_its_own() -> None:
    said = iter(
        [
            answer(b"OK|3| |yok", headers="Via: 1.1 p\r\nProxy-Status: p; received-status=200\r\n"),
            answer(b"slow", status="429 Too Many", headers="Retry-After: 7\r\n"),
            answer(b"<br />\n<b>Warning</b>: x in /a.php on line <b>3</b><br />\nOK|2|P-1234|x"),
            answer(b"OK|12.5|0"),
        ]
    )

    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(next(said))

    async with RawServer(handler) as panel, ProxyServer(panel.port) as proxy:
        client = znet(f"http://{PANEL}", f"http://127.0.0.1:{proxy.port}")
        assert (await client.ask("1")).answer == Cancelled("yok")
        assert (await client.ask("1")).answer == Busy("http_429", 7.0)
        assert (await client.ask("1")).answer == Completed(Pin("P-1234"), "x")
        assert await client.balance() == Balance("12.5")
        await client.aclose()


@pytest.mark.slow
async def test_in_a_tunnel_the_panels_errors_are_its_own() -> None:
    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer(b"", status="503 Later", headers="Retry-After: 9\r\n"))

    async with (
        RawServer(handler, tls=server_context(CA.issue_cert(PANEL))) as panel,
        ProxyServer(panel.port) as proxy,
    ):
        assert await ask(f"https://{PANEL}", f"http://127.0.0.1:{proxy.port}") == Busy(
            "http_503", 9.0
        )


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
@pytest.mark.parametrize("login", ["", "user:wrong@"])
async def test_a_login_that_is_not_accepted(scheme: str, login: str) -> None:
    async with RawServer(answers) as panel, ProxyServer(panel.port, login=LOGIN) as proxy:
        told = await ask(f"https://{PANEL}", f"{scheme}://{login}127.0.0.1:{proxy.port}")
    assert told == Unreachable("proxy_login")
    assert panel.connections == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "why"),
    [(2, "proxy_refused"), (1, "proxy_failed"), (3, "proxy_failed"), (5, "proxy_failed")],
)
async def test_what_a_socks_proxy_refuses(reply: int, why: str) -> None:
    async with RawServer(answers) as panel, ProxyServer(panel.port) as proxy:
        proxy.socks_reply = reply
        assert await ask(f"https://{PANEL}", f"socks5h://127.0.0.1:{proxy.port}") == Unreachable(
            why
        )


def closes(said: bytes) -> Handler:
    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    return handler


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_proxy_that_is_not_there(scheme: str) -> None:
    async with RawServer(closes(b"")) as server:
        port = server.port
    assert await ask(f"https://{PANEL}", f"{scheme}://127.0.0.1:{port}") == Unreachable(
        "proxy_unreachable"
    )


@pytest.mark.slow
async def test_a_proxy_that_is_no_such_one() -> None:
    """A web server asked for SOCKS, a plain one for TLS, and one whose certificate is not trusted."""
    async with RawServer(answers, greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        assert await ask(f"https://{PANEL}", f"socks5h://127.0.0.1:{server.port}") == Unreachable(
            "proxy_protocol_error"
        )
        assert await ask(f"https://{PANEL}", f"https://127.0.0.1:{server.port}") == Unreachable(
            "proxy_unreachable"
        )
    other = server_context(trustme.CA().issue_cert("localhost"))
    async with ProxyServer(1, tls=other) as proxy:
        told = await ask(f"https://{PANEL}", f"https://localhost:{proxy.port}")
        assert told == Unreachable("proxy_unreachable")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_proxy_that_says_nothing(scheme: str) -> None:
    async def silent(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await asyncio.Event().wait()

    async with RawServer(silent) as server:
        by = f"{scheme}://127.0.0.1:{server.port}"
        assert await ask(f"https://{PANEL}", by, seconds=0.4) == Unreachable("proxy_failed")


@pytest.mark.slow
async def test_what_is_said_before_the_question_in_a_tunnel_is_no_answer() -> None:
    """What was said to the proxy is no question yet."""
    async with (
        RawServer(answers, greeting=answer(b"OK|2|STRAY-PIN|x")) as panel,
        ProxyServer(panel.port) as proxy,
    ):
        proxy_route = ProxyRoute(parse_proxy(f"socks5h://127.0.0.1:{proxy.port}"))
        request = httpx.Request("GET", f"http://{PANEL}/")
        wire = await FreshConnections(client_context(), resolves, proxy_route).connect(
            request.url, 5.0
        )
        while not wire.spoke_first:
            await asyncio.sleep(0.001)
        with pytest.raises(httpx.RemoteProtocolError, match="before it was asked"):
            await WireExchange(wire).ask(request)
        wire.close()
        while proxy.is_busy or panel.is_busy:
            await asyncio.sleep(0.001)
    assert panel.requests == []


@pytest.mark.parametrize(
    "why", ["proxy_refused", "proxy_login", "proxy_failed", "resolver_failed", "name_not_found"]
)
def test_a_proxys_failure_is_never_an_orders_own(why: str) -> None:
    """Even if other orders are answered in between."""
    judge = Judge()
    for _ in range(5):
        assert judge.judge("a", Unreachable(why), 1.0, due=1.0, limit=5) is Fault.NETWORK
        judge.understood("b", 2.0)
    assert judge.judge("a", Unreachable("no_files"), 3.0, due=1.0, limit=5) is Fault.OURS
