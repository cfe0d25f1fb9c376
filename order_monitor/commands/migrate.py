"""``order-monitor migrate``: add what is missing, or print it."""

from __future__ import annotations

from pathlib import Path

from order_monitor.app import database_of, settings_of, table_config_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import name_of
from order_monitor.core.errors import SettingsError, ShopMisfitError
from order_monitor.settings.model import Settings
from order_monitor.shop.check.obstacles import walls_of
from order_monitor.shop.database import Database
from order_monitor.shop.migration import Migration, as_django, as_sql
from order_monitor.shop.repository import Orders
from order_monitor.shop.webhook_mark import address_of, read_webhook, set_first
from order_monitor.tell.streams import say
from order_monitor.watch.system_clock import SystemClock


def run_migrate(config: Path | None, *, dry_run: bool, django: bool) -> int:
    """Migrate, or with ``dry_run`` print what a migration would do; return the exit code."""
    settings, sink, _ = settings_of(config, "database")
    return run_to_exit(_migrate(settings, dry_run=dry_run, django=django), sink.close)


async def _migrate(settings: Settings, *, dry_run: bool, django: bool) -> int:
    database = database_of(settings)
    migration = Migration(database, table_config_of(settings), SystemClock())
    async with database:
        if django:
            table = await migration.table()
            say(
                *as_django(migration.wanted(table), await migration.missing(table)).split("\n"),
                to_stdout=True,
            )
        elif dry_run:
            say(
                *as_sql(await migration.missing(await migration.table())).split("\n"),
                to_stdout=True,
            )
        else:
            done = 0
            async for line in migration.apply():
                say(line, to_stdout=True)
                done += 1
            if (told := await _begin_webhook(settings, database)) is not None:
                say(told, to_stdout=True)
                done += 1
            if count := await _take_over_codes(settings, database):
                say(
                    f"took over the codes of {count} orders that were given a PIN before",
                    to_stdout=True,
                )
                done += 1
            for wall in await walls_of(
                database, migration, await migration.table(), table_config_of(settings)
            ):
                say(f"{wall.level}: {wall.subject}: {wall.text}; {wall.do}", to_stdout=True)
            if not done:
                say("nothing to do: everything is there", to_stdout=True)
    return ExitCode.OK


async def _take_over_codes(settings: Settings, database: Database) -> int:
    """Assign codes to their orders if they were issued before the table of codes existed.

    If that fails here, the first start does it.
    """
    try:
        return await Orders(database, table_config_of(settings)).reader.claims.fill()
    except (SettingsError, ShopMisfitError):
        return 0


async def _begin_webhook(settings: Settings, database: Database) -> str | None:
    """Record in the database that events are posted from now on, unless that is recorded already.

    Return a message about what was done, None if nothing was.
    """
    url, schema = settings.webhook.url, settings.database.schema_
    if url is None:
        return None
    async with database.transaction() as connection:
        if await read_webhook(connection, schema) is not None:
            return None
        mark = await set_first(
            connection, schema, address_of(url.get_secret_value()), name_of(None)
        )
    return f"events are posted to the webhook from number {mark.since} on"
