"""Reopen an order that the daemon ended, as long as its end has not been acted on."""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from order_monitor.core.outcome import Cause
from order_monitor.shop.database import Connection
from order_monitor.shop.money_settings import refuse_while_observed
from order_monitor.shop.schema.columns import Table, literal, qualified
from order_monitor.shop.schema.table_config import (
    DELIVERIES,
    TableConfig,
    events_of,
    literals,
    open_statuses,
)
from order_monitor.shop.writing.event_sql import PERSON, PROGRAM, queue_sql

_ASIDE: Final = "withdrawn: the order was put back to open"
_HAS_PIN: Final = "it has a PIN, and a customer may have it"


class ReopenRefusedError(Exception):
    """The order cannot be reopened; the text gives the reason and is safe to show."""


class Reopener:
    """Reopens an order that the daemon ended, as long as its end has not been acted on."""

    def __init__(self, table: Table, table_config: TableConfig) -> None:
        """Work on the orders ``table``."""
        self._table = table
        self._table_config = table_config
        # If no consumer reads events, an event is written as consumed at the time of its decision.
        # The time alone proves nothing: a trigger of the shop's may consume at the same time. Nor
        # do the settings alone: they may have been different then.
        untouched = "consumed_at = decided_at" if table_config.is_consumed else "false"
        self._is_taken = f"(consumed_at IS NOT NULL AND NOT {untouched})"
        self._events = events_of(table_config.schema)
        self._deliveries = qualified(table_config.schema, DELIVERIES)

    async def reopen(self, connection: Connection, order_id: str, reason: str, by: str) -> str:
        """Reopen the order, withdraw the event of its end, and record the change; so also each order
        that ended as its child did.

        Return the order's new status.

        Raises:
            ObservedError: the shop is only observed.
            ReopenRefusedError: a person ended it, it has a PIN, or its end was acted on, or may be by
                an earlier event.
        """
        await refuse_while_observed(connection, self._table_config.schema)
        event = await self._last_event(connection, order_id)
        await self._withdraw_delivery(connection, event)
        # An event marked as repeat moves no money and is not counted as an earlier end: the next
        # end of this order counts as its first.
        await connection.execute(
            f"UPDATE {self._events} SET repeat = true, consumed_at = now() WHERE id = $1",
            event["id"],
        )
        back = await self._put_back(connection, order_id, event)
        consumed = "now()" if self._table_config.is_consumed else "NULL"
        await connection.execute(
            f"WITH event AS (INSERT INTO {self._events} (order_id, tenant_id, from_status, to_status, has_pin, message, sent_at, "
            "consumed_at, decided_by, repeat, outcome, source, cause, account, reference) "
            f"SELECT order_id, tenant_id, to_status, $2, has_pin, $3, sent_at, {consumed}::timestamptz, $4, false, 'reopened', "
            f"{literal(PERSON)}, {literal(PERSON)}, account, reference FROM {self._events} WHERE id = $1 "
            f"RETURNING id, order_id) {queue_sql(self._table_config.schema)}",
            event["id"],
            back,
            reason,
            by,
        )
        for parent in await self._led_to(connection, order_id, event["id"]):
            try:
                await self.reopen(connection, parent, reason, by)
            except ReopenRefusedError as error:
                raise ReopenRefusedError(
                    f"order {parent} has ended as it did, and {error}"
                ) from None
        return back

    async def _led_to(self, connection: Connection, order_id: str, event_id: int) -> list[str]:
        """Return the orders that have ended as this one, their child, did, and not since in another
        way. Its own row is changed by now, so that no pass over the chains can add one.
        """
        t, external = self._table, self._table.get("external_order_id")
        if external is None or not self._table_config.follows_chains:
            return []
        rows = await connection.fetch(
            "SELECT e.order_id::text AS id FROM (SELECT DISTINCT ON (order_id) order_id, cause, to_status "
            f"FROM {self._events} WHERE id > $2 ORDER BY order_id, id DESC) e "
            f"JOIN {t.sql} o ON o.{t['id'].sql} = e.order_id AND o.{t['external_status'].sql}::text = e.to_status "
            f"WHERE e.cause = {literal(Cause.CHILD)} AND lower(btrim(o.{external.sql}::text)) = lower($1) ORDER BY 1",
            order_id,
            event_id,
        )
        return [row["id"] for row in rows]

    async def _last_event(self, connection: Connection, order_id: str) -> asyncpg.Record:
        row = await connection.fetchrow(
            "SELECT id, from_status, to_status, decided_by, source, has_pin, repeat, "
            f"{self._is_taken} AS is_taken, to_char(consumed_at, 'YYYY-MM-DD HH24:MI:SS TZ') AS taken FROM {self._events} "
            f"WHERE order_id = $1::text{self._table['id'].cast} ORDER BY id DESC LIMIT 1",
            order_id,
        )
        if row is None:
            raise ReopenRefusedError("order-monitor has not ended it: there is no event of it")
        if row["to_status"] in open_statuses(self._table, self._table_config):
            raise ReopenRefusedError("it is open")
        if row["from_status"] == row["to_status"]:
            raise ReopenRefusedError("its PIN came after its end, and a customer may have it")
        if row["is_taken"]:
            raise ReopenRefusedError(
                f"the shop has acted on its end (event {row['id']}, {row['taken']})"
            )
        if row["source"] != PROGRAM:
            raise ReopenRefusedError(f"{row['decided_by']} ended it, and not the daemon")
        if row["has_pin"]:
            raise ReopenRefusedError(_HAS_PIN)
        if row["repeat"]:
            # The money hangs on the event that it repeats, which stays.
            raise ReopenRefusedError("its end was reported before, by an earlier event")
        # No stronger lock: a process that is just queueing the event for delivery holds a weaker
        # lock on it, and does not act on it.
        locked = await connection.fetchval(
            f"SELECT id FROM {self._events} WHERE id = $1 AND NOT {self._is_taken} FOR NO KEY UPDATE SKIP LOCKED",
            row["id"],
        )
        if locked is None:
            raise ReopenRefusedError(f"the shop is acting on its end just now (event {row['id']})")
        return row

    async def _withdraw_delivery(self, connection: Connection, event: asyncpg.Record) -> None:
        """Make sure that the event is never posted, whether or not it has been queued and whether
        or not there is a webhook.

        A failed post may still have been acted on, because only its answer may have been lost. An
        event that was queued again counts its attempts from zero, but keeps the log of its tries.
        """
        aside = (
            f"jsonb_build_object('at', to_jsonb(clock_timestamp()), 'outcome', {literal(_ASIDE)})"
        )
        done = await connection.fetchval(
            f"INSERT INTO {self._deliveries} AS d (event_id, order_id, dead_at, tries) "
            f"SELECT id, order_id, clock_timestamp(), jsonb_build_array({aside}) FROM {self._events} WHERE id = $1 "
            "ON CONFLICT DO NOTHING RETURNING true",
            event["id"],
        ) or await connection.fetchval(
            f"UPDATE {self._deliveries} SET dead_at = clock_timestamp(), tries = tries || {aside} WHERE event_id = $1 "
            "AND attempts = 0 AND delivered_at IS NULL AND tries = '[]' RETURNING true",
            event["id"],
        )
        if not done:
            raise ReopenRefusedError(
                f"its end was posted to the shop, or tried to be (event {event['id']})"
            )

    async def _put_back(self, connection: Connection, order_id: str, event: asyncpg.Record) -> str:
        t, statuses = self._table, open_statuses(self._table, self._table_config)
        was = event["from_status"]
        back = was if was in statuses else self._table_config.rules.processing
        cleared = "".join(
            f", {c.sql} = NULL" for name in ("completed_at", "duration_ms") if (c := t.get(name))
        )
        has_pin = f"COALESCE(btrim({t['pin_code'].sql}::text), '') <> ''"
        done: Any = await connection.execute(
            f"UPDATE {t.sql} SET {t['external_status'].sql} = $2::text{t['external_status'].cast}{cleared} "
            f"WHERE {t['id'].sql} = $1::text{t['id'].cast} "
            f"AND {t['external_status'].compared} IN ({literals([event['to_status']])}) AND NOT ({has_pin})",
            order_id,
            back,
        )
        if str(done).endswith(" 0"):
            where = f"{t['id'].sql} = $1::text{t['id'].cast} AND {has_pin}"
            if await connection.fetchval(f"SELECT count(*) FROM {t.sql} WHERE {where}", order_id):
                raise ReopenRefusedError(_HAS_PIN)
            raise ReopenRefusedError(
                f"its status is no longer {event['to_status']!r}: it has changed since"
            )
        return str(back)
