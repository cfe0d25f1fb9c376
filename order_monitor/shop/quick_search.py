"""Find orders for the page by any of their names, at a bounded price: by indexes alone, for two
seconds at most.

`order_monitor.shop.reading.search` finds more, for a person who waits at a terminal: it may read
the whole table.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import asyncpg

from order_monitor.core.errors import RowRejectedError
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.reading.orders import spellings
from order_monitor.shop.reading.search import (
    SHORTEST_PREFIX,
    SHOWN,
    Hit,
    lookup_columns,
    uuid_range,
)
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.columns import Column, Table, literal
from order_monitor.shop.schema.search import is_led_by_index
from order_monitor.shop.schema.table_config import dispatches_of

LIMIT: Final = 2.0
"""Seconds that one search may take in the database."""

LONGEST: Final = 200
"""How many characters of what is looked for are taken."""

_REFERENCE: Final = "provider_referans"


@dataclass(frozen=True, slots=True)
class Found:
    """`SHOWN` orders at most, and whether there are more.

    ``not_searched`` are the columns that were left out, since no index leads with them or the time
    was up.
    """

    hits: list[Hit]
    has_more: bool = False
    not_searched: tuple[str, ...] = ()


async def quick_search(database: Database, orders: Orders, typed: str) -> Found:
    """Return the orders, open or not, whose id, beginning of a uuid, reference or
    ``database.lookup`` column is ``typed``.

    Raises:
        ShopError: the database could not be asked.
        SettingsError: the table is not as it must be, or ``database.lookup`` names what it has not.
    """
    text = typed.strip()[:LONGEST]
    if not text:
        return Found([])
    table = await orders.complete()
    columns = await lookup_columns(database, orders)
    search = _Search(table, text, time.monotonic() + LIMIT)
    try:
        async with database.transaction() as connection:
            await search.run(connection, columns)
    except RowRejectedError:  # characters that PostgreSQL cannot even compare
        return Found([])
    hits = sorted(search.hits.values(), key=lambda hit: (-(hit.sent_at or 0.0), hit.order_id))
    return Found(hits[:SHOWN], len(hits) > SHOWN, tuple(dict.fromkeys(search.not_searched)))


class _Search:
    """One search: a statement for each name of an order, until enough is found or time is up."""

    def __init__(self, table: Table, text: str, until: float) -> None:
        self._table = table
        self._text = text
        self._until = until
        self.hits: dict[str, Hit] = {}
        self.not_searched: list[str] = []

    async def run(self, connection: Connection, columns: list[Column]) -> None:
        table, text = self._table, self._text
        id_, reference = table["id"], table[_REFERENCE]
        ends = uuid_range(text) if id_.data_type == "uuid" else None
        if ends is not None and ends[0] == ends[1]:
            await self._by(connection, id_.name, f"o.{id_.sql} = $1::text::uuid", ends[0])
        elif ends is not None and len(text) >= SHORTEST_PREFIX:
            await self._by(
                connection,
                id_.name,
                f"o.{id_.sql} BETWEEN $1::text::uuid AND $2::text::uuid",
                *ends,
            )
        elif id_.data_type != "uuid":
            await self._by(connection, id_.name, f"o.{id_.sql} = $1::text{id_.cast}", text)
        if self.hits:
            return
        # Whatever was asked about is noted in our own table, which has an index on the reference.
        known = f"SELECT d.order_id FROM {dispatches_of(table.schema)} d WHERE d.reference = $1 LIMIT {SHOWN + 1}"
        await self._by(connection, reference.name, f"o.{id_.sql} IN ({known})", text)
        if table.is_reference_indexed:
            written = spellings([text], is_text=reference.is_text)
            await self._by(
                connection,
                reference.name,
                f"o.{reference.sql} = ANY($1::text[]{reference.cast}[])",
                written,
            )
        elif not self.hits:
            self.not_searched.append(reference.name)
        for column in columns:
            if await is_led_by_index(connection, table.schema, table.name, column.name):
                await self._by(
                    connection, column.name, f"o.{column.sql} = $1::text{column.cast}", text
                )
            else:
                self.not_searched.append(column.name)

    async def _by(self, connection: Connection, name: str, condition: str, *values: object) -> None:
        left = int((self._until - time.monotonic()) * 1000)
        if left <= 0:
            self.not_searched.append(name)
            return
        t = self._table
        sql = (
            f"SELECT o.{t['id'].sql}::text AS id, COALESCE(o.{t['external_status'].sql}::text, '') AS status, "
            f"{t.epoch('sent_at', 'o')} AS sent_at, COALESCE(o.{t[_REFERENCE].sql}::text, '') AS referans, "
            f"{literal(name)} AS by FROM {t.sql} o WHERE {condition} LIMIT {SHOWN + 1}"
        )
        await connection.execute(f"SAVEPOINT found; SET LOCAL statement_timeout = {left}")
        try:
            rows = await connection.fetch(sql, *values)
        except asyncpg.QueryCanceledError:
            self.not_searched.append(name)
        except asyncpg.DataError:  # no such thing can stand in that column
            pass
        else:
            self.hits |= {row["id"]: Hit(*row) for row in rows if row["id"] not in self.hits}
            return
        await connection.execute("ROLLBACK TO SAVEPOINT found")
