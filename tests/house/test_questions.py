"""docs/questions.md: its commands and its SQL do what it says, as they stand there, over a real
database and with real processes.

The commands for the systemd host are tried in `tests/shipped/test_boot.py`.
"""

import asyncio
import json
import re
import shlex
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from order_monitor.core.answer import Cancelled, Completed
from order_monitor.settings.sections import WebhookSettings
from order_monitor.shop.locks import OLD_MEMBER, OLDER_VERSION, lock_class
from order_monitor.shop.outbox import LONGEST_RETRY
from order_monitor.shop.schema.columns import ADDED_BY_MIGRATE, LOGICAL, REQUIRED, quoted
from order_monitor.tell.webhook import FIRST_RETRY
from tests.support import readme
from tests.support.commands import RARELY, call, daemon
from tests.support.orders import found
from tests.support.processes import PIN, Panel, panel, sent, settings
from tests.support.shops import Shop, migrate
from tests.support.webhooks import SECRET, Receiver, hooked, make_due, receiver

__all__ = ["panel", "receiver"]

PAGE = readme.PAGES["questions.md"]
TRIED = "SELECT count(*) FILTER (WHERE tries <> '[]') FROM order_monitor_deliveries"
"""How many events have a try whose outcome is noted."""
OTHER_SECRET = "whsec_cm90YXRlZC1yb3RhdGVkLXJvdGF0ZWQtcm90YXRlZA=="


def section(title: str) -> str:
    """Return what stands under a question."""
    (found_one,) = [
        part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE) if part.startswith(title)
    ]
    return found_one


def commands(title: str) -> list[list[str]]:
    """Return the arguments of each order-monitor command under a question."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line[1:] for line in lines if line[0] == "order-monitor"]


def about(order_id: str, arguments: list[str]) -> list[str]:
    return [order_id if argument == "ID" else argument for argument in arguments]


async def waiting(shop: Shop) -> int:
    sql = "SELECT count(*) FROM order_monitor_deliveries WHERE delivered_at IS NULL AND dead_at IS NULL"
    return int(await shop.connection.fetchval(sql))


async def all_posted(shop: Shop) -> None:
    """Wait until nothing waits any more."""
    async with asyncio.timeout(30):
        while await waiting(shop):
            await asyncio.sleep(0.02)


def hook(url: str, secret: str = SECRET) -> dict[str, str]:
    return {"url": url, "secret": secret}


NEEDS_MORE = {
    "resolve": ("ID", "--failed", "--reason", "x"),
    "ask": ("ID",),
    "explain": ("ID",),
    "pause": ("ACCOUNT", "--reason", "x"),
    "resume": ("ACCOUNT",),
    "release": ("ACCOUNT",),
    "settings": ("show",),
}
"""What a command cannot do without on its command line."""


async def test_which_settings_a_command_needs_is_what_it_asks_for(tmp_path: Path) -> None:
    """Each is given none, and says which are missing."""
    for names, needs in re.findall(
        r"^\| (`.+?) \| (.+) \|$", section("How do I run a command"), re.MULTILINE
    ):
        sections = set(re.findall(r"`\[(\w+)\]`", needs)) - {"webhook", "health"}
        for name in re.findall(r"`([^`]+)`", names):
            code, _, err = await call(tmp_path, "", *name.split(), *NEEDS_MORE.get(name, ()))
            assert code == (2 if sections else 4), (name, err)
            assert set(re.findall(r"\b(database|provider)\.\w+: missing", err)) == sections, name


# --- the webhook


def test_how_long_a_receiver_may_be_away_is_reckoned_from_the_code() -> None:
    """At the least: each pause is stretched by up to a tenth."""

    def away(attempts: int) -> float:
        return sum(min(FIRST_RETRY * 2.0**n, LONGEST_RETRY) for n in range(attempts - 1))

    rows = re.findall(r"^\| (\d+) \| (.+) \|$", section("How long may the webhook"), re.MULTILINE)
    hours = {10: 42 / 60, 12: 2 + 25 / 60, 35: 24, 100: 4 * 24}
    assert {int(attempts) for attempts, _ in rows} == set(hours)
    assert WebhookSettings().max_attempts == 12
    assert [round(away(n) / 3600 - hours[n], 2) for n in (10, 12)] == [0.01, 0.0]
    assert 24 <= away(35) / 3600 < 26
    assert 3.7 < away(100) / 86_400 < 4


async def test_what_waits_and_what_was_put_aside_is_posted(
    plain_shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    shop = plain_shop
    orders = await hooked(shop, receiver.url)
    ids = [await shop.add() for _ in range(3)]
    await orders.record([found(shop.order(i), Cancelled("x")) for i in ids])
    config = settings(shop.dsn, panel.server.url, webhook=hook(receiver.url), schedule=RARELY)
    receiver.answers = [410, 503, 503]
    async with daemon(shop, tmp_path, config):
        async with asyncio.timeout(30):
            while await shop.connection.fetchval(f"SELECT ({TRIED}) < 3"):
                await asyncio.sleep(0.02)
    await shop.connection.execute(
        "UPDATE order_monitor_deliveries SET next_at = next_at + interval '1 hour' WHERE dead_at IS NULL"
    )
    (by_waiting, by_dead) = commands("How long may the webhook")
    assert (await call(tmp_path, config, *by_waiting))[1].count("put up again") == 2
    assert (await call(tmp_path, config, *by_waiting))[0] == 1, (
        "they are under way by now, and have no failed try"
    )
    assert (await call(tmp_path, config, *by_dead))[1].count("put up again") == 1
    async with daemon(shop, tmp_path, config):
        await all_posted(shop)
    assert {body["data"]["order_id"] for body in receiver.got[3:]} == set(ids)


@pytest.mark.long
async def test_events_from_before_the_webhook_are_posted_only_where_a_person_chooses_them(
    plain_shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    shop = plain_shop
    (order_id,) = await sent(shop, 1)
    panel.answer = Cancelled("x")
    assert (await call(tmp_path, settings(shop.dsn, panel.server.url), "--once"))[0] == 0
    config = settings(shop.dsn, panel.server.url, webhook=hook(receiver.url), schedule=RARELY)
    async with daemon(shop, tmp_path, config) as run:
        await run.event("webhook.begins")
        assert (receiver.got, await waiting(shop)) == ([], 0)
        for number, arguments in enumerate(commands("What happens to events from before"), 1):
            assert (await call(tmp_path, config, *about(order_id, arguments)))[0] == 0
            await receiver.has_got(number)
    assert {body["data"]["order_id"] for body in receiver.got} == {order_id}
    assert len(set(receiver.ids)) == 1


async def test_the_secret_is_changed_without_losing_an_event(
    plain_shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    """The receiver has one secret alone and is changed last, which is the harder case."""
    shop = plain_shop
    await hooked(shop, receiver.url)
    await sent(shop, 3)
    plain = settings(shop.dsn, panel.server.url)
    panel.answer = Cancelled("x")
    assert (await call(tmp_path, plain, "--once"))[0] == 0, "their events wait"
    config = settings(
        shop.dsn, panel.server.url, webhook=hook(receiver.url, OTHER_SECRET), schedule=RARELY
    )
    async with daemon(shop, tmp_path, config) as run:
        assert (await run.event("webhook.failing"))["why"], (
            "it is signed by what the receiver does not have yet"
        )
    assert (receiver.got, await waiting(shop)) == ([], 3)
    await make_due(shop)
    receiver.signer = Webhook(OTHER_SECRET)
    async with daemon(shop, tmp_path, config):
        await all_posted(shop)
    assert len(receiver.got) == 3


# --- orders


async def test_a_pin_that_was_read_out_is_stored_and_told(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop = plain_shop
    given, without = await sent(shop, 2)
    config = settings(shop.dsn, panel.server.url)
    panel.answer = Completed(None, "tamam")
    assert (await call(tmp_path, config, "--once"))[0] == 0
    for order_id in (given, without):
        await shop.connection.execute(
            "INSERT INTO order_monitor_review (order_id, kind) VALUES ($1::uuid, 'pin_missing')",
            order_id,
        )
    explain, resolve, close = commands("`pin_missing`")
    code, out, _ = await call(tmp_path, config, *about(given, explain))
    assert (code, "for review: pin_missing" in out, f"r-{given[:8]}" in out) == (0, True, True)
    code, out, err = await call(
        tmp_path, config, *about(given, resolve), stdin="TEL-4711\nSERIAL-8\n"
    )
    assert (code, "TEL-4711" in out + err) == (0, False)
    assert (await shop.row(given))["pin_code"] == "TEL-4711\nSERIAL-8"
    assert (await call(tmp_path, config, *about(without, close)))[0] == 0
    assert json.loads((await call(tmp_path, config, "review", "--json"))[1]) == []
    event = await shop.connection.fetchrow(
        "SELECT * FROM order_monitor_events ORDER BY id DESC LIMIT 1"
    )
    assert event is not None
    assert (str(event["order_id"]), event["has_pin"], event["repeat"], event["source"]) == (
        given,
        True,
        True,
        "person",
    )


async def test_what_is_known_of_a_pin_is_told_without_showing_it(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop = plain_shop
    mine, same = await sent(shop, 2)
    config = settings(shop.dsn, panel.server.url, provider={"unique_pins": False})
    assert (await call(tmp_path, config, "--once"))[0] == 0
    await shop.connection.execute("UPDATE product_orders SET pin_code = $1", PIN)
    told = [await call(tmp_path, config, *about(mine, c)) for c in commands("A customer says")]
    assert [code for code, _, _ in told] == [0, 0]
    assert "with its PIN" in told[0][1]
    assert "(not written)" in told[1][1]
    sql = readme.block("sql", "-- orders with the same PIN").replace(":'order'", f"'{mine}'")
    rows = await shop.connection.fetch(sql)
    assert [(str(row["id"]), PIN in str(row)) for row in rows] == [(same, False)]
    code, _, err = await call(
        tmp_path, config, "resolve", mine, "--completed", "--pin-stdin", stdin="NEW-99999"
    )
    assert (code, (await shop.row(mine))["pin_code"], "NEW-99999" in err) == (1, PIN, False)


async def test_without_a_column_that_is_needed_migrate_names_it_and_without_any_other_all_goes_on(
    plain_bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Each column of the page's table alone, and all optional ones together."""
    shop = plain_bare_shop
    rows = re.findall(
        r"^\| `(\w+)` \| (?:`(\w+)`)? ?\| ([^|]+) \|", section("Which columns"), re.MULTILINE
    )
    assert sorted((name, other or name) for name, other, _ in rows) == sorted(LOGICAL.values())
    needed = {name for name, _, how in rows if how == "yes"}
    assert needed == set(REQUIRED) - set(ADDED_BY_MIGRATE)
    assert {name for name, _, how in rows if "migrate" in how} == set(ADDED_BY_MIGRATE)
    config = settings(shop.dsn, panel.server.url)
    for name in sorted(needed):
        await shop.connection.execute(f"ALTER TABLE product_orders RENAME {quoted(name)} TO gone")
        code, _, err = await call(tmp_path, config, "migrate")
        assert (code, name in err, await shop.has("order_monitor_events")) == (1, True, False), err
        await shop.connection.execute(f"ALTER TABLE product_orders RENAME gone TO {quoted(name)}")
    there = await shop.connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'product_orders'::regclass "
        "AND attnum > 0 AND NOT attisdropped"
    )
    for column in {row["attname"] for row in there} - needed:
        await shop.connection.execute(f"ALTER TABLE product_orders DROP COLUMN {quoted(column)}")
    code, _, err = await call(tmp_path, config, "migrate")
    assert code == 0, err
    await shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) "
        "VALUES ($1::uuid, 'sent', now() - interval '2 min', '1790000000000123')",
        str(uuid.uuid4()),
    )
    assert (await call(tmp_path, config, "--once"))[0] == 0
    row = await shop.connection.fetchrow("SELECT external_status, pin_code FROM product_orders")
    assert tuple(row or ()) == ("completed", PIN)


# --- our tables


PLACE = (
    "INSERT INTO order_monitor_events (order_id, to_status, outcome, has_pin, decided_at, consumed_at, source, cause) "
    "VALUES ($1::uuid, $2, $2, false, now() - $3::interval, CASE WHEN $4 THEN now() END, 'program', 'answer') RETURNING id"
)


async def test_pruning_takes_no_event_that_waits_and_no_end_of_an_order_that_is_there(
    plain_shop: Shop,
) -> None:
    shop = plain_shop
    row = await shop.add("failed")
    long_ago = timedelta(days=400)
    lately = timedelta(days=300)

    async def event(order_id: str, outcome: str, age: Any = long_ago, *, taken: bool = True) -> int:
        return int(await shop.connection.fetchval(PLACE, order_id, outcome, age, taken))

    gone, posted, posting, dead = (str(uuid.uuid4()) for _ in range(4))
    goes = [
        await event(row, "processing"),
        await event(gone, "processing"),
        await event(gone, "failed"),
    ]
    goes.append(await event(posted, "failed"))
    stays = [await event(row, "failed"), await event(row, "reopened"), await event(row, "failed")]
    stays += [
        await event(str(uuid.uuid4()), "failed", taken=False),
        await event(gone, "failed", lately),
    ]
    stays += [await event(posting, "failed"), await event(dead, "failed")]
    for order_id, column in ((posted, "delivered_at"), (posting, None), (dead, "dead_at")):
        await shop.connection.execute(
            f"INSERT INTO order_monitor_deliveries (event_id, order_id{f', {column}' if column else ''}) "
            f"SELECT id, order_id{', now()' if column else ''} FROM order_monitor_events WHERE order_id = $1::uuid",
            order_id,
        )
    prune = readme.block("sql", "-- events older than a year")
    assert await shop.connection.execute(prune) == f"DELETE {len(goes)}"
    assert await shop.connection.execute(prune) == "DELETE 0"
    left = await shop.connection.fetch("SELECT id FROM order_monitor_events ORDER BY id")
    assert [r["id"] for r in left] == sorted(stays)
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_deliveries") == 2

    old = "INSERT INTO order_monitor_review (order_id, kind, closed_at) VALUES ($1::uuid, $2, now() - $3::interval)"
    for order_id, age in ((row, long_ago), (gone, long_ago), (gone, lately), (gone, None)):
        await shop.connection.execute(old, order_id, "pin_missing", age)
    assert (
        await shop.connection.execute(readme.block("sql", "-- settled reviews of orders"))
        == "DELETE 1"
    )


async def test_with_a_webhook_alone_the_line_about_the_consumer_is_left_out(
    plain_shop: Shop,
) -> None:
    shop = plain_shop
    prune = readme.block("sql", "-- events older than a year")
    (line,) = [line for line in prune.splitlines() if "leave this line out" in line]
    prune = prune.replace(line + "\n", "")
    age = timedelta(days=400)
    for column in ("delivered_at", "next_at"):
        order_id = str(uuid.uuid4())
        number = await shop.connection.fetchval(PLACE, order_id, "failed", age, False)
        await shop.connection.execute(
            f"INSERT INTO order_monitor_deliveries (event_id, order_id, {column}) VALUES ($1, $2::uuid, now())",
            number,
            order_id,
        )
    assert await shop.connection.execute(prune) == "DELETE 1", (
        "and not the one that is still to be posted"
    )


async def test_the_sizes_are_told_of_every_table_of_ours(plain_shop: Shop) -> None:
    rows = await plain_shop.connection.fetch(readme.block("sql", "AS our_table"))
    ours = {row["our_table"] for row in rows}
    assert len(ours) == 10
    grow = set(re.findall(r"^\| `(order_monitor_\w+)`", section("How large"), re.MULTILINE))
    assert grow < ours


CATALOGUE = """
SELECT c.relname || ' ' || c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
UNION ALL SELECT a.attrelid::regclass || '.' || a.attname FROM pg_attribute a
 WHERE a.attrelid = 'product_orders'::regclass AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT 'type ' || typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace AND n.nspname = 'public'
UNION ALL SELECT 'function ' || proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'public'
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1
"""


@pytest.mark.parametrize("shape", ["plain", "partitioned", "inherited"])
async def test_it_is_removed_without_a_trace(plain_bare_shop: Shop, shape: str) -> None:
    shop = plain_bare_shop
    connection = shop.connection
    if shape == "partitioned":
        await connection.execute(
            "DROP TABLE product_orders; CREATE TABLE product_orders (id uuid, external_status text, sent_at timestamptz, "
            "pin_code text) PARTITION BY RANGE (sent_at); CREATE TABLE part PARTITION OF product_orders DEFAULT"
        )
    else:
        await connection.execute("ALTER TABLE product_orders DROP COLUMN provider_referans")
    if shape == "inherited":
        await connection.execute("CREATE TABLE part () INHERITS (product_orders)")
    before = [row[0] for row in await connection.fetch(CATALOGUE)]
    await migrate(shop.dsn)
    assert len(await connection.fetch(CATALOGUE)) > len(before) + 20
    await connection.execute(readme.block("sql", "-- everything that migrate has made"))
    await connection.execute(readme.block("sql", "DROP COLUMN provider_referans"))
    assert [row[0] for row in await connection.fetch(CATALOGUE)] == before


# --- versions


async def test_the_commands_of_an_upgrade_can_be_given_again(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(plain_shop.dsn, panel.server.url)
    asked = commands("How do I upgrade")
    assert [arguments[0] for arguments in asked] == ["migrate", "migrate", "check"]
    async with daemon(plain_shop, tmp_path, config):
        assert [(await call(tmp_path, config, *arguments))[0] for arguments in asked] == [0, 0, 0]


async def test_beside_version_0_1_migrate_changes_nothing(
    plain_bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """It locks accounts by their names, and would not find its pauses any more."""
    shop = plain_bare_shop
    lock = "SELECT pg_advisory_lock($1::int4, 7)"
    await shop.connection.execute(lock, lock_class("public.product_orders", OLD_MEMBER))
    config = settings(shop.dsn, panel.server.url)
    code, out, err = await call(tmp_path, config, "migrate")
    assert (code, out, err) == (1, "", f"order-monitor: {OLDER_VERSION}\n")
    assert not await shop.has("order_monitor_events")
    await shop.connection.execute("SELECT pg_advisory_unlock_all()")
    assert (await call(tmp_path, config, "migrate"))[0] == 0
