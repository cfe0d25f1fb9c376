"""The page's search in the database: one at a time, behind the same guard, shown below the field."""

import asyncio
from typing import Any

import httpx
import pytest

from order_monitor.tell.finder import PAUSE, Busy, Finder
from order_monitor.tell.health import Access, HealthServer
from order_monitor.tell.page import Dashboard
from tests.support import databases, stages
from tests.support.browsers import browser, browsers, opened, text
from tests.support.clocks import ManualClock
from tests.support.shops import PLAIN, Shop
from tests.support.stages import Stage

__all__ = ["browser"]


async def staged(shop: Shop, token: str | None = None, clock: Any = None) -> tuple[Stage, Finder]:
    stage = await stages.quiet(clock)
    database = shop.database()
    finder = Finder(stage.view, database, shop.orders(database))
    dashboard = Dashboard(stage.view, stage.metrics, finder)
    stage.server = HealthServer(stage.probe, Access(port=0, token=token), dashboard)
    return stage, finder


async def test_one_search_at_a_time_and_one_a_second(plain_shop: Shop) -> None:
    clock = ManualClock()
    _, finder = await staged(plain_shop, clock=clock)
    order_id = await plain_shop.add()
    found = await asyncio.gather(
        *(finder.find(order_id) for _ in range(20)), return_exceptions=True
    )
    assert [isinstance(one, Busy) for one in found].count(False) == 1
    with pytest.raises(Busy):
        await finder.find(order_id)
    clock.elapsed += PAUSE
    assert [order["order_id"] for order in (await finder.find(order_id))["orders"]] == [order_id]


async def test_what_the_process_knows_of_it_is_told(plain_shop: Shop) -> None:
    clock = ManualClock()
    stage, finder = await staged(plain_shop, clock=clock)
    order = stage.order(400)
    stage.shelf.orders = [order, lost := stage.order(500, reference="")]
    await stage.begin()
    for one in (order, lost):
        await plain_shop.add(order_id=one.id, reference=one.reference)
    stage.stuck(order)
    (told,) = (await finder.find(order.id))["orders"]
    assert (told["account"], told["why"], told["by"]) == ("default", "pin_too_wide", "id")
    clock.elapsed += PAUSE
    (told,) = (await finder.find(lost.id))["orders"]
    assert (told["account"], told["why"], told["next_at"]) == (None, "no_reference", None)
    # Where another process asks its account, this one does not know when.
    stage.engine.context.elsewhere.accounts = {"default"}
    await stage.engine.discovery.leave_accounts({"default"})
    clock.elapsed += PAUSE
    (told,) = (await finder.find(order.id))["orders"]
    assert (told["account"], told["why"], told["next_at"]) == (None, "asked_elsewhere", None)
    await plain_shop.set(order.id, external_status="completed")
    clock.elapsed += PAUSE
    (told,) = (await finder.find(order.id))["orders"]
    assert told["why"] == ""


async def test_over_http_it_is_guarded_and_says_when_it_is_busy(plain_shop: Shop) -> None:
    stage, _ = await staged(plain_shop, "TOKEN-1")
    order_id = await plain_shop.add(pin="PIN-CANARY-5511")
    async with stage.listening() as url, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{url}/api/find", params={"q": order_id})).status_code == 401
        client.headers["Authorization"] = "Bearer TOKEN-1"
        answer = await client.get(f"{url}/api/find", params={"q": order_id})
        assert [order["order_id"] for order in answer.json()["orders"]] == [order_id]
        assert "CANARY" not in answer.text
        answer = await client.get(f"{url}/api/find", params={"q": order_id})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")


async def test_a_database_that_is_away_is_told_and_no_error(plain_shop: Shop) -> None:
    stage, _ = await staged(plain_shop)
    database = plain_shop.database("postgresql://nobody@127.0.0.1:1/none")
    finder = Finder(stage.view, database, plain_shop.orders(database))
    found = await finder.find("4711")
    assert (found["orders"], bool(found["problem"])) == ([], True)


@browsers
async def test_the_page_finds_an_order_that_no_list_has(browser: Any, server: Any) -> None:
    async with Shop.create(server.dsn(databases.create(server)), PLAIN) as shop:
        await look(browser, shop)


async def look(browser: Any, shop: Shop) -> None:
    await shop.connection.execute("CREATE INDEX ON product_orders (provider_referans)")
    order_id = await shop.add("completed", reference="R-4711", pin="PIN-CANARY-5511")
    stage, _ = await staged(shop)
    async with opened(browser, stage) as page:
        assert not await page.is_visible("#found-section")
        await page.fill("#search", "R-4711")
        await page.wait_for_selector(f'#found [data-order="{order_id}"]')
        assert "completed" in await text(page, "#found")
        assert "CANARY" not in await page.content()
        await page.fill("#search", "")
        assert not await page.is_visible("#found-section")
        await page.wait_for_timeout(PAUSE * 1000)
        await page.fill("#search", "R-0000")
        await page.press("#search", "Enter")
        await page.wait_for_selector("#found:has-text('No order of that name')")
        await page.fill("#search", "default")
        assert not await page.is_visible("#found-section"), "what a list has is not looked for"
