"""What people's commands have in common: who they are, which accounts there are, and what is said of an order that is not open."""

from __future__ import annotations

import difflib
import getpass
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from order_monitor.commands.times import local
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.settings.model import Settings
from order_monitor.shop.accounts import Integration, find_account_tables
from order_monitor.shop.database import Database
from order_monitor.shop.order_history import OrderHistory
from order_monitor.shop.order_search import SHORTEST_PREFIX, Hit, look_up
from order_monitor.shop.repository import Orders
from order_monitor.tell.streams import say
from order_monitor.watch.account import Account
from order_monitor.watch.routing import Directory, named, names_of

LONGEST_NAME: Final = 60
UNKNOWN: Final = "there is no such order"
SEVERAL: Final = "several orders"

LEFT_ALONE_DO: Final = "set schedule.ignore_before to an earlier time to have it watched; order-monitor ask asks once"
"""What can be done about an order that was sent too long before the first start."""


def name_of(given: str | None) -> str:
    """Return who decides: the name given, else the one this person is logged in by."""
    try:
        name = given or getpass.getuser()
    except (OSError, KeyError):
        name = "somebody"
    return name.strip()[:LONGEST_NAME] or "somebody"


def when(seconds: float | None) -> str:
    """Write epoch seconds for a person, in UTC."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def near(name: str, known: Iterable[str]) -> str:
    """Return what may have been meant, as the end of a sentence."""
    there = sorted(known)
    close = difflib.get_close_matches(name, there, n=3, cutoff=0.4) or there[:5]
    return f"; near: {', '.join(close)}" if close else ""


def account_of(directory: Directory, typed: str) -> Account | None:
    """Return the account that a person means, by its id or by its name; where there is none, say so and what is near."""
    account = named(directory.accounts, typed)
    if account is None:
        known = [one.name for one in directory.accounts.values()]
        say(f"order-monitor: there is no account {typed!r}{near(typed, known)}")
    return account


async def take_accounts(settings: Settings, database: Database, directory: Directory) -> None:
    """Let ``directory`` know the shop's accounts, where they are the shop's.

    Raises:
        SettingsError: the tables are not as they must be.
    """
    if settings.provider.source == "database":
        directory.update(await shops_accounts(database, settings.database.schema_))


async def shops_accounts(database: Database, schema: str) -> list[Integration]:
    """Return the shop's accounts.

    Raises:
        SettingsError: the tables are not there, or not as they must be.
        ShopError: the database could not be asked.
    """
    async with database.transaction() as connection:
        return await (await find_account_tables(connection, schema)).read(connection)


async def account_names(settings: Settings, database: Database) -> dict[str, str]:
    """Return what the shop's accounts are called, by their ids; nothing where they are not the shop's, or cannot be read."""
    if settings.provider.source != "database":
        return {}
    try:
        return names_of(await shops_accounts(database, settings.database.schema_))
    except (SettingsError, ShopError):
        return {}


async def history_of(
    database: Database, orders: Orders, typed: str, unknown: str = f"{{}}: {UNKNOWN}"
) -> OrderHistory | str:
    """Return the story of the order that somebody means, else in a few words why there is none; the rest is said on stderr.

    Raises:
        ShopError: the database could not be asked.
        SettingsError: the table is not as it must be, or has not what ``database.lookup`` names.
    """
    found = await look_up(database, orders, typed)
    if isinstance(found, OrderHistory):
        return found
    if found.hits:
        say(f"{typed}: {SEVERAL}, which begin with it or have it:")
        for hit in found.hits:
            say(f"  {_of(hit)}")
        if found.has_more:
            say("  and more")
        return SEVERAL
    close = f"; near: {', '.join(found.near)}" if found.near else ""
    is_short = len(typed.strip()) < SHORTEST_PREFIX
    longer = f"; the beginning of an id must have {SHORTEST_PREFIX} characters at least" if is_short else ""
    say(f"{unknown.format(typed)}{longer}{close}")
    return UNKNOWN


def _of(hit: Hit) -> str:
    referans = f"referans {hit.referans}" if hit.referans.strip() else "no referans"
    return f"{hit.order_id}  {hit.status}  sent {local(hit.sent_at)}  {referans}  (by {hit.by})"


def ended(history: OrderHistory) -> str:
    """Say since when an order is not open, and by whom, as far as the events tell."""
    status = history.order.status
    by = next((e for e in reversed(history.events) if e["to_status"] == status), None)
    known = f" since {when(by['at'])}, by {by['decided_by']}" if by else ""
    return f"is {status!r}{known}; only open orders are changed"
