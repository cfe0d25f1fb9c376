"""A child in another database is asked about by HTTP, one in this database never."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.commands import call
from tests.support.real_shop import RealShop, new_id, real_shop
from tests.support.servers import RawServer, answer

pytestmark = pytest.mark.long

PIN = "XY12-CD34-EF56"
TOKEN = "TENANT-CANARY-77"


@dataclass
class OtherTenant:
    """Another installation of the platform: its orders by id, as one of its two versions tells."""

    version: str
    orders: dict[str, tuple[str, str]] = field(default_factory=dict)
    asked: list[dict[str, list[str]]] = field(default_factory=list)

    async def __call__(
        self, head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        text = head.decode()
        url = urlsplit(text.split(" ")[1])
        if not url.path.endswith("/check"):
            writer.write(answer(b'{"balance": "12.50"}'))
            return
        assert f"api-token: {TOKEN}" in text
        assert "x-tenant-host: 127.0.0.1" in text.lower()
        query = parse_qs(url.query)
        self.asked.append(query)
        found = [self._entry(n) for n in query["orders"][0].split(",") if n in self.orders]
        writer.write(answer(json.dumps(found).encode()))

    def _entry(self, name: str) -> dict[str, Any]:
        word, pin = self.orders[name]
        if self.version == "django":
            return {"orderId": name, "status": word, "pin": pin, "note": "", "externalStatus": "x"}
        words = {"approved": "accept", "rejected": "reject"}
        more = {"pin": pin} if pin else {}
        return {"id": name, "order_uuid": new_id(), "status": words.get(word, "wait"), **more}

    @property
    def names(self) -> set[str]:
        return {name for query in self.asked for name in query["orders"][0].split(",")}


@pytest.fixture
async def shop(database_dsn: str) -> AsyncIterator[RealShop]:
    async with real_shop(database_dsn) as made:
        yield made


def config(shop: RealShop, *, chains: str = "monitor", more: str = "") -> str:
    return (
        f'[database]\ndsn = "{shop.dsn}"\n[provider]\nsource = "database"\nchains = "{chains}"\n'
        f'allow_http = true\nallow_private = true\n{more}[statuses]\npreset = "watan"\n'
    )


async def parent_of(shop: RealShop, internal: str, child: str, **more: Any) -> str:
    """Add an order that the tenant of an integration took as ``child``."""
    made = str(more.pop("id", new_id()))
    named = {"externalOrderId": child, "provider_referans": made, "providerId": internal}
    return await shop.add(id=made, **{**named, **more})


async def status(shop: RealShop, order_id: str) -> tuple[str, str | None]:
    row = await shop.row(order_id)
    return row["externalStatus"], row["pinCode"]


@pytest.mark.parametrize("version", ["nest", "django"])
async def test_each_child_is_asked_about_where_it_is(
    shop: RealShop, tmp_path: Path, version: str
) -> None:
    tenant = OtherTenant(version)
    async with RawServer(tenant) as server:
        url = f"http://127.0.0.1:{server.port}"
        internal = await shop.integration("internal", baseUrl=url, apiToken=TOKEN)
        away = [new_id() for _ in range(5)]
        tenant.orders = {
            away[0]: ("approved", PIN),
            away[1]: ("rejected", ""),
            away[2]: ("pending", ""),
            away[4]: ("approved", ""),
        }
        done, failed, waits, unknown = [
            await parent_of(shop, internal, child) for child in away[:4]
        ]
        unsaved = await parent_of(shop, internal, away[4].upper(), provider_referans=None)
        # A chain of three, whose last order alone is away.
        first = new_id()
        second_child = new_id()
        tenant.orders[second_child] = ("approved", f"{PIN}-2")
        second = await parent_of(shop, internal, second_child, root_order_id=None)
        await parent_of(shop, internal, second, id=first)
        await shop.set(second, root_order_id=first)
        # In this database: nobody is asked, whatever the other side would say.
        here = new_id()
        tenant.orders[here] = ("approved", "STRANGER-PIN-1")
        near = await parent_of(shop, internal, here)
        await shop.add(id=here, root_order_id=near)
        # What names no other order.
        own = new_id()
        tenant.orders[own] = ("approved", "STRANGER-PIN-2")
        nameless = [
            await parent_of(shop, internal, name, id=order_id)
            for order_id, name in (
                (own, own),
                *((new_id(), name) for name in ("", f"stub-{new_id()}", "4711", f"{own},{own}")),
            )
        ]
        foreign = await parent_of(shop, internal, new_id(), provider_referans="1760885915220128")
        code, out, err = await call(tmp_path, config(shop), "--once", "--json")
        assert TOKEN not in out + err
        assert PIN not in out + err
    assert await status(shop, done) == ("done", PIN)
    assert await status(shop, failed) == ("failed", None)
    assert (await status(shop, waits))[0] in ("sent", "processing"), "its age does not end it"
    assert await status(shop, unknown) == ("sent", None)
    assert await status(shop, unsaved) == ("done", None)
    for order_id in (first, second):
        assert await status(shop, order_id) == ("done", f"{PIN}-2")
    for order_id in (near, here, foreign, *nameless):
        assert await status(shop, order_id) == ("sent", None), order_id
    assert tenant.names == {*away, second_child}
    assert not any("uuid" in query for query in tenant.asked)
    (event,) = await shop.events(done)
    assert (event["outcome"], event["cause"], event["reference"]) == (
        "completed",
        "answer",
        away[0],
    )
    (event,) = await shop.events(first)
    assert event["cause"] == "child"
    summary = json.loads(out.splitlines()[-1])
    assert summary["skipped"]["waits_for_child"] == len([first, near, foreign, *nameless])
    assert code == 0, err


async def test_people_are_told_whom_an_order_waits_for(shop: RealShop, tmp_path: Path) -> None:
    tenant, child, here = OtherTenant("django"), new_id(), new_id()
    tenant.orders[child] = ("pending", "")
    async with RawServer(tenant) as server:
        url = f"http://127.0.0.1:{server.port}"
        internal = await shop.integration("internal", name="north", baseUrl=url, apiToken=TOKEN)
        parent, near = [await parent_of(shop, internal, name) for name in (child, here)]
        await shop.add(id=here, root_order_id=near)

        async def said(*command: str) -> str:
            code, out, err = await call(tmp_path, config(shop), *command)
            assert code == 0, err
            assert TOKEN not in out + err
            return out

        story = await said("explain", parent, "--now")
        assert "as an order in another database: it ends as that one does" in story
        assert re.search(f"referans +{child}", story)
        assert re.search("answer now +waiting", story)
        assert "waits_for_child" in await said("explain", near)
        assert re.search("account north-[0-9a-f]+: answers; balance 12.50", await said("check"))
        assert "the provider says waiting" in await said("ask", parent)


async def test_where_the_shop_carries_ends_no_tenant_is_asked(
    shop: RealShop, tmp_path: Path
) -> None:
    tenant = OtherTenant("nest")
    async with RawServer(tenant) as server:
        url = f"http://127.0.0.1:{server.port}"
        internal = await shop.integration("internal", baseUrl=url, apiToken=TOKEN)
        parent = await parent_of(shop, internal, new_id())
        code, _, err = await call(tmp_path, config(shop, chains="shop"), "--once")
    assert code == 0, err
    assert tenant.asked == []
    assert await status(shop, parent) == ("sent", None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"apiToken": None}, "bad_address"),
        ({"baseUrl": None}, "bad_address"),
        ({"enabled": False}, "disabled"),
    ],
)
async def test_a_tenant_that_cannot_be_asked_is_named_for_its_orders_alone(
    shop: RealShop, tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    given: dict[str, Any] = {"baseUrl": "https://127.0.0.1:1", "apiToken": TOKEN, **values}
    internal = await shop.integration("internal", **given)
    here = new_id()
    near = await parent_of(shop, internal, here)
    await shop.add(id=here, root_order_id=near)
    _, out, _ = await call(tmp_path, config(shop), "--once", "--json")
    assert "bad_address" not in out
    assert "disabled" not in out
    await parent_of(shop, internal, new_id())
    _, out, _ = await call(tmp_path, config(shop), "--once", "--json")
    skipped = json.loads(out.splitlines()[-1])["skipped"]
    assert (skipped[reason], skipped["waits_for_child"]) == (1, 1)


async def test_a_child_that_comes_into_this_database_is_not_asked_about_any_more(
    shop: RealShop, tmp_path: Path
) -> None:
    """The row decides each time; what was asked before is not remembered against it."""
    tenant, child = OtherTenant("nest"), new_id()
    tenant.orders[child] = ("pending", "")
    async with RawServer(tenant) as server:
        url = f"http://127.0.0.1:{server.port}"
        internal = await shop.integration("internal", baseUrl=url, apiToken=TOKEN)
        parent = await parent_of(shop, internal, child)
        await call(tmp_path, config(shop), "--once")
        assert tenant.names == {child}
        await shop.add(id=child, root_order_id=parent, pinCode=PIN)
        await shop.set(child, status="approved", externalStatus="done")
        tenant.asked.clear()
        await call(tmp_path, config(shop), "--once")
    assert tenant.asked == []
    assert await status(shop, parent) == ("done", PIN)


async def test_people_pause_a_tenant_and_hold_its_ends_as_any_account(
    shop: RealShop, tmp_path: Path
) -> None:
    """By the name that is shown of it; a pass of its own finds its first order after the pauses."""
    tenant, child = OtherTenant("nest"), new_id()
    tenant.orders[child] = ("rejected", "")
    async with RawServer(tenant) as server:
        url = f"http://127.0.0.1:{server.port}"
        internal = await shop.integration("internal", name="north", baseUrl=url, apiToken=TOKEN)
        parent = await parent_of(shop, internal, child)
        name = f"north-{internal[:8]}"

        async def done(*command: str) -> str:
            code, out, err = await call(tmp_path, config(shop), *command)
            assert code == 0, err
            return out

        assert f"{name}: paused" in await done("pause", name, "--reason", "x")
        code, out, _ = await call(tmp_path, config(shop), "--once", "--json")
        assert (code, tenant.asked) == (1, [])
        assert json.loads(out.splitlines()[-1])["not_asked_accounts"] == {
            name: {"orders": 1, "reason": "paused"}
        }
        assert await status(shop, parent) == ("sent", None)
        await done("pause", name, "--ends", "--reason", "x")
        await done("resume", name)
        code, out, _ = await call(tmp_path, config(shop), "--once", "--json")
        assert json.loads(out.splitlines()[-1])["held"] == 1
        assert await status(shop, parent) == ("sent", None)
        await done("resume", name, "--ends")
        assert "now 'failed'" in await done("ask", "--account", name)
    assert await status(shop, parent) == ("failed", None)
