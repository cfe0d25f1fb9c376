"""One order's whole story."""

import json
from pathlib import Path
from typing import Any

import pytest

from order_monitor.answer import Cancelled, Completed, Waiting
from order_monitor.demo.standin import Script, StandIn
from order_monitor.order import Pin
from tests.shops import SHOP, Shop
from tests.test_process import KOD, PIN, SIFRE, running, sent, settings


async def explain(tmp_path: Path, config: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    async with running(tmp_path, config, "explain", "--json", *arguments) as run:
        code = await run.end()
    out = run.out.decode()
    return code, json.loads(out) if out else {}, run.err.decode()


async def test_an_open_order(shop: Shop, tmp_path: Path) -> None:
    (order_id,) = await sent(shop, 1)
    code, story, _ = await explain(tmp_path, settings(shop.dsn, "http://127.0.0.1:1"), order_id)
    assert code == 0
    assert story.keys() >= {"order", "account", "asked_about", "why", "checks", "next", "events"}
    assert (story["order"]["id"], story["order"]["status"], story["account"]) == (order_id, "sent", "default")
    assert story["asked_about"] is True
    assert story["next"] == sorted(story["next"])
    assert len(story["next"]) == 5
    assert story["events"] == []


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"status": "completed"}, "'completed' is not one of statuses.open"),
        ({"referans": ""}, "no_reference"),
        ({"sent_at": None}, "no_sent_at"),
        ({"sent_at": 4e9}, "sent_in_future"),
    ],
)
async def test_why_an_order_is_not_asked_about(plain_shop: Shop, tmp_path: Path, row: dict[str, Any], why: str) -> None:
    order_id = await plain_shop.add(**row)
    code, story, _ = await explain(tmp_path, settings(plain_shop.dsn, "http://127.0.0.1:1"), order_id)
    assert code == 0
    assert story["asked_about"] is False
    assert why in story["why"]
    assert story["next"] == []


async def test_an_overdue_order_says_so(plain_shop: Shop, tmp_path: Path) -> None:
    order_id = await plain_shop.add(sent_at=1_700_000_000.0)
    _, story, _ = await explain(tmp_path, settings(plain_shop.dsn, "http://127.0.0.1:1"), order_id)
    assert "overdue" in story["why"]


async def test_its_pin_is_masked_wherever_it_stands(shop: Shop, tmp_path: Path) -> None:
    order_id = await shop.add("completed", pin=PIN, note=f"PIN {PIN} yüklendi")
    config = settings(shop.dsn, "http://127.0.0.1:1")
    _, story, _ = await explain(tmp_path, config, order_id)
    assert story["order"]["pin"] == "****"
    assert story["order"]["note"] == "PIN **** yüklendi"
    async with running(tmp_path, config, "explain", order_id) as run:
        assert await run.end() == 0
    assert "****" in run.out.decode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Completed(Pin(PIN), f"{PIN} tamam"), {"outcome": "completed", "message": "**** tamam", "pin": "****"}),
        (Completed(None, "tamam"), {"outcome": "completed", "message": "tamam", "pin": "none"}),
        (Cancelled("iptal"), {"outcome": "cancelled", "message": "iptal"}),
        (Waiting("bekleniyor"), {"outcome": "waiting", "message": "bekleniyor"}),
    ],
)
async def test_now_asks_and_writes_nothing(
    plain_shop: Shop, tmp_path: Path, answer: Any, expected: dict[str, str]
) -> None:
    order_id = await plain_shop.add(referans="42")
    before = await plain_shop.row(order_id)
    async with StandIn({"42": Script(answer)}, kod=KOD, sifre=SIFRE) as panel:
        config = settings(plain_shop.dsn, panel.url)
        _, story, _ = await explain(tmp_path, config, "--now", order_id)
        assert story["now"] == expected
        async with running(tmp_path, config, "explain", "--now", order_id) as run:
            assert await run.end() == 0
        assert "(not written)" in run.out.decode()
    assert await plain_shop.row(order_id) == before


async def test_events_and_last_check(shop: Shop, tmp_path: Path) -> None:
    ids = await sent(shop, 1)
    async with StandIn({f"r-{ids[0][:8]}": Script(Completed(Pin(PIN), "tamam"))}, kod=KOD, sifre=SIFRE) as panel:
        config = settings(shop.dsn, panel.url)
        for command in (("migrate",), ("--once",)):
            async with running(tmp_path, config, *command) as run:
                assert await run.end() == 0
        _, story, _ = await explain(tmp_path, config, ids[0])
        (event,) = story["events"]
        assert (event["from_status"], event["to_status"], event["has_pin"]) == ("sent", "completed", True)
        assert bool(story["checks"]) == (shop.spelling is SHOP)
        async with running(tmp_path, config, "explain", ids[0]) as run:
            assert await run.end() == 0
        assert "sent -> completed by daemon  has_pin  tamam" in run.out.decode()


@pytest.mark.parametrize(
    "order_id", ["00000000-0000-4000-8000-000000000000", "not-an-id", "'; DROP TABLE product_orders; --"]
)
async def test_an_unknown_id_is_exit_1(plain_shop: Shop, tmp_path: Path, order_id: str) -> None:
    config = settings(plain_shop.dsn, "http://127.0.0.1:1")
    code, story, errors = await explain(tmp_path, config, order_id)
    assert (code, story) == (1, {})
    assert "there is no order" in errors
    assert await plain_shop.connection.fetchval("SELECT count(*) FROM product_orders") == 0


async def test_a_mistyped_id_names_what_is_near(plain_shop: Shop, tmp_path: Path) -> None:
    order_id = await plain_shop.add()
    wrong = order_id[:-1] + ("0" if order_id[-1] != "0" else "1")
    _, _, errors = await explain(tmp_path, settings(plain_shop.dsn, "http://127.0.0.1:1"), wrong)
    assert f"near: {order_id}" in errors
