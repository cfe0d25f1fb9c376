"""The statements that write the orders table as it was found: lock, update with event, record a
check.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.shop.accounts.tables import own_sql, reference_from_sql, row_reference_sql
from order_monitor.shop.schema.columns import Table, literal, quoted
from order_monitor.shop.schema.table_config import (
    TableConfig,
    events_of,
    is_paid_back,
    is_settled,
    lacks_pin,
    literals,
    may_lack_pin,
    open_statuses,
)
from order_monitor.shop.writing.dispatches import root_sql
from order_monitor.shop.writing.event_sql import with_event
from order_monitor.shop.writing.parameters import LATE, UPDATE, unnest_sql
from order_monitor.shop.writing.set_sql import sets_of

_MARGIN: Final = 1.0
"""Seconds added around times read from rows: float rounding must not lead to another partition."""

_CLOCKS_SET: Final = 7200.0
"""The same for a time without zone that may not exist: it is written back as one that does."""

NOWHERE: Final = " AND false"
"""Instead of a `Statements.span`: for a statement that is only tried and must find no row."""


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL for one table as it was found. Without ``hints`` no notification goes with an event."""

    table: Table
    table_config: TableConfig
    hints: bool = True

    @property
    def open_statuses(self) -> tuple[str, ...]:
        """The statuses of open orders that the column can hold."""
        return open_statuses(self.table, self.table_config)

    def span(self, orders: Iterable[Order], *, only_places: bool = False) -> str:
        """SQL that restricts a statement to the tenants of these orders, and to their time range if
        the table is partitioned by it.

        It limits the statement to their partitions and, in a table distributed by Citus, to their
        tenant's node. With ``only_places`` it does nothing beyond that.
        """
        orders, relation = list(orders), self.table.relation
        sent, tenant, span = self.table["sent_at"], self.table.get("tenant_id"), ""
        times = [order.sent_at for order in orders if order.sent_at is not None]
        if sent.name in relation.partitioned_by and times and len(times) == len(orders):
            margin = _CLOCKS_SET if sent.is_naive else _MARGIN
            first, last = (
                self.table.instant("sent_at", repr(t))
                for t in (min(times) - margin, max(times) + margin)
            )
            span += f" AND o.{sent.sql} BETWEEN {first} AND {last}"
        tenants = {order.tenant_id for order in orders if order.tenant_id is not None}
        if tenant is not None and tenants and all(order.tenant_id is not None for order in orders):
            is_place = tenant.name in (*relation.partitioned_by, relation.distributed_by)
            # If distributed by the id alone the node is known, and the tenant may have changed.
            if is_place or (relation.distributed_by is None and not only_places):
                compared = tenant.sql if is_place else tenant.compared
                span += f" AND o.{compared} IN ({literals(sorted(tenants))})"
        return span

    def node(self, span: str) -> str:
        """Return ``span`` only where needed: without it, a row is found wherever it has moved."""
        return span if self.table.relation.distributed_by is not None else ""

    def lock_sql(self, span: str = "") -> str:
        """SQL that locks the open ones among given orders, skipping other sessions' rows."""
        t = self.table
        return (
            f"{self.read_sql()} "
            f"AND o.{t['external_status'].compared} IN ({literals(self.open_statuses)}){span} "
            f"ORDER BY o.{t['id'].sql} FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def read_sql(self, more: str = "") -> str:
        """SQL of given orders as they are decided on, with ``more`` columns; it locks nothing."""
        t = self.table
        note = f"o.{t['note'].sql}::text" if t.get("note") else "NULL::text"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "
            f"o.{t['pin_code'].sql}::text AS pin, {note} AS note, {self.dispatch_sql()}, "
            f"{is_settled(t, self.table_config, 'o')} AS settled{more} "
            f"FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')})"
        )

    def dispatch_sql(self) -> str:
        """SQL for where, under which reference and when a locked order was sent, and for its row's
        other text.
        """
        t = self.table
        words = ", ".join(f"o.{quoted(name)}::text" for name in t.readable)
        own_words = f"concat_ws(chr(31), {words})" if words else "NULL::text"
        return (
            f"{row_reference_sql(t, 'o')} AS reference, "
            f"{reference_from_sql(t, 'o')} AS reference_from, "
            f"{t.epoch('sent_at', 'o')} AS sent_at, {own_sql(t, 'o')} AS own, "
            f"{root_sql(t, 'o')} AS root, {own_words} AS own_words"
        )

    def rehearsal_lock_sql(self, *, newest: bool) -> str:
        """SQL that locks the order of our ``newest`` event, or otherwise the first order by key
        that is not open.
        """
        t = self.table
        note = f"o.{t['note'].sql}::text" if t.get("note") else "NULL::text"
        tenant = f"o.{t['tenant_id'].sql}::text" if t.get("tenant_id") else "NULL::text"
        order, status = f"o.{t['id'].sql}", t["external_status"]
        event = (
            f"{order} = (SELECT e.order_id FROM {events_of(t.schema)} e ORDER BY e.id DESC LIMIT 1)"
        )
        ended = f"o.{status.compared} NOT IN ({literals(self.open_statuses)})"
        return (
            f"SELECT {order}::text AS id, o.{status.sql}::text AS status, o.{t['pin_code'].sql}::text AS pin, {note} AS note, "
            f"{tenant} AS tenant_id, {self.dispatch_sql()} FROM {t.sql} o WHERE {event if newest else ended} "
            f"ORDER BY {order} LIMIT 1 FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def update_sql(self, span: str = "", *, any_status: bool = False) -> str:
        """SQL that changes locked rows, of an open status unless ``any_status`` is for a trial."""
        t = self.table
        is_open = f"AND o.{t['external_status'].compared} IN ({literals(self.open_statuses)}) "
        status, pin = t["external_status"], f"o.{t['pin_code'].sql}"
        tenant = f"o.{t['tenant_id'].sql}" if t.get("tenant_id") else "NULL::uuid"
        update = (
            f"UPDATE {t.sql} AS o SET {', '.join(sets_of(t, self.table_config))} "
            f"FROM {unnest_sql(UPDATE)} "
            f"WHERE o.{t['id'].sql} = u.id{t['id'].cast} {'' if any_status else is_open}"
            f"AND (u.pin IS NULL OR {pin}::text IS NOT DISTINCT FROM u.had){span} "
            f"RETURNING o.{t['id'].sql} AS id, {tenant} AS tenant_id, o.{status.sql}::text AS status, {pin}::text AS pin, "
            f"u.was, u.told, u.checks, u.sent_at, u.outcome, false AS is_late, u.source, u.cause, u.account, u.reference, "
            f"{self._has_pin(pin)} AS has_pin"
        )
        return with_event(update, self.table.schema, self.table_config, hints=self.hints)

    def late_lock_sql(self, span: str = "") -> str:
        """SQL that locks those of the given orders that have one of the given statuses and may have
        no PIN. One of these is settled only where the shop has paid it back since.
        """
        t = self.table
        status, pin = f"o.{t['external_status'].sql}::text", f"o.{t['pin_code'].sql}::text"
        return (
            f"SELECT o.{t['id'].sql}::text AS id, {status} AS status, {pin} AS pin, NULL::text AS note, "
            f"{self.dispatch_sql()}, {is_paid_back(t, self.table_config, 'o')} AS settled "
            f"FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}) "
            f"AND {status} = ANY($2::text[]) AND {may_lack_pin(pin, self.table_config)}{span} "
            f"ORDER BY o.{t['id'].sql} FOR NO KEY UPDATE OF o SKIP LOCKED"
        )

    def late_update_sql(self, span: str = "") -> str:
        """SQL that adds a PIN to orders that ended without one, and changes nothing else."""
        t = self.table
        status, pin = f"o.{t['external_status'].sql}::text", f"o.{t['pin_code'].sql}"
        tenant = f"o.{t['tenant_id'].sql}" if t.get("tenant_id") else "NULL::uuid"
        update = (
            f"UPDATE {t.sql} AS o SET {t['pin_code'].sql} = u.pin FROM {unnest_sql(LATE)} "
            f"WHERE o.{t['id'].sql} = u.id{t['id'].cast} "
            f"AND {status} = u.status AND {pin}::text IS NOT DISTINCT FROM u.had{span} "
            f"RETURNING o.{t['id'].sql} AS id, {tenant} AS tenant_id, {status} AS status, {pin}::text AS pin, "
            "u.status AS was, u.told, u.checks, u.sent_at, "
            f"{literal(Outcome.COMPLETED)} AS outcome, true AS is_late, "
            f"u.source, u.cause, u.account, u.reference, {self._has_pin(pin)} AS has_pin"
        )
        return with_event(update, self.table.schema, self.table_config, hints=self.hints)

    def _has_pin(self, pin: str) -> str:
        """SQL for whether an order has its PIN: in the row, or, if the shop moves PINs away, the
        one just given.
        """
        text = f"{pin}::text"
        # A value that did not change was already checked, and more thoroughly.
        stored = (
            f"CASE WHEN {text} IS NOT DISTINCT FROM u.had THEN NOT u.had_none "
            f"ELSE NOT {lacks_pin(text, self.table_config)} END"
        )
        return f"({stored} OR u.pin IS NOT NULL)" if self.table_config.pins_elsewhere else stored

    def try_status_sql(self, span: str = "", *, own: bool = False) -> str:
        """SQL that sets an open order's status to ``$2``, or to its ``own`` again, and nothing
        else. It is only tried, and rolled back.
        """
        t = self.table
        status = t["external_status"]
        value = f"o.{status.sql}" if own else f"$2::text{status.cast}"
        return (
            f"UPDATE {t.sql} AS o SET {status.sql} = {value} WHERE o.{t['id'].sql} = $1::text{t['id'].cast} "
            f"AND o.{status.compared} IN ({literals(self.open_statuses)}){span} RETURNING o.{t['id'].sql}::text AS id"
        )

    def touch_sql(self, span: str = "") -> str:
        """SQL that records the time of a check of open orders."""
        t = self.table
        return (
            f"UPDATE {t.sql} AS o SET {t['last_sync_at'].sql} = {t.instant('last_sync_at', 'u.seen_at')} "
            f"FROM unnest($1::text[], $2::float8[]) AS u(id, seen_at) WHERE o.{t['id'].sql} = u.id{t['id'].cast} "
            f"AND o.{t['external_status'].compared} IN ({literals(self.open_statuses)}){span}"
        )

    def status_sql(self, span: str = "") -> str:
        """SQL that reads the state of given orders, without a lock."""
        t = self.table
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "
            f"o.{t['pin_code'].sql}::text AS pin FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}){span}"
        )

    def doubled_sql(self, span: str = "") -> str:
        """SQL for those of the given orders whose id several rows have, in any status."""
        t = self.table
        return (
            f"SELECT o.{t['id'].sql}::text AS id FROM {t.sql} o WHERE o.{t['id'].sql} = ANY({self._ids('$1')}){span} "
            f"GROUP BY o.{t['id'].sql} HAVING count(*) > 1"
        )

    def _ids(self, parameter: str) -> str:
        cast = self.table["id"].cast
        return f"{parameter}::text[]{cast}[]" if cast else f"{parameter}::text[]"
