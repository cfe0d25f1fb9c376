"""The statements that read the shop's orders. Their text follows from the columns, and from where its accounts are kept."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

import asyncpg

from order_monitor.core.order import CONFIGURED, SAME_TIME, Order, Route
from order_monitor.shop.accounts import dispatch_join, own_sql
from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.columns import Table, literal
from order_monitor.shop.dispatches import TOUCHED
from order_monitor.shop.layout import is_open, is_unknown
from order_monitor.shop.recent_ends import package_sql

UNKNOWN_LIMIT: Final = 1000
"""How many orders of unknown status are read at the most: they are shown, not worked on."""

_columns: Final = itemgetter(*(name for name in Order._fields if name != "ended_at"))

_NO_ROUTE: Final = f"NULL::text AS integration, {Route.ONE:d} AS route"


class Queries:
    """SQL that reads the orders table as it was found."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Read the tables that ``catalogue`` knows."""
        self._catalogue = catalogue

    @property
    def _table(self) -> Table:
        return self._catalogue.holdings.ledger.table

    def scan_sql(self) -> str:
        """SQL of the open orders. The statuses stand in it as literals, so that the partial index is used."""
        return f"{self.select_sql()} WHERE o.{is_open(self._table, self._catalogue.layout)}"

    def among_sql(self) -> str:
        """SQL of those whose ids are in ``$1``."""
        return f"{self.scan_sql()} AND o.{self._table['id'].sql} = ANY($1::text[]{self._table['id'].cast}[])"

    def since_sql(self) -> str:
        """SQL of those that were sent after ``$1`` (epoch seconds): a look at one end of the partial index."""
        return f"{self.scan_sql()} AND o.{self._table['sent_at'].sql} > {self._table.instant('sent_at', '$1::float8')}"

    def unknown_sql(self) -> str | None:
        """SQL of the orders in a status that is neither open nor known to be final; None where there can be none."""
        condition = is_unknown(self._table, self._catalogue.layout)
        return f"{self.select_sql()} WHERE o.{condition} LIMIT {UNKNOWN_LIMIT}" if condition else None

    def select_sql(self, more: str = "") -> str:
        """SQL that reads orders as `order_of` takes them, with ``more`` columns, up to its WHERE; the table is called ``o``."""
        t = self._table
        tenant = f"o.{t['tenant_id'].sql}::text" if t.get("tenant_id") else "NULL::text"
        sync = t.epoch("last_sync_at", "o") if t.get("last_sync_at") else "NULL::float8"
        accounts = self._catalogue.holdings.accounts
        schema = self._catalogue.layout.schema
        route, join = accounts.route_sql(t, "o") if accounts else (_NO_ROUTE, dispatch_join(schema, t, "o"))
        own = f"COALESCE({own_sql(t, 'o')}, sent.account)" if accounts else f"{literal(CONFIGURED)}"
        row = t.epoch("sent_at", "o")
        # A shop that gives the time anew at each save must not put its orders off for ever.
        sent = f"CASE WHEN sent.touched >= {TOUCHED} THEN extract(epoch FROM sent.found_at)::float8 ELSE {row} END"
        noted = f"COALESCE(sent.account = {own} AND abs(sent.at - {row}) < {SAME_TIME}, false)"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "
            f"{sent} AS sent_at, COALESCE(o.{t['provider_referans'].sql}::text, '') AS referans, "
            f"{tenant} AS tenant_id, {sync} AS last_sync_at, {route}, {package_sql(t)}, "
            f"{noted} AS registered, {noted} AND sent.understood AS understood, "
            f"CASE WHEN {noted} THEN sent.odd_at END AS odd_at{more} FROM {t.sql} o {join}"
        )


def order_of(row: asyncpg.Record, ended_at: float | None = None) -> Order:
    """Return the order that `Queries.select_sql` read: its columns have the names of the order's fields.

    ``ended_at`` (epoch seconds) is given where it has ended, and only its PIN is awaited.
    """
    return Order._make((*_columns(row), ended_at))
