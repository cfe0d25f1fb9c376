"""The statements that write the orders table: lock, update with its event, note a check. Their text follows from the columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.shop.accounts import own_sql
from order_monitor.shop.columns import Table, literal, quoted
from order_monitor.shop.dispatches import root_sql
from order_monitor.shop.event_sql import with_event
from order_monitor.shop.layout import (
    Layout,
    events_of,
    is_settled,
    lacks_pin,
    literals,
    may_lack_pin,
    open_statuses,
)
from order_monitor.shop.set_sql import sets_of

_MARGIN: Final = 1.0
"""Seconds about the times read: what a float rounds away must not lead to another partition."""

_CLOCKS_SET: Final = 7200.0
"""The same where a time without zone may be one that never was: it is written back as one that was."""

NOWHERE: Final = " AND false"
"""In place of a `Statements.span`: for a statement that is only tried, and must find no row."""

UPDATE_PARAMETERS: Final = 20
"""How many arrays `Statements.update_sql` takes."""


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL for one table as it was found. Without ``hints`` no notification goes with an event."""

    table: Table
    layout: Layout
    hints: bool = True

    @property
    def open_statuses(self) -> tuple[str, ...]:
        """The statuses of open orders that the column can hold."""
        return open_statuses(self.table, self.layout)

    def span(self, orders: Iterable[Order], *, only_places: bool = False) -> str:
        """SQL that says whose these orders are, and where in time a table partitioned by it has them.

        It leads to their partitions alone, and in a table that Citus has distributed to their tenant's node: with ``only_places``
        it says no more than that.
        """
        orders, shape = list(orders), self.table.shape
        sent, tenant, span = self.table["sent_at"], self.table.get("tenant_id"), ""
        times = [order.sent_at for order in orders if order.sent_at is not None]
        if sent.name in shape.partitioned_by and times and len(times) == len(orders):
            margin = _CLOCKS_SET if sent.is_naive else _MARGIN
            first, last = (self.table.instant("sent_at", repr(t)) for t in (min(times) - margin, max(times) + margin))
            span += f" AND o.{sent.sql} BETWEEN {first} AND {last}"
        tenants = {order.tenant_id for order in orders if order.tenant_id is not None}
        if tenant is not None and tenants and all(order.tenant_id is not None for order in orders):
            is_place = tenant.name in (*shape.partitioned_by, shape.distributed_by)
            # Distributed by the id alone the node is known, and the tenant may be another since.
            if is_place or (shape.distributed_by is None and not only_places):
                compared = tenant.sql if is_place else tenant.compared
                span += f" AND o.{compared} IN ({literals(sorted(tenants))})"
        return span

    def node(self, span: str) -> str:
        """Return ``span`` where a statement is refused without; elsewhere one without finds a row wherever it has gone."""
        return span if self.table.shape.distributed_by is not None else ""

    def lock_sql(self, span: str = "") -> str:
        """SQL that locks the open ones among given orders; what somebody else holds is passed over, not waited for."""
        t = self.table
        note = f"o.{t['note'].sql}::text" if t.get("note") else "NULL::text"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "
            f"o.{t['pin_code'].sql}::text AS pin, {note} AS note, {self.dispatch_sql()}, "
            f"{is_settled(t, self.layout, 'o')} AS settled "
            f"FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}) "
            f"AND o.{t['external_status'].compared} IN ({literals(self.open_statuses)}){span} "
            f"ORDER BY o.{t['id'].sql} FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def dispatch_sql(self) -> str:
        """SQL of what says where, under which reference and when a locked order was sent, and what else its row holds."""
        t = self.table
        words = ", ".join(f"o.{quoted(name)}::text" for name in t.readable)
        own_words = f"concat_ws(chr(31), {words})" if words else "NULL::text"
        return (
            f"o.{t['provider_referans'].sql}::text AS referans, {t.epoch('sent_at', 'o')} AS sent_at, {own_sql(t, 'o')} AS own, "
            f"{root_sql(t, 'o')} AS root, {own_words} AS own_words"
        )

    def rehearsal_lock_sql(self, *, newest: bool) -> str:
        """SQL that locks the order of the ``newest`` event of ours, or else the first by its key that is not open."""
        t = self.table
        note = f"o.{t['note'].sql}::text" if t.get("note") else "NULL::text"
        tenant = f"o.{t['tenant_id'].sql}::text" if t.get("tenant_id") else "NULL::text"
        order, status = f"o.{t['id'].sql}", t["external_status"]
        event = f"{order} = (SELECT e.order_id FROM {events_of(t.schema)} e ORDER BY e.id DESC LIMIT 1)"
        ended = f"o.{status.compared} NOT IN ({literals(self.open_statuses)})"
        return (
            f"SELECT {order}::text AS id, o.{status.sql}::text AS status, o.{t['pin_code'].sql}::text AS pin, {note} AS note, "
            f"{tenant} AS tenant_id, {self.dispatch_sql()} FROM {t.sql} o WHERE {event if newest else ended} "
            f"ORDER BY {order} LIMIT 1 FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def update_sql(self, span: str = "", *, any_status: bool = False) -> str:
        """SQL that changes locked rows; the compare stands in its own WHERE too, unless ``any_status`` is to be tried."""
        t = self.table
        is_open = "" if any_status else f"AND o.{t['external_status'].compared} IN ({literals(self.open_statuses)}) "
        status, pin = t["external_status"], f"o.{t['pin_code'].sql}"
        tenant = f"o.{t['tenant_id'].sql}" if t.get("tenant_id") else "NULL::uuid"
        update = (
            f"UPDATE {t.sql} AS o SET {', '.join(sets_of(t, self.layout))} "
            f"FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], "
            f"$5::text[], $6::float8[], $7::float8[], $8::int4[], $9::text[], $10::text[], $11::int4[], $12::float8[], "
            f"$13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::boolean[]) "
            f"AS u(id, status, pin, note, message, seen_at, done_at, duration, was, told, checks, sent_at, outcome, entry, "
            f"source, cause, account, reference, had, had_none) "
            f"WHERE o.{t['id'].sql} = u.id{t['id'].cast} {is_open}"
            f"AND (u.pin IS NULL OR {pin}::text IS NOT DISTINCT FROM u.had){span} "
            f"RETURNING o.{t['id'].sql} AS id, {tenant} AS tenant_id, o.{status.sql}::text AS status, {pin}::text AS pin, "
            f"u.was, u.told, u.checks, u.sent_at, u.outcome, false AS is_late, u.source, u.cause, u.account, u.reference, "
            f"{self._has_pin(pin)} AS has_pin"
        )
        return with_event(update, self.table.schema, self.layout, hints=self.hints)

    def late_lock_sql(self, span: str = "") -> str:
        """SQL that locks those among given orders that stand at one of the statuses given and could have no PIN."""
        t = self.table
        status, pin = f"o.{t['external_status'].sql}::text", f"o.{t['pin_code'].sql}::text"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, {status} AS status, {pin} AS pin, NULL::text AS note, "
            f"{self.dispatch_sql()} FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}) "
            f"AND {status} = ANY($2::text[]) AND {may_lack_pin(pin, self.layout)}{span} "
            f"ORDER BY o.{t['id'].sql} FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def late_update_sql(self, span: str = "") -> str:
        """SQL that puts a PIN into orders that ended without one, and leaves the rest of them as it is."""
        t = self.table
        status, pin = f"o.{t['external_status'].sql}::text", f"o.{t['pin_code'].sql}"
        tenant = f"o.{t['tenant_id'].sql}" if t.get("tenant_id") else "NULL::uuid"
        update = (
            f"UPDATE {t.sql} AS o SET {t['pin_code'].sql} = u.pin FROM unnest($1::text[], $2::text[], $3::text[], "
            "$4::text[], $5::int4[], $6::float8[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::boolean[]) "
            "AS u(id, status, pin, told, checks, sent_at, source, cause, account, reference, had, had_none) "
            f"WHERE o.{t['id'].sql} = u.id{t['id'].cast} "
            f"AND {status} = u.status AND {pin}::text IS NOT DISTINCT FROM u.had{span} "
            f"RETURNING o.{t['id'].sql} AS id, {tenant} AS tenant_id, {status} AS status, {pin}::text AS pin, "
            "u.status AS was, u.told, u.checks, u.sent_at, "
            f"{literal(Outcome.COMPLETED)} AS outcome, true AS is_late, "
            f"u.source, u.cause, u.account, u.reference, {self._has_pin(pin)} AS has_pin"
        )
        return with_event(update, self.table.schema, self.layout, hints=self.hints)

    def _has_pin(self, pin: str) -> str:
        """SQL of whether an order has its PIN: the row's own, or where the shop moves them away the one just given."""
        text = f"{pin}::text"
        # What stands there as before was looked at already, and more closely.
        stored = f"CASE WHEN {text} IS NOT DISTINCT FROM u.had THEN NOT u.had_none ELSE NOT {lacks_pin(text, self.layout)} END"
        return f"({stored} OR u.pin IS NOT NULL)" if self.layout.pins_elsewhere else stored

    def try_status_sql(self, span: str = "", *, own: bool = False) -> str:
        """SQL that gives an open order the status ``$2``, or its ``own`` again, and nothing else: it is tried, and rolled back."""
        t = self.table
        status = t["external_status"]
        value = f"o.{status.sql}" if own else f"$2::text{status.cast}"
        return (
            f"UPDATE {t.sql} AS o SET {status.sql} = {value} WHERE o.{t['id'].sql} = $1::text{t['id'].cast} "
            f"AND o.{status.compared} IN ({literals(self.open_statuses)}){span} RETURNING o.{t['id'].sql}::text AS id"
        )

    def touch_sql(self, span: str = "") -> str:
        """SQL that notes the time of a check of open orders."""
        t = self.table
        return (
            f"UPDATE {t.sql} AS o SET {t['last_sync_at'].sql} = {t.instant('last_sync_at', 'u.seen_at')} "
            f"FROM unnest($1::text[], $2::float8[]) AS u(id, seen_at) WHERE o.{t['id'].sql} = u.id{t['id'].cast} "
            f"AND o.{t['external_status'].compared} IN ({literals(self.open_statuses)}){span}"
        )

    def status_sql(self, span: str = "") -> str:
        """SQL that reads how given orders stand, without a lock."""
        t = self.table
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "
            f"o.{t['pin_code'].sql}::text AS pin FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}){span}"
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
