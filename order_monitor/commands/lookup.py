"""Shared helpers of the commands for people: who runs the command, which account or order is meant,
and what to print about an order that is not open.
"""

from __future__ import annotations

import difflib
import getpass
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from order_monitor.commands.exits import ExitCode, NotDoneError
from order_monitor.commands.session import Session
from order_monitor.commands.times import local
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.shop.reading.history import OrderHistory
from order_monitor.shop.reading.search import SHORTEST_PREFIX, Hit, look_up
from order_monitor.shop.repository import Orders
from order_monitor.watch.account import Account
from order_monitor.watch.routing import Directory, names_of

LONGEST_NAME: Final = 60
UNKNOWN: Final = "there is no such order"
SEVERAL: Final = "several orders"

LEFT_ALONE_DO: Final = (
    "set schedule.ignore_before to an earlier time to have it watched; order-monitor ask asks once"
)
"""What to do about an order that was sent too long before the first start."""


class NoOrderError(NotDoneError):
    """What was typed identifies no order; ``why`` says that in a few words."""

    def __init__(self, why: str, *lines: str) -> None:
        """Keep the words, and the lines with the details."""
        self.why = why
        super().__init__(*lines)


def name_of(given: str | None) -> str:
    """Return the name to record for a decision: the given name, else the login name."""
    try:
        name = given or getpass.getuser()
    except (OSError, KeyError):
        name = "somebody"
    return name.strip()[:LONGEST_NAME] or "somebody"


def when(seconds: float | None) -> str:
    """Format epoch seconds for people, in UTC; a dash if they are not a valid date."""
    if seconds is None:
        return "-"
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S UTC}"
    except (ValueError, OverflowError, OSError):
        return "-"


def near(name: str, known: Iterable[str]) -> str:
    """Return similar names, as the end of a sentence."""
    there = sorted(known)
    close = difflib.get_close_matches(name, there, n=3, cutoff=0.4) or there[:5]
    return f"; near: {', '.join(close)}" if close else ""


def account_of(directory: Directory, typed: str, *, otherwise: int = ExitCode.NOT_DONE) -> Account:
    """Return the account with this id or name.

    Raises:
        NotDoneError: there is none, with similar names and the exit code ``otherwise``.
    """
    account = directory.named(typed)
    if account is None:
        close = near(typed, (one.name for one in directory.accounts.values()))
        raise NotDoneError(f"order-monitor: there is no account {typed!r}{close}", code=otherwise)
    return account


async def account_names(session: Session) -> dict[str, str]:
    """Return the names of the shop's accounts, by id.

    Empty if accounts do not come from the database, or cannot be read.
    """
    if session.settings.provider.source != "database":
        return {}
    try:
        return names_of(await session.integrations())
    except (SettingsError, ShopError):
        return {}


async def history_of(
    session: Session, orders: Orders, typed: str, unknown: str = f"{{}}: {UNKNOWN}"
) -> OrderHistory:
    """Return the history of the order that ``typed`` identifies.

    Raises:
        NoOrderError: it identifies none, or several.
        ShopError: the database is not available.
        SettingsError: the table is not as expected, or lacks a column of ``database.lookup``.
    """
    found = await look_up(session.database, orders, typed)
    if isinstance(found, OrderHistory):
        return found
    if found.hits:
        hits = [f"  {_of(hit)}" for hit in found.hits]
        more = ["  and more"] if found.has_more else []
        raise NoOrderError(
            SEVERAL, f"{typed}: {SEVERAL}, which begin with it or have it:", *hits, *more
        )
    close = f"; near: {', '.join(found.near)}" if found.near else ""
    longer = ""
    if len(typed.strip()) < SHORTEST_PREFIX:
        longer = f"; the beginning of an id must have {SHORTEST_PREFIX} characters at least"
    raise NoOrderError(UNKNOWN, f"{unknown.format(typed)}{longer}{close}")


def _of(hit: Hit) -> str:
    reference = f"referans {hit.reference}" if hit.reference.strip() else "no referans"
    return f"{hit.order_id}  {hit.status}  sent {local(hit.sent_at)}  {reference}  (by {hit.by})"


def ended(history: OrderHistory) -> str:
    """Explain since when an order is no longer open, and who ended it, as far as the events show
    it.
    """
    status = history.order.status
    by = history.last_event(status)
    known = f" since {when(by['at'])}, by {by['decided_by']}" if by else ""
    return f"is {status!r}{known}; only open orders are changed"
