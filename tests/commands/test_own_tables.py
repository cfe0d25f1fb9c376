"""One of our tables, or a right on one, is missing: nothing is asked and nothing ended, and it goes
on when it is there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from order_monitor.core.answer import Waiting
from order_monitor.shop.writing.dispatches import TOUCHED
from tests.support.processes import Panel, Run, once, panel, running, sent, settings
from tests.support.shops import Shop, migrate

__all__ = ["panel"]

pytestmark = pytest.mark.long

WHAT_TO_DO = "order-monitor migrate"


async def test_passes_that_find_an_order_too_young_each_time_ask_about_it_all_the_same(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """The shop moves ``sent_at`` at each save: after five times its age counts from when it was
    found.
    """
    (order_id,) = await sent(plain_shop, 1)
    config = settings(plain_shop.dsn, panel.server.url, schedule={"first_check": 300})
    for number in range(TOUCHED + 1):
        await plain_shop.connection.execute(
            "UPDATE product_orders SET sent_at = clock_timestamp() - interval '100 s' + $1 * interval '2 s'",
            number,
        )
        code, summary, _ = await once(tmp_path, config)
        assert (code, summary["asked"]) == (0, 0)
    (noted,) = await plain_shop.connection.fetch(
        "SELECT order_id::text AS id, touched FROM order_monitor_dispatches"
    )
    assert (noted["id"], noted["touched"]) == (order_id, TOUCHED)
    await plain_shop.connection.execute(
        "UPDATE order_monitor_dispatches SET found_at = now() - interval '301 seconds'"
    )
    code, summary, _ = await once(tmp_path, config)
    assert (code, summary["asked"], summary["completed"]) == (0, 1, 1)


async def ready(run: Run) -> tuple[int, str]:
    port = (await run.event("health.listening"))["port"]
    async with httpx.AsyncClient() as client:
        answered = await client.get(f"http://127.0.0.1:{port}/readyz")
    return answered.status_code, answered.text


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await is_so():
            await asyncio.sleep(0.05)


async def test_once_asks_nothing_and_exits_1(bare_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    (order_id,) = await sent(bare_shop, 1)
    code, _, said = await once(tmp_path, settings(bare_shop.dsn, panel.server.url))
    assert code == 1
    assert WHAT_TO_DO in said
    assert not panel.server.calls
    assert (await bare_shop.row(order_id))["external_status"] == "sent"


async def test_a_daemon_waits_for_them_and_goes_on(
    bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    (order_id,) = await sent(bare_shop, 1)
    async with running(tmp_path, settings(bare_shop.dsn, panel.server.url)) as run:
        await run.event("scan.waiting")
        code, text = await ready(run)
        assert (code, WHAT_TO_DO in text) == (503, True)
        assert not panel.server.calls
        await migrate(bare_shop.dsn)
        await run.event("order.completed")
        assert (await ready(run))[0] == 200
    assert (await bare_shop.row(order_id))["external_status"] == "completed"
    assert await bare_shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 1


@pytest.mark.parametrize(
    "table", ["events", "pins", "dispatches", "review", "settings", "presence", "deliveries"]
)
async def test_a_table_that_goes_away_meanwhile_stops_all_questions(
    plain_shop: Shop, panel: Panel, tmp_path: Path, table: str
) -> None:
    panel.answer = Waiting("x")
    (order_id,) = await sent(plain_shop, 1)
    async with running(
        tmp_path, settings(plain_shop.dsn, panel.server.url, schedule={"cap": 1})
    ) as run:
        await panel.started.wait()
        await plain_shop.connection.execute(f"ALTER TABLE order_monitor_{table} RENAME TO away")

        async def is_held() -> bool:
            code, text = await ready(run)
            return code == 503 and f"order_monitor_{table}" in text

        await until(is_held)
        calls = dict(panel.server.calls)
        await plain_shop.connection.execute(f"ALTER TABLE away RENAME TO order_monitor_{table}")

        async def is_well() -> bool:
            return (await ready(run))[0] == 200

        await until(is_well)
        assert await run.event("scan.waiting")
        assert panel.server.calls[next(iter(calls))] >= calls[next(iter(calls))]
    assert (await plain_shop.row(order_id))["external_status"] in {"sent", "processing"}
