"""A client API's account: how it is asked, and a pass over the shop's own tables with two kinds of
providers.
"""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import respx

from order_monitor.core.answer import Answer, Blocked, Busy, Completed, Unreachable, Waiting
from order_monitor.core.pin import Pin
from order_monitor.providers.client_api.client import ClientApi, ClientApiAccount
from order_monitor.providers.provider import Balance
from order_monitor.watch.system_clock import SystemClock
from tests.support.clocks import ManualClock
from tests.support.connections import answering
from tests.support.market import PLAIN_TABLES, SHOP_TABLES
from tests.support.processes import KOD, SIFRE, Panel, once, panel, sent, settings
from tests.support.servers import RawServer
from tests.support.shops import SHOP, Shop

__all__ = ["panel"]

TOKEN = "TOKEN-CANARY/9?"
TOKENS = "ALTER TABLE integrations ADD COLUMN api_token text;"
OWN = "3306d930-0000-4000-8000-000000000001"


def client(router: respx.MockRouter, base_url: str = "https://api.example") -> ClientApi:
    return ClientApi(ClientApiAccount(base_url, TOKEN), answering(router), SystemClock())


@pytest.mark.parametrize(
    "base_url", ["https://api.example", "https://api.example/", "https://api.example/client/api/"]
)
async def test_the_question(base_url: str) -> None:
    router = respx.MockRouter()
    route = router.get("https://api.example/client/api/check").respond(
        json={"status": "OK", "data": [{"order_id": "ID_1", "status": "accept", "pin": "P-1234"}]}
    )
    api = client(router, base_url)
    assert (await api.ask("ID_1")).answer == Completed(Pin("P-1234"))
    request = route.calls[0].request
    assert request.headers["api-token"] == TOKEN
    assert dict(request.url.params) == {"orders": '["ID_1"]'}
    await api.ask(OWN)
    assert dict(route.calls[1].request.url.params) == {"orders": f'["{OWN}"]', "uuid": "1"}


async def test_no_failure_shows_the_token() -> None:
    router = respx.MockRouter()
    router.get("https://api.example/client/api/check").respond(
        json={"code": "121", "message": f"bad token {TOKEN}"}
    )
    answer = (await client(router).ask("ID_1")).answer
    assert isinstance(answer, Blocked)
    assert "CANARY" not in answer.message
    assert "CANARY" not in repr(ClientApiAccount("https://x", TOKEN))
    broken = respx.MockRouter()
    broken.get("https://api.example/client/api/check").mock(side_effect=httpx.ConnectError("x"))
    reply = await client(broken).ask("ID_1")
    assert (reply.answer, reply.requests) == (Unreachable("connect_error"), 2)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, '{"code": "121", "message": "no hunter here"}'),
        (200, '{"code": "999", "message": "no hunter here"}'),
        (200, "no hunter here"),
        (503, "no hunter here"),
        (418, "no hunter here"),
    ],
    ids=["blocked", "refused", "garbled", "busy", "an odd status"],
)
async def test_a_token_that_looks_like_no_code_is_hidden_too(status: int, body: str) -> None:
    router = respx.MockRouter()
    router.get("https://api.example/client/api/check").respond(status, text=body)
    api = ClientApi(
        ClientApiAccount("https://api.example", "hunter"), answering(router), SystemClock()
    )
    answer: Any = (await api.ask("ID_1")).answer
    assert answer.message == "no **** here"


async def test_the_balance() -> None:
    router = respx.MockRouter()
    router.get("https://api.example/client/api/profile").respond(
        json={"balance": "43.55", "email": "x@y"}
    )
    assert await client(router).balance() == Balance("43.55")


class Bank:
    """A client API on a real socket; what it knows of each order stands in ``orders``."""

    def __init__(self, *, most: int = 1000, fails: int = 0) -> None:
        self.orders: dict[str, dict[str, Any]] = {}
        self.strangers: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.most = most
        self.fails = fails

    async def __call__(
        self, received: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        text = received.decode()
        self.heads.append(text)
        asked = json.loads(parse_qs(urlsplit(text.split(" ")[1]).query)["orders"][0])
        if len(asked) > self.most or self.fails:
            self.fails = max(0, self.fails - 1)
            status = "500 Oops" if len(asked) <= self.most else "413 Too Large"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        found = [
            {"order_id": name, **self.orders[name]}
            for name in reversed(asked)
            if name in self.orders
        ]
        found = [*self.strangers, *found, *found[:3]]
        body = json.dumps({"status": "OK", "data": found}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body)


async def test_a_pass_asks_each_order_of_its_own_provider(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    bank = Bank()
    await shop.connection.execute(SHOP_TABLES if shop.spelling is SHOP else PLAIN_TABLES + TOKENS)
    base_url, token, provider = (
        ('"baseUrl"', '"apiToken"', '"providerId"')
        if shop.spelling is SHOP
        else ("base_url", "api_token", "provider_id")
    )
    async with RawServer(bank) as server:
        url = f"http://127.0.0.1:{server.port}"
        rows = {
            "znet": ("znet", panel.server.url, KOD, SIFRE, None),
            "api": ("barakat", url, None, None, TOKEN),
            "none": ("apstore", url, None, None, ""),
            "else": ("internal", url, None, None, TOKEN),
        }
        ids = {name: str(uuid.uuid4()) for name in rows}
        for name, (kind, address, kod, sifre, secret) in rows.items():
            await shop.connection.execute(
                f"INSERT INTO integrations (id, name, provider, {base_url}, kod, sifre, {token}) "
                "VALUES ($1::uuid, $2, $3, $4, $5, $6, $7)",
                *(ids[name], name, kind, address, kod, sifre, secret),
            )
        orders = {name: await sent(shop, 4 if name == "api" else 1) for name in rows}
        for name, those in orders.items():
            for order_id in those:
                await shop.connection.execute(
                    f"UPDATE product_orders SET {provider} = $1 WHERE id = $2::uuid",
                    ids[name],
                    order_id,
                )
        done, failed, waits = (f"r-{order_id[:8]}" for order_id in orders["api"][:3])
        bank.orders = {
            done: {"status": "accept", "pin": "0012-3456"},
            failed: {"status": "reject", "note": "no stock"},
            waits: {"status": "wait"},
        }
        given = {"source": "database", "allow_private": True, "allow_http": True}
        code, summary, err = await once(
            tmp_path, settings(shop.dsn, panel.server.url, provider=given)
        )
    found = {order_id: await shop.row(order_id) for those in orders.values() for order_id in those}
    first, second, third, fourth = (found[i] for i in orders["api"])
    assert (first["external_status"], first["pin_code"]) == ("completed", "0012-3456")
    assert (second["external_status"], second["note"]) == ("failed", "no stock")
    assert third["external_status"] == "processing"
    assert fourth["external_status"] == "sent"
    assert found[orders["znet"][0]]["external_status"] == "completed"
    assert summary["skipped"] == {"bad_address": 1, "waits_for_child": 1}
    assert (code, summary["refused"]) == (0, 1)
    assert "CANARY" not in err


async def prepared(shop: Shop, url: str, count: int) -> list[str]:
    """Orders of one account at a client API."""
    await shop.connection.execute(PLAIN_TABLES + TOKENS)
    key = str(uuid.uuid4())
    await shop.connection.execute(
        "INSERT INTO integrations (id, name, provider, base_url, api_token) VALUES ($1::uuid, 'api', 'barakat', $2, $3)",
        *(key, url, TOKEN),
    )
    ids = await sent(shop, count)
    await shop.connection.execute("UPDATE product_orders SET provider_id = $1", key)
    return ids


GIVEN = {"source": "database", "allow_private": True, "allow_http": True}


async def test_many_orders_go_into_one_call_and_each_gets_its_own_pin(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Entries out of order, of strangers, twice: no code in another order."""
    bank = Bank()
    async with RawServer(bank) as server:
        ids = await prepared(plain_shop, f"http://127.0.0.1:{server.port}", 230)
        bank.orders = {
            f"r-{i[:8]}": {"status": "accept", "pin": f"PIN-{i[:8]}-{n:04}"}
            for n, i in enumerate(ids)
        }
        bank.strangers = [{"order_id": "stranger", "status": "accept", "pin": "PIN-OF-A-STRANGER"}]
        code, summary, _ = await once(
            tmp_path, settings(plain_shop.dsn, panel.server.url, provider=GIVEN)
        )
    assert (code, summary["completed"]) == (0, 230)
    for n, order_id in enumerate(ids):
        assert (await plain_shop.row(order_id))["pin_code"] == f"PIN-{order_id[:8]}-{n:04}"
    assert len(bank.heads) <= 12, "fifty a call, and at a pace"


async def test_two_integrations_with_one_token_are_one_login(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """One reference on two orders: nobody knows whose the answer is, so neither gets the PIN."""
    bank = Bank()
    async with RawServer(bank) as server:
        first, second = await prepared(plain_shop, f"http://127.0.0.1:{server.port}", 2)
        other = str(uuid.uuid4())
        await plain_shop.connection.execute(
            "INSERT INTO integrations (id, name, provider, base_url, api_token, kod) "
            "SELECT $1::uuid, 'other', 'apstore', base_url, api_token, 'stray' FROM integrations",
            other,
        )
        await plain_shop.connection.execute(
            "UPDATE product_orders SET provider_id = $1 WHERE id = $2::uuid", other, second
        )
        await plain_shop.connection.execute("UPDATE product_orders SET provider_referans = 'ID_1'")
        bank.orders = {"ID_1": {"status": "accept", "pin": "PIN-1234-5678"}}
        await once(tmp_path, settings(plain_shop.dsn, panel.server.url, provider=GIVEN))
    rows = [await plain_shop.row(i) for i in (first, second)]
    assert [row["pin_code"] for row in rows] == [None, None]
    assert {row["external_status"] for row in rows} == {"sent"}
    kinds = await plain_shop.connection.fetch(
        "SELECT DISTINCT kind FROM order_monitor_review WHERE closed_at IS NULL AND kind <> 'pin_held'"
    )
    assert [row["kind"] for row in kinds] == ["reference_twice"]


async def test_a_provider_that_takes_fewer_is_asked_about_fewer(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    bank = Bank(most=20)
    async with RawServer(bank) as server:
        ids = await prepared(plain_shop, f"http://127.0.0.1:{server.port}", 60)
        bank.orders = {f"r-{i[:8]}": {"status": "accept", "pin": f"PIN-{i[:8]}"} for i in ids}
        code, summary, err = await once(
            tmp_path, settings(plain_shop.dsn, panel.server.url, provider=GIVEN)
        )
    assert (code, summary["completed"]) == (0, 60)
    assert "batch.halved" in err


@pytest.mark.long
async def test_a_call_that_fails_as_a_whole_is_one_failure_and_loses_no_order(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    bank = Bank(fails=50)
    async with RawServer(bank) as server:
        ids = await prepared(plain_shop, f"http://127.0.0.1:{server.port}", 100)
        bank.orders = {f"r-{i[:8]}": {"status": "accept", "pin": f"PIN-{i[:8]}"} for i in ids}
        given = settings(
            plain_shop.dsn, panel.server.url, provider=GIVEN, limits={"concurrency": 1}
        )
        code, summary, _ = await once(tmp_path, given)
        # Two calls about all of them, then one order at a time, until the account counts as closed.
        assert (code, summary["completed"], summary["not_asked"], len(bank.heads)) == (
            1,
            0,
            100,
            10,
        )
        bank.fails = 2
        code, summary, _ = await once(tmp_path, given)
    assert (code, summary["completed"]) == (0, 100)
    assert not await plain_shop.connection.fetchval(
        "SELECT count(*) FROM order_monitor_dispatches WHERE first_odd_at IS NOT NULL"
    )
    assert {(await plain_shop.row(i))["pin_code"] for i in ids} == {f"PIN-{i[:8]}" for i in ids}


async def test_a_reference_with_blanks_is_asked_about_as_well() -> None:
    router = respx.MockRouter()
    router.get("https://api.example/client/api/check").respond(
        json=[{"order_id": "ID_1", "status": "wait"}]
    )
    assert (await client(router).ask_many([" ID_1 ", "ID_1"])).answers == {
        " ID_1 ": Waiting(),
        "ID_1": Waiting(),
    }


async def test_the_address_stays_short_and_own_ids_go_apart() -> None:
    router = respx.MockRouter()
    route = router.get("https://api.example/client/api/check").respond(json=[])
    names = [*(f"ID_{n:0200}" for n in range(40)), OWN, OWN.upper()]
    found = await client(router).ask_many(names)
    assert set(found.answers) == set(names)
    assert found.requests == len(route.calls)
    assert max(len(str(call.request.url)) for call in route.calls) < 4000
    own = [call for call in route.calls if "uuid" in call.request.url.params]
    assert [json.loads(call.request.url.params["orders"]) for call in own] == [[OWN, OWN.upper()]]


async def test_one_account_in_the_settings(plain_shop: Shop, tmp_path: Path) -> None:
    """``[provider] kind = "client_api"``: no integrations table is needed."""
    bank = Bank()
    async with RawServer(bank) as server:
        (order_id,) = await sent(plain_shop, 1)
        bank.orders = {f"r-{order_id[:8]}": {"status": "accept", "pin": "PIN-1-2-3-4"}}
        given = {"kind": "client_api", "token": TOKEN}
        url = f"http://127.0.0.1:{server.port}"
        code, _, err = await once(tmp_path, settings(plain_shop.dsn, url, provider=given))
        heads = bank.heads
    row = await plain_shop.row(order_id)
    assert (code, row["external_status"], row["pin_code"]) == (0, "completed", "PIN-1-2-3-4")
    assert f"api-token: {TOKEN}" in heads[0]
    assert "CANARY" not in err


class Taking:
    """A provider that takes ``most`` orders a call, and none with ``poison`` among them."""

    def __init__(self, most: int, poison: str = "", status: int = 413) -> None:
        self.most, self.poison, self.status = most, poison, status
        self.sizes: list[int] = []
        self.body: dict[str, Any] = {"message": "too many"}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        names = json.loads(request.url.params["orders"])
        self.sizes.append(len(names))
        status, found = 200, [{"order_id": name, "status": "wait"} for name in names]
        body: Any = found
        if len(names) > self.most or self.poison in names:
            status, body = self.status, self.body
        return httpx.Response(status, stream=httpx.ByteStream(json.dumps(body).encode()))


def taking(provider: Taking) -> tuple[ClientApi, ManualClock]:
    clock = ManualClock()
    account = ClientApiAccount("https://x.example", "T")
    return ClientApi(account, httpx.MockTransport(provider), clock), clock


NAMES = [f"ID_{n}" for n in range(50)]


@pytest.mark.parametrize(("most", "found"), [(20, 13), (3, 3), (1, 1)])
async def test_what_a_provider_takes_is_learned_and_forgotten_by_no_larger_refusal(
    most: int, found: int
) -> None:
    provider = Taking(most)
    client, _ = taking(provider)
    assert len((await client.ask_many(NAMES)).answers) == 50
    assert client.batch == found
    provider.sizes.clear()
    await client.ask_many(NAMES)
    assert max(provider.sizes) <= most


@pytest.mark.parametrize("poison", ["ID_0", "ID_7", "ID_49"])
async def test_one_order_that_spoils_each_call_does_not_make_all_calls_small(poison: str) -> None:
    client, _ = taking(Taking(50, poison=poison, status=400))
    batch = await client.ask_many(NAMES)
    assert [name for name in NAMES if not isinstance(batch.answers[name], Waiting)] == [poison]
    assert client.batch == 50


async def test_a_small_call_that_is_refused_says_little_of_large_ones() -> None:
    provider = Taking(1)
    client, _ = taking(provider)
    await client.ask_many(NAMES[:2])
    assert client.batch == 50


async def test_a_smaller_batch_is_tried_larger_after_an_hour() -> None:
    provider = Taking(3)
    client, clock = taking(provider)
    await client.ask_many(NAMES)
    provider.most = 50
    await client.ask_many(NAMES)
    assert client.batch == 3
    for hours in range(1, 6):
        clock.elapsed = 3600.0 * hours
        await client.ask_many(NAMES)
    assert client.batch == 50


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        ({"code": "121", "message": "x"}, Blocked("refused_121")),
        ({"status": "ERROR", "error": "UNAUTHORIZED"}, Blocked("http_401")),
        ({"status": "ERROR", "code": "429"}, Busy("http_429")),
        ({"status": "ERROR", "code": "500"}, Busy("http_500")),
    ],
)
async def test_what_names_another_cause_than_their_number_is_not_asked_in_halves(
    body: dict[str, Any], failure: Answer
) -> None:
    """Refused or overloaded, the provider would get five more calls at once."""
    provider = Taking(0, status=400)
    provider.body = body
    client, _ = taking(provider)
    batch = await client.ask_many(NAMES)
    assert batch.failure == failure
    assert (provider.sizes, client.batch) == ([50], 50)
