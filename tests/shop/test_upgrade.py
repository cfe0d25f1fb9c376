"""From the version before: what it has written is read as it was meant, and its keys become the
accounts' ids.
"""

import uuid
from dataclasses import replace

import pytest

from order_monitor.core.errors import ShopMisfitError
from order_monitor.shop.migration import Migration
from order_monitor.watch.system_clock import SystemClock
from tests.support.market import PLAIN_TABLES
from tests.support.schema import BEFORE
from tests.support.shops import Shop

FIRST, SECOND = (str(uuid.UUID(int=(0x1234ABCD << 96) + n)) for n in (1, 2))
OTHER = str(uuid.UUID(int=0x99999999 << 96))
EVENT = (
    "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, message, checks, decided_by, outcome) "
    "VALUES ($1::uuid, 'sent', $2, $3, $4, $5, $6, $2)"
)


async def upgraded(shop: Shop) -> list[str]:
    migration = Migration(
        shop.database(), replace(shop.table_config, accounts_from_shop=True), SystemClock()
    )
    return [line async for line in migration.apply()]


async def test_who_decided_and_why_is_taken_from_what_was_asked_and_not_from_a_name(
    plain_bare_shop: Shop,
) -> None:
    shop = plain_bare_shop
    await shop.connection.execute(BEFORE)
    written = {
        "completed": ("completed", True, "tamam", 3, "daemon"),
        "late": ("failed", False, "Timeout: No response after 24h", 90, "daemon"),
        "asked": ("failed", False, "iptal", 1, "ask"),
        "person": ("completed", True, "given by telephone", None, "Ayşe"),
        "namesake": ("completed", True, "given by hand", None, "daemon"),
    }
    ids = {name: str(uuid.uuid4()) for name in written}
    for name, values in written.items():
        await shop.connection.execute(EVENT, ids[name], *values)
    await upgraded(shop)
    rows = await shop.connection.fetch(
        "SELECT order_id::text AS id, source, cause FROM order_monitor_events"
    )
    assert {row["id"]: (row["source"], row["cause"]) for row in rows} == {
        ids["completed"]: ("program", "answer"),
        ids["late"]: ("program", "time_limit"),
        ids["asked"]: ("program", "answer"),
        ids["person"]: ("person", "person"),
        ids["namesake"]: ("person", "person"),
    }


async def test_pauses_and_timing_are_kept_by_ids(plain_bare_shop: Shop) -> None:
    """A pause whose name fits several accounts pauses all of them.

    What was learned of several at once is nobody's.
    """
    shop = plain_bare_shop
    await shop.connection.execute(BEFORE + PLAIN_TABLES)
    for key in (FIRST, SECOND, OTHER):
        await shop.connection.execute(
            "INSERT INTO integrations (id, name, provider, base_url, kod, sifre) "
            "VALUES ($1::uuid, 'main', 'znet', 'https://example.com', 'k', 's')",
            key,
        )
    names = [f"main-{FIRST[:8]}", f"main-{OTHER[:8]}"]
    for name in [*names, "gone-00000000", "default"]:
        await shop.connection.execute(
            "INSERT INTO order_monitor_pauses (account, reason, paused_by) VALUES ($1, $1, 'x')",
            name,
        )
        await shop.connection.execute(
            "INSERT INTO order_monitor_timing VALUES ($1, 'p', '{}')", name
        )
    await upgraded(shop)
    pauses = await shop.connection.fetch("SELECT account, reason FROM order_monitor_pauses")
    assert {row["account"]: row["reason"] for row in pauses} == {
        FIRST: names[0],
        SECOND: names[0],
        OTHER: names[1],
        "gone-00000000": "gone-00000000",
        "default": "default",
    }
    learned = await shop.connection.fetch("SELECT account FROM order_monitor_timing")
    assert {row["account"] for row in learned} == {names[0], OTHER, "gone-00000000", "default"}
    assert not [line for line in await upgraded(shop) if "moved" in line]


async def test_by_a_role_that_owns_nothing_all_else_is_made_and_the_owner_is_told_what_to_run(
    plain_bare_shop: Shop,
) -> None:
    shop = plain_bare_shop
    role = f"r{uuid.uuid4().hex}"
    await shop.connection.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT, UPDATE ON product_orders TO {role}; "
        f"GRANT CREATE, USAGE ON SCHEMA public TO {role}; ALTER TABLE product_orders ADD COLUMN IF NOT EXISTS "
        "provider_referans varchar(255)"
    )
    database = shop.database(f"postgresql://{role}:pw@{shop.dsn.partition('@')[2]}")
    told: list[str] = []
    with pytest.raises(ShopMisfitError, match="let the owner of the table run") as refused:
        async for line in Migration(database, shop.table_config, SystemClock()).apply():
            told.append(line)  # noqa: PERF401 - what was told before it raised counts
    made = await shop.connection.fetch(
        "SELECT relname FROM pg_class WHERE relname LIKE 'order_monitor_%' AND relkind = 'r'"
    )
    assert len(made) == 10, "our own tables are there all the same"
    for sql in str(refused.value).splitlines()[1:]:
        await shop.connection.execute(sql)
    again = [line async for line in Migration(database, shop.table_config, SystemClock()).apply()]
    assert again == []
    await database.close()
    await shop.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
