"""What happened in a period: read from events and orders, so it works without the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from order_monitor.core.order import Order
from order_monitor.core.outcome import FINAL, Outcome
from order_monitor.shop.database import Connection, Database, now_of
from order_monitor.shop.reading.queries import order_of
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.columns import quoted
from order_monitor.shop.schema.table_config import EVENTS, literals


@dataclass(frozen=True, slots=True)
class Ended:
    """One event that ended an order.

    ``took`` is seconds from sending to the end, None if unknown.
    """

    order_id: str
    outcome: Outcome
    took: float | None
    checks: int


@dataclass(frozen=True, slots=True)
class Period:
    """The data for a report. ``packages`` maps each order to its package."""

    now: float
    ended: list[Ended]
    orders: Mapping[str, Order]
    packages: Mapping[str, str]
    sent: frozenset[str]
    open: frozenset[str]


async def read_period(database: Database, orders: Orders, seconds: float) -> Period:
    """Return what happened in the last ``seconds``.

    Raises:
        ShopError: the database could not be asked.
    """
    table = orders.table
    events = f"{quoted(table.schema)}.{quoted(EVENTS)}"
    package = f"o.{table['package_id'].sql}::text" if table.get("package_id") else "NULL::text"
    sent_at = f"o.{table['sent_at'].sql}"
    recent = f"{sent_at} >= {table.instant('sent_at', '$1::float8')}"
    async with database.transaction() as connection:
        now = await now_of(connection)
        ended = await _ended(connection, events, seconds)
        sql = orders.reader.queries.select_sql()
        known: dict[str, Any] = {}
        sent = await connection.fetch(f"{sql} WHERE {recent}", now - seconds)
        still = await connection.fetch(orders.reader.queries.scan_sql())
        past = await connection.fetch(
            f"{sql} WHERE o.{table['id'].sql} = ANY($1::text[]{table['id'].cast}[])",
            [e.order_id for e in ended],
        )
        for row in (*sent, *still, *past):
            known[row["id"]] = order_of(row)
        packages = await connection.fetch(
            f"SELECT o.{table['id'].sql}::text AS id, {package} AS package FROM {table.sql} o "
            f"WHERE o.{table['id'].sql} = ANY($1::text[]{table['id'].cast}[])",
            list(known),
        )
    return Period(
        now,
        ended,
        known,
        {row["id"]: row["package"] or "" for row in packages},
        frozenset(row["id"] for row in sent),
        frozenset(row["id"] for row in still),
    )


async def _ended(connection: Connection, events: str, seconds: float) -> list[Ended]:
    """Return the ends of the period: for each order its last one.

    A repeat counts only where it was first recorded. A PIN that came later is not a second end,
    although its event has the status of the first.
    """
    rows = await connection.fetch(
        "SELECT DISTINCT ON (order_id) order_id::text AS id, outcome, checks, "
        f"extract(epoch FROM decided_at - sent_at)::float8 AS took FROM {events} e WHERE NOT repeat "
        f"AND outcome IN ({literals(FINAL)}) AND decided_at > clock_timestamp() - make_interval(secs => $1) "
        "ORDER BY order_id, e.id DESC",
        seconds,
    )
    return [Ended(r["id"], Outcome(r["outcome"]), r["took"], r["checks"] or 0) for r in rows]
