"""The brake as people and cron meet it: one pass goes on with what another has held.

`release`, `pause --ends`, and who says so.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.pin import Pin
from tests.support.commands import call, daemon
from tests.support.processes import PIN, Panel, once, panel, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long

LATER = """
CREATE SCHEMA IF NOT EXISTS virtual;
CREATE OR REPLACE FUNCTION virtual.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT pg_catalog.now() + interval ''{seconds} s''';
CREATE OR REPLACE FUNCTION virtual.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp() + interval ''{seconds} s''';
ALTER TABLE order_monitor_events ALTER decided_at SET DEFAULT virtual.now();
ALTER TABLE order_monitor_review ALTER opened_at SET DEFAULT virtual.now();
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = virtual, pg_catalog, public', current_database()); END $$;
"""


async def later(shop: Shop, seconds: float) -> None:
    """Let the database's clock be ahead."""
    await shop.connection.execute(LATER.format(seconds=seconds))


class Split(Panel):
    """A stand-in that answers by the beginning of the reference."""

    def _own(self, request: Any) -> Any:
        reference = request.query.get("tahsilat_api_islem_id", "")
        if reference.startswith("old"):
            return Completed(None, "tamam")
        return self.answer if reference.startswith("out") else Waiting("bekliyor")


@pytest.fixture
async def split() -> Any:
    made = Split()
    made.answer = Cancelled("iptal")
    async with made.server:
        yield made


async def flood(shop: Shop, count: int = 30, *, done: int = 4) -> list[str]:
    """Orders that are cancelled, before them nineteen that were, so that the first trips it, and
    some that were completed.
    """
    await shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome, source, cause, account, reference) "
        "SELECT gen_random_uuid(), 'sent', 'failed', false, 'failed', 'program', 'answer', 'default', 'x' || n "
        "FROM generate_series(1, 19) n"
    )
    for n in range(done):
        await shop.connection.execute(
            "WITH made AS (INSERT INTO product_orders (id, external_status, sent_at, provider_referans) VALUES "
            "(gen_random_uuid(), 'completed', now() - interval '1 hour', $1) RETURNING id) INSERT INTO order_monitor_events "
            "(order_id, from_status, to_status, has_pin, decided_at, outcome, source, cause, account, reference) SELECT id, "
            "'sent', 'completed', false, now() - interval '50 min', 'completed', 'program', 'answer', 'default', $1 FROM made",
            f"old-{n}",
        )
    return [(await sent(shop, 1, reference=f"out-{n}"))[0] for n in range(count)]


async def count(shop: Shop, status: str) -> int:
    return int(
        await shop.connection.fetchval(
            "SELECT count(*) FROM product_orders WHERE external_status = $1", status
        )
    )


async def held(shop: Shop) -> int:
    return int(
        await shop.connection.fetchval(
            "SELECT count(*) FROM order_monitor_review WHERE closed_at IS NULL AND kind = 'held_by_brake'"
        )
    )


async def test_cron_alone_holds_and_lets_through(
    plain_shop: Shop, split: Split, tmp_path: Path
) -> None:
    await later(plain_shop, 0)
    await flood(plain_shop)
    await sent(plain_shop, 3, reference="slow")
    config = settings(plain_shop.dsn, split.server.url)
    code, summary, err = await once(tmp_path, config)
    assert (code, summary["held"], summary["failed"], summary["stuck"]) == (1, 30, 0, 0), err
    assert err.count("brake.tripped") == 1
    assert "order.stuck" not in err
    await later(plain_shop, 700)
    assert (await once(tmp_path, config))[1]["held"] == 30
    await later(plain_shop, 3500)
    assert (await once(tmp_path, config))[1]["held"] == 30
    await later(plain_shop, 3700)
    code, summary, err = await once(tmp_path, config)
    assert (code, summary["failed"], summary["held"]) == (0, 30, 0), err
    assert (await held(plain_shop), await count(plain_shop, "failed")) == (0, 30)


async def test_cron_by_its_times_asks_what_is_held_every_ten_minutes(
    plain_shop: Shop, split: Split, tmp_path: Path
) -> None:
    await later(plain_shop, 0)
    await flood(plain_shop)
    config = settings(plain_shop.dsn, split.server.url, schedule={"cap": 86400, "base": 86400})
    assert (await once(tmp_path, config, "--every", "1h"))[1]["held"] == 30
    await later(plain_shop, 540)
    assert (await once(tmp_path, config, "--every", "60s"))[1]["asked"] == 0
    await later(plain_shop, 630)
    assert (await once(tmp_path, config, "--every", "60s"))[1]["asked"] == 30


async def test_a_person_sees_what_is_held_and_lets_it_through(
    plain_shop: Shop, split: Split, tmp_path: Path
) -> None:
    first, *_ = await flood(plain_shop, done=0)
    config = settings(plain_shop.dsn, split.server.url)
    assert (await call(tmp_path, config, "release", "default"))[0] == 1, "nothing is held yet"
    assert (await once(tmp_path, config))[1]["held"] == 30
    _, out, _ = await call(tmp_path, config, "review")
    assert "held_by_brake: 30 orders" in out
    assert "order-monitor release default" in out
    assert len(out.splitlines()) == 2, "one digest an account"
    assert len(json.loads((await call(tmp_path, config, "review", "--json"))[1])) == 30
    _, out, _ = await call(tmp_path, config, "explain", first)
    assert "held by the brake since" in out
    assert "order-monitor release default" in out
    told = json.loads((await call(tmp_path, config, "explain", first, "--json"))[1])
    assert (told["held"]["why"], told["asked_about"]) == ("held_by_brake", True)
    assert len(told["held"]["needs"]) == 3
    _, out, _ = await call(tmp_path, config, "ask", first)
    assert "held" in out
    _, out, _ = await call(tmp_path, config, "orders", "--json")
    assert {row["stuck"] for row in json.loads(out)} == {"held_by_brake"}
    code, _, err = await call(tmp_path, config, "release", "nobody")
    assert (code, "there is no account" in err) == (1, True)
    code, out, _ = await call(tmp_path, config, "release", "default", "--by", "Ayşe")
    assert (code, "30 held orders let through by Ayşe" in out) == (0, True)
    stored = await plain_shop.connection.fetchval(
        "SELECT stored_by FROM order_monitor_settings WHERE name LIKE 'brake released%'"
    )
    assert stored == "Ayşe"
    code, summary, _ = await once(tmp_path, config, "--every", "1s")
    assert (summary["failed"], await held(plain_shop)) == (30, 0)
    await sent(plain_shop, 1, reference="out-next")
    code, summary, _ = await once(tmp_path, config)
    assert (code, summary["failed"], summary["held"]) == (0, 1, 0), (
        "it does not trip again by the same ones"
    )


async def test_a_daemon_notices_a_release_and_holds_nothing_more(
    plain_shop: Shop, split: Split, tmp_path: Path
) -> None:
    await flood(plain_shop, done=0)
    config = settings(plain_shop.dsn, split.server.url)
    async with daemon(plain_shop, tmp_path, config) as run:
        await run.event("brake.tripped")
        while await held(plain_shop) < 30:
            await asyncio.sleep(0.05)
        assert (await call(tmp_path, config, "release", "default"))[0] == 0
        await run.event("brake.ended")
        assert (await held(plain_shop), await count(plain_shop, "failed")) == (0, 30)
        assert sum(e["event"] == "brake.tripped" for e in run.events()) == 1
        assert not [e for e in run.events() if e["event"] == "order.stuck"]


async def test_ends_that_a_person_holds_are_read_again_afterwards(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    (order_id,) = await sent(plain_shop, 1)
    panel.answer = Completed(Pin(PIN), "tamam")
    config = settings(plain_shop.dsn, panel.server.url)
    code, out, _ = await call(
        tmp_path, config, "pause", "--ends", "--reason", "znet is odd", "--by", "Ali"
    )
    assert (
        code,
        "all accounts: its ends are held until it is resumed by Ali: znet is odd" in out,
    ) == (0, True)
    code, summary, _ = await once(tmp_path, config)
    assert (code, summary["held"], summary["completed"]) == (1, 1, 0)
    assert (await plain_shop.row(order_id))["external_status"] == "sent"
    assert await plain_shop.connection.fetchval("SELECT count(*) FROM order_monitor_pins") == 0
    assert "nothing waits" in (await call(tmp_path, config, "review"))[1]
    _, out, _ = await call(tmp_path, config, "explain", order_id)
    assert "its end is held since" in out
    assert "a PIN was read" in out
    assert "znet is odd" in out
    assert (
        json.loads((await call(tmp_path, config, "explain", order_id, "--json"))[1])["held"]["why"]
        == "ends_paused"
    )
    _, _, err = await call(tmp_path, config, "orders")
    assert "the ends of all accounts are held" in err
    panel.answer = Waiting("bekliyor")
    assert (await once(tmp_path, config))[1]["held"] == 0
    assert (await plain_shop.row(order_id))["external_status"] == "processing", (
        "what is no end is written"
    )
    assert (await call(tmp_path, config, "resume", "default", "--ends"))[0] == 1, (
        "it is all whose ends are held"
    )
    assert (await call(tmp_path, config, "resume", "--ends"))[0] == 0
    assert (await call(tmp_path, config, "resume", "--ends"))[0] == 1
    panel.answer = Completed(Pin(PIN), "tamam")
    assert (await once(tmp_path, config))[0] == 0
    row = await plain_shop.row(order_id)
    assert (row["external_status"], row["pin_code"]) == ("completed", PIN)


async def test_a_person_who_fails_an_order_hears_of_the_pin_that_was_held(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    failed, completed = await sent(plain_shop, 2)
    panel.answer = Completed(Pin(PIN), "tamam")
    config = settings(plain_shop.dsn, panel.server.url)
    assert (await call(tmp_path, config, "pause", "--ends", "--reason", "x"))[0] == 0
    assert (await once(tmp_path, config))[1]["held"] == 2
    _, out, _ = await call(tmp_path, config, "resolve", failed, "--failed", "--reason", "refunded")
    assert "the provider has sent another PIN for it" in out
    assert "pin_for_ended" in (await call(tmp_path, config, "review"))[1]
    read = panel.pin_of(f"r-{completed[:8]}")
    arguments = ("resolve", completed, "--completed", "--pin-stdin", "--reason", "x")
    code, out, _ = await call(tmp_path, config, *arguments, stdin=read)
    assert (code, "another PIN" in out) == (0, False)


async def test_a_daemon_asks_again_at_once_when_ends_are_let_go(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(plain_shop.dsn, panel.server.url, schedule={"cap": 600, "base": 600})
    assert (await call(tmp_path, config, "pause", "default", "--ends", "--reason", "x"))[0] == 0
    (order_id,) = await sent(plain_shop, 1)
    async with daemon(plain_shop, tmp_path, config) as run:
        await run.event("ends.paused")
        await run.event("order.asked")
        assert (await plain_shop.row(order_id))["external_status"] == "sent"
        assert (await call(tmp_path, config, "resume", "default", "--ends"))[0] == 0
        await run.event("order.completed")
        assert (await plain_shop.row(order_id))["pin_code"] == PIN


async def test_ends_and_asking_are_paused_apart(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(plain_shop.dsn, panel.server.url)
    assert (await call(tmp_path, config, "pause", "default", "--reason", "a"))[0] == 0
    assert (
        await call(tmp_path, config, "pause", "default", "--ends", "--reason", "b", "--for", "1h")
    )[0] == 0
    rows = await plain_shop.connection.fetch(
        "SELECT account, reason FROM order_monitor_pauses ORDER BY account"
    )
    assert [(r["account"], r["reason"]) for r in rows] == [("default", "a"), ("ends default", "b")]
    assert (await call(tmp_path, config, "resume", "default"))[0] == 0
    assert (await call(tmp_path, config, "resume", "default"))[0] == 1
    assert (await call(tmp_path, config, "resume", "default", "--ends"))[0] == 0
    assert (await call(tmp_path, config, "pause", "--ends", "nobody", "--reason", "x"))[0] == 1
    for usage in (["pause", "--reason", "x"], ["resume"], ["release"]):
        assert (await call(tmp_path, config, *usage))[0] == 2


async def test_a_person_may_end_what_is_held(
    plain_shop: Shop, split: Split, tmp_path: Path
) -> None:
    first, *_ = await flood(plain_shop, 20, done=0)
    config = settings(plain_shop.dsn, split.server.url)
    assert (await once(tmp_path, config))[1]["held"] == 20
    assert (await call(tmp_path, config, "pause", "--ends", "--reason", "x"))[0] == 0
    assert (await call(tmp_path, config, "resolve", first, "--failed", "--reason", "znet said so"))[
        0
    ] == 0
    assert (await held(plain_shop), await count(plain_shop, "failed")) == (19, 1)
