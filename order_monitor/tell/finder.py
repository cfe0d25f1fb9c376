"""The page's search for an order that it does not list, in the shop's database: one search at a
time, with a minimum pause.
"""

from __future__ import annotations

from typing import Any, Final

from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.shop.database import Database
from order_monitor.shop.quick_search import quick_search
from order_monitor.shop.reading.search import Hit
from order_monitor.shop.repository import Orders
from order_monitor.tell.history import iso
from order_monitor.tell.status_view import StatusView

ELSEWHERE: Final = "asked_elsewhere"
"""Why this process does not ask about an order whose account another one asks."""

PAUSE: Final = 1.0
"""Seconds between the starts of two searches, for all clients together."""

NOTHING: Final[dict[str, Any]] = {"orders": [], "more": False, "not_searched": [], "problem": ""}
"""The response when nothing is found."""


class Busy(Exception):  # noqa: N818 - not an error: the next search waits for its turn
    """A search is running, or the last one started less than `PAUSE` seconds ago."""


class Finder:
    """Finds orders by any of their identifiers."""

    def __init__(self, view: StatusView, database: Database, orders: Orders) -> None:
        """Search the table of ``orders``.

        ``view`` adds what the program knows of an order.
        """
        self._view = view
        self._database = database
        self._orders = orders
        self._is_busy = False
        self._free_at = float("-inf")

    async def find(self, typed: str) -> dict[str, Any]:
        """Return what is found, ready for JSON.

        ``problem`` says in a few words why the search was not possible.

        Raises:
            Busy: it is not this search's turn.
        """
        now = self._view.clock.monotonic()
        if self._is_busy or now < self._free_at:
            raise Busy
        self._is_busy, self._free_at = True, now + PAUSE
        try:
            found = await quick_search(self._database, self._orders, typed)
        except (ShopError, SettingsError) as error:
            return {**NOTHING, "problem": str(error)}
        finally:
            self._is_busy = False
        return {
            "orders": [self._told(hit) for hit in found.hits],
            "more": found.has_more,
            "not_searched": list(found.not_searched),
            "problem": "",
        }

    def _told(self, hit: Hit) -> dict[str, Any]:
        """Combine the row with what this process knows of the order."""
        engine = self._view.engine
        entry, skip = engine.queue.get(hit.order_id), engine.skips.get(hit.order_id)
        account = next_at = None
        if entry is not None:
            why = entry.rare.stuck or ""
            account, next_at = engine.name_of(entry.account), iso(entry.due)
        else:
            is_open = hit.status in self._orders.row_writer.statements.open_statuses
            is_elsewhere = is_open and skip is None and bool(engine.context.elsewhere.accounts)
            why = ELSEWHERE if is_elsewhere else str(skip or "")
        return {
            "order_id": hit.order_id,
            "status": hit.status,
            "sent_at": iso(hit.sent_at),
            "referans": hit.reference,
            "by": hit.by,
            "account": account,
            "next_at": next_at,
            "why": why,
        }
