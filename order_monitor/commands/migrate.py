"""``order-monitor migrate``: add what is missing, or print it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from order_monitor.app import table_config_of
from order_monitor.commands.exits import ExitCode
from order_monitor.commands.lookup import name_of
from order_monitor.commands.session import Session, command
from order_monitor.core.errors import SettingsError, ShopMisfitError
from order_monitor.shop.check.obstacles import walls_of
from order_monitor.shop.migration import Migration, as_django, as_sql
from order_monitor.shop.webhook_mark import address_of, read_webhook, set_first
from order_monitor.tell.streams import show
from order_monitor.watch.system_clock import SystemClock


@command(least=None)
async def run_migrate(session: Session, *, dry_run: bool, django: bool) -> int:
    """Migrate, or with ``dry_run`` print what a migration would do; return the exit code."""
    table_config = table_config_of(session.settings)
    migration = Migration(session.database, table_config, SystemClock())
    if dry_run:
        table = await migration.table()
        missing = await migration.missing(table)
        script = as_django(migration.wanted(table), missing) if django else as_sql(missing)
        show(*script.split("\n"))
        return ExitCode.OK
    done = 0
    async for line in _migrated(session, migration):
        show(line)
        done += 1
    walls = await walls_of(session.database, migration, await migration.table(), table_config)
    for wall in walls:
        show(f"{wall.level}: {wall.subject}: {wall.text}; {wall.do}")
    if not done:
        show("nothing to do: everything is there")
    return ExitCode.OK


async def _migrated(session: Session, migration: Migration) -> AsyncIterator[str]:
    """Add what is missing, begin to post events, and assign codes to the orders they were given
    to; yield a line on each.
    """
    async for line in migration.apply():
        yield line
    if (number := await _begin_webhook(session)) is not None:
        yield f"events are posted to the webhook from number {number} on"
    # If the codes cannot be taken over here, the first start does it.
    with suppress(SettingsError, ShopMisfitError):
        if count := await session.orders().reader.claims.fill():
            yield f"took over the codes of {count} orders that were given a PIN before"


async def _begin_webhook(session: Session) -> int | None:
    """Record in the database that events are posted from now on.

    Return the first one's number; None if that is recorded already, or these settings post none.
    """
    url = session.settings.webhook.url
    if url is None:
        return None
    async with session.database.transaction() as connection:
        if await read_webhook(connection, session.schema) is not None:
            return None
        address = address_of(url.get_secret_value())
        return (await set_first(connection, session.schema, address, name_of(None))).since
