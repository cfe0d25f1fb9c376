"""``order-monitor migrate``: add what is missing, or print it."""

from __future__ import annotations

from pathlib import Path

from order_monitor.commands.composition import database_of, layout_of, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.settings.model import Settings
from order_monitor.shop.migration import Migration, as_django, as_sql
from order_monitor.tell.streams import say
from order_monitor.watch.system_clock import SystemClock


def run_migrate(config: Path | None, *, dry_run: bool, django: bool) -> int:
    """Migrate, or with ``dry_run`` print what would be done; return the exit code."""
    settings, sink, _ = settings_of(config, "database")
    return run_to_exit(_migrate(settings, dry_run=dry_run, django=django), sink.close)


async def _migrate(settings: Settings, *, dry_run: bool, django: bool) -> int:
    database = database_of(settings)
    migration = Migration(database, layout_of(settings), SystemClock())
    try:
        if django:
            say(*as_django(migration.wanted(await migration.table())).split("\n"), to_stdout=True)
        elif dry_run:
            say(*as_sql(await migration.missing(await migration.table())).split("\n"), to_stdout=True)
        else:
            done = 0
            async for line in migration.apply():
                say(line, to_stdout=True)
                done += 1
            if not done:
                say("nothing to do: everything is there", to_stdout=True)
    finally:
        await database.close()
    return ExitCode.OK
