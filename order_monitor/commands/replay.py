"""``order-monitor replay``: post events to the webhook again, and list what stands in the dead letters."""

from __future__ import annotations

import json
from pathlib import Path

from order_monitor.commands.composition import database_of, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import name_of
from order_monitor.core.errors import SettingsError
from order_monitor.settings.model import Settings
from order_monitor.shop.layout import DELIVERIES, EVENTS
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.own_tables import need_tables
from order_monitor.tell.streams import say


def run_replay(
    config: Path | None, ids: list[int], *, order_id: str | None, since: float | None, dead: bool, as_json: bool
) -> int:
    """Put events up again, or with nothing chosen list the dead letters; return 1 where an event is not there."""
    settings, sink, _ = settings_of(config, "database", least="error")
    if settings.webhook.url is None:
        raise SettingsError(["webhook.url: is missing; there is nobody to post events to"])
    chosen = bool(ids) or order_id is not None or since is not None or dead
    work = (
        _replay(settings, ids, order_id=order_id, since=since, dead=dead)
        if chosen
        else _list(settings, as_json=as_json)
    )
    return run_to_exit(work, sink.close)


async def _replay(settings: Settings, ids: list[int], *, order_id: str | None, since: float | None, dead: bool) -> int:
    database = database_of(settings)
    outbox = Outbox(database, settings.database.schema_)
    try:
        async with database.transaction() as connection:
            await need_tables(connection, settings.database.schema_, EVENTS, DELIVERIES)
        found = await outbox.replay(name_of(None), ids=ids, order_id=order_id, since=since, dead=dead)
    finally:
        await database.close()
    for event_id in found:
        say(f"{event_id}: put up again; the daemon posts it", to_stdout=True)
    missing = [event_id for event_id in ids if event_id not in found]
    for event_id in missing:
        say(f"{event_id}: there is no such event")
    if not found and not missing:
        say("order-monitor: no such events")
    return ExitCode.OK if found and not missing else ExitCode.NOT_DONE


async def _list(settings: Settings, *, as_json: bool) -> int:
    database = database_of(settings)
    try:
        async with database.transaction() as connection:
            await need_tables(connection, settings.database.schema_, EVENTS, DELIVERIES)
        letters = await Outbox(database, settings.database.schema_).dead()
    finally:
        await database.close()
    if as_json:
        say(json.dumps(letters, ensure_ascii=False), to_stdout=True)
        return ExitCode.OK
    for letter in letters:
        what = f"order {letter['order_id']} to {letter['to_status']!r}"
        say(
            f"{letter['event_id']}: {what}, dead since {letter['since']} after {letter['attempts']}: {letter['why']}",
            to_stdout=True,
        )
    say("order-monitor replay --dead posts them again" if letters else "there are no dead letters", to_stdout=True)
    return ExitCode.OK
