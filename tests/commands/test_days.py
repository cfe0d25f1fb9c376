"""Days in a shop, gone through with real processes and compared row by row."""

import re
from pathlib import Path
from typing import Any

import pytest

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.pin import Pin
from order_monitor.demo.standin import Script, StandIn
from order_monitor.shop.writing.event_sql import dispatch_of
from tests.support.processes import KOD, PIN, SIFRE, once, running, sent, settings
from tests.support.shops import Shop

pytestmark = pytest.mark.long

LONG_AGO = 0.0
NEVER = float("inf")
TOP_UPS, WITH_PIN = 300, 200
TEXTS = ("Yüklendi", "100 TL yüklenmiştir", "İşleminiz tamamlandı", "250 Elmas gönderildi")


@pytest.fixture
async def panel() -> Any:
    async with StandIn({}, kod=KOD, sifre=SIFRE) as made:
        yield made


async def references(shop: Shop) -> dict[str, str]:
    rows = await shop.connection.fetch(
        "SELECT id::text AS id, provider_referans AS r FROM product_orders"
    )
    return {row["id"]: row["r"] for row in rows}


async def told(shop: Shop) -> dict[tuple[str, str], int]:
    rows = await shop.connection.fetch(
        "SELECT order_id::text AS id, outcome, count(*) AS n FROM order_monitor_events "
        "WHERE NOT repeat AND outcome IN ('completed', 'failed') GROUP BY 1, 2"
    )
    return {(row["id"], row["outcome"]): row["n"] for row in rows}


async def test_a_day_of_top_ups_that_say_a_text_and_of_orders_with_pins(
    plain_shop: Shop, panel: StandIn, tmp_path: Path
) -> None:
    """A panel that writes a text into the PIN's field: none of it stands still, and no PIN is lost
    or given twice.
    """
    ids = await sent(plain_shop, TOP_UPS + WITH_PIN)
    known, pins = await references(plain_shop), {}
    for number, order_id in enumerate(ids):
        pins[order_id] = TEXTS[number % len(TEXTS)] if number < TOP_UPS else f"{PIN}-{number:04}"
        panel.scripts[known[order_id]] = Script(Completed(Pin(pins[order_id]), "tamam"), LONG_AGO)  # type: ignore[index]
    async with running(tmp_path, settings(plain_shop.dsn, panel.url), "--once", "--json") as run:
        assert await run.end() == 0
    rows = await plain_shop.connection.fetch(
        "SELECT id::text AS id, external_status, pin_code FROM product_orders"
    )
    assert {row["id"]: row["pin_code"] for row in rows} == pins
    assert {row["external_status"] for row in rows} == {"completed"}
    assert await told(plain_shop) == {(order_id, "completed"): 1 for order_id in ids}
    assert await plain_shop.connection.fetchval("SELECT count(*) FROM order_monitor_review") == 0
    assert [event["event"] for event in run.events()].count("pin.is_text") == 1, (
        "one word for all of them"
    )


async def test_a_night_with_cron_alone(plain_shop: Shop, panel: StandIn, tmp_path: Path) -> None:
    """Pass after pass, each a process that remembers nothing: each order ends once, by its own
    answer.
    """
    ids = await sent(plain_shop, 30)
    known = await references(plain_shop)
    config = settings(plain_shop.dsn, panel.url)
    ends = {
        order_id: Completed(Pin(f"{PIN}-{n:04}"), "tamam") if n % 3 else Cancelled("iptal")
        for n, order_id in enumerate(ids)
    }
    for night in range(4):
        for number, order_id in enumerate(ids):
            answer = ends[order_id] if number % 4 <= night else Waiting("bekliyor")
            panel.scripts[known[order_id]] = Script(answer, LONG_AGO)  # type: ignore[index]
        code, summary, _ = await once(tmp_path, config)
        assert code == 0, summary
    expected = {
        (i, "completed" if isinstance(end, Completed) else "failed"): 1 for i, end in ends.items()
    }
    assert await told(plain_shop) == expected
    rows = await plain_shop.connection.fetch("SELECT id::text AS id, pin_code FROM product_orders")
    wanted = {
        i: end.pin.reveal() if isinstance(end, Completed) and end.pin else None
        for i, end in ends.items()
    }
    assert {row["id"]: row["pin_code"] for row in rows} == wanted


async def test_a_restore_of_last_nights_backup_tells_the_same_dispatches_again(
    plain_shop: Shop, panel: StandIn, tmp_path: Path
) -> None:
    """The events of after the backup are gone: what is told again bears the digests of before, by
    which a receiver knows it.
    """
    ids = await sent(plain_shop, 5)
    known = await references(plain_shop)
    for number, order_id in enumerate(ids):
        end = Completed(Pin(f"{PIN}-{number:04}"), "tamam") if number else Cancelled("iptal")
        panel.scripts[known[order_id]] = Script(end, LONG_AGO)  # type: ignore[index]
    config = settings(plain_shop.dsn, panel.url)
    async with running(tmp_path, config, "check") as run:
        await run.end()
    tables = (
        "product_orders",
        *(
            f"order_monitor_{t}"
            for t in ("events", "deliveries", "dispatches", "pins", "review", "settings")
        ),
    )
    for table in tables:
        await plain_shop.connection.execute(f"CREATE TABLE backup_{table} AS TABLE {table}")

    async def night() -> tuple[dict[str, Any], list[str]]:
        assert (await once(tmp_path, config))[0] == 0
        rows = await plain_shop.connection.fetch(
            "SELECT id::text AS id, external_status AS status, pin_code AS pin FROM product_orders"
        )
        digests = await plain_shop.connection.fetch(
            f"SELECT {dispatch_of('public', 'e')} AS d FROM order_monitor_events e ORDER BY 1"
        )
        return {row["id"]: (row["status"], row["pin"]) for row in rows}, [
            row["d"] for row in digests
        ]

    rows, digests = await night()
    assert all(re.fullmatch("[0-9a-f]{16,}", digest) for digest in digests)
    for table in reversed(tables):
        await plain_shop.connection.execute(f"DELETE FROM {table}")
    for table in tables:
        await plain_shop.connection.execute(
            f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM backup_{table}"
        )
    assert await night() == (rows, digests)
