"""``order-monitor release --first-start``: allow orders sent before the first start to be failed by
their age.
"""

from __future__ import annotations

from pathlib import Path

from order_monitor.app import database_of, settings_of, table_config_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import name_of, when
from order_monitor.settings.model import Settings
from order_monitor.shop.first_start import release
from order_monitor.shop.repository import Orders
from order_monitor.tell.streams import say


def run_release_first_start(config: Path | None, by: str | None) -> int:
    """Release what only the first start holds; return 1 if nothing is held."""
    settings, sink, _ = settings_of(config, "database", least="error")
    return run_to_exit(_release(settings, name_of(by)), sink.close)


async def _release(settings: Settings, by: str) -> int:
    database, schema = database_of(settings), settings.database.schema_
    orders = Orders(database, table_config_of(settings))
    async with database:
        held = (await orders.reader.count_apart()).held
        async with database.transaction() as connection:
            moment = await release(connection, schema, by)
    if moment is None:
        say(
            "order-monitor: there is nothing to release: no order is held because of the first start"
        )
        return ExitCode.NOT_DONE
    text = f"orders sent before {when(moment)} may be failed by their age from now on, released by {by}"
    say(
        f"{text}; {held} {'is' if held == 1 else 'are'} past schedule.give_up_after", to_stdout=True
    )
    return ExitCode.OK
