"""Recently ended orders, according to the events: which packages have PINs, and which ends still
lack theirs.

The cost is limited whatever the shop's size: only the newest `LOOKED_AT` events are read, by
primary key, and after the first look only new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg
import structlog

from order_monitor.core.bounded import forget_oldest
from order_monitor.core.errors import ShopError
from order_monitor.core.outcome import FINAL, Cause, Outcome
from order_monitor.core.pin import is_no_pin
from order_monitor.shop.accounts.tables import AccountTables
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.reviews import Reviews
from order_monitor.shop.schema.columns import Table, literal
from order_monitor.shop.schema.table_config import (
    TableConfig,
    events_of,
    is_paid_back,
    lacks_pin,
    literals,
    may_lack_pin,
)
from order_monitor.shop.writing.event_sql import PROGRAM
from order_monitor.shop.writing.row_writer import RowWriter

LOOKED_AT: Final = 20_000
"""Number of the newest events that are examined."""

PIN_MISSING: Final = "pin_missing"
"""The kind of review for an order whose PIN has not come in time."""

_OVERLAP: Final = 500
"""Overlap between looks: an event whose transaction ended late has a lower id than the newest seen.
"""

_HOURS: Final = 24
_REPORTED_FOR: Final = 86_400.0
_MOST: Final = 5000

Key = tuple[str, str]
"""What sells PINs: (tenant, package), or for an order without package ("", account)."""


class RecentEnds:
    """Follows the events of one table."""

    def __init__(self) -> None:
        """Start without any knowledge."""
        self._carriers: dict[Key, None] = {}
        self._put_up: dict[str, None] = {}
        self._log = structlog.get_logger("order_monitor.orders")
        self._seen = 0

    async def follow(
        self,
        connection: Connection,
        table_config: TableConfig,
        table: Table,
        accounts: AccountTables | None,
    ) -> None:
        """Read new events to learn which packages have PINs."""
        newest = await connection.fetchval(
            f"SELECT COALESCE(max(id), 0) FROM {events_of(table_config.schema)}"
        )
        if newest == self._seen:
            return
        since = max(self._seen - _OVERLAP, newest - LOOKED_AT)
        for row in await connection.fetch(pins_sql(table_config, table, accounts), since):
            self._carriers[_key(row)] = None
        forget_oldest(self._carriers, LOOKED_AT)
        self._seen = newest

    async def without_pin(
        self, connection: Connection, row_writer: RowWriter, select: str, reviews: str
    ) -> list[asyncpg.Record]:
        """Return orders that ended without a PIN although their package has PINs, as long as the
        PIN may still come.

        ``select`` reads orders up to its WHERE clause, with their ``pin``; ``reviews`` is the
        reviews table. ``is_late`` in a record: the PIN is overdue, and there is no review for it.
        """
        wait = row_writer.table_config.await_pin
        if not wait or not self._carriers:
            return []
        rows = await connection.fetch(
            select + without_pin_sql(row_writer, reviews), wait, wait + _REPORTED_FOR
        )
        return [
            r
            for r in rows
            if _key(r) in self._carriers and is_no_pin(r["pin"], row_writer.rules.no_pin)
        ]

    async def put_up(
        self, database: Database, table: Table, reviews: Reviews, late: Sequence[str]
    ) -> None:
        """Add a review for each order that did not get its PIN in time, once."""
        for order_id in [order_id for order_id in late if order_id not in self._put_up]:
            self._log.warning("order.pin_missing", order_id=order_id)
            try:
                async with database.transaction() as connection:
                    await reviews.note(connection, table, order_id, PIN_MISSING, "")
            except ShopError as error:
                # The list only helps people: a scan does not wait for it.
                self._log.warning("review.not_kept", orders=[order_id], why=str(error))
            self._put_up[order_id] = None
        forget_oldest(self._put_up, LOOKED_AT)


def pins_sql(table_config: TableConfig, table: Table, accounts: AccountTables | None) -> str:
    """SQL for the orders that got PINs in events after ``$1``, with their package and account."""
    route, join = accounts.route_sql(table, "o") if accounts else ("NULL::text AS integration", "")
    pin = f"o.{table['pin_code'].sql}::text"
    # Where the shop moves PINs away, no row shows that it had one.
    has_pin = "" if table_config.pins_elsewhere else f" WHERE NOT {lacks_pin(pin, table_config)}"
    return (
        f"SELECT DISTINCT {package_sql(table)}, {_tenant(table)}, {route} "
        f"FROM {table.sql} o {join} JOIN (SELECT id, order_id FROM {events_of(table_config.schema)} "
        f"WHERE id > $1 AND has_pin AND decided_at > now() - interval '{_HOURS} hours') e ON e.order_id = o.{table['id'].sql}"
        f"{has_pin}"
    )


def without_pin_sql(row_writer: RowWriter, reviews: str) -> str:
    """SQL, starting with its joins, for the orders that ended as completed within ``$2`` seconds
    and have no PIN.

    Those that ended more than ``$1`` seconds ago are late; late ones already in ``reviews`` are
    left out.
    """
    table, events = row_writer.table, events_of(row_writer.table_config.schema)
    status, pin = f"o.{table['external_status'].sql}::text", f"o.{table['pin_code'].sql}::text"
    in_reviews = f"EXISTS (SELECT 1 FROM {reviews} r WHERE r.order_id = t.order_id AND r.kind = {literal(PIN_MISSING)})"
    return (
        " JOIN (SELECT DISTINCT ON (order_id) order_id, to_status, extract(epoch FROM decided_at)::float8 AS ended_at, "
        f"decided_at < now() - make_interval(secs => $1) AS is_late, {in_reviews} AS is_told "
        f"FROM {events} t WHERE id > (SELECT COALESCE(max(id), 0) FROM {events}) - {LOOKED_AT} "
        f"AND NOT has_pin{no_pin_since(row_writer.table_config, 't')} "
        f"AND outcome = {literal(Outcome.COMPLETED)} AND source = {literal(PROGRAM)} "
        f"AND cause IS DISTINCT FROM {literal(Cause.CHILD)} "
        f"AND decided_at > now() - make_interval(secs => $2) ORDER BY order_id, id DESC) e ON e.order_id = o.{table['id'].sql} "
        f"WHERE {status} = e.to_status AND {may_lack_pin(pin, row_writer.table_config)} "
        f"AND NOT {is_paid_back(table, row_writer.table_config, 'o')} "
        f"AND NOT (e.is_late AND e.is_told) ORDER BY e.ended_at DESC LIMIT {_MOST}"
    )


def no_pin_since(table_config: TableConfig, event: str) -> str:
    """SQL condition that no PIN has come to an order since an ``event`` without one, as far as its
    row does not show that.
    """
    if not table_config.pins_elsewhere:
        return ""
    return (
        f" AND NOT EXISTS (SELECT FROM {events_of(table_config.schema)} p WHERE p.order_id = {event}.order_id "
        f"AND p.id > {event}.id AND p.has_pin)"
    )


def ended_sql(row_writer: RowWriter) -> str:
    """SQL, starting with its joins, for the orders that we ended within ``$1`` seconds and that
    still have that status, latest first.
    """
    table, events = row_writer.table, events_of(row_writer.table_config.schema)
    return (
        " JOIN (SELECT DISTINCT ON (order_id) order_id, to_status, outcome, "
        f"extract(epoch FROM clock_timestamp() - decided_at)::float8 AS ago FROM {events} "
        f"WHERE id > (SELECT COALESCE(max(id), 0) FROM {events}) - {LOOKED_AT} AND source = {literal(PROGRAM)} "
        f"AND from_status IS DISTINCT FROM to_status AND decided_at > now() - make_interval(secs => $1) "
        f"ORDER BY order_id, id DESC) e ON e.order_id = o.{table['id'].sql} "
        f"WHERE o.{table['external_status'].sql}::text = e.to_status AND e.outcome IN ({literals(FINAL)}) "
        f"ORDER BY e.ago LIMIT {_MOST}"
    )


def package_sql(table: Table) -> str:
    """SQL for an order's package, NULL if the table has no such column."""
    package = (
        f"NULLIF(o.{table['package_id'].sql}::text, '')"
        if table.get("package_id")
        else "NULL::text"
    )
    return f"{package} AS package"


def _tenant(table: Table) -> str:
    tenant = f"o.{table['tenant_id'].sql}::text" if table.get("tenant_id") else "NULL::text"
    return f"{tenant} AS tenant_id"


def _key(row: asyncpg.Record) -> Key:
    return (
        (row["tenant_id"] or "", row["package"])
        if row["package"]
        else ("", row["integration"] or "")
    )
