"""Addresses that come from the shop's tables: other people's input."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import httpx
import pytest

from order_monitor.core.answer import Blocked, Waiting
from order_monitor.providers.http.address_guard import (
    ForbiddenHostError,
    is_forbidden_host,
    is_public,
    public_addresses,
)
from order_monitor.providers.http.transport import FreshConnections
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock
from tests.support.servers import RawServer, answer, says

CONTEXT = ssl.create_default_context()


@pytest.mark.parametrize(
    "address",
    [
        *(
            "8.8.8.8",
            "93.184.216.34",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
        ),
        *(
            "198.20.0.0",
            "223.255.255.255",
            "100.63.255.255",
            "100.128.0.0",
            "169.253.255.255",
            "192.88.98.255",
            "1.1.1.1",
        ),
        *(
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2a02:6b8::1",
            "2001:4860:4860::8888",
            "2002:808:808::1",
        ),
        *("2000::1", "3ffe:ffff::1", "2001:200::1"),
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)
    assert not is_forbidden_host(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        *(
            "2001:0:4136:e378:8000:63bf:f7f7:f7f7",
            "2001::1",
            "::ffff:192.0.0.1",
            "::ffff:169.254.169.254",
        ),
        *(
            "2002:6440:1::",
            "2002:e000:1::",
            "64:ff9b::c0a8:101",
            "64:ff9b::6440:1",
            "100:0:0:2::1",
            "fbff::1",
            "ff00::1",
        ),
        *(
            "192.0.0.170",
            "192.0.0.171",
            "255.255.255.254",
            "224.0.0.251",
            "fe80::5efe:7f00:1",
            "2001:1ff:ffff::1",
        ),
        *(
            "64:ff9b:1::1",
            "64:ff9b:1:ffff:ffff:ffff:808:808",
            "fec0::1",
            "feff::1",
            "febf::1",
            "fdff::1",
        ),
        *(
            "192.88.99.1",
            "192.0.0.8",
            "192.0.0.9",
            "192.31.196.1",
            "192.52.193.1",
            "192.175.48.1",
            "198.18.0.1",
            "198.19.255.255",
        ),
        *(
            "198.51.100.1",
            "203.0.113.1",
            "240.0.0.1",
            "0.1.2.3",
            "100.127.255.255",
            "239.255.255.255",
            "172.31.255.255",
        ),
        *(
            "100::1",
            "100:0:0:1::1",
            "2001:2::1",
            "2001:db8::1",
            "2001:10::1",
            "2001:20::1",
            "2001:30::1",
            "2001:1::1",
            "2001:100::1",
        ),
        *(
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "2620:4f:8000::1",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
            "::127.0.0.1",
            "4000::1",
            "1::1",
        ),
        *(
            "2002:c0a8:101::1",
            "2002:c058:6301::1",
            "64:ff9b::a9fe:a9fe",
            "ff0e::1",
            "2001:0:4136:e378:8000:63bf:f5ff:fffe",
        ),
    ],
)
def test_special_addresses_also_when_wrapped_in_others(address: str) -> None:
    assert not is_public(address)
    assert is_forbidden_host(address)


@pytest.mark.parametrize(
    ("host", "forbidden"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("db.localhost", True),
        ("printer.local", True),
        ("metadata.internal", True),
        ("[::1]", True),
        ("localhost.localdomain", True),
        ("ip6-localhost", True),
        ("router.home.arpa.", True),
        ("DB.LOCALDOMAIN", True),
        ("1.0.0.127.in-addr.arpa", True),
        ("home.arpa.example.com", False),
        ("bayi.example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_names_for_this_machine(host: str, *, forbidden: bool) -> None:
    assert is_forbidden_host(host) is forbidden


async def test_a_name_that_leads_home_is_not_called() -> None:
    """The check is made on the address connected to: a harmless name that resolves to loopback gets
    no connection.
    """
    async with RawServer(says(answer(b"OK|1| |x"))) as server:
        account = ZnetAccount(f"http://localhost:{server.port}", "k", "s")
        guarded = Znet(account, FreshConnections(CONTEXT, public_addresses), SystemClock())
        assert (await guarded.ask("1")).answer == Blocked("private_address")
        await guarded.aclose()
        assert server.connections == 0
        free = Znet(account, FreshConnections(CONTEXT), SystemClock())
        assert (await free.ask("1")).answer == Waiting("x")
        await free.aclose()


Resolver = Callable[..., Awaitable[list[tuple[object, ...]]]]


def resolves(monkeypatch: pytest.MonkeyPatch, getaddrinfo: Resolver) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def test_the_address_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second look-up would lead elsewhere, but there is none."""
    looked_up: list[str] = []
    connected: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        looked_up.append(host)
        first = [("93.184.216.34", port), ("93.184.216.35", port)]
        return [
            (0, 0, 0, "", place)
            for place in (first if len(looked_up) == 1 else [("127.0.0.1", port)])
        ]

    async def create_connection(factory: object, host: str, port: int, **_: object) -> None:
        connected.append(host)
        raise ConnectionRefusedError

    resolves(monkeypatch, getaddrinfo)
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    transport = FreshConnections(CONTEXT, public_addresses)
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(httpx.Request("GET", "https://rebind.example/"))
    assert (looked_up, connected) == (["rebind.example"], ["93.184.216.34", "93.184.216.35"])
    with pytest.raises(ForbiddenHostError):
        await transport.handle_async_request(httpx.Request("GET", "https://rebind.example/"))
    assert len(connected) == 2


async def test_one_private_address_among_public_ones_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (a, port)) for a in ("8.8.8.8", "10.0.0.1")]

    resolves(monkeypatch, getaddrinfo)
    with pytest.raises(ForbiddenHostError):
        await public_addresses("mixed.example", 443)


async def test_names_that_do_not_resolve_in_time_are_connect_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object, **__: object) -> list[tuple[object, ...]]:
        await asyncio.Event().wait()
        return []

    async def unknown(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise OSError(-2, "Name or service not known")

    resolves(monkeypatch, never)
    request = httpx.Request(
        "GET", "https://slow.example/", extensions={"timeout": {"connect": 0.01}}
    )
    with pytest.raises(httpx.ConnectTimeout):
        await FreshConnections(CONTEXT, public_addresses).handle_async_request(request)
    resolves(monkeypatch, unknown)
    with pytest.raises(httpx.ConnectError):
        await public_addresses("nowhere.example", 443)
