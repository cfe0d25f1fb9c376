"""``advise`` and what people are told of learned timing: as processes, over a real database."""

import json
import uuid
from pathlib import Path

import pytest

from order_monitor.core.answer import Completed
from order_monitor.core.pin import Pin
from tests.support.commands import call
from tests.support.events import prepared
from tests.support.market import PLAIN_TABLES, Market
from tests.support.orders import found
from tests.support.processes import KOD, Panel, panel, running, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long
PACKAGE = str(uuid.uuid4())


async def ended(shop: Shop, count: int, took: float) -> None:
    orders = await prepared(shop)
    now = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    for n in range(count):
        order_id = await shop.add(sent_at=now - took, package_id=PACKAGE)
        order = shop.order(order_id, sent_at=now - took)
        await orders.record([found(order, Completed(Pin(f"{KOD}-{n}"), "tamam"), age=took)])


async def test_it_compares_the_strategies_on_the_shops_own_history(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(shop.dsn, panel.server.url, schedule={"first_check": 60, "base": 30})
    await ended(shop, 50, 271.0)
    code, out, _ = await call(tmp_path, config, "advise", "--json")
    assert code == 0
    (row,) = json.loads(out)
    assert (row["account"], row["package"], row["orders"]) == ("default", PACKAGE, 25)
    assert set(row) >= {
        f"{s}_{w}" for s in ("backoff", "fixed", "learned") for w in ("delay_seconds", "calls")
    }
    assert row["learned_delay_from"] < row["learned_delay_seconds"] < row["learned_delay_to"]
    code, out, _ = await call(tmp_path, config, "advise")
    assert code == 0
    assert "learned delay seconds" in out


async def test_too_little_history_is_said(
    plain_bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(plain_bare_shop.dsn, panel.server.url)
    code, _, err = await call(tmp_path, config, "advise")
    assert (code, "run order-monitor migrate" in err) == (1, True)
    await ended(plain_bare_shop, 3, 100.0)
    code, _, err = await call(tmp_path, config, "advise")
    assert (code, "3 ends in the events are too few to say anything; it takes 40" in err) == (
        1,
        True,
    )


async def test_the_daemon_learns_keeps_it_and_explain_says_why(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    schedule = {"first_check": 1, "base": 1, "min_interval": 0.2, "strategy": "learned"}
    config = settings(plain_shop.dsn, panel.server.url, schedule=schedule)
    async with running(tmp_path, config, "migrate") as run:
        assert await run.end() == 0
    ids = await sent(plain_shop, 30)
    async with running(tmp_path, config) as run:
        for _ in ids:
            await run.event("order.completed")
        while await plain_shop.connection.fetchval(
            "SELECT count(*) FROM product_orders WHERE external_status = 'sent'"
        ):
            pass
        run.process.terminate()
        assert await run.end() == 0
    kept = await plain_shop.connection.fetchval(
        "SELECT count(*) FROM order_monitor_timing WHERE account = 'default'"
    )
    assert kept >= 1
    (waiting,) = await sent(plain_shop, 1)
    code, out, _ = await call(tmp_path, config, "explain", waiting, "--json")
    assert (code, "asked" in json.loads(out)["timing"]) == (0, True)
    code, out, _ = await call(tmp_path, config, "explain", waiting)
    assert (code, "timing" in out) == (0, True)


async def test_it_calls_the_shops_accounts_by_their_names(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await ended(plain_shop, 44, 271.0)
    await plain_shop.connection.execute(PLAIN_TABLES)
    integration = await Market(plain_shop).integration(None, name="my dealer")
    await plain_shop.connection.execute("UPDATE order_monitor_events SET account = $1", integration)
    provider = {"source": "database", "allow_private": True}
    code, out, _ = await call(
        tmp_path, settings(plain_shop.dsn, panel.server.url, provider=provider), "advise", "--json"
    )
    assert (code, [row["account"] for row in json.loads(out)]) == (
        0,
        [f"my dealer-{integration[:8]}"],
    )
