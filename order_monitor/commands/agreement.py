"""Agreement on the settings that decide money: a command runs only if its settings agree with those
in force; otherwise it asks nothing and writes nothing.

``order-monitor settings`` shows and stores them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from order_monitor.app import database_of, orders_of, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import name_of, when
from order_monitor.core.errors import ShopMisfitError
from order_monitor.settings.model import Settings
from order_monitor.settings.money import money_of, with_money
from order_monitor.shop.database import Database
from order_monitor.shop.money_settings import OBSERVED, Agreement, MoneySettings
from order_monitor.shop.schema.own_tables import lacking
from order_monitor.tell.streams import say

_WHAT_TO_DO: Final = (
    "order-monitor: nothing was asked and nothing written; --accept-settings uses those in force for this run, "
    "order-monitor settings adopt stores this file's"
)


async def agreed(
    settings: Settings, database: Database, *, accept: bool, by: str, may_observe: bool = False
) -> Settings | None:
    """Return the settings to use: this file's if they agree with those in force, or those in force
    with ``accept``.

    None if they differ without ``accept``, or if the shop is only observed and this command does
    more than ``may_observe`` allows; the reason is printed on stderr. Settings that are not stored
    yet are stored, in the name of ``by``.

    Raises:
        SettingsError: the table is not as expected, or this file does not fit the stored settings.
        ShopError: the database is not available, or one of our tables is missing.
    """
    schema = settings.database.schema_
    if accept:
        # This file's own status words need not fit the shop's columns: they are not written.
        async with database.transaction() as connection:
            if problems := await lacking(connection, schema):
                raise ShopMisfitError("; ".join(problems))
    else:
        await orders_of(settings, database).complete()
    async with database.transaction() as connection:
        agreement = await MoneySettings(schema).reconcile(connection, money_of(settings), by=by)
    if agreement.differing and not accept:
        _say_what_differs(agreement)
        return None
    taken = with_money(settings, agreement.in_force) if agreement.differing else settings
    if taken.observe and not may_observe:
        say(f"order-monitor: {OBSERVED}")
        return None
    return taken


def _say_what_differs(agreement: Agreement) -> None:
    for one in agreement.differing:
        say(f"order-monitor: {one}")
    say(_WHAT_TO_DO)


def run_show(config: Path | None, *, as_json: bool) -> int:
    """Show the stored settings next to this file's."""
    settings, sink, _ = settings_of(config, "database", least="error")
    return run_to_exit(_show(settings, as_json=as_json), sink.close)


async def _show(settings: Settings, *, as_json: bool) -> int:
    database, schema = database_of(settings), settings.database.schema_
    async with database, database.transaction() as connection:
        if problems := await lacking(connection, schema):
            raise ShopMisfitError("; ".join(problems))
        kept = await MoneySettings(schema).kept(connection)
    lines = []
    own = money_of(settings)
    for key in dict.fromkeys([*own, *kept]):
        found = kept.get(key)
        stored = found.value if found else None
        differs = found is not None and key in own and stored != own[key]
        line = {"key": key, "stored": stored, "own": own.get(key), "differs": differs}
        line |= {
            "stored_at": when(found.stored_at) if found else None,
            "stored_by": found.stored_by if found else None,
        }
        lines.append(line)
    if as_json:
        say(json.dumps(lines, ensure_ascii=False), to_stdout=True)
        return ExitCode.OK
    for line in lines:
        in_force = "not stored yet" if line["stored"] is None else line["stored"]
        mark = (
            f"   here: {line['own']}"
            if line["differs"]
            else "   unknown here"
            if line["own"] is None
            else ""
        )
        say(f"{'!' if line['differs'] else ' '} {line['key']:<28}{in_force}{mark}", to_stdout=True)
    return ExitCode.OK


def run_adopt(config: Path | None, *, by: str | None) -> int:
    """Store this file's settings."""
    settings, sink, _ = settings_of(config, "database", least="error")
    return run_to_exit(_adopt(settings, name_of(by)), sink.close)


async def _adopt(settings: Settings, by: str) -> int:
    async with database_of(settings) as database:
        await orders_of(settings, database).complete()
        async with database.transaction() as connection:
            stored = MoneySettings(settings.database.schema_)
            agreement = await stored.reconcile(
                connection, money_of(settings), by=by, may_replace=True
            )
    for one in agreement.replaced:
        say(f"{one.key}: {one.stored} -> {one.own}", to_stdout=True)
    for key in agreement.added:
        say(f"{key}: {agreement.in_force[key]}, which was not stored yet", to_stdout=True)
    if agreement.replaced:
        say(
            "a running daemon with other settings asks nothing any more, within a minute, until it is restarted or "
            "reloaded with these",
            to_stdout=True,
        )
    elif not agreement.added:
        say("nothing to do: this file's are in force", to_stdout=True)
    return ExitCode.OK
