"""The daemon as a process whose every write is refused: whoever watches it is told within a minute
and a half.
"""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.support.commands import call, daemon
from tests.support.obstacles import shadowed
from tests.support.processes import Panel, once, panel, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long

NO = """
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
CREATE TRIGGER no BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION no()
"""
NO_EVENT = "ALTER TABLE order_monitor_events ADD COLUMN shop_code text NOT NULL"


@pytest.mark.parametrize("wall", [NO, NO_EVENT])
async def test_a_pass_that_can_write_nothing_is_not_well(
    plain_shop: Shop, panel: Panel, tmp_path: Path, wall: str
) -> None:
    ids = await sent(plain_shop, 6)
    await plain_shop.connection.execute(wall)
    code, summary, _ = await once(tmp_path, settings(plain_shop.dsn, panel.server.url))
    assert (code, summary["stuck"], summary["completed"]) == (1, 6, 0)
    assert {(await plain_shop.row(i))["external_status"] for i in ids} == {"sent"}


async def test_a_daemon_whose_every_write_is_refused_is_not_ready(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """After the whole minute, by a clock that is quicker: /readyz, `status`.

    And ready again when the wall is gone.
    """
    await sent(plain_shop, 6)
    await plain_shop.connection.execute(NO)
    config = settings(plain_shop.dsn, panel.server.url, schedule={"cap": 5})
    async with daemon(plain_shop, tmp_path, config, rate=10) as run, httpx.AsyncClient() as client:
        listening = await run.event("health.listening")
        url = f"http://127.0.0.1:{listening['port']}"
        while (await client.get(f"{url}/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
        began = time.monotonic()
        while (answered := await client.get(f"{url}/readyz")).status_code == 200:
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.05)
        assert time.monotonic() - began > 4
        assert "orders refused: 6" in answered.text
        own = settings(plain_shop.dsn, panel.server.url, health={"port": listening["port"]})
        code, out, _ = await call(tmp_path, own, "status")
        assert code == 1, out
        await plain_shop.connection.execute("DROP TRIGGER no ON product_orders")
        async with asyncio.timeout(30):
            while (await client.get(f"{url}/readyz")).status_code != 200:
                await asyncio.sleep(0.2)


async def test_a_person_resolves_an_order_while_the_queue_of_notifications_is_full(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    (order_id,) = await sent(plain_shop, 1)
    await shadowed(plain_shop)
    config = settings(plain_shop.dsn, panel.server.url)
    code, out, err = await call(
        tmp_path, config, "resolve", order_id, "--failed", "--reason", "by phone"
    )
    assert code == 0, out + err
    assert (await plain_shop.row(order_id))["external_status"] == "failed"
    assert (
        await plain_shop.connection.fetchval("SELECT outcome FROM order_monitor_events") == "failed"
    )
