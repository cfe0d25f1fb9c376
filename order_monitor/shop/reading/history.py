"""Read everything that the database knows about one order, without writing.

Of the PIN, only whether there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from order_monitor.core.errors import RowRejectedError
from order_monitor.core.gate import Pause
from order_monitor.core.order import CONFIGURED, Order
from order_monitor.core.pin import Pin, is_no_pin
from order_monitor.shop.accounts.pauses import Pauses
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.first_start import held_before
from order_monitor.shop.reading.queries import order_of
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import Reviews
from order_monitor.shop.schema.columns import Table, quoted
from order_monitor.shop.schema.table_config import DELIVERIES, DISPATCHES, EVENTS
from order_monitor.shop.writing.brake import KIND
from order_monitor.shop.writing.event_sql import put_back_sql


@dataclass(frozen=True, slots=True)
class OrderHistory:
    """The state of one order. ``now`` and all times are epoch seconds by the database's clock.

    ``has_pin``: its PIN is in the row, or the shop has moved it away.
    ``others_understood_at``: when another order of its account was last understood for the first
    time, or ended. ``left_alone_before`` is set if the order is left alone because it was sent
    before that time. ``held_before`` is set if it was sent before the first start, so that its age
    does not end it until a person releases that; ``put_back_at`` is when a person put it back to
    open last. ``cancelled_at`` is when the cancellation was
    written that waits for a second answer, ``pin_held_at`` when a PIN was first read that could not
    be written because ends are held.
    """

    order: Order
    has_pin: bool
    note: str
    now: float
    events: list[dict[str, Any]] = field(default_factory=list)
    integrations: list[Integration] = field(default_factory=list)
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    reviews: list[str] = field(default_factory=list)
    left_alone_before: float | None = None
    held_before: float | None = None
    others_understood_at: float | None = None
    put_back_at: float | None = None
    held: HeldOrder | None = None
    cancelled_at: float | None = None
    pin_held_at: float | None = None

    def last_event(self, to_status: str) -> dict[str, Any] | None:
        """Return the newest event that gave the order this status; None if there is none."""
        return next((e for e in reversed(self.events) if e["to_status"] == to_status), None)


@dataclass(frozen=True, slots=True)
class HeldOrder:
    """An order whose end the brake holds ``since`` then (epoch seconds), and what it still
    ``lacks`` to be believed.
    """

    since: float
    lacks: list[str]


async def read_order_history(
    database: Database, orders: Orders, order_id: str
) -> OrderHistory | None:
    """Return the history of an order, None if there is no such order.

    Raises:
        ShopError: the database could not be asked.
        SettingsError: the table is not as required.
    """
    table = await orders.complete()
    is_it = f"{table['id'].sql} = $1::text{table['id'].cast}"
    pin, note = (
        f"{table['pin_code'].sql}::text",
        f"{table['note'].sql}::text" if table.get("note") else "NULL::text",
    )
    try:
        async with database.transaction() as connection:
            row = await connection.fetchrow(
                f"{orders.reader.queries.select_sql()} WHERE o.{is_it}", order_id
            )
            if row is None:
                return None
            rest = await connection.fetchrow(
                f"SELECT {pin} AS pin, {table.epoch('sent_at', 'o')} AS sent_at, {note} AS note, "
                f"extract(epoch FROM clock_timestamp())::float8 AS now "
                f"FROM {table.sql} o WHERE {is_it}",
                order_id,
            )
            began = await held_before(connection, table.schema)
            events = await _events(connection, orders, row["id"])
            integrations = await orders.reader.read_integrations(connection)
            pauses, reviews, held = await _people(
                connection, orders, row["id"], rest["now"] if rest else 0.0
            )
            waiting = await orders.row_writer.cancellations.of(connection, [row["id"]])
            pins = await orders.row_writer.held_pins.of(connection, [row["id"]])
            back = await connection.fetchrow(
                put_back_sql(table.schema, table["id"].cast), [row["id"]]
            )
            others = await connection.fetchval(
                _OTHERS.format(schema=quoted(table.schema)), row["id"], _account(row)
            )
    except RowRejectedError:
        return None  # this text cannot be an id
    assert rest is not None
    is_in_row = not is_no_pin(rest["pin"], orders.row_writer.rules.no_pin)
    is_elsewhere = orders.row_writer.table_config.pins_elsewhere and any(
        event["has_pin"] and event["to_status"] == row["status"] for event in events[-1:]
    )
    note = rest["note"] or ""
    masked = Pin(rest["pin"]).masked(note) if is_in_row else note
    sent, row_writer = rest["sent_at"], orders.row_writer
    asked = _account(row), row["reference"] or ""
    return OrderHistory(
        order_of(row),
        is_in_row or is_elsewhere,
        masked,
        rest["now"],
        events,
        integrations,
        pauses,
        reviews,
        left_alone_before=row_writer.ignored_before if row_writer.leaves_alone(sent) else None,
        held_before=began if sent is not None and sent < began else None,
        others_understood_at=others,
        put_back_at=back["at"] if back is not None else None,
        held=held,
        cancelled_at=next((w.since for w in waiting.values() if w.is_about(*asked)), None),
        pin_held_at=next((pin.since for pin in pins), None),
    )


_OTHERS: Final = (
    f"SELECT extract(epoch FROM GREATEST((SELECT max(d.first_understood_at) FROM {{schema}}.{quoted(DISPATCHES)} d "
    f"WHERE d.account = $2 AND d.order_id::text <> $1), (SELECT max(e.decided_at) FROM "
    f"(SELECT n.order_id, n.decided_at, n.account, n.cause FROM {{schema}}.{quoted(EVENTS)} n ORDER BY n.id DESC LIMIT 10000) e "
    "WHERE e.account = $2 AND e.cause = 'answer' AND e.order_id::text <> $1)))::float8"
)
"""SQL for when another order of an account was last understood, as far as that is recorded."""


def _account(row: asyncpg.Record) -> str:
    return row["integration"] or CONFIGURED


async def _people(
    connection: Connection, orders: Orders, order_id: str, now: float
) -> tuple[Mapping[str, Pause], list[str], HeldOrder | None]:
    """Return the paused accounts, the open reviews of the order, and its held end."""
    schema = orders.table.schema
    pauses = await Pauses(schema).read(connection)
    open_ones = await Reviews(schema).of(connection, orders.table, order_id)
    held = next((r for r in open_ones if r.kind == KIND), None)
    told = (
        HeldOrder(held.since, await orders.brake.about(connection, held.account, held.since, now))
        if held
        else None
    )
    return pauses, [r.kind for r in open_ones], told


async def _events(connection: Any, orders: Orders, order_id: str) -> list[dict[str, Any]]:  # noqa: ANN401 - asyncpg's
    schema = quoted(orders.table.schema)
    delivery = (
        "CASE WHEN d.delivered_at IS NOT NULL THEN 'delivered' WHEN d.dead_at IS NOT NULL "
        "THEN format('dead after %s: %s', d.attempts, d.tries->-1->>'outcome') "
        "WHEN d.event_id IS NOT NULL THEN format('waits after %s tries', d.attempts) END"
    )
    join = f"LEFT JOIN {schema}.{quoted(DELIVERIES)} d ON d.event_id = e.id "
    rows: list[asyncpg.Record] = await connection.fetch(
        "SELECT e.id, e.from_status, e.to_status, e.has_pin, e.message, extract(epoch FROM e.decided_at)::float8 AS at, "
        f"e.decided_by, e.repeat, e.consumed_at IS NOT NULL AS consumed, {delivery} AS delivery "
        f"FROM {schema}.{quoted(EVENTS)} e {join}WHERE e.order_id::text = $1 ORDER BY e.id",
        order_id,
    )
    return [dict(row) for row in rows]


async def stored_pin(connection: Connection, table: Table, order_id: str) -> str | None:
    """Return the value of an order's PIN column."""
    pin: str | None = await connection.fetchval(
        f"SELECT {table['pin_code'].sql}::text FROM {table.sql} WHERE {table['id'].sql} = $1::text{table['id'].cast}",
        order_id,
    )
    return pin
