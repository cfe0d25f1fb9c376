"""Write findings into the orders table: lock, decide, update, and record the event, all in one transaction.

The decision is made on the row as it stands under our lock, so nobody's change in between can be overwritten. Only open rows are
locked, only locked rows are changed, and each change of status adds its event in the same statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from order_monitor.answer import Completed
from order_monitor.decide import Nothing, Row, Rules, Stuck, Write, clean, decide
from order_monitor.errors import RowRejectedError
from order_monitor.finding import Fate, Finding, Result
from order_monitor.shop.columns import Table, literal, quoted
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import DELIVERIES, EVENTS, Layout, literals, open_statuses

CHANNEL: Final = "order_monitor"
AUTHOR: Final = "order-monitor"
_INT4_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Ledger:
    """The orders table as it was found. ``events`` tells whether the events table is there."""

    table: Table
    layout: Layout
    rules: Rules
    events: bool = False

    @property
    def records_every_check(self) -> bool:
        """Whether ``last_sync_at`` is written at each check."""
        return self.layout.record_sync and self.table.get("last_sync_at") is not None

    async def write(self, connection: Connection, findings: Sequence[Finding], *, with_notes: bool) -> list[Result]:
        """Write findings about different orders, inside the caller's transaction.

        Raises:
            RowRejectedError: a value, a constraint or a trigger stands against one of them.
        """
        by_id = {f.order.id: f for f in findings}
        assert len(by_id) == len(findings), "one finding an order"  # noqa: S101 - a programming error
        locked = {row["id"]: row for row in await connection.fetch(self.lock_sql(), list(by_id))}
        results = [self._decide(by_id[i], row, with_notes=with_notes) for i, row in locked.items()]
        written = await self._update(connection, [r for r in results if r.write is not None])
        rest = [r for r in results if r.write is None]
        await self._touch(connection, [r.finding for r in rest])
        missing = [f for i, f in by_id.items() if i not in locked]
        return [*written, *rest, *(await self._missing(connection, missing) if missing else [])]

    @property
    def _open(self) -> tuple[str, ...]:
        return open_statuses(self.table, self.layout)

    def lock_sql(self) -> str:
        """SQL that locks the open ones among given orders; what somebody else holds is passed over, not waited for."""
        t = self.table
        note = f"o.{t['note'].sql}::text" if t.get("note") else "NULL::text"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "  # noqa: S608
            f"o.{t['pin_code'].sql}::text AS pin, {note} AS note, o.{t['provider_referans'].sql}::text AS referans "
            f"FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}) "
            f"AND o.{t['external_status'].sql} IN ({literals(self._open)}) "
            f"ORDER BY o.{t['id'].sql} FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def _ids(self, parameter: str) -> str:
        cast = self.table["id"].cast
        return f"{parameter}::text[]{cast}[]" if cast else f"{parameter}::text[]"

    def _decide(self, finding: Finding, row: asyncpg.Record, *, with_notes: bool) -> Result:
        status = row["status"]
        if (row["referans"] or "").strip() != finding.order.referans.strip():
            return Result(finding, Fate.RESENT, status=status)
        decision = decide(Row(status, row["pin"], row["note"]), finding.answer, finding.age, self.rules)
        match decision:
            case Write():
                kept = decision if with_notes else replace(decision, note=None, message="")
                return Result(finding, Fate.WRITTEN, write=kept, status=status)
            case Stuck(reason=reason, detail=detail):
                return Result(finding, Fate.STUCK, stuck=reason, detail=detail, status=status)
            case Nothing():
                return Result(finding, Fate.UNCHANGED, status=status)

    async def _update(self, connection: Connection, results: Sequence[Result]) -> list[Result]:
        """Change the locked rows; return the results with what the events table had to say.

        Raises:
            RowRejectedError: a trigger kept a row from changing, or stored another PIN than ours.
        """
        if not results:
            return []
        rows = []
        for result in results:
            assert result.write is not None  # noqa: S101 - the caller chose those that have one
            result.finding.attempted = result.write
            rows.append(self.values(result.finding, result.write, result.status))
        arrays = [list(column) for column in zip(*rows, strict=True)]
        stored = {row["id"]: row for row in await connection.fetch(self.update_sql(), *arrays)}
        for result in results:
            _verify(result, stored.get(result.finding.order.id), self._open)
        return [replace(r, repeat=stored[r.finding.order.id]["repeat"]) for r in results]

    @staticmethod
    def values(finding: Finding, write: Write, was: str) -> tuple[object, ...]:
        """Return one record of the update's arrays: all of an order's values together, or none."""
        sent = finding.order.sent_at
        took = int((finding.seen_at - sent) * 1000) if sent is not None else None
        pin = finding.answer.pin if isinstance(finding.answer, Completed) else None
        message = write.message or None
        return (
            finding.order.id,
            write.status,
            write.pin.reveal() if write.pin else None,
            write.note,
            message,
            finding.seen_at,
            finding.seen_at if write.final else None,
            max(0, min(took, _INT4_MAX)) if took is not None and write.final else None,
            was,
            message.replace(pin.reveal(), "****") if message and pin and pin.reveal() else message,
            finding.checks,
            sent,
        )

    def update_sql(self) -> str:
        """SQL that changes locked rows; the compare stands in its own WHERE too."""
        t = self.table
        status, pin = t["external_status"], f"o.{t['pin_code'].sql}"
        tenant = f"o.{t['tenant_id'].sql}" if t.get("tenant_id") else "NULL"
        update = (
            f"UPDATE {t.sql} AS o SET {', '.join(self._sets())} FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], "  # noqa: S608
            f"$5::text[], $6::float8[], $7::float8[], $8::int4[], $9::text[], $10::text[], $11::int4[], $12::float8[]) "
            f"AS u(id, status, pin, note, message, seen_at, done_at, duration, was, told, checks, sent_at) "
            f"WHERE o.{t['id'].sql} = u.id{t['id'].cast} AND o.{status.sql} IN ({literals(self._open)}) "
            f"AND (u.pin IS NULL OR COALESCE(btrim({pin}), '') IN ('', u.pin)) "
            f"RETURNING o.{t['id'].sql} AS id, {tenant} AS tenant_id, o.{status.sql}::text AS status, {pin}::text AS pin, "
            f"u.was, u.told, u.checks, u.sent_at"
        )
        if not self.events:
            return f"WITH changed AS ({update}) SELECT id::text, status, pin, false AS repeat FROM changed"  # noqa: S608
        return f"WITH changed AS ({update}), {self._event_sql()}"

    def _event_sql(self) -> str:
        """SQL that records each change of status and gives one hint for all; the hint must be read to be given at all."""
        events = f"{quoted(self.table.schema)}.{quoted(EVENTS)}"
        deliveries = f"{quoted(self.table.schema)}.{quoted(DELIVERIES)}"
        queued = f"queued AS (INSERT INTO {deliveries} (event_id, order_id) SELECT id, order_id FROM event), "  # noqa: S608
        return (
            f"event AS (INSERT INTO {events} "  # noqa: S608
            "(order_id, tenant_id, from_status, to_status, has_pin, message, checks, sent_at, decided_by, repeat) "
            "SELECT c.id, c.tenant_id, c.was, c.status, COALESCE(btrim(c.pin), '') <> '', c.told, c.checks, "
            f"to_timestamp(c.sent_at), {literal(self.layout.author)}, EXISTS (SELECT 1 FROM {events} e "
            "WHERE e.order_id = c.id AND e.to_status = c.status AND NOT e.repeat) "
            "FROM changed c WHERE c.was IS DISTINCT FROM c.status RETURNING id, order_id, repeat), "
            f"{queued if self.layout.webhook else ''}"
            f"hint AS (SELECT pg_notify({literal(CHANNEL)}, max(id)::text) AS given FROM event HAVING count(*) > 0) "
            "SELECT c.id::text, c.status, c.pin, COALESCE(e.repeat, false) AS repeat, (SELECT count(given) FROM hint) "
            "FROM changed c LEFT JOIN event e ON e.order_id = c.id"
        )

    def _sets(self) -> list[str]:
        t = self.table
        status, pin = t["external_status"], t["pin_code"].sql
        sets = [f"{status.sql} = u.status{status.cast}", f"{pin} = COALESCE(u.pin, o.{pin})"]
        for logical, value in (
            ("note", "u.note"),
            ("provider_message", self._cut("provider_message", "u.message")),
            ("last_sync_at", self._instant("last_sync_at", "u.seen_at") if self.layout.record_sync else ""),
            ("completed_at", self._instant("completed_at", "u.done_at")),
            ("duration_ms", "u.duration"),
        ):
            if (column := t.get(logical)) and value:
                sets.append(f"{column.sql} = COALESCE({value}, o.{column.sql})")
        if (column := t.get("notes")) and column.data_type == "jsonb":
            sets.append(f"{column.sql} = {self._history(f'o.{column.sql}')}")
        return sets

    def _instant(self, logical: str, seconds: str) -> str:
        return self.table.instant(logical, seconds) if self.table.get(logical) else ""

    def _cut(self, logical: str, value: str) -> str:
        column = self.table.get(logical)
        return f"left({value}, {column.width})" if column and column.width else value

    @staticmethod
    def _history(column: str) -> str:
        """SQL that adds a message to a jsonb array of ``{by, text, at}``; what is no array is left as it is."""
        at = "to_char(to_timestamp(u.seen_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
        entry = f"jsonb_build_array(jsonb_build_object('by', {literal(AUTHOR)}, 'text', u.message, 'at', {at}))"
        return (
            f"CASE WHEN u.note IS NULL OR u.message IS NULL THEN {column} WHEN {column} IS NULL THEN {entry} "
            f"WHEN jsonb_typeof({column}) = 'array' THEN {column} || {entry} ELSE {column} END"
        )

    async def _touch(self, connection: Connection, findings: Iterable[Finding]) -> None:
        """Note the time of a check that changed nothing else."""
        checked = {f.order.id: f.seen_at for f in findings}
        if not checked or not self.records_every_check:
            return
        t = self.table
        await connection.execute(
            f"UPDATE {t.sql} AS o SET {t['last_sync_at'].sql} = {t.instant('last_sync_at', 'u.seen_at')} "  # noqa: S608
            f"FROM unnest($1::text[], $2::float8[]) AS u(id, seen_at) WHERE o.{t['id'].sql} = u.id{t['id'].cast} "
            f"AND o.{t['external_status'].sql} IN ({literals(self._open)})",
            list(checked),
            list(checked.values()),
        )

    async def _missing(self, connection: Connection, findings: Sequence[Finding]) -> list[Result]:
        """Tell apart why rows were not locked: another's lock, another's decision, or our own earlier commit."""
        t = self.table
        rows = await connection.fetch(
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "  # noqa: S608
            f"o.{t['pin_code'].sql}::text AS pin FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')})",
            [f.order.id for f in findings],
        )
        there = {row["id"]: row for row in rows}
        return [self._explain(f, there.get(f.order.id)) for f in findings]

    def _explain(self, finding: Finding, row: asyncpg.Record | None) -> Result:
        if row is None:
            return Result(finding, Fate.GONE, detail="the row is deleted")
        if row["status"] in self._open:
            return Result(finding, Fate.LOCKED, status=row["status"])
        tried = finding.attempted
        if (
            tried is not None
            and tried.status == row["status"]
            and (tried.pin is None or tried.pin.reveal() == row["pin"])
        ):
            return Result(finding, Fate.WRITTEN, write=tried, status=finding.order.status)
        return Result(finding, Fate.GONE, status=clean(row["status"] or ""))


def _verify(result: Result, stored: asyncpg.Record | None, open_statuses: Sequence[str]) -> None:
    write = result.write
    assert write is not None  # noqa: S101 - see _update
    if stored is None:
        msg = "a trigger or a rule kept the row from changing"
        raise RowRejectedError(msg)
    if write.pin is not None and (stored["pin"] or "").rstrip() != write.pin.reveal():
        msg = "a trigger stored another PIN"
        raise RowRejectedError(msg)
    if write.final and stored["status"] in open_statuses:
        msg = "a trigger kept the order open"
        raise RowRejectedError(msg)
