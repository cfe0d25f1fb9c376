"""SIGHUP on a real daemon: what can change does, what cannot is named, and a bad file changes
nothing.
"""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from order_monitor.commands.reload import LIVE
from order_monitor.settings.model import known_keys
from tests.support.market import PLAIN_TABLES, SHOP_TABLES, Market
from tests.support.processes import KOD, SIFRE, Panel, Run, panel, running, sent, settings
from tests.support.shops import SHOP, Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long


async def reload(
    run: Run, tmp_path: Path, config: str, event: str = "settings.reloaded"
) -> dict[str, Any]:
    before = len([e for e in run.events() if e["event"] == event])
    (tmp_path / "monitor.toml").write_text(config)
    run.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(20):
        while True:
            found = [e for e in run.events() if e["event"] == event]
            if len(found) > before:
                return found[-1]
            await asyncio.sleep(0.01)


async def test_a_corrected_password_is_taken_up_at_once(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    ids = await sent(plain_shop, 12)
    wrong = {"base_url": "http://127.0.0.1:1", "connect_timeout": 1}
    config = settings(plain_shop.dsn, panel.server.url)
    async with running(tmp_path, settings(plain_shop.dsn, panel.server.url, provider=wrong)) as run:
        await run.event("account.closed")
        told = await reload(run, tmp_path, config)
        assert set(told["changed"]) == {"provider.base_url", "provider.connect_timeout"}
        assert told["need_restart"] == []
        async with asyncio.timeout(20):
            while {(await plain_shop.row(i))["external_status"] for i in ids} != {"completed"}:
                await asyncio.sleep(0.02)
        run.process.terminate()
        assert await run.end() == 0


async def test_a_hang_up_at_any_moment_of_a_stop_changes_nothing_about_it(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Up to the very end: a log rotation that comes with a stop must not make it look like a crash."""
    async with running(tmp_path, settings(plain_shop.dsn, panel.server.url)) as run:
        await run.event("started")
        run.process.terminate()
        while run.process.returncode is None:
            run.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.0005)
        assert await run.end() == 0
    assert [e for e in run.events() if e["event"] == "stopped"][-1]["clean"]


async def test_a_bad_file_keeps_the_old_settings_and_says_why(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(plain_shop.dsn, panel.server.url)
    async with running(tmp_path, config) as run:
        await run.event("started")
        told = await reload(run, tmp_path, config + "\n[limits2]\nx = 1\n", "settings.refused")
        assert "limits2" in told["problems"][0]
        told = await reload(run, tmp_path, "[[[", "settings.refused")
        ids = await sent(plain_shop, 2)
        async with asyncio.timeout(20):
            while {(await plain_shop.row(i))["external_status"] for i in ids} != {"completed"}:
                await asyncio.sleep(0.02)
        run.process.terminate()
        assert await run.end() == 0


async def test_what_cannot_change_while_running_is_named(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    async with running(tmp_path, settings(plain_shop.dsn, panel.server.url)) as run:
        await run.event("started")
        changed = settings(
            plain_shop.dsn,
            panel.server.url,
            health={"port": 1},
            statuses={"completed": "done"},
            limits={"concurrency": 3, "gate_after": 2},
            schedule={"cap": 900, "give_up_after": 7200},
            log={"level": "info"},
        )
        told = await reload(run, tmp_path, changed)
        assert set(told["need_restart"]) == {"health.port", "statuses.completed"}
        assert set(told["changed"]) == {
            "limits.concurrency",
            "limits.gate_after",
            "schedule.cap",
            "schedule.give_up_after",
            "log.level",
        }
        (order_id,) = await sent(plain_shop, 1)
        async with asyncio.timeout(20):
            while (await plain_shop.row(order_id))["external_status"] != "completed":
                await asyncio.sleep(0.02)
        again = await reload(run, tmp_path, changed)
        assert (again["changed"], set(again["need_restart"])) == (
            [],
            {"health.port", "statuses.completed"},
        )
        debug = [
            e for e in run.events() if e["event"] == "order.asked" and e["order_id"] == order_id
        ]
        assert debug == [], "the level is that of the new settings"
        run.process.terminate()
        assert await run.end() == 0


async def test_the_time_limit_is_the_new_one(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """In the decision too, which is made beside the database."""
    from order_monitor.core.answer import Waiting

    panel.answer = Waiting("bekleniyor")
    (order_id,) = await sent(plain_shop, 1)
    async with running(
        tmp_path, settings(plain_shop.dsn, panel.server.url, schedule={"cap": 1})
    ) as run:
        await run.event("order.processing")
        await reload(
            run,
            tmp_path,
            settings(plain_shop.dsn, panel.server.url, schedule={"cap": 1, "give_up_after": "50s"}),
        )
        async with asyncio.timeout(30):
            while (await plain_shop.row(order_id))["external_status"] != "failed":
                await asyncio.sleep(0.05)
        run.process.terminate()
        assert await run.end() == 0


async def test_the_shops_accounts_get_new_clients(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    import uuid

    await shop.connection.execute(SHOP_TABLES if shop.spelling is SHOP else PLAIN_TABLES)
    base_url = '"baseUrl"' if shop.spelling is SHOP else "base_url"
    integration = str(uuid.uuid4())
    await shop.connection.execute(
        f"INSERT INTO integrations (id, name, provider, {base_url}, kod, sifre) VALUES ($1::uuid, 'main', 'znet', $2, $3, $4)",
        integration,
        panel.server.url,
        KOD,
        SIFRE,
    )
    provider = '"providerId"' if shop.spelling is SHOP else "provider_id"
    closed = {"source": "database", "allow_private": True, "status_path": "nowhere.php"}
    config = settings(shop.dsn, panel.server.url, provider=closed)
    ids = await sent(shop, 8)
    await shop.connection.execute(f"UPDATE product_orders SET {provider} = $1", integration)
    async with running(tmp_path, config) as run:
        await run.event("account.closed")
        right = {**closed, "status_path": "servis/pin_kontrol.php"}
        told = await reload(run, tmp_path, settings(shop.dsn, panel.server.url, provider=right))
        assert told["changed"] == ["provider.status_path"]
        async with asyncio.timeout(20):
            while {(await shop.row(i))["external_status"] for i in ids} != {"completed"}:
                await asyncio.sleep(0.02)
        run.process.terminate()
        assert await run.end() == 0


async def test_an_account_that_is_added_later_has_the_new_limits(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await plain_shop.connection.execute(PLAIN_TABLES)
    market = Market(plain_shop)
    provider = {"source": "database", "allow_private": True, "connect_timeout": 1}
    many, two = [
        settings(plain_shop.dsn, panel.server.url, provider=provider, limits={"gate_after": after})
        for after in (1000, 2)
    ]
    async with running(tmp_path, many) as run:
        await run.event("started")
        reloaded = await reload(run, tmp_path, two)
        assert reloaded["changed"] == ["limits.gate_after"]
        added = await market.integration(None, name="added", base="http://127.0.0.1:1")
        await sent(plain_shop, 4, provider_id=added)
        closed = await run.event("account.closed")
        assert closed["account"].startswith("added")
        run.process.terminate()
        assert await run.end() == 0


def test_what_is_live_is_a_setting() -> None:
    assert {f"{section}.{key}" for section, keys in known_keys().items() for key in keys} >= LIVE
