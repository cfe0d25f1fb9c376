"""Stores learned timing as sketches: one row per product, in a small table of order-monitor's.

Two writing processes add up: each adds what it has learned since its last write to the locked row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from order_monitor.core.outcome import FINAL, Cause
from order_monitor.shop.accounts.tables import AccountTables
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.reading.recent_ends import LOOKED_AT, package_sql
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.columns import Table, is_table, literal, quoted
from order_monitor.shop.schema.table_config import TIMING, TableConfig, events_of, literals
from order_monitor.shop.writing.event_sql import PROGRAM
from order_monitor.timing.memory import Key
from order_monitor.timing.plan import ONE
from order_monitor.timing.sketch import Sketch


@dataclass(frozen=True, slots=True)
class KeptEnd:
    """A past end: the key of its timing, its age when it was found (seconds), and the time of
    discovery (epoch seconds).

    ``is_end`` is false if the time limit ended it, not the provider.
    """

    key: Key
    order_id: str
    age: float
    at: float
    is_end: bool


class Timings:
    """The table of sketches."""

    def __init__(
        self, database: Database, orders: Orders, schema: str, half_life: float, packages: int
    ) -> None:
        """Keep at most ``packages`` rows, the newest, whose weights fade by half in ``half_life``
        seconds.
        """
        self._database = database
        self._orders = orders
        self._schema = schema
        self._half_life = half_life
        self._packages = packages

    @property
    def _table(self) -> str:
        return f"{quoted(self._schema)}.{quoted(TIMING)}"

    async def read(self) -> Mapping[Key, str] | None:
        """Return every sketch by its key, None if there is no table.

        Raises:
            ShopError: the query failed.
        """
        async with self._database.transaction() as connection:
            if not await is_table(connection, self._schema, TIMING):
                return None
            rows = await connection.fetch(
                f"SELECT account, package, sketch FROM {self._table} ORDER BY updated_at DESC LIMIT $1",
                self._packages,
            )
        return {(row["account"], row["package"]): row["sketch"] for row in rows}

    async def save(self, learned: Mapping[Key, Sketch]) -> None:
        """Add sketches to the stored ones, in one transaction.

        Rows are locked in a fixed order, so that two processes never deadlock.

        Raises:
            ShopError: the statement failed; whether the sketches were added is then unknown.
        """
        async with self._database.transaction() as connection:
            if not await is_table(connection, self._schema, TIMING):
                return
            for key in sorted(learned):
                await self._add(connection, key, learned[key])
            await connection.execute(
                f"DELETE FROM {self._table} WHERE (account, package) IN (SELECT account, package FROM {self._table} "
                "ORDER BY updated_at DESC OFFSET $1)",
                self._packages,
            )

    async def _add(self, connection: Connection, key: Key, sketch: Sketch) -> None:
        await connection.execute(
            f"INSERT INTO {self._table} (account, package, sketch) VALUES ($1, $2, '') ON CONFLICT DO NOTHING",
            *key,
        )
        kept = await connection.fetchval(
            f"SELECT sketch FROM {self._table} WHERE account = $1 AND package = $2 FOR UPDATE", *key
        )
        before = Sketch.load(kept, self._half_life, sketch.at) if kept else None
        if before is not None:
            before.merge(sketch)
        await connection.execute(
            f"UPDATE {self._table} SET sketch = $3, updated_at = clock_timestamp() WHERE account = $1 AND package = $2",
            *key,
            (before or sketch).dump(),
        )

    async def history(self, limit: int = LOOKED_AT) -> list[KeptEnd]:
        """Return the ends in the newest events, oldest first.

        Raises:
            ShopError: the query failed.
            SettingsError: the table is not as required.
        """
        table = await self._orders.complete()
        sql = history_sql(self._orders.row_writer.table_config, table, self._orders.accounts)
        async with self._database.transaction() as connection:
            rows = await connection.fetch(sql, limit)
        return [
            KeptEnd(
                (row["account"] or row["integration"] or ONE, row["package"] or ""),
                row["id"],
                row["age"],
                row["at"],
                row["is_end"],
            )
            for row in reversed(rows)
        ]


_NO_ENDS: Final = tuple(cause for cause in Cause if not cause.is_providers)


def history_sql(table_config: TableConfig, table: Table, accounts: AccountTables | None) -> str:
    """SQL for the newest ``$1`` ends: the order, its duration, and whether the provider or the time
    limit ended it.
    """
    events = events_of(table_config.schema)
    route, join = accounts.route_sql(table, "o") if accounts else ("NULL::text AS integration", "")
    return (
        f"SELECT o.{table['id'].sql}::text AS id, e.account, {route}, {package_sql(table)}, "
        "extract(epoch FROM e.decided_at - e.sent_at)::float8 AS age, extract(epoch FROM e.decided_at)::float8 AS at, "
        f"COALESCE(e.cause NOT IN ({literals(_NO_ENDS)}), true) AS is_end FROM {table.sql} o {join} "
        f"JOIN (SELECT id, order_id, account, decided_at, sent_at, cause FROM {events} "
        f"WHERE outcome IN ({literals(FINAL)}) AND NOT repeat AND sent_at IS NOT NULL "
        f"AND source = {literal(PROGRAM)} AND decided_at >= sent_at) e ON o.{table['id'].sql} = e.order_id "
        "ORDER BY e.id DESC LIMIT $1"
    )
