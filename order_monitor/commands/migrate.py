"""``order-monitor migrate``: add what is missing, or print it."""

from __future__ import annotations

from pathlib import Path

from order_monitor.clock import SystemClock
from order_monitor.commands.compose import ExitCode, database_of, layout_of, run_to_exit, say, settings_of
from order_monitor.settings import Settings
from order_monitor.shop.migrate import Migration, as_django, as_sql


def run_migrate(config: Path | None, *, dry_run: bool, django: bool) -> int:
    """Migrate, or with ``dry_run`` print what would be done; return the exit code."""
    settings, sink, _ = settings_of(config, "database")
    return run_to_exit(_migrate(settings, dry_run=dry_run, django=django), sink)


async def _migrate(settings: Settings, *, dry_run: bool, django: bool) -> int:
    database = database_of(settings)
    migration = Migration(database, layout_of(settings), SystemClock())
    try:
        if django:
            say(as_django(migration.wanted(await migration.table())), to_stdout=True)
        elif dry_run:
            say(as_sql(await migration.missing(await migration.table())), to_stdout=True)
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
