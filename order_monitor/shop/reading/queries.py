"""The statements that read the shop's orders.

Their text depends on the columns, and on where the accounts are stored.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from order_monitor.core.order import CONFIGURED, OLDEST_SENT_AT, SAME_TIME, Order, Route
from order_monitor.shop.accounts.tables import (
    dispatch_join,
    own_sql,
    reference_from_sql,
    row_reference_sql,
)
from order_monitor.shop.marks import FIRST_START_RELEASED
from order_monitor.shop.reading.recent_ends import package_sql
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.columns import Table, literal
from order_monitor.shop.schema.table_config import is_open, is_settled, is_unknown, settings_of
from order_monitor.shop.writing.dispatches import TOUCHED

UNKNOWN_LIMIT: Final = 1000
"""Maximum number of orders of unknown status read: they are only shown."""

COUNTED: Final = 1_000_000
"""Maximum number of orders from before the start that are counted, to limit a scan's cost."""

_COLUMNS: Final = Order._fields.index("ended_at")

_NO_ROUTE: Final = f"NULL::text AS integration, {Route.ONE:d} AS route"


class Queries:
    """SQL that reads the orders table as it was found."""

    def __init__(self, schema_cache: SchemaCache) -> None:
        """Read the tables that ``schema_cache`` knows."""
        self._schema_cache = schema_cache

    @property
    def _table(self) -> Table:
        return self._schema_cache.shop_tables.row_writer.table

    def scan_sql(self) -> str:
        """SQL for the open orders that are watched.

        The statuses are literals, so that the partial index is used. The time condition is on the
        index's own column, so no row of an order that is left alone is read.
        """
        return f"{self.select_sql()} WHERE o.{is_open(self._table, self._schema_cache.table_config)}{self.watched()}"

    def watched(self) -> str:
        """SQL that leaves out what was sent too long before the start.

        Orders without a date, or with an impossible one, are included.
        """
        row_writer, t = self._schema_cache.shop_tables.row_writer, self._table
        if not row_writer.ignored_before > OLDEST_SENT_AT:
            return ""
        sent = f"o.{t['sent_at'].sql}"
        first, oldest = (
            t.instant("sent_at", repr(at)) for at in (row_writer.ignored_before, OLDEST_SENT_AT)
        )
        return f" AND ({sent} >= {first} OR {sent} < {oldest} OR {sent} IS NULL)"

    def left_alone_sql(self, limit: int) -> str | None:
        """SQL for open orders that are left alone, oldest first; None if there can be none."""
        condition = self._between(
            OLDEST_SENT_AT, self._schema_cache.shop_tables.row_writer.ignored_before
        )
        order = f"ORDER BY o.{self._table['sent_at'].sql} LIMIT {limit:d}"
        return f"{self.select_sql()} WHERE {condition} {order}" if condition else None

    def counts_sql(self) -> str | None:
        """SQL that counts the open orders that are left alone, and those that only the first start
        keeps from ending by age.

        Each is one range of the partial index, counted up to `COUNTED`. None if there can be none
        of either.
        """
        row_writer, t = self._schema_cache.shop_tables.row_writer, self._table
        old = self._between(OLDEST_SENT_AT, row_writer.ignored_before)
        held = self._between(max(OLDEST_SENT_AT, row_writer.ignored_before), row_writer.first_start)
        if old is None and held is None:
            return None
        past = t.instant(
            "sent_at", f"extract(epoch FROM now())::float8 - {row_writer.rules.give_up_after!r}"
        )
        late = (
            f"{held} AND o.{t['sent_at'].sql} <= {past} AND NOT {is_settled(t, row_writer.table_config, 'o')}"
            if held
            else None
        )
        is_released = (
            f"EXISTS (SELECT FROM {settings_of(t.schema)} WHERE name = '{FIRST_START_RELEASED}')"
        )
        return (
            f"SELECT {self._count(old)} AS left_alone, CASE WHEN {is_released} THEN 0 ELSE {self._count(late)} END AS held, "
            "extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS took"
        )

    def _count(self, condition: str | None) -> str:
        rows = f"SELECT FROM {self._table.sql} o WHERE {condition} LIMIT {COUNTED}"
        return f"(SELECT count(*) FROM ({rows}) counted)" if condition else "0"

    def _between(self, first: float, last: float) -> str | None:
        """SQL condition for an open order that was sent between two times (epoch seconds).

        None if that range is empty.
        """
        t = self._table
        if not first < last:
            return None
        sent, (since, until) = (
            f"o.{t['sent_at'].sql}",
            (t.instant("sent_at", repr(at)) for at in (first, last)),
        )
        return f"o.{is_open(t, self._schema_cache.table_config)} AND {sent} >= {since} AND {sent} < {until}"

    def among_sql(self) -> str:
        """SQL for the orders whose ids are in ``$1``."""
        return f"{self.scan_sql()} AND o.{self._table['id'].sql} = ANY($1::text[]{self._table['id'].cast}[])"

    def since_sql(self) -> str:
        """SQL for the orders that were sent after ``$1`` (epoch seconds): it reads one end of the
        partial index.
        """
        return f"{self.scan_sql()} AND o.{self._table['sent_at'].sql} > {self._table.since('sent_at', '$1::float8')}"

    def of_sql(self) -> str:
        """SQL for the orders of the accounts whose keys are in ``$1``."""
        return f"SELECT * FROM ({self.scan_sql()}) o WHERE integration = ANY($1::text[])"

    def unknown_sql(self) -> str | None:
        """SQL for the orders with a status that is neither open nor known to be final.

        None if there can be none.
        """
        condition = is_unknown(self._table, self._schema_cache.table_config)
        return (
            f"{self.select_sql()} WHERE o.{condition}{self.watched()} LIMIT {UNKNOWN_LIMIT}"
            if condition
            else None
        )

    def select_sql(self, more: str = "") -> str:
        """SQL that reads orders in the form that `order_of` takes, followed by ``more`` columns,
        without a WHERE clause.

        The table's alias is ``o``.
        """
        t = self._table
        tenant = f"o.{t['tenant_id'].sql}::text" if t.get("tenant_id") else "NULL::text"
        sync = t.epoch("last_sync_at", "o") if t.get("last_sync_at") else "NULL::float8"
        accounts = self._schema_cache.shop_tables.accounts
        schema = self._schema_cache.table_config.schema
        route, join = (
            accounts.route_sql(t, "o") if accounts else (_NO_ROUTE, dispatch_join(schema, t, "o"))
        )
        own = f"COALESCE({own_sql(t, 'o')}, sent.account)" if accounts else f"{literal(CONFIGURED)}"
        row = t.epoch("sent_at", "o")
        # A shop that sets the time at each save must not delay its orders indefinitely.
        sent = f"CASE WHEN sent.touched >= {TOUCHED} THEN extract(epoch FROM sent.found_at)::float8 ELSE {row} END"
        noted = f"COALESCE(sent.account = {own} AND abs(sent.at - {row}) < {SAME_TIME}, false)"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "
            f"{sent} AS sent_at, {row_reference_sql(t, 'o')} AS reference, "
            f"{tenant} AS tenant_id, {sync} AS last_sync_at, {route}, {package_sql(t)}, "
            f"{noted} AS registered, {noted} AND sent.understood AS understood, "
            f"CASE WHEN {noted} THEN sent.odd_at END AS odd_at, "
            f"{is_settled(t, self._schema_cache.table_config, 'o')} AS settled, "
            f"{reference_from_sql(t, 'o')} AS reference_from{more} FROM {t.sql} o {join}"
        )


def order_of(row: asyncpg.Record, ended_at: float | None = None) -> Order:
    """Return the order that `Queries.select_sql` read: its first columns are the order's fields, in
    the same order.

    ``ended_at`` (epoch seconds) is given if it has ended and only its PIN is awaited.
    """
    return Order._make((*row[:_COLUMNS], ended_at))
