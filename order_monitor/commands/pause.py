"""``order-monitor pause`` and ``resume``, for asking or for ends: stored in the database, so that
it applies to every process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from order_monitor.app import database_of, directory_of, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import account_of, name_of, near, shops_accounts, take_accounts
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.settings.model import Settings
from order_monitor.shop.accounts.pauses import EVERY_ACCOUNT, Pauses, ends_of, is_of_ends, only_ends
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.database import Database
from order_monitor.shop.schema.own_tables import people_tables
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.streams import say
from order_monitor.watch.routing import names_of
from order_monitor.watch.system_clock import SystemClock

_ALL: Final = "all accounts"


def run_pause(
    config: Path | None,
    account: str | None,
    *,
    ends: bool,
    reason: str,
    by: str | None,
    seconds: float | None,
) -> int:
    """Pause an account, or with ``ends`` hold its ends, or the ends of all accounts.

    Return 1 if there is no such account.
    """
    settings, sink, redactor = settings_of(config, "database", "provider", least="error")
    return run_to_exit(
        _pause(settings, redactor, account, Wish(ends, reason, name_of(by), seconds)), sink.close
    )


@dataclass(frozen=True, slots=True)
class Wish:
    """A pause to set: whether of ends, why, by whom, and for how many seconds; None until it is
    resumed.
    """

    ends: bool
    reason: str
    by: str
    seconds: float | None


async def _pause(settings: Settings, redactor: Redactor, account: str | None, wish: Wish) -> int:
    async with (
        database_of(settings) as database,
        directory_of(settings, SystemClock(), redactor.follow) as directory,
    ):
        await people_tables(database, settings.database.schema_)
        await take_accounts(settings, database, directory)
        meant = None if account is None else account_of(directory, account)
        if account is not None and meant is None:
            return ExitCode.NOT_DONE
        key = EVERY_ACCOUNT if meant is None else meant.key
        name = _ALL if meant is None else meant.name
        async with database.transaction() as connection:
            kept = ends_of(key) if wish.ends else key
            await Pauses(settings.database.schema_).pause(
                connection, kept, wish.reason, wish.by, wish.seconds
            )
    until = f" for {wish.seconds:g} s" if wish.seconds else " until it is resumed"
    what = "its ends are held" if wish.ends else "paused"
    say(f"{name}: {what}{until} by {wish.by}: {wish.reason}", to_stdout=True)
    return ExitCode.OK


def run_resume(config: Path | None, account: str | None, *, ends: bool) -> int:
    """Resume an account, or its ends; return 1 if it was not paused."""
    settings, sink, _ = settings_of(config, "database", least="error")
    return run_to_exit(_resume(settings, account, ends=ends), sink.close)


async def _resume(settings: Settings, account: str | None, *, ends: bool) -> int:
    database, pauses = database_of(settings), Pauses(settings.database.schema_)
    async with database:
        await people_tables(database, settings.database.schema_)
        names = names_of(await _integrations(database, settings.database.schema_))
        async with database.transaction() as connection:
            held = only_ends(read := await pauses.read(connection))
            kept = held if ends else [key for key in read if not is_of_ends(key)]
            paused = {key: _ALL if key == EVERY_ACCOUNT else names.get(key, key) for key in kept}
            wanted = EVERY_ACCOUNT if account is None else account
            meant = [key for key, name in paused.items() if wanted in (key, name)]
            done = len(meant) == 1 and await pauses.resume(
                connection, [ends_of(k) if ends else k for k in meant]
            )
    if not done:
        what = (
            f"the ends of {account or _ALL!r} are not held"
            if ends
            else f"{account!r} is not paused"
        )
        say(f"order-monitor: {what}{near(account or '', paused.values())}")
        return ExitCode.NOT_DONE
    again = "its ends are written again" if ends else "resumed; it is asked again within a scan"
    say(f"{paused[meant[0]]}: {again}", to_stdout=True)
    return ExitCode.OK


async def _integrations(database: Database, schema: str) -> list[Integration]:
    """Return the shop's accounts.

    Empty if there are none in the database, or they cannot be read: a pause can still be ended.
    """
    try:
        return await shops_accounts(database, schema)
    except (SettingsError, ShopError):
        return []
