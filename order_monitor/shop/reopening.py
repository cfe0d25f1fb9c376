"""Put an order that the daemon ended back to open, as long as nobody has acted on its end."""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from order_monitor.shop.columns import Table, literal, quoted
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import DELIVERIES, EVENTS, Layout, literals, open_statuses

_ASIDE: Final = "withdrawn: the order was put back to open"


class ReopenRefusedError(Exception):
    """The order cannot be put back to open; the text says why, fit to be shown."""


class Reopener:
    """Puts an order that the daemon ended back to open, as long as nobody has acted on its end."""

    def __init__(self, table: Table, layout: Layout, *, webhook: bool, outcomes: bool = True) -> None:
        """Work on the orders ``table``; with ``webhook`` an end that was posted counts as acted on.

        ``outcomes`` tells whether the events have that column.
        """
        self._table = table
        self._layout = layout
        self._webhook = webhook
        self._outcome = (", outcome", ", 'reopened'") if outcomes else ("", "")
        self._events = f"{quoted(layout.schema)}.{quoted(EVENTS)}"
        self._deliveries = f"{quoted(layout.schema)}.{quoted(DELIVERIES)}"

    async def reopen(self, connection: Connection, order_id: str, reason: str, by: str) -> str:
        """Put the order back, withdraw the event of its end, and record the change; return the status it has now.

        Raises:
            ReopenRefusedError: somebody else ended it, or its end was acted on.
        """
        event = await self._last_event(connection, order_id)
        if self._webhook:
            await self._withdraw_delivery(connection, event["id"])
        # An event with repeat moves no money, and is no predecessor: the next end of this order counts as its first.
        await connection.execute(
            f"UPDATE {self._events} SET repeat = true, consumed_at = now() WHERE id = $1",
            event["id"],
        )
        back = await self._put_back(connection, order_id, event)
        column, value = self._outcome
        await connection.execute(
            f"INSERT INTO {self._events} (order_id, tenant_id, from_status, to_status, has_pin, message, sent_at, "
            f"decided_by, repeat{column}) SELECT order_id, tenant_id, to_status, $2, has_pin, $3, sent_at, $4, false{value} "
            f"FROM {self._events} WHERE id = $1",
            event["id"],
            back,
            reason,
            by,
        )
        if self._webhook:
            await connection.execute(
                f"INSERT INTO {self._deliveries} (event_id, order_id) SELECT id, order_id FROM {self._events} "
                f"WHERE order_id = $1::text{self._table['id'].cast} ORDER BY id DESC LIMIT 1",
                order_id,
            )
        return back

    async def _last_event(self, connection: Connection, order_id: str) -> asyncpg.Record:
        row = await connection.fetchrow(
            "SELECT id, from_status, to_status, decided_by, consumed_at, "
            f"to_char(consumed_at, 'YYYY-MM-DD HH24:MI:SS TZ') AS taken FROM {self._events} "
            f"WHERE order_id = $1::text{self._table['id'].cast} ORDER BY id DESC LIMIT 1",
            order_id,
        )
        if row is None:
            msg = "order-monitor has not ended it: there is no event of it"
            raise ReopenRefusedError(msg)
        if row["to_status"] in open_statuses(self._table, self._layout):
            msg = "it is open"
            raise ReopenRefusedError(msg)
        if row["from_status"] == row["to_status"]:
            msg = "its PIN came after its end, and a customer may have it"
            raise ReopenRefusedError(msg)
        if row["consumed_at"] is not None:
            msg = f"the shop has acted on its end (event {row['id']}, {row['taken']})"
            raise ReopenRefusedError(msg)
        if row["decided_by"] not in ("daemon", "ask"):
            msg = f"{row['decided_by']} ended it, and not the daemon"
            raise ReopenRefusedError(msg)
        locked = await connection.fetchval(
            f"SELECT id FROM {self._events} WHERE id = $1 AND consumed_at IS NULL FOR UPDATE SKIP LOCKED",
            row["id"],
        )
        if locked is None:
            msg = f"the shop is acting on its end just now (event {row['id']})"
            raise ReopenRefusedError(msg)
        return row

    async def _withdraw_delivery(self, connection: Connection, event_id: int) -> None:
        tried = await connection.fetchval(
            f"SELECT attempts > 0 FROM {self._deliveries} WHERE event_id = $1 FOR UPDATE",
            event_id,
        )
        # A post that failed may have been acted on all the same: its answer may only have been lost.
        if tried:
            msg = f"its end was posted to the shop, or tried to be (event {event_id})"
            raise ReopenRefusedError(msg)
        await connection.execute(
            f"UPDATE {self._deliveries} SET dead_at = clock_timestamp(), tries = tries || jsonb_build_object("
            f"'at', to_jsonb(clock_timestamp()), 'outcome', {literal(_ASIDE)}) WHERE event_id = $1",
            event_id,
        )

    async def _put_back(self, connection: Connection, order_id: str, event: asyncpg.Record) -> str:
        t, statuses = self._table, open_statuses(self._table, self._layout)
        was = event["from_status"]
        back = was if was in statuses else self._layout.rules.processing
        cleared = "".join(f", {c.sql} = NULL" for name in ("completed_at", "duration_ms") if (c := t.get(name)))
        done: Any = await connection.execute(
            f"UPDATE {t.sql} SET {t['external_status'].sql} = $2::text{t['external_status'].cast}{cleared} "
            f"WHERE {t['id'].sql} = $1::text{t['id'].cast} "
            f"AND {t['external_status'].compared} IN ({literals([event['to_status']])})",
            order_id,
            back,
        )
        if str(done).endswith(" 0"):
            msg = f"its status is no longer {event['to_status']!r}: somebody changed it since"
            raise ReopenRefusedError(msg)
        return str(back)
