"""``order-monitor webhook``: show where this shop's events are posted to, and adopt this file's
address.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from order_monitor.app import database_of, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import name_of
from order_monitor.core.errors import SettingsError
from order_monitor.settings.model import Settings
from order_monitor.shop.schema.own_tables import need_tables
from order_monitor.shop.schema.table_config import DELIVERIES, EVENTS, SETTINGS
from order_monitor.shop.webhook_mark import address_of, adopt, began_at
from order_monitor.tell.streams import say

_WITHIN: Final = "a daemon with this address posts them within a minute, any other no more"


def run_adopt(config: Path | None, *, by: str | None) -> int:
    """Post this shop's events to this file's address from now on."""
    settings, sink, _ = settings_of(config, "database", least="error")
    if settings.webhook.url is None:
        raise SettingsError(["webhook.url: is missing; there is no address to post events to"])
    return run_to_exit(
        _adopt(settings, settings.webhook.url.get_secret_value(), name_of(by)), sink.close
    )


async def _adopt(settings: Settings, url: str, by: str) -> int:
    database, schema = database_of(settings), settings.database.schema_
    async with database, database.transaction() as connection:
        await need_tables(connection, schema, EVENTS, DELIVERIES, SETTINGS)
        mark = await adopt(connection, schema, address_of(url), by)
        at = await began_at(connection, schema, mark)
    began = f" (of {at})" if at else " (the next one)"
    say(
        f"events are posted to this address, from number {mark.since} on{began}: {_WITHIN}",
        to_stdout=True,
    )
    return ExitCode.OK
