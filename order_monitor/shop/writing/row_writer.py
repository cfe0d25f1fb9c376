"""Write results into the orders table: lock, decide, update, and record the event, all in one
transaction.

The decision is made on the row while we hold its lock, so no concurrent change can be overwritten.
Only open rows are locked, only locked rows are changed, and each change of status adds its event in
the same statement. An answer is valid for the dispatch it was asked for: the row is compared with
that dispatch. What a statement has stored is read back before it is believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.check_result import ANY_ORDER, CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import (
    PIN_KINDS,
    Nothing,
    Row,
    Rules,
    Stuck,
    StuckReason,
    Unknown,
    Write,
    decide,
    decide_late_pin,
)
from order_monitor.core.errors import RowRejectedError
from order_monitor.core.order import CONFIGURED, OLDEST_SENT_AT, SAME_TIME, Order, ReferenceFrom
from order_monitor.core.outcome import Cause, Outcome
from order_monitor.core.pin import is_no_pin
from order_monitor.core.text import clean
from order_monitor.shop.accounts.logins import Logins
from order_monitor.shop.accounts.pauses import Pauses, pause_of_ends
from order_monitor.shop.database import Connection
from order_monitor.shop.first_start import held_before
from order_monitor.shop.money_settings import refuse_while_observed
from order_monitor.shop.reviews import HELD_PIN, Reviews
from order_monitor.shop.schema.columns import Table
from order_monitor.shop.schema.table_config import TableConfig, events_of
from order_monitor.shop.writing.brake import Brake, is_end
from order_monitor.shop.writing.cancellations import Cancellations
from order_monitor.shop.writing.dispatches import (
    TOUCHED,
    Dispatches,
    LockedRow,
    Standing,
    Twin,
    is_sent_again,
)
from order_monitor.shop.writing.event_sql import PERSON, put_back_sql
from order_monitor.shop.writing.held_pins import HeldPins, is_left
from order_monitor.shop.writing.parameters import LATE, UPDATE, Change, Parameter, record_of
from order_monitor.shop.writing.pins import Claim, Codes
from order_monitor.shop.writing.statements import NOWHERE, Statements

_DOUBLED: Final = (
    "more rows than one have this id; give each an id of its own, and keep it so by a unique index"
)
CHECK_NOW: Final = "SET CONSTRAINTS ALL IMMEDIATE"


@dataclass(frozen=True, slots=True)
class RowWriter:
    """The orders table as it was found, with the state that all processes share about it:
    dispatches, logins and codes.

    ``shared`` are the packages whose orders share their codes. Epoch seconds: ``began_at`` is when
    this shop was first migrated, ``first_start`` when this program began on a table that may be
    old; orders sent before ``ignored_before`` are left alone. Without ``hints`` no notification
    goes with an event.
    """

    table: Table
    table_config: TableConfig
    rules: Rules
    logins: Logins
    key: bytes = b""
    shared: frozenset[str] = frozenset()
    began_at: float = float("-inf")
    hints: bool = True
    first_start: float = float("-inf")
    ignored_before: float = float("-inf")

    @property
    def records_every_check(self) -> bool:
        """Whether ``last_sync_at`` is written at each check."""
        return self.table_config.record_sync and self.table.get("last_sync_at") is not None

    def leaves_alone(self, sent_at: float | None) -> bool:
        """Whether an order sent then (epoch seconds) is left alone; an impossible date is not."""
        return sent_at is not None and OLDEST_SENT_AT <= sent_at < self.ignored_before

    @property
    def statements(self) -> Statements:
        """The SQL of this table."""
        return Statements(self.table, self.table_config, self.hints)

    @property
    def dispatches(self) -> Dispatches:
        """The table of dispatches."""
        return Dispatches(self.table, self.table_config, self.logins)

    @property
    def codes(self) -> Codes:
        """The table of codes."""
        return Codes(self.table, self.table_config.schema, self.key)

    @property
    def held_pins(self) -> HeldPins:
        """The PINs that were read while their orders' ends were held."""
        return HeldPins(self.statements, self.codes, self.rules)

    @property
    def cancellations(self) -> Cancellations:
        """The cancellations that wait for a second answer."""
        return Cancellations(self.table, self.rules)

    @property
    def brake(self) -> Brake:
        """The brake, which holds back a flood of failures."""
        return Brake(self.table, self.rules, self.logins)

    async def write(
        self, connection: Connection, findings: Sequence[CheckResult], *, with_notes: bool
    ) -> list[WriteResult]:
        """Write results about different orders, inside the caller's transaction.

        Raises:
            ObservedError: the shop is only observed.
            RowRejectedError: a value, a constraint or a trigger prevents one of them.
        """
        assert len({f.order.id for f in findings}) == len(findings), "one finding an order"
        await refuse_while_observed(connection, self.table.schema)
        results: list[WriteResult] = []
        if self.brake.is_on:
            await self.brake.lock(connection, {f.account for f in findings if self._may_fail(f)})
        for together in by_node(self.table, findings):
            results += await self._write(connection, together, with_notes=with_notes)
        return results

    async def _write(
        self, connection: Connection, findings: Sequence[CheckResult], *, with_notes: bool
    ) -> list[WriteResult]:
        by_id = {f.order.id: f for f in findings}
        orders = [f.order for f in findings]
        span = self.statements.span(orders)
        doubled = [by_id.pop(i) for i in await self._doubled(connection, orders)]
        late = {f.order.id: f.order.status for f in by_id.values() if f.order.awaits_pin}
        ids = [f.order.id for f in by_id.values() if not f.order.awaits_pin]
        rows = await self._locked(connection, ids, late, span)
        if (
            span
            and self.table.relation.distributed_by is None
            and (elsewhere := [i for i in ids if i not in rows])
        ):
            # Locked by another session, ended, or now in another partition because its tenant or
            # time has changed: only the last kind is found now.
            moved = await self._locked(connection, elsewhere, {}, "")
            if moved:
                rows, span = rows | moved, ""
                twice = await self._doubled(
                    connection, [f.order for f in by_id.values()], anywhere=True
                )
                doubled += [by_id.pop(i) for i in twice]
                rows = {i: row for i, row in rows.items() if i not in twice}
        # No matter who ended it: a PIN that was read can still be added to an order that ended as
        # completed without one.
        without = [
            f
            for i, f in by_id.items()
            if i not in rows and f.pin is not None and not f.order.awaits_pin
        ]
        ended = await self._ended_without_pin(connection, without, span)
        results = await self.decide_all(connection, by_id, rows, ended, with_notes=with_notes)
        changed = [r for r in results if r.write is not None]
        is_late = ended.keys() | late.keys()
        written = await self._update(
            connection, [r for r in changed if r.order_id not in is_late], span
        )
        added = await self._add_pins(
            connection, [r for r in changed if r.order_id in is_late], span
        )
        rest = [r for r in results if r.write is None]
        await self._touch(connection, [r.finding for r in rest if r.order_id not in is_late], span)
        results = await self.marked(connection, [*written, *added, *rest])
        missing = [f for i, f in by_id.items() if i not in rows and i not in ended]
        results += [
            WriteResult(
                f, WriteStatus.STUCK, stuck=StuckReason.REJECTED_BY_DATABASE, detail=_DOUBLED
            )
            for f in doubled
        ]
        return [*results, *(await self._missing(connection, missing, span) if missing else [])]

    async def _locked(
        self, connection: Connection, ids: list[str], late: Mapping[str, str], span: str
    ) -> dict[str, asyncpg.Record]:
        rows = []
        if ids or not late:
            rows += await connection.fetch(self.statements.lock_sql(span), ids)
        if late:
            sql = self.statements.late_lock_sql(self.statements.node(span))
            found = await connection.fetch(sql, list(late), list(set(late.values())))
            lacking = [
                row for row in found if row["status"] == late[row["id"]] and self._lacks_pin(row)
            ]
            gone = await self._gone_elsewhere(connection, [row["id"] for row in lacking])
            rows += [row for row in lacking if row["id"] not in gone]
        return {row["id"]: row for row in rows}

    async def _ended_without_pin(
        self, connection: Connection, findings: Sequence[CheckResult], span: str
    ) -> dict[str, asyncpg.Record]:
        """Lock orders that ended as completed, not by a person, without the PIN that was read."""
        if not findings:
            return {}
        words = self.rules.words(Outcome.COMPLETED)
        sql = self.statements.late_lock_sql(self.statements.node(span))
        found = await connection.fetch(sql, [f.order.id for f in findings], list(words))
        rows = [row for row in found if self._lacks_pin(row)]
        if not rows:
            return {}
        ours = await connection.fetch(self._last_events_sql(), [row["id"] for row in rows])
        by_person = {row["id"] for row in ours if row["source"] == PERSON}
        gone = {row["id"] for row in ours if self._has_gone_elsewhere(row)}
        return {row["id"]: row for row in rows if row["id"] not in by_person | gone}

    async def _gone_elsewhere(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """Return those of these orders that have ended with a PIN which the shop has moved away:
        their rows do not show it.
        """
        if not (ids and self.table_config.pins_elsewhere):
            return set()
        rows = await connection.fetch(self._last_events_sql(), list(ids))
        return {row["id"] for row in rows if self._has_gone_elsewhere(row)}

    def _has_gone_elsewhere(self, event: LockedRow) -> bool:
        return self.table_config.pins_elsewhere and event["has_pin"]

    def _lacks_pin(self, row: LockedRow) -> bool:
        return is_no_pin(row["pin"], self.rules.no_pin)

    def _last_events_sql(self) -> str:
        cast = self.table["id"].cast
        return (
            f"SELECT DISTINCT ON (e.order_id) e.order_id::text AS id, e.source, e.has_pin FROM {events_of(self.table.schema)} e "
            f"WHERE e.order_id = ANY($1::text[]{cast}[]) ORDER BY e.order_id, e.id DESC"
        )

    async def _doubled(
        self, connection: Connection, orders: Sequence[Order], *, anywhere: bool = False
    ) -> list[str]:
        """Return the ids that several rows have, where no index prevents that: it is unknown which
        row is meant.

        Looks where these orders are stored, or ``anywhere``: a late PIN finds its row in any place,
        and would also find another row with its id.
        """
        if self.table.relation.is_unique:
            return []
        far = [order.id for order in orders if anywhere or order.awaits_pin]
        near = [order.id for order in orders if not (anywhere or order.awaits_pin)]
        places, found = self.statements.span(orders, only_places=True), []
        for span, ids in ((places, near), ("", far)):
            if ids:
                found += [
                    row["id"]
                    for row in await connection.fetch(self.statements.doubled_sql(span), ids)
                ]
        return found

    # --- deciding, on the locked rows

    async def decide_all(
        self,
        connection: Connection,
        findings: Mapping[str, CheckResult],
        rows: Mapping[str, LockedRow],
        ended: Mapping[str, LockedRow],
        *,
        with_notes: bool,
    ) -> list[WriteResult]:
        """Return what is to be written, by the locked ``rows`` and those that ``ended`` without
        PIN.
        """
        results, standing = await self._decided(
            connection, findings, rows, ended, with_notes=with_notes, confirmed=False
        )
        found_at = {order_id: noted.found_at for order_id, noted in standing.items()}
        results = await self.brake.hold(connection, results, found_at)
        return await self._claimed(connection, results, {**rows, **ended})

    async def would_write(
        self,
        connection: Connection,
        findings: Mapping[str, CheckResult],
        rows: Mapping[str, LockedRow],
    ) -> list[WriteResult]:
        """Return what would be written of findings, by their orders' ids, onto open ``rows``.

        Nothing is written, and nothing need be locked. The brake and the claims on codes go by what
        was written before, so they have no say; nor does the wait for a second answer.
        """
        decided = await self._decided(
            connection, findings, rows, {}, with_notes=True, confirmed=True
        )
        return decided[0]

    async def _decided(
        self,
        connection: Connection,
        findings: Mapping[str, CheckResult],
        rows: Mapping[str, LockedRow],
        ended: Mapping[str, LockedRow],
        *,
        with_notes: bool,
        confirmed: bool,
    ) -> tuple[list[WriteResult], dict[str, Standing]]:
        """Return what rows and dispatches say, and what is noted of the latter. With ``confirmed``
        a cancellation needs no second answer.
        """
        pairs = [(findings[i], row, i in ended) for i, row in (*rows.items(), *ended.items())]
        noted = [
            (f.order.id, f.account, f.order.reference.strip())
            for f, _, is_late in pairs
            if self._needs(f, is_late)
        ]
        standing = await self.dispatches.standing(connection, noted) if noted else {}
        held, put_back = await self._spared(connection, pairs, standing)
        results = [
            self._decide(
                f,
                row,
                standing.get(f.order.id),
                math.inf if f.order.id in put_back else held,
                is_late=is_late,
                with_notes=with_notes,
            )
            for f, row, is_late in pairs
        ]
        if not confirmed:
            resent = {
                i: rows[i]["sent_at"]
                for i, noted in standing.items()
                if i in rows and 0 < noted.touched < TOUCHED and rows[i]["sent_at"] is not None
            }
            results = await self.cancellations.hold(connection, results, resent)
        results = await self._without_twins(connection, results, standing, {**rows, **ended})
        results = await self._without_given(connection, results)
        return await self._without_paused(connection, results, ended), standing

    def may_end(self, finding: CheckResult) -> bool:
        """Whether an answer may end its order or bring its PIN: its dispatch is then needed."""
        if finding.by_person or finding.child is not None:
            return False
        is_waiting = isinstance(finding.answer, Waiting) and finding.age < self.rules.give_up_after
        return finding.order.awaits_pin or not is_waiting

    def _may_fail(self, finding: CheckResult) -> bool:
        """Whether an answer may fail its order, so that its login's ends must be counted."""
        return (
            self.may_end(finding)
            and not finding.order.awaits_pin
            and not isinstance(finding.answer, Completed)
        )

    def _needs(self, finding: CheckResult, is_late: bool) -> bool:  # noqa: FBT001 - private
        if finding.child is not None:
            return False
        return self.may_end(finding) or (is_late and not finding.by_person)

    async def _spared(
        self,
        connection: Connection,
        pairs: Sequence[tuple[CheckResult, LockedRow, bool]],
        standing: Mapping[str, Standing],
    ) -> tuple[float, set[str]]:
        """Return the time (epoch seconds) from which sent orders may be ended by their age, and the
        orders that may not, because a person has put them back to open: for the same time again.
        """
        limit = self.rules.give_up_after
        old = {
            f.order.id: f
            for f, row, _ in pairs
            if not isinstance(f.answer, Completed | Cancelled)
            and f.age_since(_counted_from(row, standing.get(f.order.id))) >= limit
        }
        if not old:
            return float("-inf"), set()
        sql = put_back_sql(self.table.schema, self.table["id"].cast)
        rows = await connection.fetch(sql, list(old))
        put_back = {row["id"] for row in rows if old[row["id"]].age_since(row["at"]) < limit}
        return await held_before(connection, self.table.schema), put_back

    def _decide(
        self,
        finding: CheckResult,
        row: LockedRow,
        noted: Standing | None,
        held: float,
        *,
        is_late: bool,
        with_notes: bool,
    ) -> WriteResult:
        status = row["status"]
        is_shops = self.table_config.accounts_from_shop and not finding.by_person
        if is_sent_again(row, finding.order.reference, finding.account if is_shops else None):
            return WriteResult(
                finding,
                WriteStatus.RESENT,
                status=status,
                review=_OTHER_DISPATCH if finding.pin is not None else None,
            )
        if row["settled"] and not finding.by_person:
            return _settled(finding, status)
        stands, sent_at = Row(status, row["pin"], row["note"]), _counted_from(row, noted)
        if finding.order.awaits_pin or is_late:
            decision = decide_late_pin(stands, finding.answer, self.rules)
        else:
            age = finding.age_since(sent_at)
            # A child decides about its parent, wherever it is; the parent's age never does.
            may_expire = (
                finding.vouched
                and row.get("reference_from") != ReferenceFrom.CHILD
                and not (row["sent_at"] is not None and row["sent_at"] < held)
            )
            decision = decide(
                stands,
                finding.answer,
                age,
                self.rules,
                may_expire=may_expire,
                unknown=_unknown(finding, noted, age),
            )
        is_partial = (
            not self.rules.writes_processing
            and isinstance(finding.answer, Waiting)
            and status not in (self.rules.processing, None)
        )
        match decision:
            case Write(final=True) if (
                noted is None and finding.is_told and not (finding.by_person or finding.child)
            ):
                # An order that ended is not read again: its PIN is for a person.
                lost = StuckReason.PIN_FOR_ENDED if is_late else None
                return WriteResult(finding, WriteStatus.RESENT, status=status, review=lost)
            case Write(final=True) if noted is not None and self._is_too_early(finding, row, noted):
                return WriteResult(finding, WriteStatus.RESENT, status=status, wait=True)
            case Write():
                finding.had, finding.had_none = row["pin"], self._lacks_pin(row)
                kept = decision if with_notes else replace(decision, note=None, message="")
                return WriteResult(
                    finding, WriteStatus.WRITTEN, write=kept, status=status, is_partial=is_partial
                )
            case Stuck(reason=reason, detail=detail):
                return WriteResult(
                    finding, WriteStatus.STUCK, stuck=reason, detail=detail, status=status
                )
            case Nothing():
                return WriteResult(
                    finding, WriteStatus.UNCHANGED, status=status, is_partial=is_partial
                )

    def _is_too_early(self, finding: CheckResult, row: LockedRow, noted: Standing) -> bool:
        """Whether the shop has changed the time of the dispatch, so that the answer may still be
        about the previous attempt.

        A completion is valid anyway. Anything else is believed if it came at least the time of a
        first check after the new time: so the order is asked about once more, and then the answer
        counts. A shop that changes the time at each save causes no endless delay: from `TOUCHED`
        changes on, they are ignored.
        """
        if isinstance(finding.answer, Completed) or noted.touched >= TOUCHED:
            return False
        known = finding.order.sent_at
        if row["sent_at"] is None:
            return known is not None  # The shop is just sending it again.
        is_moved = known is None or abs(row["sent_at"] - known) >= SAME_TIME
        return is_moved or (
            noted.touched > 0 and finding.seen_at - row["sent_at"] < self.rules.first_check
        )

    async def _without_twins(
        self,
        connection: Connection,
        results: Sequence[WriteResult],
        standing: Mapping[str, Standing],
        rows: Mapping[str, LockedRow],
    ) -> list[WriteResult]:
        """Hold back an end if another order has its reference: which is meant is unknown."""
        held: list[WriteResult] = []
        for result in results:
            noted = standing.get(result.order_id)
            is_end = (
                result.write is not None and result.write.final and not result.finding.by_person
            )
            if not is_end or noted is None or noted.meant or not noted.twins:
                held.append(result)
                continue
            order, row = result.finding.order, rows[result.order_id]
            twins = [
                twin
                for twin in await self.dispatches.twins(
                    connection, order.reference.strip(), noted.twins
                )
                if twin.root != row["root"] and not self._is_settled(row["sent_at"], twin)
            ]
            held.append(result if not twins else _twice(result, row["sent_at"], twins))
        return held

    def _is_settled(self, sent_at: float | None, twin: Twin) -> bool:
        """Whether the settings let the newest order of a reused reference be believed."""
        if self.table_config.reference_reuse != "newest" or twin.meant or sent_at is None:
            return False
        is_older = twin.sent_at is None or twin.sent_at < sent_at
        long_ago = (
            twin.sent_at is not None and sent_at - twin.sent_at > 2 * self.rules.give_up_after
        )
        before = twin.sent_at is not None and twin.sent_at < self.began_at
        return is_older and (not twin.is_open or long_ago or before)

    async def _without_given(
        self, connection: Connection, results: Sequence[WriteResult]
    ) -> list[WriteResult]:
        """Do not fail an order that was given a PIN before: the customer may have the code that a
        refund would pay back. A person may do it.

        Nor does age alone fail an order whose PIN the provider has sent but the row could not take.
        """
        failing = [r for r in results if _is_failure(r) and not r.finding.by_person]
        if not failing:
            return list(results)
        given = dict.fromkeys(
            await self.codes.given(connection, [r.order_id for r in failing]), _GIVEN
        )
        silent = [
            r.order_id for r in failing if r.write is not None and r.write.cause is Cause.TIME_LIMIT
        ]
        waiting = (
            await Reviews(self.table.schema).about(connection, self.table, silent) if silent else []
        )
        for order_id, kind in waiting:
            if kind in PIN_KINDS or kind == HELD_PIN:
                given.setdefault(order_id, _BROUGHT)
        return [
            r.kept_back(WriteStatus.STUCK, StuckReason.FAILED_WITH_PIN, why)
            if _is_failure(r) and (why := given.get(r.order_id))
            else r
            for r in results
        ]

    async def _without_paused(
        self, connection: Connection, results: Sequence[WriteResult], ended: Mapping[str, LockedRow]
    ) -> list[WriteResult]:
        """Write no end of an account whose ends a person holds; the order is read again once they
        are released. Nothing is claimed for it, but a PIN that was read is kept in mind.
        """
        ends = [r for r in results if is_end(r) and r.order_id not in ended]
        if not ends:
            return list(results)
        pauses = await Pauses(self.table.schema).read(connection)
        held = {
            r.order_id: pause
            for r in ends
            if (pause := pause_of_ends(pauses, r.finding.account or CONFIGURED)) is not None
        }
        return [
            r.kept_back(WriteStatus.HELD, None, f"ends are held by {pause.by}: {pause.reason}")
            if (pause := held.get(r.order_id))
            else r
            for r in results
        ]

    async def _claimed(
        self, connection: Connection, results: Sequence[WriteResult], rows: Mapping[str, LockedRow]
    ) -> list[WriteResult]:
        """Claim each code for its order; hold back a code of another order for a person."""
        claims: dict[str, Claim] = {}
        known: dict[str, bytes] = {}
        for result in results:
            finding = result.finding
            # Also what its row has already, as from the shop itself: then no PIN is written.
            is_claimed = result.write is not None or result.review is _OTHER_DISPATCH
            if finding.pin is None or not (is_claimed or is_left(result)):
                continue
            row = rows[finding.order.id]
            digest = self.codes.digest(finding.pin, row["own_words"] or "")
            if digest is None:
                continue
            known[finding.order.id] = digest
            if not is_claimed:
                continue
            claims[finding.order.id] = Claim(
                finding.order.id,
                row["root"],
                self.logins.of(finding.account),
                digest,
                is_text=self.codes.is_text(finding.pin),
                is_shared=self._shares(finding),
                same_as=finding.same_as,
            )
        owners = await self.codes.claim(connection, list(claims.values()))
        results = [replace(r, code=known.get(r.order_id)) for r in results]
        return [_kept_back(r, owners.get(r.order_id)) for r in results]

    def _shares(self, finding: CheckResult) -> bool:
        """Whether the order may have another's code: by settings, package mark, or a person."""
        is_marked = package_mark(finding.order) in self.shared
        return not self.table_config.unique_pins or is_marked or finding.same_as == ANY_ORDER

    # --- writing what was decided

    async def _update(
        self, connection: Connection, results: Sequence[WriteResult], span: str
    ) -> list[WriteResult]:
        """Change the locked rows of open orders."""
        sql = self.statements.update_sql(span)
        return await self._change(connection, results, sql, UPDATE, span)

    async def rehearse_on(self, connection: Connection, result: WriteResult) -> str:
        """Write one result as usual, onto a locked row of any status. The caller rolls it back.

        Return a remark about what was stored; empty if it is what was written.

        Raises:
            RowRejectedError: what was stored is not what was written.
            asyncpg.PostgresError: the database refuses it.
        """
        statements = self.statements
        span = statements.node(statements.span([result.finding.order]))
        sql = statements.update_sql(span, any_status=True)
        written = await self._change(connection, [result], sql, UPDATE, span)
        await connection.execute(CHECK_NOW)
        return written[0].notice

    async def _add_pins(
        self, connection: Connection, results: Sequence[WriteResult], span: str
    ) -> list[WriteResult]:
        """Add PINs to orders that ended without one. Their events are repeats and move no money."""
        node = self.statements.node(span)
        sql = self.statements.late_update_sql(node)
        return await self._change(connection, results, sql, LATE, node)

    async def _change(
        self,
        connection: Connection,
        results: Sequence[WriteResult],
        sql: str,
        parameters: Sequence[Parameter],
        span: str,
    ) -> list[WriteResult]:
        """Change locked rows; return the results with the data of their events.

        Raises:
            RowRejectedError: a trigger kept a row unchanged, or kept an order open.
        """
        if not results:
            return []
        rows = []
        for result in results:
            assert result.write is not None
            result.finding.attempted = result.write
            author = self.table_config.note_author
            change = Change(result.finding, result.write, result.status, author)
            rows.append(record_of(parameters, change))
        arrays = [list(column) for column in zip(*rows, strict=True)]
        stored = {row["id"]: row for row in await connection.fetch(sql, *arrays)}
        is_open = self.statements.open_statuses
        written = [_told(r, stored.get(r.order_id), is_open) for r in results]
        return await self._read_back(connection, written, span)

    async def _read_back(
        self, connection: Connection, results: Sequence[WriteResult], span: str
    ) -> list[WriteResult]:
        """Read back the rows of ends: a trigger may have changed them after the statement returned.

        Raises:
            RowRejectedError: a PIN is gone, or an order is still open.
        """
        ends = [
            r for r in results if r.write is not None and (r.write.final or r.write.pin is not None)
        ]
        if not ends:
            return list(results)
        await connection.execute(CHECK_NOW)
        ids = [r.order_id for r in ends]
        stored = {
            row["id"]: row for row in await connection.fetch(self.statements.status_sql(span), ids)
        }
        found = {r.order_id: self._compared(r, stored.get(r.order_id)) for r in ends}
        if changed := [r for i, r in found.items() if r.notice and i in stored]:
            rows = [stored[r.order_id] for r in changed]
            moved = [
                self.table_config.pins_elsewhere and r.write is not None and r.write.pin is not None
                for r in changed
            ]
            await connection.execute(
                f"UPDATE {events_of(self.table.schema)} e SET to_status = u.status, has_pin = u.has_pin "
                "FROM unnest($1::bigint[], $2::text[], $3::boolean[]) AS u(id, status, has_pin) WHERE e.id = u.id",
                [r.event_id for r in changed],
                [row["status"] for row in rows],
                [
                    not is_no_pin(row["pin"], self.rules.no_pin) or is_moved
                    for row, is_moved in zip(rows, moved, strict=True)
                ],
            )
        return [found.get(r.order_id, r) for r in results]

    def _compared(self, result: WriteResult, row: asyncpg.Record | None) -> WriteResult:
        write = result.write
        assert write is not None
        if row is None and self.table.relation.is_filtered:
            return replace(
                result, notice="it cannot be seen through the view any more, nor read back"
            )
        if row is None:
            raise RowRejectedError("a trigger or a rule took the row away")
        if row["status"] in self.statements.open_statuses:
            raise RowRejectedError("a trigger kept the order open")
        is_gone = is_no_pin(row["pin"], self.rules.no_pin)
        if write.pin is not None and is_gone and not self.table_config.pins_elsewhere:
            raise RowRejectedError("a trigger took the PIN away")
        has_pin = write.pin is None or is_gone or write.pin.is_same(row["pin"])
        if row["status"] == write.status and has_pin:
            return result
        what = "another status" if row["status"] != write.status else "another PIN"
        return replace(
            result,
            write=replace(write, status=row["status"]),
            notice=f"the table holds {what} than was written",
        )

    async def marked(self, connection: Connection, results: list[WriteResult]) -> list[WriteResult]:
        """Note of open orders whether their answers are understood, where that has changed."""
        is_odd = {r.order_id: odd for r in results if (odd := _mark_of(r)) is not None}
        if not is_odd:
            return results
        await self.dispatches.mark(
            connection, [(r.finding, is_odd[i]) for r in results if (i := r.order_id) in is_odd]
        )
        return [replace(r, marked=True) if r.order_id in is_odd else r for r in results]

    async def _touch(
        self, connection: Connection, findings: Iterable[CheckResult], span: str
    ) -> None:
        """Record the time of a check that changed nothing else."""
        checked = {
            f.order.id: f.seen_at for f in findings if not f.order.awaits_pin and not f.by_person
        }
        if not checked or not self.records_every_check:
            return
        await connection.execute(
            self.statements.touch_sql(span), list(checked), list(checked.values())
        )

    async def _missing(
        self, connection: Connection, findings: Sequence[CheckResult], span: str
    ) -> list[WriteResult]:
        """Find out why rows were not locked: another session's lock, another decision, or our own
        earlier commit.
        """
        rows = await connection.fetch(
            self.statements.status_sql(self.statements.node(span)), [f.order.id for f in findings]
        )
        there = {row["id"]: row for row in rows}
        open_statuses = self.statements.open_statuses
        ended = [row["id"] for row in rows if row["status"] not in open_statuses]
        gone = await self._gone_elsewhere(connection, ended)
        lacking = {row["id"] for row in rows if self._lacks_pin(row)} - gone
        given = {
            f.order.id
            for f in findings
            if f.order.id in gone
            and f.pin is not None
            and await self.held_pins.has_code(connection, f.order.id, f.pin)
        }
        return [
            _explain(
                f,
                there.get(f.order.id),
                open_statuses,
                lacks_pin=f.order.id in lacking,
                is_given=f.order.id in given,
            )
            for f in findings
        ]


def _mark_of(result: WriteResult) -> bool | None:
    """Return whether to mark a dispatch as odd or, if False, as understood; None: neither."""
    finding = result.finding
    if finding.by_person or finding.order.awaits_pin or result.fate is WriteStatus.RESENT:
        return None
    is_ended = result.write is not None and result.write.final
    if finding.is_told:
        return False if finding.is_odd_noted or not (finding.order.understood or is_ended) else None
    return (
        True if finding.odd_since is not None and not (finding.is_odd_noted or is_ended) else None
    )


def _counted_from(row: LockedRow, noted: Standing | None) -> float | None:
    """Return the time from which an order's age counts (epoch seconds)."""
    if noted is not None and noted.touched >= TOUCHED:
        return noted.found_at
    sent_at: float | None = row["sent_at"]
    return sent_at


def _unknown(finding: CheckResult, noted: Standing | None, age: float) -> Unknown | None:
    """Return for how long the provider has not known an order, according to the table that all
    processes share; None if it does know it.

    Never longer than the order's own age, since it may have been sent again under the same
    reference. If no order of the account is understood, it is that age: then a person must look at
    the order, and nothing fails it.
    """
    if finding.nobody_understood:
        return Unknown(age)
    if finding.odd_since is None or noted is None or noted.odd_at is None:
        return None
    return Unknown(min(age, finding.age_since(noted.odd_at)), finding.others_understood)


_OTHER_DISPATCH: Final = StuckReason.PIN_FOR_OTHER_DISPATCH
_GIVEN: Final = "it was given a PIN before"
_BROUGHT: Final = "the provider has sent a PIN for it, which is for review"


def package_mark(order: Order) -> str:
    """Return the mark of a package whose orders share their codes: its tenant and its own id."""
    return f"{order.tenant_id or ''} {order.package or ''}"


def by_node(table: Table, findings: Sequence[CheckResult]) -> Iterable[Sequence[CheckResult]]:
    """Group results by what one statement may lock: with Citus, rows surely on one node."""
    key = table.relation.distributed_by
    if key is None:
        return [findings]
    groups: dict[str | None, list[CheckResult]] = {}
    for finding in findings:
        node = finding.order.id if key == table["id"].name else finding.order.tenant_id
        groups.setdefault(node, []).append(finding)
    return groups.values()


async def rehearse(connection: Connection, statements: Statements) -> None:
    """Run the statements that write, on no row."""
    await connection.fetch(statements.lock_sql(NOWHERE), [])
    await connection.fetch(statements.update_sql(), *([[]] * len(UPDATE)))


def _told(
    result: WriteResult, stored: asyncpg.Record | None, open_statuses: Sequence[str]
) -> WriteResult:
    write = result.write
    assert write is not None
    if stored is None:
        raise RowRejectedError("a trigger or a rule kept the row from changing")
    if write.final and stored["status"] in open_statuses:
        raise RowRejectedError("a trigger kept the order open")
    review = StuckReason.REPEAT_SENT_ANEW if stored["anew"] and write.final else result.review
    return replace(result, repeat=stored["repeat"], event_id=stored["event_id"], review=review)


def _explain(
    finding: CheckResult,
    row: asyncpg.Record | None,
    open_statuses: Sequence[str],
    *,
    lacks_pin: bool,
    is_given: bool,
) -> WriteResult:
    """Say why a ``row`` was not locked. ``is_given``: the shop has moved away the finding's PIN."""
    kept = StuckReason.PIN_FOR_ENDED if finding.pin is not None and not finding.by_person else None
    if row is None:
        return WriteResult(finding, WriteStatus.GONE, detail="the row is deleted", review=kept)
    is_late = finding.order.awaits_pin
    is_same = is_late and row["status"] == finding.order.status and lacks_pin
    if is_same or (not is_late and row["status"] in open_statuses):
        return WriteResult(finding, WriteStatus.LOCKED, status=row["status"])
    tried, stored = finding.attempted, row["pin"] or ""
    if (
        tried is not None
        and tried.status == row["status"]
        and (tried.pin is None or tried.pin.is_same(stored) or is_given)
    ):
        return WriteResult(finding, WriteStatus.WRITTEN, write=tried, status=finding.order.status)
    status = clean(row["status"] or "")
    if finding.pin is not None and (finding.pin.is_same(stored) or is_given):
        return WriteResult(finding, WriteStatus.GONE, status=status)
    detail = f"it is {status!r}{'' if lacks_pin else ', with another PIN'}"
    return WriteResult(
        finding, WriteStatus.GONE, status=status, detail=detail if kept else "", review=kept
    )


def _settled(finding: CheckResult, status: str) -> WriteResult:
    """Drop an order that the shop has settled itself since it was asked about.

    A PIN that was read is for a person. It is unknown whether the customer now has the goods or the
    money, so our end must not move either a second time.
    """
    kept = StuckReason.PIN_FOR_ENDED if finding.pin is not None else None
    return WriteResult(
        finding,
        WriteStatus.GONE,
        status=status,
        detail="the shop has settled it by its own status",
        review=kept,
    )


def _twice(result: WriteResult, sent_at: float | None, twins: Sequence[Twin]) -> WriteResult:
    """Hold back an order whose reference others have; one review, on the newest open one."""
    order = result.finding.order
    others = [(twin.sent_at or 0.0, twin.id) for twin in twins if twin.is_open]
    newest = max([(sent_at or 0.0, order.id), *others])[1]
    named = ", ".join(sorted({order.id, *(twin.id for twin in twins)} - {newest}))
    detail = f"order {named} has the same reference"
    held = result.kept_back(WriteStatus.STUCK, StuckReason.REFERENCE_TWICE, detail)
    return replace(held, review_of=newest)


def _kept_back(result: WriteResult, owner: str | None) -> WriteResult:
    if owner is None or result.write is None:
        return result
    detail = f"order {owner} has the same"
    return result.kept_back(WriteStatus.STUCK, StuckReason.PIN_DUPLICATE, detail)


def _is_failure(result: WriteResult) -> bool:
    return result.write is not None and result.write.outcome.is_refund
