"""``order-monitor replay``: post events to the webhook again, and list the dead letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from order_monitor.app import database_of, settings_of, table_config_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import history_of, name_of
from order_monitor.settings.model import Settings
from order_monitor.shop.database import Database
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.own_tables import need_tables
from order_monitor.shop.schema.table_config import DELIVERIES, EVENTS, SETTINGS
from order_monitor.shop.webhook_mark import read_webhook
from order_monitor.tell.streams import say

_NO_WEBHOOK: Final = "order-monitor: events are not being posted: no process with a [webhook] has run on this database"


def run_replay(
    config: Path | None,
    ids: list[int],
    *,
    order_id: str | None,
    since: float | None,
    dead: bool,
    waiting: bool,
    as_json: bool,
) -> int:
    """Queue events again, or list the dead letters if none are chosen.

    Return 1 if an event does not exist.
    """
    settings, sink, _ = settings_of(config, "database", least="error")
    chosen = bool(ids) or order_id is not None or since is not None or dead or waiting
    work = (
        _replay(settings, ids, order_id=order_id, since=since, dead=dead, waiting=waiting)
        if chosen
        else _list(settings, as_json=as_json)
    )
    return run_to_exit(work, sink.close)


async def _replay(
    settings: Settings,
    ids: list[int],
    *,
    order_id: str | None,
    since: float | None,
    dead: bool,
    waiting: bool,
) -> int:
    database = database_of(settings)
    outbox = Outbox(database, settings.database.schema_)
    async with database:
        if not await _is_posted(settings, database):
            return ExitCode.NOT_DONE
        if order_id is not None:
            history = await history_of(
                database, Orders(database, table_config_of(settings)), order_id
            )
            if isinstance(history, str):
                return ExitCode.NOT_DONE
            order_id = history.order.id
        found = await outbox.replay(
            name_of(None), ids=ids, order_id=order_id, since=since, dead=dead, waiting=waiting
        )
    for event_id in found:
        say(f"{event_id}: put up again; the daemon posts it", to_stdout=True)
    missing = [event_id for event_id in ids if event_id not in found]
    for event_id in missing:
        say(f"{event_id}: there is no such event, or a reopening has withdrawn it")
    if not found and not missing:
        say("order-monitor: no such events")
    return ExitCode.OK if found and not missing else ExitCode.NOT_DONE


async def _is_posted(settings: Settings, database: Database) -> bool:
    """Whether any process posts events, whatever these settings say about a webhook.

    If not, print that. Without the mark nothing may be queued either: the process that sets the
    mark starts with the oldest waiting event.

    Raises:
        SettingsError: a table is missing; the text says what to run.
    """
    schema = settings.database.schema_
    async with database.transaction() as connection:
        await need_tables(connection, schema, EVENTS, DELIVERIES, SETTINGS)
        if await read_webhook(connection, schema) is not None:
            return True
    say(_NO_WEBHOOK)
    return False


async def _list(settings: Settings, *, as_json: bool) -> int:
    async with database_of(settings) as database:
        if not await _is_posted(settings, database):
            return ExitCode.NOT_DONE
        letters = await Outbox(database, settings.database.schema_).dead()
    if as_json:
        say(json.dumps(letters, ensure_ascii=False), to_stdout=True)
        return ExitCode.OK
    for letter in letters:
        what = f"order {letter['order_id']} to {letter['to_status']!r}"
        say(
            f"{letter['event_id']}: {what}, dead since {letter['since']} after {letter['attempts']}: {letter['why']}",
            to_stdout=True,
        )
    say(
        "order-monitor replay --dead posts them again" if letters else "there are no dead letters",
        to_stdout=True,
    )
    return ExitCode.OK
