"""The health endpoint on a real socket: from memory, for those who may ask, with a reason for every
no.
"""

import asyncio
import base64
import math
from typing import Any

import httpx
import pytest

from order_monitor import __version__
from order_monitor.core.errors import SettingsError, ShopUnavailableError
from order_monitor.core.order import Order
from order_monitor.shop.reading.orders import ALL, Part, Scan, Slice, Take
from order_monitor.tell.health import Access
from order_monitor.watch.account import NOT_HELD
from order_monitor.watch.dispatcher import TICK
from tests.support.health import Bench, listening
from tests.support.shops import NOW
from tests.support.stages import Stage

pytestmark = pytest.mark.outside


async def state(client: httpx.AsyncClient) -> dict[str, Any]:
    live, ready, health = [await client.get(path) for path in ("/livez", "/readyz", "/healthz")]
    body = health.json()
    assert body["version"] == __version__
    assert (live.status_code == 200) is body["live"]
    assert (ready.status_code == 200) is body["ready"]
    assert (health.status_code == 200) is (body["live"] and body["ready"])
    assert ready.text == "\n".join(body["reasons"] or ["ok"]) + "\n"
    return dict(body)


async def test_before_the_first_scan() -> None:
    bench = Bench()
    async with listening(bench) as client:
        assert (await state(client))["reasons"] == ["no scan yet"]
        bench.shop.away = True
        with pytest.raises(ShopUnavailableError):
            await bench.engine.scan()
        assert (await state(client))["reasons"] == ["no scan yet: ConnectionRefusedError"]


async def test_all_is_well() -> None:
    bench = Bench()
    async with listening(bench) as client:
        await bench.scan()
        assert await state(client) == {
            "version": __version__,
            "live": True,
            "ready": True,
            "reasons": [],
        }


async def test_a_scan_too_long_ago() -> None:
    bench = Bench()
    async with listening(bench) as client:
        await bench.scan()
        bench.clock.elapsed += 59
        assert (await state(client))["ready"]
        bench.shop.away = True
        with pytest.raises(ShopUnavailableError):
            await bench.engine.scan()
        assert (await state(client))["ready"], "one failed scan is not yet an outage"
        bench.clock.elapsed += 2
        assert (await state(client))["reasons"] == ["no scan for 60 s: ConnectionRefusedError"]


async def _turns() -> None:
    """Let whoever can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_ready_as_soon_as_orders_are_asked_about_though_not_all_are_read() -> None:
    """Of a million the first are asked about long before the last is read.

    And a long look is no outage while it goes on.
    """
    bench = Bench()
    go_on = asyncio.Event()

    async def long(part: Part = ALL, take: Take | None = None) -> Scan:
        assert take is not None
        for _ in range(3):
            take(Slice(bench.clock.time(), [Order("x", "sent", NOW + 250, "r")]))
            await go_on.wait()
            go_on.clear()
        if bench.shop.away:
            raise ShopUnavailableError("ConnectionRefusedError")
        return Scan(bench.clock.time(), [], [])

    bench.shop.scan = long  # type: ignore[method-assign]
    async with listening(bench) as client:
        scan = asyncio.create_task(bench.engine.scan())
        await _turns()
        bench.engine.dispatcher.start_calls()
        assert (await state(client))["ready"]
        for _ in range(3):
            bench.clock.elapsed += 50
            bench.engine.dispatcher.start_calls()
            assert (await state(client))["ready"]
            go_on.set()
            await _turns()
        await scan
        bench.shop.away = True
        for _ in range(2):
            scan = asyncio.create_task(bench.engine.scan())
            for _ in range(3):
                await _turns()
                bench.clock.elapsed += 20
                go_on.set()
            with pytest.raises(ShopUnavailableError):
                await scan
        bench.engine.dispatcher.start_calls()
        assert (await state(client))["reasons"] == ["no scan for 60 s: ConnectionRefusedError"], (
            "none comes to its end"
        )


async def test_every_account_closed() -> None:
    bench = Bench()
    bench.account.gate.limit = 1
    async with listening(bench) as client:
        await bench.scan()
        bench.account.gate.failed(0.0, "refused_8", probe=False)
        assert (await state(client))["reasons"] == ["account main is closed: refused_8"]
        bench.account.gate.succeeded(probe=False)
        assert (await state(client))["ready"]


async def test_only_the_accounts_that_it_asks_count() -> None:
    """Another member asks the other one, and a process that can ask none of its own is not well."""
    stage = Stage(("a", "b"))
    await stage.begin()
    stage.accounts["b"].lease_until = NOT_HELD
    stage.accounts["a"].gate.shut(stage.clock.monotonic(), "refused_8", probe=False)
    assert stage.probe.reasons() == ["account a is closed: refused_8"]
    stage.accounts["b"].lease_until = math.inf
    assert stage.probe.reasons() == []


async def test_no_account_at_all() -> None:
    bench = Bench(accounts=False)
    async with listening(bench) as client:
        await bench.scan()
        assert (await state(client))["reasons"] == ["there is no account to ask"]


async def test_a_loop_that_does_not_tick() -> None:
    bench = Bench()
    async with listening(bench) as client:
        assert not (await state(client))["live"]
        await bench.scan()
        assert (await state(client))["live"]
        bench.clock.elapsed += TICK * 12 + 1
        answer = await client.get("/livez")
        assert (answer.status_code, answer.text) == (503, "the loop does not tick\n")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
        ("localhost", 503),
        ("LOCALHOST:9", 503),
        ("127.0.0.1:9999", 503),
        ("[::1]:80", 503),
        ("monitor.internal:80", 503),
        ("Monitor.Internal", 503),
    ],
)
async def test_only_our_own_names_are_answered_to(host: str, status: int) -> None:
    """F4: a web page can point its own name at loopback."""
    bench = Bench(Access(port=0, hosts=("monitor.internal",)))
    async with listening(bench) as client:
        for path in ("/livez", "/readyz", "/healthz", "/nowhere"):
            answer = await client.get(path, headers={"Host": host})
            assert answer.status_code == (404 if path == "/nowhere" and status == 503 else status)


async def test_the_bound_address_is_a_name_of_ours() -> None:
    bench = Bench(Access(host="127.0.0.2", port=0, token="t"))
    async with listening(bench) as client:
        assert (await client.get("/livez")).status_code == 503
    bench = Bench(Access(host="0.0.0.0", port=0, token="t"))
    await bench.server.start()
    port = bench.server.bound()[1]
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://127.0.0.3:{port}/livez")).status_code == 503
    finally:
        await bench.server.stop()


async def test_a_token_guards_all_but_the_probes() -> None:
    bench = Bench(Access(port=0, token="TOKEN-CANARY"))
    async with listening(bench) as client:
        await bench.scan()
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        for path in ("/healthz", "/metrics", "/", "/nowhere"):
            answer = await client.get(path)
            assert answer.status_code == 401, path
            offered = answer.headers["www-authenticate"]
            assert offered.startswith("Bearer, Basic ") if path == "/" else offered == "Bearer", (
                "a browser asks for the password"
            )
            assert "CANARY" not in answer.text
            for wrong in (
                b"Bearer nope",
                b"TOKEN-CANARY",
                b"Basic TOKEN-CANARY",
                b"Bearer",
                b"Bearer TOKEN-CANARY\xc3\xa9",
            ):
                answer = await client.get(path, headers=[(b"Authorization", wrong)])
                assert answer.status_code == 401, wrong
        for basic in (
            b"Basic " + base64.b64encode(b"x:nope"),
            b"Basic " + base64.b64encode(b"TOKEN-CANARY"),
            b"Basic ?",
            b"Basic",
        ):
            assert (
                await client.get("/healthz", headers=[(b"Authorization", basic)])
            ).status_code == 401, basic
        assert (await client.get("/healthz", auth=("anybody", "TOKEN-CANARY"))).status_code == 200
        right = {"Authorization": "Bearer TOKEN-CANARY"}
        assert (await client.get("/healthz", headers=right)).status_code == 200
        assert (await client.get("/nowhere", headers=right)).status_code == 404


async def test_every_answer_is_fresh_and_plain() -> None:
    bench = Bench(Access(port=0, token="t"))
    async with listening(bench) as client:
        answers = [
            await client.get("/livez"),
            await client.get("/livez", headers={"Host": "evil.example"}),
            await client.get("/healthz"),
            await client.get("/nowhere", headers={"Authorization": "Bearer t"}),
            await client.post("/livez", content=b"x"),
        ]
    assert [a.status_code for a in answers] == [503, 403, 401, 404, 405]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_taken_port_is_bad_settings() -> None:
    bench = Bench()
    async with listening(bench):
        taken = bench.server.bound()[1]
        with pytest.raises(
            SettingsError, match=rf"health\.port: cannot listen on 127\.0\.0\.1:{taken}"
        ):
            await Bench(Access(port=taken)).server.start()
