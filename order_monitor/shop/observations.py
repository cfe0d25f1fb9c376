"""What would have been written, stored while the shop is only observed: one row per dispatch, in a
table of order-monitor's.

Nothing here writes or locks the orders table. Another monitor ends the orders:
`shop/reading/comparison.py` compares its results with what would have been written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import asyncpg

from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.order import CLOCK_SKEW, Order
from order_monitor.core.outcome import FINAL, Outcome
from order_monitor.shop.accounts.tables import reference_sql
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.reading.orders import OrderReader, note_same_reference
from order_monitor.shop.reading.queries import order_of
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.columns import Table
from order_monitor.shop.schema.table_config import (
    TableConfig,
    is_open,
    literals,
    observations_of,
    open_statuses,
)
from order_monitor.shop.writing.cancellations import needs_confirmation
from order_monitor.shop.writing.dispatches import account_of

COMPARED_FOR: Final = 86_400.0
"""Seconds after its end within which an order ended by another monitor is asked about."""

_MOST: Final = 5000
"""The most orders ended by others that one scan reads: the newest."""

Key = tuple[str, str, str]
"""A dispatch: order, reference, account."""


def key_of(order: Order, account: str | None = None) -> Key:
    """Return an order's dispatch: as it was read, or with the ``account`` it was asked at."""
    return order.id, order.reference.strip(), account or account_of(order)


@dataclass(frozen=True, slots=True)
class EndedElsewhere:
    """An order that another monitor has ended, and that must be asked about once.

    ``ended_at`` is the time of the end in its row (epoch seconds), None if the row has none;
    ``was_asked`` is true if it was asked about while it was open.
    """

    order: Order
    ended_at: float | None
    was_asked: bool


def end_words(table_config: TableConfig) -> tuple[str, ...]:
    """Return the statuses of ended orders, whoever ended them."""
    rules = table_config.rules
    words = dict.fromkeys(word for outcome in FINAL for word in rules.words(outcome))
    return tuple(word for word in words if word not in table_config.open)


def outcome_of_word(status: str, table_config: TableConfig) -> Outcome | None:
    """Return how an order of this status has ended; None if it is open or unknown."""
    if status in table_config.open:
        return None
    return next((one for one in FINAL if status in table_config.rules.words(one)), None)


class ObservationStore:
    """The table of observations next to the orders.

    Each method raises `ShopError` where the database cannot be asked, and `SettingsError` where the
    table is not as required.
    """

    def __init__(self, database: Database, schema_cache: SchemaCache, reader: OrderReader) -> None:
        """Use the tables known to ``schema_cache``; ``reader`` records dispatches."""
        self._database = database
        self._schema_cache = schema_cache
        self._reader = reader

    async def done(self) -> set[Key]:
        """Return the dispatches whose end was observed and whose order is still open."""
        config = self._schema_cache.table_config
        async with self._schema_cache.opened() as (shop_tables, connection):
            table = shop_tables.row_writer.table
            rows = await connection.fetch(
                "SELECT v.order_id::text AS id, v.reference, v.account "
                f"FROM {observations_of(config.schema)} v JOIN {table.sql} o "
                f"ON o.{table['id'].sql} = v.order_id "
                f"WHERE v.done_at IS NOT NULL AND o.{is_open(table, config)}"
            )
        return {(row["id"], row["reference"], row["account"]) for row in rows}

    async def ended_elsewhere(self, now: float) -> list[EndedElsewhere]:
        """Record, as of now (epoch seconds), which orders another monitor has ended after us;
        return those that it ended first, within the last day, newest first.
        """
        async with self._schema_cache.opened() as (_, connection):
            await connection.execute(self._note_ends_sql(), now)
            asked = await connection.fetch(self._asked_sql(), now - COMPARED_FOR)
            recent = await connection.fetch(self._recent_sql(), now - COMPARED_FOR)
            found = {row["id"]: (row, False) for row in recent}
            found |= {row["id"]: (row, True) for row in asked}
            # The shop's data on an ended order is no reason not to ask about it.
            orders = [order_of(row)._replace(settled=False) for row, _ in found.values()]
            noted = await self._reader.noted(connection, orders)
        return [
            EndedElsewhere(order, _end_of(found[order.id][0], now), found[order.id][1])
            for order in sorted(noted, key=lambda o: (-(o.sent_at or 0.0), o.id))
        ]

    async def record(
        self,
        findings: Sequence[CheckResult],
        their_ends: Mapping[str, float | None],
        lock_wait: float = 1.0,
        confirm_at: Mapping[str, float] = MappingProxyType({}),
    ) -> list[WriteResult]:
        """Record what would be written for findings about different orders, all of them or none.

        ``their_ends`` are the times at which others ended some of the orders, if known;
        ``confirm_at`` are the orders whose cancellation needs a second answer, and when that is
        asked for (both epoch seconds).
        """
        shop_tables = await self._schema_cache.complete()
        row_writer = shop_tables.row_writer
        by_id = {f.order.id: f for f in findings}
        async with self._database.transaction(lock_wait=lock_wait) as connection:
            ends = [f.order for f in findings if row_writer.may_end(f)]
            await note_same_reference(connection, shop_tables, self._reader.queries, ends)
            rows = await self._rows(connection, list(by_id))
            seen = {i: row for i, row in rows.items() if i in by_id}
            ended = {i for i, row in seen.items() if row["status"] in self._end_words}
            taken = {
                i: self._as_open(row) if i in ended else row
                for i, row in seen.items()
                if i in ended or row["status"] in row_writer.statements.open_statuses
            }
            decided = await row_writer.would_write(connection, {i: by_id[i] for i in taken}, taken)
            decided = [
                r
                if (at := confirm_at.get(r.order_id)) is None
                or r.order_id in ended
                or not needs_confirmation(r)
                else replace(r, fate=WriteStatus.UNCONFIRMED, write=None, stuck=None, again_at=at)
                for r in decided
            ]
            results = [_observed(r, seen[r.order_id], ended) for r in decided]
            results = await row_writer.marked(connection, results)
            await self._keep(connection, results, decided, ended, seen, their_ends)
        return [*results, *(_gone(by_id[i], seen.get(i)) for i in by_id if i not in taken)]

    @property
    def _end_words(self) -> tuple[str, ...]:
        return end_words(self._schema_cache.table_config)

    def _as_open(self, row: asyncpg.Record) -> Mapping[str, Any]:
        """Return a row that another monitor has ended as it may have been before."""
        table = self._schema_cache.table
        statuses = open_statuses(table, self._schema_cache.table_config)
        return {**dict(row), "status": statuses[0], "pin": None, "settled": False}

    async def _rows(self, connection: Connection, ids: list[str]) -> dict[str, asyncpg.Record]:
        statements = self._schema_cache.row_writer.statements
        sql = statements.read_sql(f", {_their_end(statements.table)} AS their_end")
        return {row["id"]: row for row in await connection.fetch(sql, ids)}

    async def _keep(
        self,
        connection: Connection,
        results: Sequence[WriteResult],
        decided: Sequence[WriteResult],
        ended: set[str],
        rows: Mapping[str, asyncpg.Record],
        their_ends: Mapping[str, float | None],
    ) -> None:
        """Store one row per dispatch; completed rows stay unchanged."""
        key, values = self._schema_cache.row_writer.key, []
        for result, would in zip(results, decided, strict=True):
            finding, order = result.finding, result.finding.order
            if result.fate in (WriteStatus.GONE, WriteStatus.RESENT):
                continue
            write = would.write
            end = write if write is not None and write.final else None
            pin = write.pin if write is not None else None
            their_end = None
            if order.id in ended:
                # An order that was open when it was asked about has ended between the question and
                # now.
                at = _end_of(rows[order.id], finding.seen_at)
                known = finding.seen_at if at is None else at
                their_end = their_ends.get(order.id, known)
            values.append(
                (
                    *key_of(order, finding.account),
                    order.tenant_id,
                    order.sent_at,
                    finding.seen_at,
                    finding.answer.outcome,
                    str(end.outcome) if end is not None else None,
                    write.status if write is not None else None,
                    str(end.cause) if end is not None else None,
                    _why(would),
                    pin is not None,
                    pin.digest(key) if pin is not None else None,
                    result.fate is WriteStatus.OBSERVED,
                    order.id in ended,
                    their_end,
                )
            )
        if values:
            values.sort(key=lambda row: row[:3])
            await connection.execute(
                self._keep_sql(), *(list(column) for column in zip(*values, strict=True))
            )

    def _keep_sql(self) -> str:
        schema = self._schema_cache.table_config.schema
        cast = self._schema_cache.table["id"].cast
        fields = "answer, outcome, status, cause, why, has_pin, digest, done_at, found_ended, their_end_at"
        sets = ", ".join(f"{name} = EXCLUDED.{name}" for name in fields.split(", "))
        return (
            f"INSERT INTO {observations_of(schema)} AS v (order_id, reference, account, tenant_id, "
            f"sent_at, first_asked_at, last_asked_at, {fields}) "
            f"SELECT u.id{cast}, u.reference, u.account, u.tenant_id, to_timestamp(u.sent_at), "
            "to_timestamp(u.seen_at), to_timestamp(u.seen_at), u.answer, u.outcome, u.status, "
            "u.cause, u.why, u.has_pin, u.digest, "
            "CASE WHEN u.is_over THEN to_timestamp(u.seen_at) END, u.found_ended, "
            "to_timestamp(u.their_end) FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], "
            "$5::float8[], $6::float8[], $7::text[], $8::text[], $9::text[], $10::text[], "
            "$11::text[], $12::boolean[], $13::bytea[], $14::boolean[], $15::boolean[], "
            "$16::float8[]) AS u(id, reference, account, tenant_id, sent_at, seen_at, answer, "
            "outcome, status, cause, why, has_pin, digest, is_over, found_ended, their_end) "
            "ON CONFLICT (order_id, reference, account) DO UPDATE SET "
            f"last_asked_at = EXCLUDED.last_asked_at, checks = v.checks + 1, {sets} "
            "WHERE v.done_at IS NULL"
        )

    def _note_ends_sql(self) -> str:
        """SQL that records when others ended previously observed orders: the time in their rows,
        otherwise ``$1`` (epoch seconds), the time of this scan.
        """
        config = self._schema_cache.table_config
        table = self._schema_cache.table
        at = _their_end(table)
        return (
            f"UPDATE {observations_of(config.schema)} v SET their_end_at = to_timestamp("
            f"CASE WHEN {at} BETWEEN extract(epoch FROM v.sent_at)::float8 AND $1::float8 + "
            f"{CLOCK_SKEW} THEN {at} ELSE $1::float8 END) FROM {table.sql} o "
            f"WHERE o.{table['id'].sql} = v.order_id AND v.done_at IS NOT NULL "
            "AND v.their_end_at IS NULL AND NOT v.found_ended "
            f"AND o.{table['external_status'].sql}::text IN ({literals(self._end_words)}) "
            f"AND {reference_sql(table, 'o')} = v.reference"
        )

    def _asked_sql(self) -> str:
        """SQL for orders asked about while open since ``$1`` (epoch seconds) that others have
        ended.
        """
        config = self._schema_cache.table_config
        table = self._schema_cache.table
        return (
            f"{self._ended_sql(table)} AND o.{table['id'].sql} IN (SELECT v.order_id "
            f"FROM {observations_of(config.schema)} v WHERE v.done_at IS NULL "
            f"AND v.last_asked_at > to_timestamp($1::float8)) LIMIT {_MOST}"
        )

    def _recent_sql(self) -> str:
        """SQL for orders that others have ended since ``$1`` (epoch seconds).

        If the row has no such time, for orders sent since then. The reader stops at `_MOST`: all of
        them would be too many to ask about.
        """
        table = self._schema_cache.table
        sent = f"o.{table['sent_at'].sql} > {table.instant('sent_at', '$1::float8')}"
        if (completed := table.get("completed_at")) is not None:
            ended = f"o.{completed.sql} > {table.instant('completed_at', '$1::float8')}"
            sent = f"({ended} OR (o.{completed.sql} IS NULL AND {sent}))"
        return f"{self._ended_sql(table)} AND {sent} ORDER BY o.{table['sent_at'].sql} DESC LIMIT {_MOST}"

    def _ended_sql(self, table: Table) -> str:
        config, queries = self._schema_cache.table_config, self._reader.queries
        reference = reference_sql(table, "o")
        return (
            f"{queries.select_sql(f', {_their_end(table)} AS their_end')} "
            f"WHERE o.{table['external_status'].sql}::text IN ({literals(self._end_words)}) "
            f"AND {reference} <> '' AND o.{table['sent_at'].sql} IS NOT NULL "
            f"AND NOT EXISTS (SELECT FROM {observations_of(config.schema)} d "
            f"WHERE d.order_id = o.{table['id'].sql} AND d.reference = {reference} "
            "AND d.done_at IS NOT NULL)"
        )


def _their_end(table: Table) -> str:
    """SQL for the time of an order's end in its row (epoch seconds)."""
    return table.epoch("completed_at", "o") if table.get("completed_at") else "NULL::float8"


def _end_of(row: asyncpg.Record, now: float) -> float | None:
    """Return when an order has ended, None if its row has no credible time."""
    at = row["their_end"]
    sent_at = row["sent_at"] if row["sent_at"] is not None else float("-inf")
    return at if at is not None and sent_at <= at <= now + CLOCK_SKEW else None


def _observed(result: WriteResult, row: asyncpg.Record, ended: set[str]) -> WriteResult:
    """Return the result for what would be written: an order that would not end is asked about
    again, one that others have ended is over.
    """
    if result.fate in (WriteStatus.RESENT, WriteStatus.GONE):
        return replace(result, review=None)
    is_end = result.write is not None and result.write.final
    if is_end or result.order_id in ended:
        return replace(
            result, fate=WriteStatus.OBSERVED, status=row["status"], review=None, stuck=None
        )
    if result.fate is WriteStatus.WRITTEN:
        return replace(result, fate=WriteStatus.UNCHANGED, write=None, is_partial=False)
    return replace(result, review=None)


def _why(would: WriteResult) -> str | None:
    """Return why an answer would not be written; None if it would, or changes nothing."""
    if would.stuck is not None:
        return str(would.stuck)
    return str(would.fate) if would.fate is WriteStatus.HELD else None


def _gone(finding: CheckResult, row: asyncpg.Record | None) -> WriteResult:
    if row is None:
        return WriteResult(finding, WriteStatus.GONE, detail="the row is deleted")
    return WriteResult(finding, WriteStatus.GONE, status=row["status"])
