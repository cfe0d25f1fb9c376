"""What is added to the shop's database, and how gently."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from order_monitor.core.errors import SettingsError, ShopUnavailableError
from order_monitor.shop.migration import Migration, as_django, as_sql
from order_monitor.watch.system_clock import SystemClock
from tests.support.clocks import ManualClock
from tests.support.schema import indexes, lines, migration
from tests.support.shops import LAYOUT, Shop


async def test_it_adds_the_column_and_its_indexes_once(bare_shop: Shop) -> None:
    await bare_shop.connection.execute("ALTER TABLE product_orders DROP COLUMN provider_referans")
    told = await lines(bare_shop)
    assert told[0] == "added column provider_referans"
    assert len(told) == 14
    assert len(await indexes(bare_shop)) == 3
    assert all((await indexes(bare_shop)).values())
    assert await lines(bare_shop) == [], "idempotent"
    kind = await bare_shop.connection.fetchval(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'product_orders'::regclass AND attname = 'provider_referans'"
    )
    assert kind == "character varying(255)"


async def test_a_dry_run_prints_what_is_missing_and_changes_nothing(bare_shop: Shop) -> None:
    await bare_shop.connection.execute("ALTER TABLE product_orders DROP COLUMN provider_referans")
    plan = migration(bare_shop)
    sql = as_sql(await plan.missing(await plan.table()))
    assert sql.count(";\n") + sql.endswith(";") == 29
    assert await indexes(bare_shop) == {}
    for statement in sql.split(";\n"):
        await bare_shop.connection.execute(statement)
    assert as_sql(await plan.missing(await plan.table())) == "-- nothing to do"


async def test_other_statuses_get_another_index(plain_bare_shop: Shop) -> None:
    from dataclasses import replace

    await lines(plain_bare_shop)
    before = set(await indexes(plain_bare_shop))
    told = await lines(plain_bare_shop, replace(LAYOUT, open=("sent", "odd 'one'", "processing")))
    after = set(await indexes(plain_bare_shop))
    assert len([line for line in told if line.startswith("added")]) == 2
    assert len([line for line in told if line.startswith("dropped")]) == 2
    assert len(after) == 3
    assert len(before & after) == 1


async def test_the_shops_own_indexes_are_left_alone(plain_bare_shop: Shop) -> None:
    await plain_bare_shop.connection.execute(
        "CREATE INDEX product_orders_om_mine ON product_orders (note)"
    )
    await lines(plain_bare_shop)
    assert "product_orders_om_mine" in await indexes(plain_bare_shop)


async def test_an_index_left_half_built_is_rebuilt(plain_bare_shop: Shop) -> None:
    """D13: an interrupted build leaves an invalid index, and IF NOT EXISTS would call it done."""
    plan = migration(plain_bare_shop)
    change = next(c for c in plan.wanted(await plan.table()) if c.index and "_open_" in c.index)
    blocker = plain_bare_shop.connection.transaction()
    await plain_bare_shop.connection.execute("SELECT 1")
    await blocker.start()
    await plain_bare_shop.add()
    with pytest.raises(ShopUnavailableError):
        async with plain_bare_shop.database().plain() as connection:
            await connection.execute("SET statement_timeout = '300ms'")
            await connection.execute(change.sql)
    await blocker.commit()
    assert (await indexes(plain_bare_shop))[change.index or ""] is False
    told = await lines(plain_bare_shop)
    assert f"dropped index {change.index}, which was left half-built" in told
    assert all((await indexes(plain_bare_shop)).values())


async def test_old_transactions_are_named_before_waiting(plain_bare_shop: Shop) -> None:
    async with plain_bare_shop.connection.transaction():
        plan = Migration(plain_bare_shop.database(), LAYOUT, SystemClock(), old=0)
        told = [line async for line in plan.apply()]
    assert "may have to wait for 1 transaction open for over 0 s" in told


@pytest.mark.long
async def test_the_shop_never_queues_behind_the_alter(plain_bare_shop: Shop) -> None:
    """D12: an ALTER that waits for one reader makes every later reader wait behind it.

    Ours gives way and tries again.
    """
    await plain_bare_shop.connection.execute(
        "ALTER TABLE product_orders DROP COLUMN provider_referans"
    )
    reader = plain_bare_shop.connection.transaction()
    await reader.start()
    await plain_bare_shop.connection.execute("SELECT count(*) FROM product_orders")
    clock = ManualClock()
    task = asyncio.create_task(_apply(Migration(plain_bare_shop.database(), LAYOUT, clock)))
    while not clock.asleep.get(task.get_name()):
        await asyncio.sleep(0.01)
    # It gave way: another reader is served at once.
    async with plain_bare_shop.database(statement_timeout=1).transaction() as other:
        await other.execute("SELECT count(*) FROM product_orders")
    await reader.commit()
    clock.ring(10)
    assert "added column provider_referans" in await task


async def _apply(plan: Migration) -> list[str]:
    return [line async for line in plan.apply()]


async def test_a_table_that_lacks_more_is_not_touched(plain_bare_shop: Shop) -> None:
    await plain_bare_shop.connection.execute("ALTER TABLE product_orders DROP COLUMN pin_code")
    with pytest.raises(SettingsError, match="pin_code"):
        await lines(plain_bare_shop)
    assert await indexes(plain_bare_shop) == {}


DJANGO = """
import sys, types
from urllib.parse import urlsplit, parse_qs, unquote
from django.conf import settings
url = urlsplit(sys.argv[1])
settings.configure(
    SECRET_KEY="x", USE_TZ=True, INSTALLED_APPS=["shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], "USER": url.username,
               "PASSWORD": unquote(url.password), "HOST": parse_qs(url.query)["host"][0]}})
import django
django.setup()
from django.core.management import call_command
call_command("migrate", "shop", sys.argv[2], verbosity=0)
"""


@pytest.mark.long
async def test_the_django_migration_runs_there_and_back(bare_shop: Shop, tmp_path: Path) -> None:
    """The printed migration, in a real Django over the same database."""
    await bare_shop.connection.execute("ALTER TABLE product_orders DROP COLUMN provider_referans")
    plan = migration(bare_shop)
    table = await plan.table()
    package = tmp_path / "shop" / "migrations"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "0001_order_monitor.py").write_text(as_django(plan.wanted(table)))
    (tmp_path / "run.py").write_text(DJANGO)
    await asyncio.to_thread(_django, tmp_path, bare_shop.dsn, "0001")
    assert len(await indexes(bare_shop)) == 3
    assert await plan.missing(await plan.table()) == []
    await asyncio.to_thread(_django, tmp_path, bare_shop.dsn, "zero")
    assert await indexes(bare_shop) == {}
    assert (await plan.table()).get("provider_referans") is None


def _django(directory: Path, dsn: str, target: str) -> None:
    done = subprocess.run(
        [sys.executable, "run.py", dsn, target],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_long_table_names_leave_room_for_the_indexs_own() -> None:
    from order_monitor.shop.schema.columns import Column, Table

    text = "character varying"
    columns = {
        n: Column(n, text)
        for n in ("id", "external_status", "sent_at", "pin_code", "provider_referans")
    }
    changes = Migration.wanted(_bare(), Table("public", "t" * 63, columns))
    names = [c.index for c in changes if c.index]
    assert len(set(names)) == 3
    assert all(
        len(n) <= 63 and re.search(r"_om_(open|referans|unknown)_[0-9a-f]{8}$", n) for n in names
    )


def _bare() -> Migration:
    from order_monitor.shop.database import Database
    from order_monitor.shop.dsn import parse_dsn

    return Migration(Database(parse_dsn("postgresql://x/y")), LAYOUT, SystemClock())


async def test_undone_the_django_migration_leaves_what_was_there_before(bare_shop: Shop) -> None:
    plan = migration(bare_shop)
    table = await plan.table()
    text = as_django(plan.wanted(table), await plan.missing(table))
    assert 'DROP COLUMN IF EXISTS "provider_referans"' not in text
    assert text.count("reverse_sql=migrations.RunSQL.noop") == 1
    assert "DROP TABLE IF EXISTS" in text
    await bare_shop.connection.execute("ALTER TABLE product_orders DROP COLUMN provider_referans")
    table = await plan.table()
    assert 'DROP COLUMN IF EXISTS "provider_referans"' in as_django(
        plan.wanted(table), await plan.missing(table)
    )
