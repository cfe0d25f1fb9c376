"""The statements that write the orders table: lock, update with its event, note a check. Their text follows from the columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from order_monitor.core.order import Order
from order_monitor.shop.columns import Table, literal, quoted
from order_monitor.shop.layout import DELIVERIES, Layout, events_of, literals, open_statuses

CHANNEL: Final = "order_monitor"
AUTHOR: Final = "order-monitor"
COMPLETED_WORDS: Final = ("completed", "delivered", "done", "approved")
FAILED_WORDS: Final = ("failed", "rejected", "cancelled", "canceled", "refunded")
_MARGIN: Final = 1.0
"""Seconds about the times read: what a float rounds away must not lead to another partition."""

UPDATE_PARAMETERS: Final = 13
"""How many arrays `Statements.update_sql` takes."""


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL for one table as it was found. ``events``: is the events table there; ``outcomes``: has it that column."""

    table: Table
    layout: Layout
    events: bool
    outcomes: bool = True

    @property
    def open_statuses(self) -> tuple[str, ...]:
        """The statuses of open orders that the column can hold."""
        return open_statuses(self.table, self.layout)

    def span(self, orders: Iterable[Order]) -> str:
        """SQL that leads to the partitions of these orders alone, of a table that is partitioned by the time they were sent at.

        Nothing for any other table, whose index needs no help.
        """
        column, times = self.table["sent_at"], [order.sent_at for order in orders]
        if column.name not in self.table.shape.partitioned_by or not times or None in times:
            return ""
        known = [time for time in times if time is not None]
        first, last = (self.table.instant("sent_at", repr(t)) for t in (min(known) - _MARGIN, max(known) + _MARGIN))
        return f" AND o.{column.sql} BETWEEN {first} AND {last}"

    def lock_sql(self, span: str = "") -> str:
        """SQL that locks the open ones among given orders; what somebody else holds is passed over, not waited for."""
        t = self.table
        note = f"o.{t['note'].sql}::text" if t.get("note") else "NULL::text"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "
            f"o.{t['pin_code'].sql}::text AS pin, {note} AS note, o.{t['provider_referans'].sql}::text AS referans "
            f"FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}) "
            f"AND o.{t['external_status'].compared} IN ({literals(self.open_statuses)}){span} "
            f"ORDER BY o.{t['id'].sql} FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def update_sql(self, span: str = "") -> str:
        """SQL that changes locked rows; the compare stands in its own WHERE too."""
        t = self.table
        status, pin = t["external_status"], f"o.{t['pin_code'].sql}"
        tenant = f"o.{t['tenant_id'].sql}" if t.get("tenant_id") else "NULL"
        update = (
            f"UPDATE {t.sql} AS o SET {', '.join(self._sets())} FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], "
            f"$5::text[], $6::float8[], $7::float8[], $8::int4[], $9::text[], $10::text[], $11::int4[], $12::float8[], "
            f"$13::text[]) AS u(id, status, pin, note, message, seen_at, done_at, duration, was, told, checks, sent_at, outcome) "
            f"WHERE o.{t['id'].sql} = u.id{t['id'].cast} AND o.{status.compared} IN ({literals(self.open_statuses)}) "
            f"AND (u.pin IS NULL OR COALESCE(btrim({pin}), '') IN ('', u.pin)){span} "
            f"RETURNING o.{t['id'].sql} AS id, {tenant} AS tenant_id, o.{status.sql}::text AS status, {pin}::text AS pin, "
            f"u.was, u.told, u.checks, u.sent_at, u.outcome, false AS is_late"
        )
        return self._with_event(update)

    def late_lock_sql(self) -> str:
        """SQL that locks those among given orders that stand at the status given and have no PIN."""
        t = self.table
        status, pin = f"o.{t['external_status'].sql}::text", f"o.{t['pin_code'].sql}::text"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, {status} AS status, {pin} AS pin, NULL::text AS note, "
            f"o.{t['provider_referans'].sql}::text AS referans FROM {t.sql} o "
            f"JOIN unnest($1::text[], $2::text[]) AS u(id, status) ON o.{t['id'].sql} = u.id{t['id'].cast} "
            f"AND {status} = u.status WHERE COALESCE(btrim({pin}), '') = '' "
            f"ORDER BY o.{t['id'].sql} FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def late_update_sql(self) -> str:
        """SQL that puts a PIN into orders that ended without one, and leaves the rest of them as it is."""
        t = self.table
        status, pin = f"o.{t['external_status'].sql}::text", f"o.{t['pin_code'].sql}"
        tenant = f"o.{t['tenant_id'].sql}" if t.get("tenant_id") else "NULL"
        return self._with_event(
            f"UPDATE {t.sql} AS o SET {t['pin_code'].sql} = u.pin "
            "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int4[], $6::float8[]) "
            f"AS u(id, status, pin, told, checks, sent_at) WHERE o.{t['id'].sql} = u.id{t['id'].cast} "
            f"AND {status} = u.status AND COALESCE(btrim({pin}), '') = '' "
            f"RETURNING o.{t['id'].sql} AS id, {tenant} AS tenant_id, {status} AS status, {pin}::text AS pin, "
            "u.status AS was, u.told, u.checks, u.sent_at, 'completed' AS outcome, true AS is_late"
        )

    def _with_event(self, update: str) -> str:
        if not self.events:
            return f"WITH changed AS ({update}) SELECT id::text, status, pin, false AS repeat FROM changed"
        return f"WITH changed AS ({update}), {self._event_sql()}"

    def touch_sql(self, span: str = "") -> str:
        """SQL that notes the time of a check of open orders."""
        t = self.table
        return (
            f"UPDATE {t.sql} AS o SET {t['last_sync_at'].sql} = {t.instant('last_sync_at', 'u.seen_at')} "
            f"FROM unnest($1::text[], $2::float8[]) AS u(id, seen_at) WHERE o.{t['id'].sql} = u.id{t['id'].cast} "
            f"AND o.{t['external_status'].compared} IN ({literals(self.open_statuses)}){span}"
        )

    def status_sql(self) -> str:
        """SQL that reads how given orders stand, without a lock."""
        t = self.table
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "
            f"o.{t['pin_code'].sql}::text AS pin FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')})"
        )

    def doubled_sql(self, span: str = "") -> str:
        """SQL that names those among given orders whose id more rows than one have, whatever their status."""
        t = self.table
        return (
            f"SELECT o.{t['id'].sql}::text AS id FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}){span} "
            f"GROUP BY o.{t['id'].sql} HAVING count(*) > 1"
        )

    def _ids(self, parameter: str) -> str:
        cast = self.table["id"].cast
        return f"{parameter}::text[]{cast}[]" if cast else f"{parameter}::text[]"

    def _event_sql(self) -> str:
        """SQL that records each change of status and gives one hint for all; the hint must be read to be given at all."""
        events = events_of(self.table.schema)
        deliveries = f"{quoted(self.table.schema)}.{quoted(DELIVERIES)}"
        outcome = ", outcome" if self.outcomes else ""
        told = outcome_of("e.to_status", self.layout)
        before = f"COALESCE(e.outcome, {told})" if self.outcomes else told
        is_first = f"COALESCE({before} = c.outcome, e.to_status = c.status) AND NOT e.repeat"
        value = ", c.outcome" if self.outcomes else ""
        queued = f"queued AS (INSERT INTO {deliveries} (event_id, order_id) SELECT id, order_id FROM event), "
        return (
            f"event AS (INSERT INTO {events} "
            f"(order_id, tenant_id, from_status, to_status, has_pin, message, checks, sent_at, decided_by, repeat{outcome}) "
            "SELECT c.id, c.tenant_id, c.was, c.status, COALESCE(btrim(c.pin), '') <> '', c.told, c.checks, "
            f"to_timestamp(c.sent_at), {literal(self.layout.author)}, c.is_late OR EXISTS (SELECT 1 FROM {events} e "
            f"WHERE e.order_id = c.id AND {is_first}){value} "
            "FROM changed c WHERE c.is_late OR c.was IS DISTINCT FROM c.status RETURNING id, order_id, repeat), "
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


def outcome_of(status: str, layout: Layout) -> str:
    """SQL of what a change to ``status`` meant, for events that do not say so: by the settings' words, then by the usual ones.

    NULL for a word that nobody knows.
    """
    rules = layout.rules
    named = {"completed": (rules.completed, *COMPLETED_WORDS), "failed": (rules.failed, *FAILED_WORDS)}
    cases = [f"WHEN {status} = {literal(rules.processing)} THEN 'processing'"]
    cases += [f"WHEN {status} IN ({literals(dict.fromkeys(words))}) THEN '{name}'" for name, words in named.items()]
    cases.append(f"WHEN {status} IN ({literals(layout.open)}) THEN 'reopened'")
    return f"CASE {' '.join(cases)} END"
