"""Shared helpers of the commands for people: who runs the command, which accounts exist, and what
to print about an order that is not open.
"""

from __future__ import annotations

import difflib
import getpass
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from order_monitor.commands.times import local
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.settings.model import Settings
from order_monitor.shop.accounts.tables import Integration, find_account_tables
from order_monitor.shop.database import Database
from order_monitor.shop.reading.history import OrderHistory
from order_monitor.shop.reading.search import SHORTEST_PREFIX, Hit, look_up
from order_monitor.shop.repository import Orders
from order_monitor.tell.streams import say
from order_monitor.watch.account import Account
from order_monitor.watch.routing import Directory, named, names_of

LONGEST_NAME: Final = 60
UNKNOWN: Final = "there is no such order"
SEVERAL: Final = "several orders"

LEFT_ALONE_DO: Final = (
    "set schedule.ignore_before to an earlier time to have it watched; order-monitor ask asks once"
)
"""What to do about an order that was sent too long before the first start."""


def name_of(given: str | None) -> str:
    """Return the name to record for a decision: the given name, else the login name."""
    try:
        name = given or getpass.getuser()
    except (OSError, KeyError):
        name = "somebody"
    return name.strip()[:LONGEST_NAME] or "somebody"


def when(seconds: float | None) -> str:
    """Format epoch seconds for people, in UTC."""
    return (
        "-"
        if seconds is None
        else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    )


def near(name: str, known: Iterable[str]) -> str:
    """Return similar names, as the end of a sentence."""
    there = sorted(known)
    close = difflib.get_close_matches(name, there, n=3, cutoff=0.4) or there[:5]
    return f"; near: {', '.join(close)}" if close else ""


def account_of(directory: Directory, typed: str) -> Account | None:
    """Return the account with this id or name.

    None if there is none; then an error with similar names is printed.
    """
    account = named(directory.accounts, typed)
    if account is None:
        known = [one.name for one in directory.accounts.values()]
        say(f"order-monitor: there is no account {typed!r}{near(typed, known)}")
    return account


async def take_accounts(settings: Settings, database: Database, directory: Directory) -> None:
    """Load the shop's accounts into ``directory``, if accounts come from the database.

    Raises:
        SettingsError: the tables are not as expected.
    """
    if settings.provider.source == "database":
        directory.update(await shops_accounts(database, settings.database.schema_))


async def shops_accounts(database: Database, schema: str) -> list[Integration]:
    """Return the shop's accounts.

    Raises:
        SettingsError: the tables are missing, or not as expected.
        ShopError: the database is not available.
    """
    async with database.transaction() as connection:
        return await (await find_account_tables(connection, schema)).read(connection)


async def account_names(settings: Settings, database: Database) -> dict[str, str]:
    """Return the names of the shop's accounts, by id.

    Empty if accounts do not come from the database, or cannot be read.
    """
    if settings.provider.source != "database":
        return {}
    try:
        return names_of(await shops_accounts(database, settings.database.schema_))
    except (SettingsError, ShopError):
        return {}


async def history_of(
    database: Database, orders: Orders, typed: str, unknown: str = f"{{}}: {UNKNOWN}"
) -> OrderHistory | str:
    """Return the history of the order that ``typed`` identifies, or a few words on why there is
    none.

    Details are printed on stderr.

    Raises:
        ShopError: the database is not available.
        SettingsError: the table is not as expected, or lacks a column of ``database.lookup``.
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
    longer = (
        f"; the beginning of an id must have {SHORTEST_PREFIX} characters at least"
        if is_short
        else ""
    )
    say(f"{unknown.format(typed)}{longer}{close}")
    return UNKNOWN


def _of(hit: Hit) -> str:
    reference = f"referans {hit.reference}" if hit.reference.strip() else "no referans"
    return f"{hit.order_id}  {hit.status}  sent {local(hit.sent_at)}  {reference}  (by {hit.by})"


def ended(history: OrderHistory) -> str:
    """Explain since when an order is no longer open, and who ended it, as far as the events show
    it.
    """
    status = history.order.status
    by = next((e for e in reversed(history.events) if e["to_status"] == status), None)
    known = f" since {when(by['at'])}, by {by['decided_by']}" if by else ""
    return f"is {status!r}{known}; only open orders are changed"
