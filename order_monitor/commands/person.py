"""What people's commands have in common: who they are, which accounts there are, and what is said of an order that is not open."""

from __future__ import annotations

import difflib
import getpass
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from order_monitor.commands.compose import say
from order_monitor.directory import Directory
from order_monitor.settings import Settings
from order_monitor.shop.accounts import find_account_tables
from order_monitor.shop.database import Database
from order_monitor.shop.orders import Orders
from order_monitor.shop.story import Story, nearest, read_story

LONGEST_NAME: Final = 60


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


async def take_accounts(settings: Settings, database: Database, directory: Directory) -> None:
    """Let ``directory`` know the shop's accounts, where they are the shop's.

    Raises:
        SettingsError: the tables are not as they must be.
    """
    if settings.provider.source == "database":
        async with database.transaction() as connection:
            tables = await find_account_tables(connection, settings.database.schema_)
            directory.update(await tables.read(connection))


async def story_of(database: Database, orders: Orders, order_id: str) -> Story | None:
    """Return an order's story; where there is none, say so and what is near."""
    story = await read_story(database, orders, order_id)
    if story is None:
        close = await nearest(database, orders, order_id)
        say(f"{order_id}: there is no such order" + (f"; near: {', '.join(close)}" if close else ""))
    return story


def ended(story: Story) -> str:
    """Say since when an order is not open, and by whom, as far as the events tell."""
    status = story.order.status
    by = next((e for e in reversed(story.events) if e["to_status"] == status), None)
    known = f" since {when(by['at'])}, by {by['decided_by']}" if by else ""
    return f"is {status!r}{known}; only open orders are changed"
