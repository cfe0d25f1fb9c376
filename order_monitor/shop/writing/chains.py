"""Orders that another tenant of the shop took, as a separate order in the same table: each ends as
that order, its child, has ended.

A link counts only if both sides name it, so that no stranger's PIN gets into an order. It is read
again under the parent's lock, with the child's row locked, and written like every end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import asyncpg

from order_monitor.core.answer import Answer, Cancelled, Completed, Garbled
from order_monitor.core.check_result import ANY_ORDER, CheckResult, WriteResult, WriteStatus
from order_monitor.core.order import Order, Route
from order_monitor.core.outcome import FINAL, Cause, Outcome
from order_monitor.core.pin import NoPin, Pin, Unreadable, may_hold_code, read_pin
from order_monitor.core.text import without_codes
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.reading.queries import Queries, order_of
from order_monitor.shop.reading.recent_ends import LOOKED_AT, no_pin_since
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.columns import Table, literal
from order_monitor.shop.schema.table_config import (
    events_of,
    is_open,
    is_paid_back,
    is_settled,
    literals,
    may_lack_pin,
)
from order_monitor.shop.writing.dispatches import LockedRow, account_of
from order_monitor.shop.writing.event_sql import outcome_of
from order_monitor.shop.writing.order_writer import OrderWriter
from order_monitor.shop.writing.row_writer import RowWriter

_LAST: Final = 2**31 - 1
_DEEPEST: Final = 1000
"""The maximum length of a chain: longer than any real one, as a stop for unforeseen cases."""

_APPROVED, _REJECTED = "approved", "rejected"
"""The shop's own status of an order that has ended."""

_MESSAGES: Final = ("told", "message", "note")
_TEXTS: Final = (*_MESSAGES, "manual_note")


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """An order, its child, and the child's end.

    ``level`` is the number of orders between it and the one that ended first. ``answer`` is None if
    the child ends only in this pass.
    """

    order: Order
    child: str
    level: int
    answer: Answer | None

    def finding(self, answer: Answer, now: float) -> CheckResult:
        """Return the end to write, as found at ``now`` (epoch seconds)."""
        account = account_of(self.order)
        # Without `vouched`: the child decides, never the age of its parent.
        found = CheckResult(self.order, answer, now, now, account=account, vouched=False)
        found.child = found.same_as = self.child
        return found


class ChainTable:
    """Finds the orders whose child has ended, and writes their ends.

    Each method raises `ShopError` where the database cannot be asked, and `SettingsError` where the
    table is not as required.
    """

    def __init__(self, database: Database, schema_cache: SchemaCache) -> None:
        """Use the tables known to ``schema_cache``."""
        self._database = database
        self._schema_cache = schema_cache
        self._writer = _ChainWriter(database, schema_cache)

    async def ended(self) -> list[ChainEnd]:
        """Return all open orders that end with this pass, nearest to an ended child first."""
        return [
            ChainEnd(order_of(r), r["child"], r["level"], answer)
            for r, answer in await self._read(_Sql.ended)
        ]

    async def late_pins(self) -> list[ChainEnd]:
        """Return orders that ended with their child and without a PIN, if the child now has one."""
        return [
            ChainEnd(order_of(r, r["ended_at"]), r["child"], 1, answer)
            for r, answer in await self._read(_Sql.late)
            if isinstance(answer, Completed) and answer.pin is not None
        ]

    async def _read(
        self, statement: Callable[[_Sql], str | None]
    ) -> list[tuple[asyncpg.Record, Answer | None]]:
        """Return what a statement finds, each order once, with what its child says by now."""
        await self._schema_cache.complete()
        sql = statement(_Sql(self._schema_cache))
        if sql is None:
            return []
        no_pin = self._schema_cache.table_config.rules.no_pin
        async with self._schema_cache.transaction() as connection:
            rows = _by_id(await connection.fetch(sql))
        return [(found[0], answer_of(found, no_pin)) for found in rows.values()]

    async def record(self, findings: Sequence[CheckResult]) -> list[WriteResult]:
        """Write ends: all of them or none, like `OrderWriter.record`.

        Raises:
            RowRejectedError: some of several are refused, or a single one for now.
            ShopError: all or nothing may have been committed.
        """
        return await self._writer.record(findings)


def _by_id(rows: Iterable[asyncpg.Record]) -> dict[str, list[asyncpg.Record]]:
    """Return the rows by their orders' ids: several of one where its child's id is not its own."""
    found: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return found


def answer_of(
    rows: Sequence[Mapping[str, Any] | asyncpg.Record], no_pin: Collection[str]
) -> Answer | None:
    """Return a child's row as a provider's answer; None if it has not ended.

    Contradictions, several rows, and texts that may contain the code when there is no PIN, go to a
    person.
    """
    if len(rows) > 1:
        return Garbled("unknown_state", "more rows than one have its child's id, or its own")
    (row,) = rows
    by_status, by_event = row["by_status"], row["by_event"]
    if by_status is None and by_event is None:
        return None
    if None not in (by_status, by_event) and by_status != by_event:
        return Garbled(
            "unknown_state", f"its child's event says {by_event}, its status {by_status}"
        )
    stored = row["child_pin"]
    pin = NoPin() if stored is None else read_pin(str(stored), no_pin)
    if isinstance(pin, Unreadable):
        return Garbled("unreadable_pin", f"its child ended ({pin.holds} in the PIN's place)")
    texts = {name: str(row[name]) for name in _TEXTS if row[name]}
    message = next((texts[name] for name in _MESSAGES if name in texts), "")
    if (by_status or by_event) == Outcome.COMPLETED:
        return _completed(pin, message, texts.values(), had_pin=row["had_pin"])
    if isinstance(pin, NoPin):
        return Cancelled(without_codes(message))
    return Garbled("unreadable_pin", "its child failed, and has a PIN")


def _completed(
    pin: Pin | NoPin, message: str, texts: Iterable[str], *, had_pin: bool
) -> Completed | Garbled:
    """Return a completed child's answer; ``had_pin`` tells whether its event had a PIN."""
    if isinstance(pin, Pin):
        return Completed(pin, without_codes(pin.masked(message)))
    if had_pin:
        return Garbled("unreadable_pin", "its child had a PIN, which is not in the row")
    if any(map(may_hold_code, texts)):
        return Garbled("unreadable_pin", "its child ended (its texts may hold the code)")
    return Completed(None, message)


class _ChainWriter(OrderWriter):
    """Writes the ends of parents: like any end, with proof required under the lock."""

    @property
    def _row_writer(self) -> RowWriter:
        base = super()._row_writer
        known = {field.name: getattr(base, field.name) for field in fields(base)}
        return _ChainRowWriter(**known, proof_sql=_Sql(self._schema_cache).proof())


@dataclass(frozen=True, slots=True)
class _ChainRowWriter(RowWriter):
    """Decides by the child's state while its row is locked; ``proof_sql`` reads it."""

    proof_sql: str | None = None

    async def decide_all(
        self,
        connection: Connection,
        findings: Mapping[str, CheckResult],
        rows: Mapping[str, LockedRow],
        ended: Mapping[str, LockedRow],
        *,
        with_notes: bool,
    ) -> list[WriteResult]:
        """Decide only what the child still confirms."""
        found: dict[str, list[asyncpg.Record]] = {}
        if self.proof_sql is not None and (ids := [*rows, *ended]):
            found = _by_id(await connection.fetch(self.proof_sql, ids))
        proven: dict[str, CheckResult] = {}
        unproven: list[WriteResult] = []
        for order_id, finding in findings.items():
            said = found.get(order_id, [])
            answer = answer_of(said, self.rules.no_pin) if said else None
            if answer is not None and all(row["child"] == finding.child for row in said):
                finding.answer = answer
                # Whose code it is was judged when we wrote it into the child's row. The code's owner
                # is the order it came to first, which may be several levels below.
                is_judged = any(row["had_pin"] for row in said)
                finding.same_as = ANY_ORDER if is_judged else finding.child
                proven[order_id] = finding
            elif order_id in rows or order_id in ended:
                unproven.append(WriteResult(finding, WriteStatus.RESENT))
        kept = {i: row for i, row in rows.items() if i in proven}
        late = {i: row for i, row in ended.items() if i in proven}
        return [
            *await RowWriter.decide_all(
                self, connection, proven, kept, late, with_notes=with_notes
            ),
            *unproven,
        ]


class _Sql:
    """The statements, built from the columns."""

    def __init__(self, schema_cache: SchemaCache) -> None:
        self._cache = schema_cache
        self._table = schema_cache.table
        self._queries = Queries(schema_cache)

    def ended(self) -> str | None:
        """SQL for the open orders that end with this pass; None if there can be none.

        It goes from the open orders to their children by the primary key, and from the ended ones
        upward. Each order has one child, so an end can never lead into a circle.
        """
        internal = self._internal()
        if internal is None:
            return None
        t, config = self._table, self._cache.table_config
        where = f"WHERE o.{is_open(t, config)}{self._queries.watched()} AND NOT {is_settled(t, config, 'o')}"
        return (
            f"WITH RECURSIVE p AS MATERIALIZED (SELECT * FROM ({self._queries.select_sql(self._named())} {where}) p "
            f"WHERE {internal}), edge AS MATERIALIZED (SELECT p.id, {self._child()} FROM {self._edges()}), "
            "up AS (SELECT edge.id, 1 AS level FROM edge WHERE edge.is_over "
            "UNION SELECT edge.id, up.level + 1 FROM up JOIN edge ON edge.child = up.id "
            f"WHERE NOT edge.is_over AND up.level < {_DEEPEST}) "
            "SELECT p.*, edge.*, up.level FROM up JOIN edge ON edge.id = up.id JOIN p ON p.id = up.id "
            "ORDER BY up.level, p.id"
        )

    def late(self) -> str | None:
        """SQL for orders that ended with their child, without a PIN, while the child has ended."""
        internal = self._internal()
        if internal is None:
            return None
        t, config = self._table, self._cache.table_config
        events, pin = events_of(config.schema), f"o.{t['pin_code'].sql}::text"
        ends = (
            "SELECT DISTINCT ON (order_id) order_id, to_status, extract(epoch FROM decided_at)::float8 AS ended_at "
            f"FROM {events} t WHERE id > (SELECT COALESCE(max(id), 0) FROM {events}) - {LOOKED_AT} "
            f"AND cause = {literal(Cause.CHILD)} AND outcome = {literal(Outcome.COMPLETED)} "
            f"AND NOT has_pin{no_pin_since(config, 't')} "
            "ORDER BY order_id, id DESC"
        )
        parents = (
            f"{self._queries.select_sql(self._named() + ', e.ended_at')} JOIN ({ends}) e ON e.order_id = o.{t['id'].sql} "
            f"WHERE o.{t['external_status'].sql}::text = e.to_status AND {may_lack_pin(pin, config)} "
            f"AND NOT {is_paid_back(t, config, 'o')}"
        )
        return f"SELECT p.*, {self._child()} FROM {self._edges(parents)} AND {internal}"

    def proof(self) -> str | None:
        """SQL for the state of the children of some orders (``$1``), with each child's row locked
        against changes.

        A child that another session is changing is skipped.
        """
        internal, t = self._internal(), self._table
        if internal is None:
            return None
        which = f"WHERE o.{t['id'].sql} = ANY($1::text[]{t['id'].cast}[])"
        parents = f"{self._queries.select_sql(self._named())} {which}"
        return (
            f"SELECT p.id, {self._child()} FROM {self._edges(parents)} AND {internal} "
            "FOR SHARE OF c SKIP LOCKED"
        )

    def _internal(self) -> str | None:
        """SQL for whether another tenant took an order."""
        accounts = self._cache.shop_tables.accounts
        if accounts is None or self._table.get("external_order_id") is None:
            return None
        return f"(p.route = {Route.INTERNAL:d} OR p.integration IN ({accounts.internal_sql()}))"

    def _named(self) -> str:
        """SQL for further columns by which an order names others."""
        t = self._table
        return (
            f", {_text(t, 'o', 'external_order_id')} AS ext, {_text(t, 'o', 'provider_referans')} AS own, "
            f"{_text(t, 'o', 'root_order_id')} AS root, {_text(t, 'o', 'chain_path')} AS path"
        )

    def _edges(self, parents: str = "") -> str:
        """SQL, from its FROM clause on, for ``parents`` (or a table ``p``) joined to their children
        through links that both sides name.

        A row that names its parent is not a parent of it: a new order's own columns do that.
        """
        t, c = self._table, "c"
        names = {
            "p_id": "lower(p.id)",
            "p_ref": "lower(p.own)",
            "p_root": "lower(p.root)",
            "p_path": _path("p.path"),
            "c_id": f"lower({_text(t, c, 'id')})",
            "c_ref": f"lower({_text(t, c, 'provider_referans')})",
            "c_ext": f"lower({_text(t, c, 'external_order_id')})",
            "c_root": f"lower({_text(t, c, 'root_order_id')})",
            "c_path": _path(_text(t, c, "chain_path")),
        }
        columns = ", ".join(f"{sql} AS {name}" for name, sql in names.items())
        event = (
            f"SELECT {_event_outcome(self._cache)} AS outcome, e.to_status, e.message, e.has_pin FROM {events_of(t.schema)} e "
            f"WHERE e.order_id = c.{t['id'].sql} AND e.outcome IS DISTINCT FROM 'late' ORDER BY e.id DESC LIMIT 1"
        )
        is_named = (
            "n.c_root = n.p_id OR n.c_ref = n.p_id OR "
            f"array_position(n.c_path, n.p_id) < COALESCE(array_position(n.c_path, n.c_id), {_LAST}) OR "
            "(n.c_ext IS DISTINCT FROM n.p_id AND (n.c_root = n.p_root OR n.p_root = ANY(n.c_path)))"
        )
        is_reverse = (
            "n.c_id = n.p_id OR n.p_ref = n.c_id OR n.p_root = n.c_id OR "
            f"array_position(n.p_path, n.c_id) < COALESCE(array_position(n.p_path, n.p_id), {_LAST})"
        )
        return (
            f"{f'({parents}) p' if parents else 'p'} JOIN {t.sql} c ON c.{t['id'].sql} = {t.id_sql('p.ext')} "
            f"CROSS JOIN LATERAL (SELECT {columns}) n LEFT JOIN LATERAL ({event}) e ON true "
            f"WHERE COALESCE({is_named}, false) AND NOT COALESCE({is_reverse}, false)"
        )

    def _child(self) -> str:
        """SQL for a child ``c``'s state: its end by its event, and by the shop's own status.

        Its external status alone is not an end: the shop writes that without moving money. Nor is
        an event whose status the row no longer has, as after a retry or a person's correction; it
        counts only where it contradicts the shop's own status.
        """
        t, config = self._table, self._cache.table_config
        status = f"lower({_text(t, 'c', 'shop_status')})"
        by_status = (
            f"CASE {status} WHEN '{_APPROVED}' THEN {literal(Outcome.COMPLETED)} "
            f"WHEN '{_REJECTED}' THEN {literal(Outcome.FAILED)} END"
        )
        stays = f"COALESCE(c.{is_open(t, config)}, false)"
        holds = f"(c.{t['external_status'].sql}::text = e.to_status OR {by_status} IS NOT NULL)"
        by_event = f"CASE WHEN e.outcome IN ({literals(FINAL)}) AND NOT {stays} AND {holds} THEN e.outcome END"
        return (
            f"{_text(t, 'c', 'id')} AS child, {by_status} AS by_status, {by_event} AS by_event, "
            f"COALESCE({by_status}, {by_event}) IS NOT NULL AS is_over, "
            f"c.{t['pin_code'].sql}::text AS child_pin, COALESCE(e.has_pin, false) AS had_pin, "
            f"CASE WHEN {by_event} IS NOT NULL THEN e.message END AS told, {_text(t, 'c', 'provider_message')} AS message, "
            f"{_text(t, 'c', 'note')} AS note, {_text(t, 'c', 'manual_note')} AS manual_note"
        )


def _text(table: Table, alias: str, logical: str) -> str:
    """SQL for a text column without surrounding blanks, NULL if it is missing or empty."""
    column = table.get(logical)
    return "NULL::text" if column is None else f"NULLIF(btrim({alias}.{column.sql}::text), '')"


def _path(text: str) -> str:
    """SQL for the orders in a chain's path, a list stored as JSON, in their order."""
    return f"string_to_array(btrim(regexp_replace(lower({text}), '[^0-9a-z_-]+', ' ', 'g')), ' ')"


def _event_outcome(schema_cache: SchemaCache) -> str:
    return f"COALESCE(e.outcome, {outcome_of('e.to_status', schema_cache.table_config)})"
