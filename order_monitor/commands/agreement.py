"""Agreement on the settings that decide money: a command runs only if its settings agree with those
in force; otherwise it asks nothing and writes nothing.

``order-monitor settings`` shows and stores them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from order_monitor.commands.exits import ExitCode, NotDoneError
from order_monitor.commands.lookup import name_of, when
from order_monitor.commands.session import Session, command
from order_monitor.core.errors import ShopMisfitError
from order_monitor.settings.money import money_of, with_money
from order_monitor.shop.database import Connection
from order_monitor.shop.money_settings import OBSERVED, MoneySettings
from order_monitor.shop.schema.own_tables import lacking
from order_monitor.tell.streams import show, show_json

_WHAT_TO_DO: Final = (
    "order-monitor: nothing was asked and nothing written; --accept-settings uses those in force for this run, "
    "order-monitor settings adopt stores this file's"
)


async def agreed(session: Session, *, accept: bool, by: str, may_observe: bool = False) -> Session:
    """Return the session with the settings to use: this file's if they agree with those in force,
    or those in force with ``accept``.

    Settings that are not stored yet are stored, in the name of ``by``.

    Raises:
        NotDoneError: they differ without ``accept``, or the shop is only observed and this command
            does more than ``may_observe`` allows.
        SettingsError: the table is not as expected, or this file does not fit the stored settings.
        ShopError: the database is not available, or one of our tables is missing.
    """
    if not accept:
        await session.orders().complete()
    async with session.database.transaction() as connection:
        if accept:
            # This file's own status words need not fit the shop's columns: they are not written.
            await _need_own(connection, session.schema)
        agreement = await MoneySettings(session.schema).reconcile(
            connection, money_of(session.settings), by=by
        )
    if agreement.differing:
        if not accept:
            lines = (f"order-monitor: {one}" for one in agreement.differing)
            raise NotDoneError(*lines, _WHAT_TO_DO)
        session = replace(session, settings=with_money(session.settings, agreement.in_force))
    if session.settings.observe and not may_observe:
        raise NotDoneError(f"order-monitor: {OBSERVED}")
    return session


async def _need_own(connection: Connection, schema: str) -> None:
    if problems := await lacking(connection, schema):
        raise ShopMisfitError("; ".join(problems))


@command()
async def run_show(session: Session, *, as_json: bool) -> int:
    """Show the stored settings next to this file's."""
    async with session.database.transaction() as connection:
        await _need_own(connection, session.schema)
        kept = await MoneySettings(session.schema).kept(connection)
    lines = []
    own = money_of(session.settings)
    for key in dict.fromkeys([*own, *kept]):
        found = kept.get(key)
        stored = found.value if found else None
        lines.append(
            {
                "key": key,
                "stored": stored,
                "own": own.get(key),
                "differs": found is not None and key in own and stored != own[key],
                "stored_at": when(found.stored_at) if found else None,
                "stored_by": found.stored_by if found else None,
            }
        )
    if as_json:
        show_json(lines)
        return ExitCode.OK
    for line in lines:
        in_force = "not stored yet" if line["stored"] is None else line["stored"]
        unknown = "   unknown here" if line["own"] is None else ""
        mark = f"   here: {line['own']}" if line["differs"] else unknown
        show(f"{'!' if line['differs'] else ' '} {line['key']:<28}{in_force}{mark}")
    return ExitCode.OK


@command()
async def run_adopt(session: Session, *, by: str | None) -> int:
    """Store this file's settings."""
    await session.orders().complete()
    async with session.database.transaction() as connection:
        agreement = await MoneySettings(session.schema).reconcile(
            connection, money_of(session.settings), by=name_of(by), may_replace=True
        )
    for one in agreement.replaced:
        show(f"{one.key}: {one.stored} -> {one.own}")
    for key in agreement.added:
        show(f"{key}: {agreement.in_force[key]}, which was not stored yet")
    if agreement.replaced:
        show(
            "a running daemon with other settings asks nothing any more, within a minute, until it is restarted or "
            "reloaded with these"
        )
    elif not agreement.added:
        show("nothing to do: this file's are in force")
    return ExitCode.OK
