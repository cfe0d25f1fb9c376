"""Write findings into the orders table: lock, decide, update, and record the event, all in one transaction.

The decision is made on the row as it stands under our lock, so nobody's change in between can be overwritten. Only open rows are
locked, only locked rows are changed, and each change of status adds its event in the same statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from order_monitor.core.answer import Completed
from order_monitor.core.decision import Nothing, Row, Rules, Stuck, StuckReason, Write, decide, decide_late_pin
from order_monitor.core.errors import RowRejectedError
from order_monitor.core.order import Order
from order_monitor.core.pin import Pin
from order_monitor.core.pin_memory import PinMemory
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.core.text import clean
from order_monitor.shop.columns import Table
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import Layout
from order_monitor.shop.set_sql import entry_of
from order_monitor.shop.statements import NOWHERE, UPDATE_PARAMETERS, Statements

_INT4_MAX: Final = 2**31 - 1
_DOUBLED: Final = "more rows than one have this id; give each an id of its own, and keep it so by a unique index"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The orders table as it was found. ``events``: is the events table there; ``outcomes``: has it that column."""

    table: Table
    layout: Layout
    rules: Rules
    events: bool = False
    outcomes: bool = True

    @property
    def records_every_check(self) -> bool:
        """Whether ``last_sync_at`` is written at each check."""
        return self.layout.record_sync and self.table.get("last_sync_at") is not None

    async def write(
        self, connection: Connection, findings: Sequence[Finding], *, with_notes: bool, pins: PinMemory | None = None
    ) -> list[Result]:
        """Write findings about different orders, inside the caller's transaction; no PIN that ``pins`` knows to be another order's.

        Raises:
            RowRejectedError: a value, a constraint or a trigger stands against one of them.
        """
        assert len({f.order.id for f in findings}) == len(findings), "one finding an order"
        results: list[Result] = []
        for together in by_node(self.table, findings):
            results += await self._write(connection, together, pins, with_notes=with_notes)
        return results

    async def _write(
        self, connection: Connection, findings: Sequence[Finding], pins: PinMemory | None, *, with_notes: bool
    ) -> list[Result]:
        by_id = {f.order.id: f for f in findings}
        orders = [f.order for f in findings]
        span = self.statements.span(orders)
        doubled = [by_id.pop(i) for i in await self._doubled(connection, orders)]
        late = [f for f in by_id.values() if f.order.awaits_pin]
        ids = [f.order.id for f in by_id.values() if not f.order.awaits_pin]
        rows = await self._locked(connection, ids, late, span)
        if span and self.table.shape.distributed_by is None and (elsewhere := [i for i in ids if i not in rows]):
            # Held by somebody, ended, or another tenant's or of another time since: only the last are found now.
            moved = await self._locked(connection, elsewhere, [], "")
            if moved:
                rows, span = rows | moved, ""
                twice = await self._doubled(connection, [f.order for f in by_id.values()], anywhere=True)
                doubled += [by_id.pop(i) for i in twice]
                rows = {i: row for i, row in rows.items() if i not in twice}
        results = [self._decide(by_id[i], row, pins, with_notes=with_notes) for i, row in rows.items()]
        changed = [r for r in results if r.write is not None]
        written = await self._update(connection, [r for r in changed if not r.finding.order.awaits_pin], span)
        added = await self._add_pins(connection, [r for r in changed if r.finding.order.awaits_pin], span)
        rest = [r for r in results if r.write is None]
        await self._touch(connection, [r.finding for r in rest if not r.finding.order.awaits_pin], span)
        missing = [f for i, f in by_id.items() if i not in rows]
        rest += [Result(f, Fate.STUCK, stuck=StuckReason.REJECTED_BY_DATABASE, detail=_DOUBLED) for f in doubled]
        return [*written, *added, *rest, *(await self._missing(connection, missing, span) if missing else [])]

    async def _locked(
        self, connection: Connection, ids: list[str], late: Sequence[Finding], span: str
    ) -> dict[str, asyncpg.Record]:
        rows = list(await connection.fetch(self.statements.lock_sql(span), ids)) if ids or not late else []
        if late:
            statuses = {f.order.id: f.order.status for f in late}
            sql = self.statements.late_lock_sql(self.statements.node(span))
            found = await connection.fetch(sql, list(statuses), list(set(statuses.values())))
            rows += [row for row in found if row["status"] == statuses[row["id"]]]
        return {row["id"]: row for row in rows}

    async def _doubled(self, connection: Connection, orders: Sequence[Order], *, anywhere: bool = False) -> list[str]:
        """Return the ids that several rows have, where no index rules that out: nobody knows which of them is meant.

        They are looked for where these orders are kept, or ``anywhere``: a late PIN finds its row wherever that is, and so would
        another row of its id.
        """
        if self.table.shape.is_unique:
            return []
        far = [order.id for order in orders if anywhere or order.awaits_pin]
        near = [order.id for order in orders if not (anywhere or order.awaits_pin)]
        places, found = self.statements.span(orders, only_places=True), []
        for span, ids in ((places, near), ("", far)):
            if ids:
                found += [row["id"] for row in await connection.fetch(self.statements.doubled_sql(span), ids)]
        return found

    @property
    def statements(self) -> Statements:
        """The SQL of this table."""
        return Statements(self.table, self.layout, self.events, self.outcomes)

    def _decide(self, finding: Finding, row: asyncpg.Record, pins: PinMemory | None, *, with_notes: bool) -> Result:
        status = row["status"]
        if (row["referans"] or "").strip() != finding.order.referans.strip():
            return Result(finding, Fate.RESENT, status=status)
        stands = Row(status, row["pin"], row["note"])
        if finding.order.awaits_pin:
            decision = decide_late_pin(stands, finding.answer, self.rules)
        else:
            decision = decide(stands, finding.answer, finding.age, self.rules)
        match decision:
            case Write(pin=Pin() as pin) if pins is not None and (owner := self._owner(pins, finding, pin)):
                detail = f"order {owner} has the same"
                return Result(finding, Fate.STUCK, stuck=StuckReason.PIN_DUPLICATE, detail=detail, status=status)
            case Write():
                kept = decision if with_notes else replace(decision, note=None, message="")
                return Result(finding, Fate.WRITTEN, write=kept, status=status)
            case Stuck(reason=reason, detail=detail):
                return Result(finding, Fate.STUCK, stuck=reason, detail=detail, status=status)
            case Nothing():
                return Result(finding, Fate.UNCHANGED, status=status)

    def _owner(self, pins: PinMemory, finding: Finding, pin: Pin) -> str | None:
        return pins.claim(finding.order.integration or "", pin, finding.order.id) if self.layout.unique_pins else None

    async def _update(self, connection: Connection, results: Sequence[Result], span: str) -> list[Result]:
        """Change the locked rows of open orders."""
        statements = self.statements
        return await _change(connection, results, statements.update_sql(span), values_of, statements.open_statuses)

    async def _add_pins(self, connection: Connection, results: Sequence[Result], span: str) -> list[Result]:
        """Put PINs into orders that ended without. Their events move no money: they are repeats."""
        return await _change(
            connection, results, self.statements.late_update_sql(self.statements.node(span)), late_values, ()
        )

    async def _touch(self, connection: Connection, findings: Iterable[Finding], span: str) -> None:
        """Note the time of a check that changed nothing else."""
        checked = {f.order.id: f.seen_at for f in findings}
        if not checked or not self.records_every_check:
            return
        await connection.execute(
            self.statements.touch_sql(span),
            list(checked),
            list(checked.values()),
        )

    async def _missing(self, connection: Connection, findings: Sequence[Finding], span: str) -> list[Result]:
        """Tell apart why rows were not locked: another's lock, another's decision, or our own earlier commit."""
        rows = await connection.fetch(
            self.statements.status_sql(self.statements.node(span)), [f.order.id for f in findings]
        )
        there = {row["id"]: row for row in rows}
        open_statuses = self.statements.open_statuses
        return [_explain(f, there.get(f.order.id), open_statuses) for f in findings]


def by_node(table: Table, findings: Sequence[Finding]) -> Iterable[Sequence[Finding]]:
    """Return what one statement may lock: where Citus has distributed the table, no more than is surely on one node."""
    key = table.shape.distributed_by
    if key is None:
        return [findings]
    groups: dict[str | None, list[Finding]] = {}
    for finding in findings:
        node = finding.order.id if key == table["id"].name else finding.order.tenant_id
        groups.setdefault(node, []).append(finding)
    return groups.values()


async def rehearse(connection: Connection, statements: Statements) -> None:
    """Run the very statements of the work, on no row at all."""
    await connection.fetch(statements.lock_sql(NOWHERE), [])
    await connection.fetch(statements.update_sql(), *([[]] * UPDATE_PARAMETERS))


async def _change(
    connection: Connection,
    results: Sequence[Result],
    sql: str,
    values: Callable[[Finding, Write, str], tuple[object, ...]],
    not_ends: Sequence[str],
) -> list[Result]:
    """Change locked rows; return the results with what the events table had to say.

    Raises:
        RowRejectedError: a trigger kept a row from changing, stored another PIN, or made an end one of ``not_ends``.
    """
    if not results:
        return []
    rows = []
    for result in results:
        assert result.write is not None
        result.finding.attempted = result.write
        rows.append(values(result.finding, result.write, result.status))
    arrays = [list(column) for column in zip(*rows, strict=True)]
    stored = {row["id"]: row for row in await connection.fetch(sql, *arrays)}
    for result in results:
        _verify(result, stored.get(result.finding.order.id), not_ends)
    return [replace(r, repeat=stored[r.finding.order.id]["repeat"]) for r in results]


def _explain(finding: Finding, row: asyncpg.Record | None, open_statuses: Sequence[str]) -> Result:
    if row is None:
        return Result(finding, Fate.GONE, detail="the row is deleted")
    is_late = finding.order.awaits_pin
    is_same = is_late and row["status"] == finding.order.status and not (row["pin"] or "").strip()
    if is_same or (not is_late and row["status"] in open_statuses):
        return Result(finding, Fate.LOCKED, status=row["status"])
    tried = finding.attempted
    if tried is not None and tried.status == row["status"] and (tried.pin is None or tried.pin.reveal() == row["pin"]):
        return Result(finding, Fate.WRITTEN, write=tried, status=finding.order.status)
    return Result(finding, Fate.GONE, status=clean(row["status"] or ""))


def _verify(result: Result, stored: asyncpg.Record | None, open_statuses: Sequence[str]) -> None:
    write = result.write
    assert write is not None
    if stored is None:
        msg = "a trigger or a rule kept the row from changing"
        raise RowRejectedError(msg)
    if write.pin is not None and (stored["pin"] or "").rstrip() != write.pin.reveal():
        msg = "a trigger stored another PIN"
        raise RowRejectedError(msg)
    if write.final and stored["status"] in open_statuses:
        msg = "a trigger kept the order open"
        raise RowRejectedError(msg)


def values_of(finding: Finding, write: Write, was: str) -> tuple[object, ...]:
    """Return one record of the update's arrays: all of an order's values together, or none."""
    sent = finding.order.sent_at
    took = int((finding.seen_at - sent) * 1000) if sent is not None else None
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
        told_of(finding, write),
        finding.checks,
        sent,
        outcome_of(finding, write),
        entry_of(message, finding.seen_at) if message and write.note is not None else None,
    )


def late_values(finding: Finding, write: Write, was: str) -> tuple[object, ...]:
    """Return one record of the arrays that put in a late PIN; the order stands at ``was`` and stays there."""
    assert write.pin is not None
    told, sent = told_of(finding, write), finding.order.sent_at
    return (finding.order.id, was, write.pin.reveal(), told, finding.checks, sent)


def told_of(finding: Finding, write: Write) -> str | None:
    """Return the message for the event, without the PIN that may stand in it."""
    pin = finding.answer.pin if isinstance(finding.answer, Completed) else None
    return pin.blotted(write.message) if write.message and pin else write.message or None


def outcome_of(finding: Finding, write: Write) -> str:
    """Return what a change means, whatever words the shop has for it."""
    if not write.final:
        return "processing"
    return "completed" if isinstance(finding.answer, Completed) else "failed"
