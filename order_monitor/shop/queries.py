"""The statements that read the shop's orders. Their text follows from the columns, and from where its accounts are kept."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

import asyncpg

from order_monitor.core.order import CONFIGURED, OLDEST_SENT_AT, SAME_TIME, Order, Route
from order_monitor.shop.accounts import dispatch_join, own_sql
from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.columns import Table, literal
from order_monitor.shop.dispatches import TOUCHED
from order_monitor.shop.layout import is_open, is_settled, is_unknown, settings_of
from order_monitor.shop.marks import FIRST_START_RELEASED
from order_monitor.shop.recent_ends import package_sql

UNKNOWN_LIMIT: Final = 1000
"""How many orders of unknown status are read at the most: they are shown, not worked on."""

COUNTED: Final = 1_000_000
"""How far orders from before the start are counted: so much may be read at a look, and no more."""

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
        """SQL of the open orders that are watched. The statuses stand in it as literals, so that the partial index is used.

        The time is that index's own column: of those that are left alone none is read.
        """
        return f"{self.select_sql()} WHERE o.{is_open(self._table, self._catalogue.layout)}{self._watched()}"

    def _watched(self) -> str:
        """SQL that leaves out what was sent too long before the start; what has no date, or none that can be one, stays."""
        ledger, t = self._catalogue.holdings.ledger, self._table
        if not ledger.ignored_before > OLDEST_SENT_AT:
            return ""
        sent = f"o.{t['sent_at'].sql}"
        first, oldest = (t.instant("sent_at", repr(at)) for at in (ledger.ignored_before, OLDEST_SENT_AT))
        return f" AND ({sent} >= {first} OR {sent} < {oldest} OR {sent} IS NULL)"

    def left_alone_sql(self, limit: int) -> str | None:
        """SQL of open orders that are left alone, the oldest first; None where none can be."""
        condition = self._between(OLDEST_SENT_AT, self._catalogue.holdings.ledger.ignored_before)
        order = f"ORDER BY o.{self._table['sent_at'].sql} LIMIT {limit:d}"
        return f"{self.select_sql()} WHERE {condition} {order}" if condition else None

    def counts_sql(self) -> str | None:
        """SQL that counts the open orders that are left alone, and those that only the first start keeps from ending by age.

        Each is one range of the partial index, and counted as far as `COUNTED`. None where there can be none of either.
        """
        ledger, t = self._catalogue.holdings.ledger, self._table
        old = self._between(OLDEST_SENT_AT, ledger.ignored_before)
        held = self._between(max(OLDEST_SENT_AT, ledger.ignored_before), ledger.first_start)
        if old is None and held is None:
            return None
        past = t.instant("sent_at", f"extract(epoch FROM now())::float8 - {ledger.rules.give_up_after!r}")
        late = (
            f"{held} AND o.{t['sent_at'].sql} <= {past} AND NOT {is_settled(t, ledger.layout, 'o')}" if held else None
        )
        is_released = f"EXISTS (SELECT FROM {settings_of(t.schema)} WHERE name = '{FIRST_START_RELEASED}')"
        return (
            f"SELECT {self._count(old)} AS left_alone, CASE WHEN {is_released} THEN 0 ELSE {self._count(late)} END AS held, "
            "extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS took"
        )

    def _count(self, condition: str | None) -> str:
        rows = f"SELECT FROM {self._table.sql} o WHERE {condition} LIMIT {COUNTED}"
        return f"(SELECT count(*) FROM ({rows}) counted)" if condition else "0"

    def _between(self, first: float, last: float) -> str | None:
        """SQL condition of an open order that was sent in a time (epoch seconds); None where that is empty."""
        t = self._table
        if not first < last:
            return None
        sent, (since, until) = f"o.{t['sent_at'].sql}", (t.instant("sent_at", repr(at)) for at in (first, last))
        return f"o.{is_open(t, self._catalogue.layout)} AND {sent} >= {since} AND {sent} < {until}"

    def among_sql(self) -> str:
        """SQL of those whose ids are in ``$1``."""
        return f"{self.scan_sql()} AND o.{self._table['id'].sql} = ANY($1::text[]{self._table['id'].cast}[])"

    def since_sql(self) -> str:
        """SQL of those that were sent after ``$1`` (epoch seconds): a look at one end of the partial index."""
        return f"{self.scan_sql()} AND o.{self._table['sent_at'].sql} > {self._table.since('sent_at', '$1::float8')}"

    def unknown_sql(self) -> str | None:
        """SQL of the orders in a status that is neither open nor known to be final; None where there can be none."""
        condition = is_unknown(self._table, self._catalogue.layout)
        return f"{self.select_sql()} WHERE o.{condition}{self._watched()} LIMIT {UNKNOWN_LIMIT}" if condition else None

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
            f"CASE WHEN {noted} THEN sent.odd_at END AS odd_at, "
            f"{is_settled(t, self._catalogue.layout, 'o')} AS settled{more} FROM {t.sql} o {join}"
        )


def order_of(row: asyncpg.Record, ended_at: float | None = None) -> Order:
    """Return the order that `Queries.select_sql` read: its columns have the names of the order's fields.

    ``ended_at`` (epoch seconds) is given where it has ended, and only its PIN is awaited.
    """
    return Order._make((*_columns(row), ended_at))
