"""Walked through: the first start on an old table, an upgrade, and orders that the shop settles
itself; real processes.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from order_monitor.core.answer import Waiting
from tests.support.commands import RARELY, call, daemon
from tests.support.processes import Panel, once, panel, running, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long

DAY = 86_400
OLD, OPEN = 200_000, 3000


async def add_old_rows(shop: Shop) -> None:
    """Months of orders, of which some were never closed."""
    await shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) SELECT gen_random_uuid(), "
        f"CASE WHEN n <= {OPEN} THEN 'sent' ELSE 'completed' END, now() - interval '10 days' - n * interval '1 minute', "
        f"'old-' || n FROM generate_series(1, {OLD}) n"
    )


async def aged(shop: Shop, days: float, count: int) -> list[str]:
    at = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    return [await shop.add(sent_at=at - days * DAY - n) for n in range(count)]


async def statuses(shop: Shop, ids: list[str]) -> set[str]:
    return {(await shop.row(order_id))["external_status"] for order_id in ids}


async def migrated(tmp_path: Path, config: str) -> None:
    async with running(tmp_path, config, "migrate") as run:
        assert await run.end() == 0


async def lines_of_check(tmp_path: Path, config: str) -> list[dict[str, Any]]:
    code, out, _ = await call(tmp_path, config, "check", "--json")
    assert code == 0
    return list(json.loads(out))


async def people_are_told(shop: Shop, panel: Panel, tmp_path: Path, config: str, late: str) -> None:
    """Each command says what is left alone or held, and what to do."""
    lines = {line["text"]: line["do"] for line in await lines_of_check(tmp_path, config)}
    assert (
        lines["5 orders sent before the first start would fail by age"]
        == "order-monitor release --first-start"
    )
    assert any(
        text.startswith(f"{OPEN} left alone (before_start): sent before 20") for text in lines
    )
    old = await shop.connection.fetchval(
        "SELECT id::text FROM product_orders WHERE provider_referans = 'old-1'"
    )
    code, out, _ = await call(tmp_path, config, "explain", old)
    assert code == 0
    assert "not asked about: it is left alone: before_start, sent before" in out
    assert "schedule.ignore_before" in out
    code, out, _ = await call(tmp_path, config, "explain", late, "--json")
    assert (
        "its age ends it only after order-monitor release --first-start" in json.loads(out)["why"]
    )
    code, out, err = await call(tmp_path, config, "orders", "--json", "--limit", "20")
    rows = json.loads(out)
    assert [row["skipped"] for row in rows] == [None] * 9 + ["before_start"] * 11
    assert (
        f"{OPEN} left alone (before_start), listed last; schedule.ignore_before says which" in err
    )
    code, out, err = await call(tmp_path, config, "ask", old)
    assert (code, "the provider says waiting" in out, "else left alone (before_start" in err) == (
        0,
        True,
        True,
    )
    assert panel.server.calls["old-1"] == 1, "a person has named it"
    assert (await shop.row(old))["external_status"] == "processing", "and its age does not fail it"


async def test_a_first_start_on_an_old_table(
    plain_bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop, panel.answer = plain_bare_shop, Waiting("bekleniyor")
    config = settings(shop.dsn, panel.server.url, schedule={"cap": 1})
    await add_old_rows(shop)
    late, young = await aged(shop, 2, 5), await sent(shop, 4)
    asked = {f"r-{order_id[:8]}" for order_id in (*late, *young)}
    await migrated(tmp_path, config)

    # One pass, as cron makes it: only the young are asked about, and none is failed by its age.
    code, summary, err = await once(tmp_path, config)
    assert (code, summary["asked"], summary["failed"], summary["overdue"]) == (0, 9, 0, 5)
    assert (summary["open"], summary["skipped"]) == (OPEN + 9, {"before_start": OPEN})
    assert panel.server.calls.keys() == asked
    assert await statuses(shop, [*late, *young]) == {"processing"}
    assert [json.loads(line)["event"] for line in err.splitlines() if "left_alone" in line] == [
        "orders.left_alone"
    ]
    assert "order.skipped" not in err

    # The daemon does the same, for as long as it runs.
    async with daemon(shop, tmp_path, config) as run:
        told = await run.event("orders.left_alone")
        assert (told["count"], told["reason"]) == (OPEN, "before_start")
        async with asyncio.timeout(30):
            while min(panel.server.calls.get(f"r-{order_id[:8]}", 0) for order_id in late) < 4:
                await asyncio.sleep(0.05)
        assert sum(event["event"] == "orders.left_alone" for event in run.events()) == 1
    assert panel.server.calls.keys() == asked
    assert await statuses(shop, [*late, *young]) == {"processing"}

    await people_are_told(shop, panel, tmp_path, config, late[0])

    # A person lets go of what the first start holds; what is left alone stays so.
    code, out, _ = await call(tmp_path, config, "release", "--first-start", "--by", "Ayşe")
    assert code == 0
    assert "released by Ayşe; 5 are past schedule.give_up_after" in out
    code, _, err = await call(tmp_path, config, "release", "--first-start")
    assert (code, "there is nothing to release" in err) == (1, True)
    assert (await call(tmp_path, config, "release"))[0] == 2
    code, summary, _ = await once(tmp_path, config)
    assert (code, summary["failed"], summary["skipped"]) == (0, 5, {"before_start": OPEN})
    assert await statuses(shop, late) == {"failed"}
    assert await statuses(shop, young) == {"processing"}
    ended = "SELECT count(*) FROM order_monitor_events WHERE outcome = 'failed'"
    assert await shop.connection.fetchval(ended) == 5


async def test_a_running_daemon_obeys_the_release_at_once(
    plain_bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop, panel.answer = plain_bare_shop, Waiting("bekleniyor")
    config = settings(shop.dsn, panel.server.url, schedule={"cap": 1})
    (late,) = await aged(shop, 2, 1)
    await migrated(tmp_path, config)
    async with daemon(shop, tmp_path, config) as run:
        await run.event("order.processing")
        assert (await call(tmp_path, config, "release", "--first-start"))[0] == 0
        await run.event("order.failed")
    assert await statuses(shop, [late]) == {"failed"}


async def test_a_date_says_which_are_left_alone(
    plain_bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop, panel.answer = plain_bare_shop, Waiting("bekleniyor")
    ids = [order_id for days in (40, 20, 1) for order_id in await aged(shop, days, 1)]
    for ignore, skipped in (("30d", 1), ("2000-01-02", 0), (0, 3)):
        config = settings(shop.dsn, panel.server.url, schedule={"ignore_before": ignore})
        await migrated(tmp_path, config)
        _, _, _ = await call(tmp_path, config, "settings", "adopt")
        code, summary, _ = await once(tmp_path, config)
        assert (code, summary["skipped"].get("before_start", 0), summary["failed"]) == (
            0,
            skipped,
            0,
        ), ignore
        assert summary["asked"] == 3 - skipped
    assert await statuses(shop, ids) == {"processing"}


async def test_an_upgrade_of_an_installation_that_runs_goes_on_as_before(
    plain_bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """It has events and no marks: nothing is left alone, and ages go on."""
    shop, panel.answer = plain_bare_shop, Waiting("bekleniyor")
    config = settings(shop.dsn, panel.server.url)
    await migrated(tmp_path, config)
    await shop.connection.execute(
        "DROP TABLE order_monitor_settings; "
        "INSERT INTO order_monitor_events (order_id, to_status, has_pin) VALUES (gen_random_uuid(), 'failed', false)"
    )
    old, late, young = await aged(shop, 30, 1), await aged(shop, 2, 1), await sent(shop, 1)
    await migrated(tmp_path, config)
    code, summary, _ = await once(tmp_path, config)
    assert (code, summary["asked"], summary["failed"], summary["skipped"]) == (0, 3, 2, {})
    assert await statuses(shop, [*old, *late]) == {"failed"}
    assert await statuses(shop, young) == {"processing"}
    assert (await call(tmp_path, config, "release", "--first-start"))[0] == 1
    assert not [line for line in await lines_of_check(tmp_path, config) if "start" in line["text"]]


@pytest.mark.wall_clock
async def test_an_order_that_the_shop_settles_is_let_go_and_taken_up_again(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop, panel.answer = plain_shop, Waiting("bekleniyor")
    config = settings(shop.dsn, panel.server.url, statuses={"settled": ["approved", "rejected"]})
    (order_id,) = await sent(shop, 1)

    async def calls() -> int:
        return panel.server.calls.get(f"r-{order_id[:8]}", 0)

    async def set_status(word: str) -> None:
        await shop.connection.execute("UPDATE product_orders SET status = $1", word)

    async with daemon(shop, tmp_path, config) as run:
        await run.event("order.processing")
        await set_status("approved")
        told = await run.event("order.skipped")
        assert (told["order_id"], told["reason"], told["level"]) == (
            order_id,
            "settled_by_shop",
            "info",
        )
        before = await calls()
        await asyncio.sleep(3)
        assert await calls() == before, "it is asked about no more"
        await set_status("pending")
        async with asyncio.timeout(30):
            while await calls() == before:
                await asyncio.sleep(0.05)
    await set_status("rejected")
    code, summary, _ = await once(tmp_path, config)
    assert (code, summary["asked"], summary["skipped"]) == (0, 0, {"settled_by_shop": 1})
    code, out, _ = await call(tmp_path, config, "ask", order_id)
    assert code == 1
    assert (
        "settled_by_shop (the shop's own status is one of statuses.settled); decide it by order-monitor resolve"
        in out
    )
    _, out, _ = await call(tmp_path, config, "explain", order_id)
    assert "it is skipped: settled_by_shop" in out
    lines = [
        line for line in await lines_of_check(tmp_path, config) if "settled_by_shop" in line["text"]
    ]
    assert [(line["level"], line["text"].partition(":")[0]) for line in lines] == [
        ("ok", "1 not asked about (settled_by_shop)")
    ]


async def test_a_settled_word_without_its_column_is_said_at_once(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await plain_shop.connection.execute("ALTER TABLE product_orders DROP COLUMN status")
    config = settings(
        plain_shop.dsn, panel.server.url, schedule=RARELY, statuses={"settled": ["approved"]}
    )
    for command in (("--once",), ("check",)):
        code, out, err = await call(tmp_path, config, *command)
        assert code in (1, 2)
        assert "statuses.settled: public.product_orders has no column status" in out + err
