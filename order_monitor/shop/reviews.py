"""The list of matters that a person must decide, in the shop's database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from order_monitor.core.check_result import WriteResult
from order_monitor.core.decision import StuckReason
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import Table, literal, qualified
from order_monitor.shop.schema.table_config import REVIEW, literals

REMEMBERED: Final = 10_000
MENDED_BY: Final = "daemon"
UNCONFIRMED: Final = "cancel_unconfirmed"
"""A kind in the same table that is not for a person: a cancellation that waits for a second answer.
"""

HELD_PIN: Final = "pin_held"
"""Another one: a PIN that was read while the order's end was held, until it is written."""

NOT_FOR_A_PERSON: Final = (UNCONFIRMED, HELD_PIN)

WORD_REFUSED: Final = "statuses.processing is not taken by its column"
"""How the detail of a review begins that is only about the word: no PIN and no end was read."""

_READ: Final = "SELECT order_id::text AS id, kind, detail, account, extract(epoch FROM opened_at)::float8 AS since"
_FOR_A_PERSON: Final = f"closed_at IS NULL AND kind NOT IN ({literals(NOT_FOR_A_PERSON)})"


@dataclass(frozen=True, slots=True)
class Review:
    """A matter that a person must decide."""

    order_id: str
    kind: str
    detail: str
    account: str
    since: float


class Reviews:
    """The list of matters that a person must decide."""

    def __init__(self, schema: str) -> None:
        """Work on the table in ``schema``."""
        self._table = qualified(schema, REVIEW)

    @property
    def sql(self) -> str:
        """The table's quoted name."""
        return self._table

    async def open(
        self, connection: Connection, table: Table, results: Iterable[WriteResult]
    ) -> None:
        """Add what is stuck, each matter once while it is open."""
        stuck = [(r, kind) for r in results if (kind := r.stuck or r.review) is not None]
        if stuck:
            await connection.execute(
                f"INSERT INTO {self._table} (order_id, kind, detail, account) SELECT u.id{table['id'].cast}, u.kind, u.detail, "
                "u.account FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS u(id, kind, detail, account) "
                "ORDER BY 1, 2 ON CONFLICT DO NOTHING",
                [r.review_of or r.order_id for r, _ in stuck],
                [str(kind) for _, kind in stuck],
                [r.detail for r, _ in stuck],
                [r.finding.account for r, _ in stuck],
            )

    async def note(
        self, connection: Connection, table: Table, order_id: str, kind: str, account: str
    ) -> None:
        """Add one matter, once while it is open."""
        await connection.execute(
            f"INSERT INTO {self._table} (order_id, kind, account) "
            f"VALUES ($1::text{table['id'].cast}, $2, $3) ON CONFLICT DO NOTHING",
            order_id,
            kind,
            account,
        )

    async def close(
        self,
        connection: Connection,
        table: Table,
        order_ids: Sequence[str],
        by: str,
        how: str,
        *,
        kind: str | None = None,
    ) -> int:
        """Close what is open about some orders, of one ``kind`` or of all; return how much."""
        status = await connection.execute(
            f"UPDATE {self._table} SET closed_at = clock_timestamp(), closed_by = $2, resolution = $3 "
            f"WHERE closed_at IS NULL AND order_id = ANY($1::text[]{table['id'].cast}[]) AND kind = COALESCE($4, kind) "
            f"AND kind NOT IN ({literals(NOT_FOR_A_PERSON)})",
            list(order_ids),
            by,
            how,
            kind,
        )
        return int(str(status).rpartition(" ")[2])

    async def about(
        self, connection: Connection, table: Table, order_ids: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Return what is open about some orders, as pairs of order id and kind."""
        rows = await connection.fetch(
            f"SELECT order_id::text AS id, kind FROM {self._table} "
            f"WHERE closed_at IS NULL AND order_id = ANY($1::text[]{table['id'].cast}[])",
            list(order_ids),
        )
        return [(row["id"], row["kind"]) for row in rows]

    async def count(self, connection: Connection) -> tuple[int, int, int]:
        """Return how many matters are open, and how many cancellations and PINs wait besides."""
        row = await connection.fetchrow(
            f"SELECT count(*) FILTER (WHERE kind NOT IN ({literals(NOT_FOR_A_PERSON)})) AS matters, "
            f"count(*) FILTER (WHERE kind = {literal(UNCONFIRMED)}) AS unconfirmed, "
            f"count(*) FILTER (WHERE kind = {literal(HELD_PIN)}) AS pins "
            f"FROM {self._table} WHERE closed_at IS NULL"
        )
        assert row is not None
        return row["matters"], row["unconfirmed"], row["pins"]

    async def stuck(self, connection: Connection) -> set[tuple[str, str]]:
        """Return orders that could not be written, with the kind: the newest `REMEMBERED`."""
        rows = await connection.fetch(
            f"SELECT order_id::text AS id, kind FROM {self._table} r WHERE closed_at IS NULL "
            f"AND kind IN ({literals(map(str, StuckReason))}) ORDER BY r.id DESC LIMIT {REMEMBERED}"
        )
        return {(row["id"], row["kind"]) for row in rows}

    async def mend(
        self,
        connection: Connection,
        table: Table,
        keys: Iterable[tuple[str, str]],
        how: str = "written after all",
    ) -> None:
        """Close what has been settled: by default what was stuck and was written after all."""
        pairs = sorted(keys)
        if pairs:
            await connection.execute(
                f"UPDATE {self._table} r SET closed_at = clock_timestamp(), closed_by = {literal(MENDED_BY)}, "
                f"resolution = {literal(how)} FROM unnest($1::text[], $2::text[]) AS u(id, kind) "
                f"WHERE r.closed_at IS NULL AND r.order_id = u.id{table['id'].cast} AND r.kind = u.kind",
                [order_id for order_id, _ in pairs],
                [kind for _, kind in pairs],
            )

    async def mend_worded(
        self, connection: Connection, table: Table, order_ids: Sequence[str]
    ) -> None:
        """Close what was opened about some orders only because the waiting word was refused."""
        if order_ids:
            await connection.execute(
                f"UPDATE {self._table} AS w SET resolution = 'written after all', closed_by = {literal(MENDED_BY)}, "
                f"closed_at = clock_timestamp() WHERE w.closed_at IS NULL AND w.kind = {literal(StuckReason.REJECTED_BY_DATABASE)} "
                f"AND starts_with(w.detail, {literal(WORD_REFUSED)}) AND w.order_id = ANY($1::text[]{table['id'].cast}[])",
                list(order_ids),
            )

    async def refused(self, connection: Connection, limit: int) -> list[Review]:
        """Return the orders whose rows the database refuses, oldest first."""
        rows = await connection.fetch(
            f"{_READ} FROM {self._table} r WHERE closed_at IS NULL "
            f"AND kind = {literal(StuckReason.REJECTED_BY_DATABASE)} ORDER BY r.id LIMIT $1",
            limit,
        )
        return _reviews(rows)

    async def of(self, connection: Connection, table: Table, order_id: str) -> list[Review]:
        """Return everything that is open about one order, oldest first."""
        rows = await connection.fetch(
            f"{_READ} FROM {self._table} r WHERE {_FOR_A_PERSON} AND order_id = $1::text{table['id'].cast} ORDER BY r.id",
            order_id,
        )
        return _reviews(rows)

    async def of_kind(self, connection: Connection, kind: str) -> list[str]:
        """Return all orders with an open matter of this kind, oldest first."""
        rows = await connection.fetch(
            f"SELECT order_id::text AS id FROM {self._table} r WHERE {_FOR_A_PERSON} AND kind = $1 ORDER BY r.id",
            kind,
        )
        return list(dict.fromkeys(row["id"] for row in rows))

    async def read(self, connection: Connection, limit: int | None = None) -> list[Review]:
        """Return what is open, oldest first; by default all of it."""
        rows = await connection.fetch(
            f"{_READ} FROM {self._table} r WHERE {_FOR_A_PERSON} ORDER BY r.id LIMIT $1", limit
        )
        return _reviews(rows)


def _reviews(rows: Iterable[asyncpg.Record]) -> list[Review]:
    return [
        Review(r["id"], r["kind"], r["detail"] or "", r["account"] or "", r["since"]) for r in rows
    ]
