"""The orders that ended lately, as the events tell: which packages carry PINs, and which ends still lack theirs.

Bounded whatever the shop's size: of the events only the newest `LOOKED_AT` are read, by their primary key, and after the first
look only those that are new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg
import structlog

from order_monitor.core.bounded import forget_oldest
from order_monitor.core.errors import ShopError
from order_monitor.core.outcome import FINAL, Outcome
from order_monitor.core.pin import is_no_pin
from order_monitor.shop.accounts import AccountTables
from order_monitor.shop.columns import Table, literal
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.event_sql import PROGRAM
from order_monitor.shop.layout import Layout, events_of, lacks_pin, literals, may_lack_pin
from order_monitor.shop.ledger import Ledger
from order_monitor.shop.reviews import Reviews

LOOKED_AT: Final = 20_000
"""How many of the newest events are looked at."""

PIN_MISSING: Final = "pin_missing"
"""What an order is put up for review as when its PIN has not come in time."""

_OVERLAP: Final = 500
"""Events whose transaction ended late have a smaller number than the newest one seen."""

_HOURS: Final = 24
_REPORTED_FOR: Final = 86_400.0
_MOST: Final = 5000

Key = tuple[str, str]
"""What sells PINs: (tenant, package), or for an order without package ("", account)."""


class RecentEnds:
    """Follows the events of one table."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._carriers: dict[Key, None] = {}
        self._put_up: dict[str, None] = {}
        self._log = structlog.get_logger("order_monitor.orders")
        self._seen = 0

    async def follow(
        self, connection: Connection, layout: Layout, table: Table, accounts: AccountTables | None
    ) -> None:
        """Read the events that are new: which packages carry PINs."""
        newest = await connection.fetchval(f"SELECT COALESCE(max(id), 0) FROM {events_of(layout.schema)}")
        if newest == self._seen:
            return
        since = max(self._seen - _OVERLAP, newest - LOOKED_AT)
        for row in await connection.fetch(pins_sql(layout, table, accounts), since):
            self._carriers[_key(row)] = None
        forget_oldest(self._carriers, LOOKED_AT)
        self._seen = newest

    async def without_pin(
        self, connection: Connection, ledger: Ledger, select: str, reviews: str
    ) -> list[asyncpg.Record]:
        """Return the orders that ended without a PIN, of what carries PINs, for as long as theirs may still come.

        ``select`` reads orders up to its WHERE, and what stands for their ``pin``; ``reviews`` is the table of reviews.
        ``is_late`` in a record tells that it has been waited for long enough, and not been put up for review.
        """
        wait = ledger.layout.await_pin
        if not wait or not self._carriers:
            return []
        rows = await connection.fetch(select + without_pin_sql(ledger, reviews), wait, wait + _REPORTED_FOR)
        return [r for r in rows if _key(r) in self._carriers and is_no_pin(r["pin"], ledger.rules.no_pin)]

    async def put_up(self, database: Database, table: Table, reviews: Reviews, late: Sequence[str]) -> None:
        """Put up for review what did not get its PIN in time, each once."""
        for order_id in [order_id for order_id in late if order_id not in self._put_up]:
            self._log.warning("order.pin_missing", order_id=order_id)
            try:
                async with database.transaction() as connection:
                    await reviews.note(connection, table, order_id, PIN_MISSING, "")
            except ShopError as error:
                # The list is a help to people: looking for open orders does not wait for it.
                self._log.warning("review.not_kept", orders=[order_id], why=str(error))
            self._put_up[order_id] = None
        forget_oldest(self._put_up, LOOKED_AT)


def pins_sql(layout: Layout, table: Table, accounts: AccountTables | None) -> str:
    """SQL of the orders that were given PINs by events after ``$1``, each with its package and account."""
    route, join = accounts.route_sql(table, "o") if accounts else ("NULL::text AS integration", "")
    pin = f"o.{table['pin_code'].sql}::text"
    return (
        f"SELECT DISTINCT {package_sql(table)}, {_tenant(table)}, {route} "
        f"FROM {table.sql} o {join} JOIN (SELECT id, order_id FROM {events_of(layout.schema)} "
        f"WHERE id > $1 AND has_pin AND decided_at > now() - interval '{_HOURS} hours') e ON e.order_id = o.{table['id'].sql} "
        f"WHERE NOT {lacks_pin(pin, layout)}"
    )


def without_pin_sql(ledger: Ledger, reviews: str) -> str:
    """SQL, from its joins on, of the orders that ended as completed within ``$2`` seconds and have no PIN.

    Late are those that ended more than ``$1`` seconds ago; left out are late ones that stand in ``reviews`` already.
    """
    table, events = ledger.table, events_of(ledger.layout.schema)
    status, pin = f"o.{table['external_status'].sql}::text", f"o.{table['pin_code'].sql}::text"
    in_reviews = f"EXISTS (SELECT 1 FROM {reviews} r WHERE r.order_id = t.order_id AND r.kind = {literal(PIN_MISSING)})"
    return (
        " JOIN (SELECT DISTINCT ON (order_id) order_id, to_status, extract(epoch FROM decided_at)::float8 AS ended_at, "
        f"decided_at < now() - make_interval(secs => $1) AS is_late, {in_reviews} AS is_told "
        f"FROM {events} t "
        f"WHERE id > (SELECT COALESCE(max(id), 0) FROM {events}) - {LOOKED_AT} AND NOT has_pin "
        f"AND outcome = {literal(Outcome.COMPLETED)} AND source = {literal(PROGRAM)} "
        f"AND decided_at > now() - make_interval(secs => $2) ORDER BY order_id, id DESC) e ON e.order_id = o.{table['id'].sql} "
        f"WHERE {status} = e.to_status AND {may_lack_pin(pin, ledger.layout)} "
        f"AND NOT (e.is_late AND e.is_told) ORDER BY e.ended_at DESC LIMIT {_MOST}"
    )


def ended_sql(ledger: Ledger) -> str:
    """SQL, from its joins on, of the orders that we ended within ``$1`` seconds and that stand as they ended, the latest first."""
    table, events = ledger.table, events_of(ledger.layout.schema)
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
    """SQL of an order's package, NULL where the table has none."""
    package = f"NULLIF(o.{table['package_id'].sql}::text, '')" if table.get("package_id") else "NULL::text"
    return f"{package} AS package"


def _tenant(table: Table) -> str:
    tenant = f"o.{table['tenant_id'].sql}::text" if table.get("tenant_id") else "NULL::text"
    return f"{tenant} AS tenant_id"


def _key(row: asyncpg.Record) -> Key:
    return (row["tenant_id"] or "", row["package"]) if row["package"] else ("", row["integration"] or "")
