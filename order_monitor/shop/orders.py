"""Read the open orders, and write what was found: the only SQL that touches the shop's orders.

Every write goes lock → decide → update in one transaction: the decision is made on the row as it stands under our lock, so nobody's
change in between can be overwritten. Only open rows are locked, only locked rows are changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from order_monitor.decide import Nothing, Row, Rules, Stuck, StuckReason, Write, clean, decide
from order_monitor.errors import RowRejectedError, SettingsError, ShopMisfitError
from order_monitor.finding import Fate, Finding, Result
from order_monitor.order import Order
from order_monitor.shop.columns import Table, find_table, literal
from order_monitor.shop.database import Connection, Database

UNKNOWN_LIMIT: Final = 1000
"""How many orders of unknown status are read at the most: they are shown, not worked on."""

NEVER_SENT: Final = "not_sent"
_INT4_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """What the settings say of the table. ``known`` are the statuses that need no mention: final ones and ``not_sent``."""

    schema: str
    table: str
    overrides: Mapping[str, str]
    time_zone: str | None
    open: tuple[str, ...]
    known: tuple[str, ...]
    rules: Rules
    record_sync: bool = True


@dataclass(frozen=True, slots=True)
class Scan:
    """The open orders at one moment. ``now`` is the database's clock, epoch seconds."""

    now: float
    orders: list[Order]
    unknown: list[Order]


class Orders:
    """The orders table."""

    def __init__(self, database: Database, layout: Layout) -> None:
        """Work on the table that ``layout`` names; its columns are looked up on first use."""
        self._database = database
        self._layout = layout
        self._table: Table | None = None
        self._rules = layout.rules
        self._open = layout.open
        self._stale = False

    async def prepare(self) -> Table:
        """Look up the columns, again if it was done before.

        Raises:
            SettingsError: a person must change the settings or the table.
            ShopError: the database could not be asked.
        """
        layout = self._layout
        async with self._database.transaction() as connection:
            table = await find_table(
                connection,
                schema=layout.schema,
                table=layout.table,
                overrides=layout.overrides,
                time_zone=layout.time_zone,
            )
        _check_statuses(table, layout)
        self._open = open_statuses(table, layout)
        note = table.get("note")
        self._rules = replace(
            layout.rules, pin_width=table["pin_code"].width, note_width=note.width if note is not None else None
        )
        self._table = table
        return table

    @property
    def table(self) -> Table:
        """The table found by `prepare`."""
        assert self._table is not None, "prepare() comes first"  # noqa: S101 - a programming error
        return self._table

    async def _look_again(self) -> None:
        """Look the columns up, where that was never done or the table seems to have changed since."""
        if self._table is None:
            await self.prepare()
        elif self._stale:
            try:
                await self.prepare()
            except SettingsError as error:
                raise ShopMisfitError(str(error)) from None
        self._stale = False

    async def scan(self) -> Scan:
        """Return the open orders, and those whose status nobody knows.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        await self._look_again()
        try:
            async with self._database.transaction() as connection:
                now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
                found = await connection.fetch(self.scan_sql())
                unknown_sql = self.unknown_sql()
                unknown = await connection.fetch(unknown_sql) if unknown_sql else []
        except ShopMisfitError:
            self._stale = True
            raise
        return Scan(now, [_order(r) for r in found], [_order(r) for r in unknown])

    def scan_sql(self) -> str:
        """SQL of the open orders. The statuses stand in it as literals, so that the partial index is used."""
        return f"{self._select()} WHERE {is_open(self.table, self._layout)}"

    def unknown_sql(self) -> str | None:
        """SQL of the orders in a status that is neither open nor known to be final; None where there can be none."""
        condition = is_unknown(self.table, self._layout)
        return f"{self._select()} WHERE {condition} LIMIT {UNKNOWN_LIMIT}" if condition else None

    def _select(self) -> str:
        t = self.table
        tenant = f"o.{t['tenant_id'].sql}::text" if t.get("tenant_id") else "NULL::text"
        sync = t.epoch("last_sync_at", "o") if t.get("last_sync_at") else "NULL::float8"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "  # noqa: S608
            f"{t.epoch('sent_at', 'o')} AS sent_at, o.{t['provider_referans'].sql}::text AS referans, "
            f"{tenant} AS tenant_id, {sync} AS last_sync_at FROM {t.sql} o"
        )

    @property
    def records_every_check(self) -> bool:
        """Whether ``last_sync_at`` is written at each check."""
        return self._layout.record_sync and self.table.get("last_sync_at") is not None

    async def record(self, findings: Sequence[Finding]) -> list[Result]:
        """Write a batch of findings about different orders; one that the database refuses does not sink the others.

        Raises:
            ShopUnavailableError: nothing, or all, or some of it may have been committed; record the same findings again.
            ShopMisfitError: the table is not as it was.
        """
        await self._look_again()
        try:
            return await self._widened(await self._record(findings, with_notes=True))
        except ShopMisfitError:
            self._stale = True
            raise
        except RowRejectedError as error:
            if len(findings) > 1:
                middle = len(findings) // 2
                return [*await self.record(findings[:middle]), *await self.record(findings[middle:])]
            return [await self._record_alone(findings[0], error)]

    async def _widened(self, results: list[Result]) -> list[Result]:
        """Try PINs that were too wide once more, if somebody has widened the column since it was looked up."""
        wide = [r for r in results if r.stuck is StuckReason.PIN_TOO_WIDE]
        known = self._rules.pin_width
        if wide:
            await self.prepare()
        if self._rules.pin_width == known:
            return results
        return [r for r in results if r not in wide] + await self._record([r.finding for r in wide], with_notes=True)

    async def _record_alone(self, finding: Finding, error: RowRejectedError) -> Result:
        """Try once more without the provider's text, which matters less than the status and the PIN."""
        try:
            return (await self._record([finding], with_notes=False))[0]
        except RowRejectedError:
            finding.attempted = None
            return Result(finding, Fate.STUCK, stuck=StuckReason.REJECTED_BY_DATABASE, detail=str(error))

    async def _record(self, findings: Sequence[Finding], *, with_notes: bool) -> list[Result]:
        by_id = {f.order.id: f for f in findings}
        assert len(by_id) == len(findings), "one finding an order"  # noqa: S101 - a programming error
        async with self._database.transaction() as connection:
            locked = {row["id"]: row for row in await connection.fetch(self._lock_sql(), list(by_id))}
            results = [self._decide(by_id[i], row, with_notes=with_notes) for i, row in locked.items()]
            await self._update(connection, [r for r in results if r.write is not None])
            await self._touch(connection, [r.finding for r in results if r.write is None])
            missing = [f for i, f in by_id.items() if i not in locked]
            if missing:
                results += await self._missing(connection, missing)
        return results

    def _lock_sql(self) -> str:
        t = self.table
        note = f"o.{t['note'].sql}::text" if t.get("note") else "NULL::text"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "  # noqa: S608
            f"o.{t['pin_code'].sql}::text AS pin, {note} AS note, o.{t['provider_referans'].sql}::text AS referans "
            f"FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}) "
            f"AND o.{t['external_status'].sql} IN ({_literals(self._open)}) "
            f"ORDER BY o.{t['id'].sql} FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def _ids(self, parameter: str) -> str:
        cast = self.table["id"].cast
        return f"{parameter}::text[]{cast}[]" if cast else f"{parameter}::text[]"

    def _decide(self, finding: Finding, row: asyncpg.Record, *, with_notes: bool) -> Result:
        if (row["referans"] or "").strip() != finding.order.referans.strip():
            return Result(finding, Fate.RESENT, status=row["status"])
        decision = decide(Row(row["status"], row["pin"], row["note"]), finding.answer, finding.age, self._rules)
        match decision:
            case Write():
                kept = decision if with_notes else replace(decision, note=None, message="")
                return Result(finding, Fate.WRITTEN, write=kept, status=row["status"])
            case Stuck(reason=reason, detail=detail):
                return Result(finding, Fate.STUCK, stuck=reason, detail=detail, status=row["status"])
            case Nothing():
                return Result(finding, Fate.UNCHANGED, status=row["status"])

    async def _update(self, connection: Connection, results: Sequence[Result]) -> None:
        """Change the locked rows.

        Raises:
            RowRejectedError: a trigger kept a row from changing, or stored another PIN than ours.
        """
        if not results:
            return
        rows = []
        for result in results:
            assert result.write is not None  # noqa: S101 - the caller chose those that have one
            result.finding.attempted = result.write
            rows.append(self._values(result.finding, result.write))
        arrays = [list(column) for column in zip(*rows, strict=True)]
        stored = {row["id"]: row for row in await connection.fetch(self._update_sql(), *arrays)}
        for result in results:
            _verify(result, stored.get(result.finding.order.id), self._open)

    @staticmethod
    def _values(finding: Finding, write: Write) -> tuple[object, ...]:
        sent = finding.order.sent_at
        took = int((finding.seen_at - sent) * 1000) if sent is not None else None
        return (
            finding.order.id,
            write.status,
            write.pin.reveal() if write.pin else None,
            write.note,
            write.message or None,
            finding.seen_at,
            finding.seen_at if write.final else None,
            max(0, min(took, _INT4_MAX)) if took is not None and write.final else None,
        )

    def _update_sql(self) -> str:
        """SQL that changes locked rows; the compare stands in its own WHERE too."""
        t = self.table
        status = t["external_status"]
        pin = f"o.{t['pin_code'].sql}"
        sets = [
            f"{status.sql} = u.status{status.cast}",
            f"{t['pin_code'].sql} = COALESCE(u.pin, {pin})",
        ]
        for logical, value in (("note", "u.note"), ("provider_message", "u.message")):
            if column := t.get(logical):
                sets.append(f"{column.sql} = COALESCE({self._fitted(logical, value)}, o.{column.sql})")
        for logical, value in (("last_sync_at", "u.seen_at"), ("completed_at", "u.done_at")):
            if (column := t.get(logical)) and (logical != "last_sync_at" or self._layout.record_sync):
                sets.append(f"{column.sql} = COALESCE({t.instant(logical, value)}, o.{column.sql})")
        if column := t.get("duration_ms"):
            sets.append(f"{column.sql} = COALESCE(u.duration, o.{column.sql})")
        return (
            f"UPDATE {t.sql} AS o SET {', '.join(sets)} FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], "  # noqa: S608
            f"$5::text[], $6::float8[], $7::float8[], $8::int4[]) "
            f"AS u(id, status, pin, note, message, seen_at, done_at, duration) "
            f"WHERE o.{t['id'].sql} = u.id{t['id'].cast} AND o.{status.sql} IN ({_literals(self._open)}) "
            f"AND (u.pin IS NULL OR COALESCE(btrim({pin}), '') IN ('', u.pin)) "
            f"RETURNING o.{t['id'].sql}::text AS id, o.{status.sql}::text AS status, {pin}::text AS pin"
        )

    def _fitted(self, logical: str, value: str) -> str:
        width = self.table[logical].width
        return f"left({value}, {width})" if logical == "provider_message" and width else value

    async def _touch(self, connection: Connection, findings: Iterable[Finding]) -> None:
        """Note the time of a check that changed nothing else."""
        checked = {f.order.id: f.seen_at for f in findings}
        if not checked or not self.records_every_check:
            return
        t = self.table
        await connection.execute(
            f"UPDATE {t.sql} AS o SET {t['last_sync_at'].sql} = {t.instant('last_sync_at', 'u.seen_at')} "  # noqa: S608
            f"FROM unnest($1::text[], $2::float8[]) AS u(id, seen_at) WHERE o.{t['id'].sql} = u.id{t['id'].cast} "
            f"AND o.{t['external_status'].sql} IN ({_literals(self._open)})",
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


def is_open(table: Table, layout: Layout) -> str:
    """SQL condition of an open order: word for word the partial index's, or PostgreSQL would not use that."""
    return f"{table['external_status'].sql} IN ({_literals(open_statuses(table, layout))})"


def is_unknown(table: Table, layout: Layout) -> str | None:
    """SQL condition of an order whose status is neither open nor known; None where the column's type rules it out."""
    column = table["external_status"]
    if not column.labels:
        return f"{column.sql} NOT IN ({_literals((*layout.open, *layout.known))})"
    unknown = [label for label in column.labels if label not in (*layout.open, *layout.known)]
    return f"{column.sql} IN ({_literals(unknown)})" if unknown else None


def open_statuses(table: Table, layout: Layout) -> tuple[str, ...]:
    """Return the open statuses that the column can hold."""
    labels = table["external_status"].labels
    return tuple(status for status in layout.open if not labels or status in labels)


def _literals(statuses: Iterable[str]) -> str:
    return ", ".join(literal(status) for status in statuses)


def _order(row: asyncpg.Record) -> Order:
    return Order(row["id"], row["status"], row["sent_at"], row["referans"] or "", row["tenant_id"], row["last_sync_at"])


def _check_statuses(table: Table, layout: Layout) -> None:
    """See that what we write fits its column.

    Raises:
        SettingsError: naming the statuses that do not.
    """
    column = table["external_status"]
    rules = layout.rules
    written = {"completed": rules.completed, "failed": rules.failed, "processing": rules.processing}
    problems = [
        f"statuses.{key}: {table.name}.{column.name} cannot hold this value"
        for key, value in written.items()
        if (column.labels and value not in column.labels) or (column.width is not None and len(value) > column.width)
    ]
    if problems:
        raise SettingsError(problems)
