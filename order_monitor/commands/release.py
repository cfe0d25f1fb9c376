"""``order-monitor release``: release the ends that the brake holds for an account."""

from __future__ import annotations

from pathlib import Path

from order_monitor.app import database_of, directory_of, orders_of, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import account_of, name_of, take_accounts
from order_monitor.settings.model import Settings
from order_monitor.shop.schema.own_tables import people_tables
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.streams import say
from order_monitor.watch.system_clock import SystemClock


def run_release(config: Path | None, account: str, *, by: str | None) -> int:
    """Release what is held for an account.

    Return 1 if nothing is held, or there is no such account.
    """
    settings, sink, redactor = settings_of(config, "database", "provider", least="error")
    return run_to_exit(_release(settings, redactor, account, name_of(by)), sink.close)


async def _release(settings: Settings, redactor: Redactor, account: str, by: str) -> int:
    async with (
        database_of(settings) as database,
        directory_of(settings, SystemClock(), redactor.follow) as directory,
    ):
        orders = orders_of(settings, database)
        await people_tables(database, settings.database.schema_)
        await orders.complete()
        await take_accounts(settings, database, directory)
        # Orders of an account that the shop has removed may still be held; then only its id is
        # known.
        key = (
            account.strip()
            if account.strip() in {one.account for one in await orders.brake.held()}
            else None
        )
        if key is None:
            meant = account_of(directory, account)
            if meant is None:
                return ExitCode.NOT_DONE
            key = meant.key
        counts = await orders.brake.release(key, by)
        names = {known.key: known.name for known in directory.accounts.values()}
    if not counts:
        say(f"order-monitor: nothing is held of {names.get(key, key)}")
        return ExitCode.NOT_DONE
    for one, count in sorted(counts.items()):
        say(
            f"{names.get(one, one)}: {count} held order{'s' * (count != 1)} let through by {by}; "
            "each is asked about once more, and ends if it is cancelled still",
            to_stdout=True,
        )
    return ExitCode.OK
