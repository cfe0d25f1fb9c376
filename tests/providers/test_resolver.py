"""Names to addresses: few look-ups, no stale answer while a fresh one can be had, and the race
between several addresses.
"""

import asyncio
import functools
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import httpx
import pytest

from order_monitor.core.answer import Blocked, Completed, Unreachable
from order_monitor.core.pin import Pin
from order_monitor.providers.http.address_guard import public_addresses
from order_monitor.providers.http.failures import ExhaustedError, NotResolvedError
from order_monitor.providers.http.resolver import (
    LIFE,
    PATIENCE,
    REFRESH,
    STALE,
    Resolver,
    addresses_of,
)
from order_monitor.providers.http.transport import RACE_DELAY, FreshConnections
from order_monitor.providers.http.wire import Wire
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock
from tests.simulation.loop import run
from tests.support.connections import CA, client_context, own, referans_of, server_context
from tests.support.servers import RawServer, answer

FIRST, SECOND = ["93.184.216.34"], ["93.184.216.35"]


class Dns:
    """A resolver that takes ``takes`` seconds, and says what it is told to, or fails."""

    def __init__(self, *, takes: float = 0.1) -> None:
        self.takes = takes
        self.says: list[str] | str = FIRST
        self.asked: list[str] = []
        self.most_at_once = 0
        self._at_once = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(self.takes)
        finally:
            self._at_once -= 1
        if isinstance(self.says, str):
            raise NotResolvedError(self.says)
        return self.says


def in_virtual_time(
    test: Callable[[Dns, Resolver], Coroutine[Any, Any, None]],
) -> Callable[[], None]:
    def runs() -> None:
        async def main() -> None:
            dns = Dns()
            await test(dns, Resolver(dns, asyncio.get_running_loop().time))

        run(main())

    runs.__name__, runs.__doc__ = test.__name__, test.__doc__
    return runs


async def timed(call: Coroutine[Any, Any, list[str]]) -> tuple[list[str], float]:
    began = asyncio.get_running_loop().time()
    return await call, round(asyncio.get_running_loop().time() - began, 3)


@in_virtual_time
async def test_five_hundred_calls_at_once_take_one_look_up(dns: Dns, resolve: Resolver) -> None:
    found = await asyncio.gather(*[timed(resolve("panel.example", 443)) for _ in range(500)])
    assert found == [(FIRST, 0.1)] * 500
    assert len(dns.asked) == 1


@pytest.mark.slow
@in_virtual_time
async def test_hours_of_calls_takes_few_look_ups_and_waits_for_the_first_alone(
    dns: Dns, resolve: Resolver
) -> None:
    dns.takes = 5.0
    assert (await timed(resolve("panel.example", 443)))[1] == 5.0
    for _ in range(10_000):
        assert await timed(resolve("panel.example", 443)) == (FIRST, 0)
        await asyncio.sleep(1)
    assert len(dns.asked) <= 10_000 / REFRESH


@pytest.mark.parametrize("every", [0.5, 7, 25, 45, 59, 600])
def test_a_change_of_address_is_seen_within_a_minute(every: float) -> None:
    async def main() -> None:
        dns = Dns()
        resolve = Resolver(dns, asyncio.get_running_loop().time)
        for _ in range(7):
            await resolve("panel.example", 443)
            await asyncio.sleep(every)
        dns.says, changed_at = SECOND, asyncio.get_running_loop().time()
        while await resolve("panel.example", 443) == FIRST:
            await asyncio.sleep(min(every, 1))
        assert asyncio.get_running_loop().time() - changed_at < 60

    run(main())


@pytest.mark.slow
@in_virtual_time
async def test_while_the_resolver_is_away_what_was_known_serves_for_an_hour(
    dns: Dns, resolve: Resolver
) -> None:
    await resolve("panel.example", 443)
    dns.says = "resolver_failed"
    while asyncio.get_running_loop().time() < STALE - 5:
        found, took = await timed(resolve("panel.example", 443))
        assert (found, took <= 0.1) == (FIRST, True)
        await asyncio.sleep(1)
    assert len(dns.asked) <= STALE / 5
    await asyncio.sleep(10)
    with pytest.raises(NotResolvedError, match="resolver_failed"):
        await resolve("panel.example", 443)
    dns.says = SECOND
    assert await resolve("panel.example", 443) == SECOND


@in_virtual_time
async def test_a_resolver_that_hangs_keeps_a_known_host_waiting_for_a_moment_alone(
    dns: Dns, resolve: Resolver
) -> None:
    await resolve("panel.example", 443)
    await asyncio.sleep(LIFE)
    dns.takes = 1e6
    assert await timed(resolve("panel.example", 443)) == (FIRST, PATIENCE)
    waited = 0.0
    for _ in range(100):
        waited += (await timed(resolve("panel.example", 443)))[1]
        await asyncio.sleep(1)
    assert waited <= 100 / 5 * PATIENCE
    with pytest.raises(NotResolvedError, match="resolver_failed"):
        await asyncio.wait_for(resolve("other.example", 443), 60)
    dns.takes, dns.says = 0.1, SECOND
    await asyncio.sleep(30)
    assert await resolve("panel.example", 443) == SECOND


@in_virtual_time
async def test_that_a_name_is_gone_is_an_answer(dns: Dns, resolve: Resolver) -> None:
    await resolve("panel.example", 443)
    dns.says = "name_not_found"
    await asyncio.sleep(LIFE)
    for _ in range(3):
        with pytest.raises(NotResolvedError, match="name_not_found"):
            await resolve("panel.example", 443)


@in_virtual_time
async def test_whoever_gives_up_does_not_take_the_look_up_from_the_others(
    dns: Dns, resolve: Resolver
) -> None:
    calls = [asyncio.create_task(resolve("panel.example", 443)) for _ in range(3)]
    await asyncio.sleep(0.05)
    calls[0].cancel()
    assert await asyncio.gather(*calls[1:]) == [FIRST, FIRST]
    assert len(dns.asked) == 1


@pytest.mark.slow
@in_virtual_time
async def test_hosts_are_looked_up_a_few_at_a_time_and_the_oldest_are_forgotten(
    dns: Dns, resolve: Resolver
) -> None:
    await asyncio.gather(*[resolve(f"h{n}.example", 443) for n in range(1200)])
    assert dns.most_at_once == 4
    asked = len(dns.asked)
    await asyncio.gather(*[resolve(f"h{n}.example", 443) for n in range(1150, 1200)])
    assert len(dns.asked) == asked, "the newest are known"
    await asyncio.gather(*[resolve(f"h{n}.example", 443) for n in range(200)])
    assert len(dns.asked) == asked + 200, "the earlier ones are looked up again"


@in_virtual_time
async def test_an_address_needs_no_look_up(dns: Dns, resolve: Resolver) -> None:
    for address in ("127.0.0.1", "::1", "fe80::1%eth0"):
        assert await resolve(address, 443) == [address]
    assert dns.asked == []


GAI = {
    socket.EAI_NONAME: "name_not_found",
    socket.EAI_NODATA: "name_not_found",
    socket.EAI_AGAIN: "resolver_failed",
    socket.EAI_FAIL: "resolver_failed",
    socket.EAI_MEMORY: "resolver_failed",
}


@pytest.mark.parametrize(("code", "why"), GAI.items())
async def test_no_such_name_is_told_from_a_resolver_that_failed(
    code: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> Any:
        raise socket.gaierror(code, "x")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fails)
    with pytest.raises(NotResolvedError, match=why):
        await addresses_of("panel.example", 443)
    znet = Znet(
        ZnetAccount("https://panel.example", "k", "s"),
        FreshConnections(client_context()),
        SystemClock(),
    )
    reply = await znet.ask("1")
    assert (reply.answer, reply.requests) == (Unreachable(why), 1)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(24, "x"), "no_files"),
        (RuntimeError("can't start new thread"), "no_threads"),
        (OSError(12, "x"), "no_memory"),
    ],
)
async def test_what_keeps_the_resolver_from_asking_is_ours(
    error: Exception, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fails)
    with pytest.raises(ExhaustedError, match=why):
        await addresses_of("panel.example", 443)


@pytest.mark.parametrize("host", ["", ".", "a..example", f"{'a' * 64}.example", "\udcff.example"])
async def test_what_is_no_name_leads_nowhere(host: str) -> None:
    with pytest.raises(NotResolvedError, match="name_not_found"):
        await Resolver()(host, 443)


@pytest.mark.slow
async def test_a_resolver_that_is_too_slow_is_what_is_named() -> None:
    async def never(host: str, port: int) -> list[str]:
        return await asyncio.Future()

    account = ZnetAccount("https://panel.example", "k", "s", timeout=2.0, connect_timeout=0.05)
    znet = Znet(account, FreshConnections(client_context(), Resolver(never)), SystemClock())
    assert (await znet.ask("1")).answer == Unreachable("resolver_failed")
    request = httpx.Request(
        "GET", "https://panel.example", extensions={"timeout": {"connect": 0.01}}
    )
    with pytest.raises(httpx.ConnectTimeout):
        await FreshConnections(client_context(), never).handle_async_request(request)


@pytest.mark.slow
async def test_what_is_remembered_is_checked_each_time() -> None:
    """An address that was public, and is let through from memory, is one that the guard would let
    through now.
    """
    dns = Dns(takes=0)
    resolve = Resolver(dns)
    dns.says = ["10.0.0.7"]
    assert await resolve("panel.example", 443) == ["10.0.0.7"]
    checked = functools.partial(public_addresses, resolve=resolve)
    account = ZnetAccount("https://panel.example", "k", "s")
    for _ in range(2):
        znet = Znet(account, FreshConnections(client_context(), checked), SystemClock())
        assert (await znet.ask("1")).answer == Blocked("private_address")
    assert len(dns.asked) == 1


# --- several addresses


class NamedWire(Wire):
    """A wire that knows where it leads."""

    leads_to = ""


def racing(
    monkeypatch: pytest.MonkeyPatch, opens: dict[str, float | Exception]
) -> list[tuple[str, float]]:
    """Let each address take so long to connect, or fail at once; return when each was tried."""
    tried: list[tuple[str, float]] = []

    async def create_connection(
        _: object, factory: object, host: str, port: int, **more: object
    ) -> tuple[None, Wire]:
        loop = asyncio.get_running_loop()
        tried.append((host, round(loop.time(), 2)))
        takes = opens[host]
        if isinstance(takes, Exception):
            raise takes
        await asyncio.sleep(takes)
        wire = NamedWire()
        wire.leads_to = host
        wire.close = lambda: None  # type: ignore[method-assign]
        return None, wire

    monkeypatch.setattr(asyncio.SelectorEventLoop, "create_connection", create_connection)
    return tried


async def race(connections: FreshConnections) -> str:
    """Return the address that was connected to."""
    wire = await connections.connect(httpx.URL("http://x.example"), None)
    assert isinstance(wire, NamedWire)
    return wire.leads_to


def opening(addresses: list[str]) -> FreshConnections:
    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    return FreshConnections(client_context(), resolve)


def raced(order: list[str]) -> str:
    async def main() -> str:
        return await race(opening(order))

    return run(main())


def test_the_next_address_is_tried_a_quarter_of_a_second_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 8305: one of each family in turn, the system's choice first."""
    tried = racing(monkeypatch, {"::1": 9.0, "::2": 9.0, "1.1.1.1": 0.1, "1.1.1.2": 9.0})
    assert raced(["::1", "::2", "1.1.1.1", "1.1.1.2"]) == "1.1.1.1"
    assert tried == [("::1", 0), ("1.1.1.1", RACE_DELAY)]


def test_one_that_refuses_is_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = racing(
        monkeypatch, {"::1": ConnectionRefusedError(), "1.1.1.1": OSError(101, "x"), "::2": 0.1}
    )
    assert raced(["::1", "::2", "1.1.1.1"]) == "::2"
    assert tried == [("::1", 0), ("1.1.1.1", 0), ("::2", 0)]


def test_the_slower_one_wins_where_the_faster_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = racing(monkeypatch, {"::1": 0.6, "1.1.1.1": ConnectionRefusedError()})
    assert raced(["::1", "1.1.1.1"]) == "::1"
    assert [at for _, at in tried] == [0, RACE_DELAY]


@pytest.mark.slow
def test_the_last_that_answered_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    opens: dict[str, float | Exception] = {"::1": 9.0, "1.1.1.1": 0.1}
    tried = racing(monkeypatch, opens)

    async def main() -> list[str]:
        connections = opening(["::1", "1.1.1.1"])
        won = [await race(connections)]
        opens.update({"::1": 0.6, "1.1.1.1": ConnectionRefusedError()})
        tried.clear()
        return [*won, await race(connections)]

    assert run(main()) == ["1.1.1.1", "::1"]
    assert [host for host, _ in tried] == ["1.1.1.1", "::1"]


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        ([OSError(99, "x"), ConnectionRefusedError()], "ConnectionRefusedError"),
        ([ConnectionRefusedError(), OSError(24, "x")], "ConnectionRefusedError"),
        ([OSError(24, "x"), OSError(24, "x")], "no_files"),
    ],
)
def test_the_server_is_named_where_only_one_way_to_it_is_shut_here(
    errors: list[Exception], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    racing(monkeypatch, dict(zip(["2001:db8::1", "1.1.1.1"], errors, strict=True)))
    with pytest.raises(httpx.ConnectError, match=why):
        raced(["2001:db8::1", "1.1.1.1"])


@pytest.mark.slow
async def test_a_race_leaves_no_connection_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost, or cancelled by its caller: real sockets, which the server sees go."""

    async def answers(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer(own(referans_of(head))))

    loop = asyncio.get_running_loop()
    create_connection = loop.create_connection

    async with RawServer(answers) as server:

        async def late(factory: Any, host: str, port: int) -> Any:
            # The second begins when the first has almost come about.
            await asyncio.sleep(RACE_DELAY if host == "::1" else 0)
            return await create_connection(factory, "127.0.0.1", server.port)

        monkeypatch.setattr(loop, "create_connection", late)
        url = httpx.URL("http://x.example")
        for _ in range(3):
            (await opening(["::1", "1.1.1.1"]).connect(url, None)).close()
        for turns in range(12):
            going = asyncio.create_task(opening(["1.1.1.1", "::1"]).connect(url, None))
            for _ in range(turns):
                await asyncio.sleep(0)
            going.cancel()
            with suppress(asyncio.CancelledError):
                (await going).close()
        while server.is_busy:
            await asyncio.sleep(0.005)
    assert server.connections > 3


@pytest.mark.slow
async def test_an_address_that_connects_and_speaks_no_tls_is_not_the_first_choice_for_ever() -> (
    None
):
    """IPv6 whose large packets get lost: it connects, and the handshake never ends."""

    async def answers(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer(own(referans_of(head))))

    async def silent(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        raise AssertionError

    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with RawServer(answers, tls=server_context(CA.issue_cert("panel.example"))) as server:
        black_hole = RawServer(silent, host="127.0.0.2")
        await black_hole.listen(server.port)
        account = ZnetAccount(f"https://panel.example:{server.port}", "k", "s", connect_timeout=0.5)
        znet = Znet(account, FreshConnections(client_context(), two), SystemClock())
        replies = [await znet.ask("1") for _ in range(2)]
        await znet.aclose()
        await black_hole.__aexit__()
    assert [reply.answer for reply in replies] == [Completed(Pin("PIN-1"), "tamam")] * 2
    assert [reply.requests for reply in replies] == [2, 1]
