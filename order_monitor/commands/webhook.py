"""``order-monitor webhook``: adopt this file's address as the one to which events are posted."""

from __future__ import annotations

from typing import Final

from order_monitor.commands.exits import ExitCode
from order_monitor.commands.lookup import name_of
from order_monitor.commands.session import Session, command
from order_monitor.core.errors import SettingsError
from order_monitor.shop.schema.table_config import DELIVERIES, EVENTS, SETTINGS
from order_monitor.shop.webhook_mark import address_of, adopt, began_at
from order_monitor.tell.streams import show

_WITHIN: Final = "a daemon with this address posts them within a minute, any other no more"


@command()
async def run_adopt(session: Session, *, by: str | None) -> int:
    """Post this shop's events to this file's address from now on.

    Raises:
        SettingsError: this file has no address, or a table is missing.
    """
    url = session.settings.webhook.url
    if url is None:
        raise SettingsError(["webhook.url: is missing; there is no address to post events to"])
    await session.need(EVENTS, DELIVERIES, SETTINGS)
    async with session.database.transaction() as connection:
        mark = await adopt(
            connection, session.schema, address_of(url.get_secret_value()), name_of(by)
        )
        at = await began_at(connection, session.schema, mark)
    began = f" (of {at})" if at else " (the next one)"
    show(f"events are posted to this address, from number {mark.since} on{began}: {_WITHIN}")
    return ExitCode.OK
