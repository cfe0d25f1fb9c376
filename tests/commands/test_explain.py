"""One order's whole story."""

import json
import math
import os
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from order_monitor.commands.times import moment, span
from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.pin import Pin
from order_monitor.demo.standin import Script, StandIn
from tests.support import launch
from tests.support.processes import KOD, PIN, SIFRE, running, sent, settings
from tests.support.shops import SHOP, Shop


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
    assert (story["order"]["id"], story["order"]["status"], story["account"]) == (
        order_id,
        "sent",
        "default",
    )
    assert story["asked_about"] is True
    assert story["next"] == sorted(story["next"])
    assert len(story["next"]) == 5
    assert story["events"] == []


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"status": "completed"}, "'completed' is not one of statuses.open"),
        ({"reference": ""}, "no_reference"),
        ({"sent_at": None}, "no_sent_at"),
        ({"sent_at": 4e9}, "sent_in_future"),
    ],
)
async def test_why_an_order_is_not_asked_about(
    plain_shop: Shop, tmp_path: Path, row: dict[str, Any], why: str
) -> None:
    order_id = await plain_shop.add(**row)
    code, story, _ = await explain(
        tmp_path, settings(plain_shop.dsn, "http://127.0.0.1:1"), order_id
    )
    assert code == 0
    assert story["asked_about"] is False
    assert why in story["why"]
    assert story["next"] == []


async def test_an_overdue_order_says_so(plain_shop: Shop, tmp_path: Path) -> None:
    order_id = await plain_shop.add(sent_at=1_700_000_000.0)
    _, story, _ = await explain(tmp_path, settings(plain_shop.dsn, "http://127.0.0.1:1"), order_id)
    assert "overdue" in story["why"]


async def test_an_overdue_order_that_a_person_put_back_says_from_when_its_limit_counts(
    plain_shop: Shop, tmp_path: Path
) -> None:
    order_id = await plain_shop.add(sent_at=1_700_000_000.0)
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome, source, cause) "
        "VALUES ($1::uuid, 'failed', 'sent', false, 'reopened', 'person', 'person')",
        order_id,
    )
    config = settings(plain_shop.dsn, "http://127.0.0.1:1")
    told = "it is overdue, but was put back to open"
    assert told in (await explain(tmp_path, config, order_id))[1]["why"]
    await plain_shop.connection.execute(
        "UPDATE order_monitor_events SET decided_at = decided_at - interval '1 day'"
    )
    assert told not in (await explain(tmp_path, config, order_id))[1]["why"]


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
        (
            Completed(Pin(PIN), f"{PIN} tamam"),
            {"outcome": "completed", "message": "**** tamam", "pin": "****"},
        ),
        (Completed(None, "tamam"), {"outcome": "completed", "message": "tamam", "pin": "none"}),
        (Cancelled("iptal"), {"outcome": "cancelled", "message": "iptal"}),
        (Waiting("bekleniyor"), {"outcome": "waiting", "message": "bekleniyor"}),
    ],
)
async def test_now_asks_and_writes_nothing(
    plain_shop: Shop, tmp_path: Path, answer: Any, expected: dict[str, str]
) -> None:
    order_id = await plain_shop.add(reference="42")
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
    async with StandIn(
        {f"r-{ids[0][:8]}": Script(Completed(Pin(PIN), "tamam"))}, kod=KOD, sifre=SIFRE
    ) as panel:
        config = settings(shop.dsn, panel.url)
        for command in (("migrate",), ("--once",)):
            async with running(tmp_path, config, *command) as run:
                assert await run.end() == 0
        _, story, _ = await explain(tmp_path, config, ids[0])
        (event,) = story["events"]
        assert (event["from_status"], event["to_status"], event["has_pin"]) == (
            "sent",
            "completed",
            True,
        )
        assert bool(story["checks"]) == (shop.spelling is SHOP)
        async with running(tmp_path, config, "explain", ids[0]) as run:
            assert await run.end() == 0
        assert "sent -> completed by daemon  has_pin  tamam" in run.out.decode()


async def test_a_cancellation_that_waits_for_a_second_answer(shop: Shop, tmp_path: Path) -> None:
    (order_id,) = await sent(shop, 1)
    await shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind, account, detail, opened_at) VALUES "
        "($1::uuid, 'cancel_unconfirmed', 'default', $2, '2026-01-02 10:00:00Z')",
        order_id,
        f"r-{order_id[:8]}",
    )
    config = settings(shop.dsn, "http://127.0.0.1:1", schedule={"confirm_cancelled": 300})
    code, story, _ = await explain(tmp_path, config, order_id)
    assert code == 0
    assert story["held"] == {
        "since": "2026-01-02T10:00:00+00:00",
        "until": "2026-01-02T10:05:00+00:00",
        "why": "cancel_unconfirmed",
        "needs": ["a second answer that confirms the cancellation"],
    }
    assert story["asked_about"] is True
    assert "a second answer from 2026-01-02T10:05:00+00:00 on" in story["why"]
    assert story["review"] == []


@pytest.mark.parametrize(
    "order_id",
    ["00000000-0000-4000-8000-000000000000", "not-an-id", "'; DROP TABLE product_orders; --"],
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


# --- the sentence it begins with


async def first_line(tmp_path: Path, config: str, order_id: str, **environ: str) -> list[str]:
    """Explain for people, in a zone that is not UTC, and return the lines."""
    (tmp_path / "monitor.toml").write_text(config)
    zone = {**os.environ, "TZ": "Asia/Baku", **environ}
    process = await launch.start("explain", order_id, cwd=tmp_path, env=zone, stderr=launch.DEVNULL)
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert PIN.encode() not in out
    return out.decode().splitlines()


async def aged(shop: Shop, seconds: float, **more: Any) -> str:
    now = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    return await shop.add(sent_at=now - seconds, **more)


SLOW = {"first_check": 1800, "base": 1800, "cap": 1800, "jitter": 0, "give_up_after": 7200}


async def test_it_begins_with_how_the_order_is(shop: Shop, tmp_path: Path) -> None:
    order_id = await aged(shop, 1455)
    config = settings(shop.dsn, "http://127.0.0.1:1", schedule=SLOW)
    assert (await first_line(tmp_path, config, order_id))[0] == (
        "Waiting at the provider for 24 min; no answer is noted; asked again in 5 min."
    )
    if shop.spelling is SHOP:
        await shop.connection.execute(
            "UPDATE product_orders SET \"lastSyncAt\" = now() - interval '200 s'"
        )
        assert (await first_line(tmp_path, config, order_id))[0] == (
            "Waiting at the provider for 24 min; last answer 3 min ago: waiting; asked again in 5 min."
        )
    late = await aged(shop, 7200 + 3900)
    assert re.fullmatch(
        r"Waiting at the provider for 3 h 5 min, overdue for 1 h 5 min; no answer is noted; asked again in 2\d min\.",
        (await first_line(tmp_path, config, late))[0],
    )
    lost = await aged(shop, 130, reference="")
    assert (await first_line(tmp_path, config, lost))[0] == (
        "Open for 2 min, and not asked about: it is skipped: no_reference (the shop saved no provider_referans)."
    )


async def test_it_begins_with_how_the_order_ended(shop: Shop, tmp_path: Path) -> None:
    config = settings(shop.dsn, "http://127.0.0.1:1")
    ids = await sent(shop, 1)
    async with StandIn(
        {f"r-{ids[0][:8]}": Script(Completed(Pin(PIN), "tamam"))}, kod=KOD, sifre=SIFRE
    ) as panel:
        asked = settings(shop.dsn, panel.url)
        for command in (("migrate",), ("--once",)):
            async with running(tmp_path, asked, *command) as run:
                assert await run.end() == 0
    assert re.fullmatch(
        r"Became 'completed' \d+ s ago, by daemon, with its PIN\.",
        (await first_line(tmp_path, config, ids[0]))[0],
    )
    other = await aged(shop, 60, status="refunded")
    assert (await first_line(tmp_path, config, other))[0] == (
        "Its status is 'refunded': not asked about, and no event tells since when."
    )
    waits = await aged(shop, 60, pin=PIN)
    await shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind) VALUES ($1::uuid, 'pin_differs')", waits
    )
    assert (await first_line(tmp_path, config, waits))[0].endswith("; for review: pin_differs.")


async def test_its_first_answer_is_noted_by_its_event(plain_shop: Shop, tmp_path: Path) -> None:
    (order_id,) = await sent(plain_shop, 1)
    async with StandIn(
        {f"r-{order_id[:8]}": Script(Waiting("bekleniyor"))}, kod=KOD, sifre=SIFRE
    ) as panel:
        config = settings(plain_shop.dsn, panel.url)
        for command in (("migrate",), ("--once",)):
            async with running(tmp_path, config, *command) as run:
                assert await run.end() == 0
        assert re.match(
            r"Waiting at the provider for 1 min; last noted answer \d+ s ago: waiting; asked again in ",
            (await first_line(tmp_path, config, order_id))[0],
        )


async def test_times_are_the_operators_with_how_long_beside_and_the_json_is_utc(
    shop: Shop, tmp_path: Path
) -> None:
    order_id = await aged(shop, 1455)
    config = settings(shop.dsn, "http://127.0.0.1:1", schedule=SLOW)
    lines = await first_line(tmp_path, config, order_id)
    assert lines[1] == ""
    _, story, _ = await explain(tmp_path, config, order_id)
    at = datetime.fromisoformat(story["next"][0]).astimezone(timezone(timedelta(hours=4)))
    assert story["next"][0].endswith("+00:00")
    assert f"next        {at:%Y-%m-%d %H:%M:%S} +04 (in 5 min)" in lines
    assert any(
        re.fullmatch(r"sent_at     20\d\d-\d\d-\d\d \d\d:\d\d:\d\d \+04 \(24 min ago\)", line)
        for line in lines
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (86_400, "1 d"),
        (180_000, "2 d 2 h"),
        (math.inf, "ever"),
    ],
)
def test_a_time_is_as_long_as_it_is_said_or_a_little_longer(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_what_is_no_date_is_a_dash() -> None:
    assert [moment(seconds, 0.0) for seconds in (None, math.inf, -math.inf, math.nan, 1e18)] == [
        "-"
    ] * 5
