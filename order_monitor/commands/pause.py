"""``order-monitor pause`` and ``resume``: what holds for every process, kept in the database."""

from __future__ import annotations

from pathlib import Path

from order_monitor.commands.composition import database_of, directory_of, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import account_of, name_of, near, shops_accounts, take_accounts
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.settings.model import Settings
from order_monitor.shop.accounts import Integration
from order_monitor.shop.database import Database
from order_monitor.shop.own_tables import people_tables
from order_monitor.shop.pauses import Pauses
from order_monitor.tell.logs import Redactor
from order_monitor.tell.streams import say
from order_monitor.watch.routing import names_of
from order_monitor.watch.system_clock import SystemClock


def run_pause(config: Path | None, account: str, *, reason: str, by: str | None, seconds: float | None) -> int:
    """Pause an account; return 1 where there is none of that name."""
    settings, sink, redactor = settings_of(config, "database", "provider", least="error")
    return run_to_exit(_pause(settings, redactor, account, reason, name_of(by), seconds), sink.close)


async def _pause(
    settings: Settings, redactor: Redactor, account: str, reason: str, by: str, seconds: float | None
) -> int:
    database = database_of(settings)
    directory = directory_of(settings, SystemClock(), redactor.learn)
    try:
        await people_tables(database, settings.database.schema_)
        await take_accounts(settings, database, directory)
        meant = account_of(directory, account)
        if meant is None:
            return ExitCode.NOT_DONE
        async with database.transaction() as connection:
            await Pauses(settings.database.schema_).pause(connection, meant.key, reason, by, seconds)
    finally:
        for known in directory.accounts.values():
            await known.provider.aclose()
        await database.close()
    until = f" for {seconds:g} s" if seconds else " until it is resumed"
    say(f"{meant.name}: paused{until} by {by}: {reason}", to_stdout=True)
    return ExitCode.OK


def run_resume(config: Path | None, account: str) -> int:
    """Resume an account; return 1 where it was not paused."""
    settings, sink, _ = settings_of(config, "database", least="error")
    return run_to_exit(_resume(settings, account), sink.close)


async def _resume(settings: Settings, account: str) -> int:
    database, pauses = database_of(settings), Pauses(settings.database.schema_)
    try:
        await people_tables(database, settings.database.schema_)
        names = names_of(await _integrations(database, settings.database.schema_))
        async with database.transaction() as connection:
            paused = {key: names.get(key, key) for key in await pauses.read(connection)}
            meant = [key for key, name in paused.items() if account in (key, name)]
            done = len(meant) == 1 and await pauses.resume(connection, meant)
    finally:
        await database.close()
    if not done:
        say(f"order-monitor: {account!r} is not paused{near(account, paused.values())}")
        return ExitCode.NOT_DONE
    say(f"{paused[meant[0]]}: resumed; it is asked again within a scan", to_stdout=True)
    return ExitCode.OK


async def _integrations(database: Database, schema: str) -> list[Integration]:
    """Return the shop's accounts; none where they are not the shop's, or cannot be read: a pause is lifted all the same."""
    try:
        return await shops_accounts(database, schema)
    except (SettingsError, ShopError):
        return []
