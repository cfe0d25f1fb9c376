"""The webhook's outbox: which events are to be posted now, and what became of each try.

An event's row is one thing and its delivery another: the shop's own code may consume the same event from the table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from order_monitor.shop.columns import literal, quoted
from order_monitor.shop.database import Database
from order_monitor.shop.event_sql import WEBHOOK_MARK, dispatch_of, is_withdrawn
from order_monitor.shop.layout import DELIVERIES, EVENTS, settings_of
from order_monitor.shop.marks import read_mark, set_mark
from order_monitor.shop.webhook_mark import Mark, read_webhook, set_first

SLICE: Final = 10_000
"""How many events one statement looks through for those that nobody has put up."""

_OVERLAP: Final = 10_000
"""Events whose transaction ended late have a smaller number than the newest one seen."""

_SWEPT: Final = "webhook_swept"
"""The name of the mark that says up to which event they were looked through."""

_WAITING: Final = "d.delivered_at IS NULL AND d.dead_at IS NULL"
_DEAD: Final = "d.dead_at IS NOT NULL AND d.attempts > 0"
"""A dead letter; what was put aside without a try was withdrawn."""

_HAS_FAILED: Final = f"{_WAITING} AND (d.tries->-1->>'attempt')::int = d.attempts"
"""Its last try has ended, in vain, and no other is under way."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event to be posted; ``attempts`` counts this try too. Its columns hold no PIN."""

    event: dict[str, Any]
    attempts: int

    @property
    def event_id(self) -> int:
        """The event's number."""
        return int(self.event["id"])


class Outbox:
    """The deliveries table beside the events."""

    def __init__(self, database: Database, schema: str) -> None:
        """Work on the tables in ``schema``."""
        self._database = database
        self._schema = schema
        self._deliveries = f"{quoted(schema)}.{quoted(DELIVERIES)}"
        self._events = f"{quoted(schema)}.{quoted(EVENTS)}"

    async def mark(self) -> Mark | None:
        """Return since when and to which address events are posted, None where nobody has said so.

        Raises:
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            return await read_webhook(connection, self._schema)

    async def set_first(self, address: str) -> Mark:
        """Return the same; where nobody has said so, this ``address`` and from now on.

        Raises:
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            return await set_first(connection, self._schema, address)

    async def sweep(self, since: int) -> int:
        """Put up what nobody has put up of the events from ``since`` on; return how many those were.

        Who writes an event puts it up, save a statement that began before the mark was set, and an older version by its own
        settings. All of them are looked through once, and later those that are new. What a reopening has withdrawn is left out.

        Raises:
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            newest = await connection.fetchval(f"SELECT COALESCE(max(id), 0) FROM {self._events}")
            swept = int(await read_mark(connection, self._schema, _SWEPT) or 0)
        found = 0
        for first in range(max(since, min(swept, newest) - _OVERLAP), newest + 1, SLICE):
            async with self._database.transaction() as connection:
                status = await connection.execute(
                    f"INSERT INTO {self._deliveries} (event_id, order_id) SELECT e.id, e.order_id FROM {self._events} e "
                    f"WHERE e.id BETWEEN $1 AND $2 AND NOT EXISTS (SELECT FROM {self._deliveries} d WHERE d.event_id = e.id) "
                    f"AND NOT ({is_withdrawn(self._schema, 'e')}) ON CONFLICT DO NOTHING",
                    first,
                    min(first + SLICE - 1, newest),
                )
            found += int(status.rpartition(" ")[2])
        if newest != swept:
            async with self._database.transaction() as connection:
                await set_mark(connection, self._schema, _SWEPT, str(newest))
        return found

    async def claim(self, limit: int, lease: float, mark: Mark) -> list[Delivery]:
        """Take events that are due, of each order only its oldest; nobody else gets them for ``lease`` seconds.

        A try counts from here on, so that an event which kills its sender is not tried for ever. Nothing is taken where the mark in
        the database is no longer ``mark``.

        Raises:
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"WITH due AS (SELECT d.event_id FROM {self._deliveries} d WHERE {_WAITING} "
                f"AND EXISTS (SELECT FROM {settings_of(self._schema)} WHERE name = {literal(WEBHOOK_MARK)} AND value = $3) "
                f"AND d.next_at <= clock_timestamp() AND NOT EXISTS (SELECT 1 FROM {self._deliveries} p "
                "WHERE p.order_id = d.order_id AND p.event_id < d.event_id "
                "AND p.delivered_at IS NULL AND p.dead_at IS NULL) "
                "ORDER BY d.next_at, d.event_id LIMIT $1 FOR UPDATE OF d SKIP LOCKED) "
                f"UPDATE {self._deliveries} d SET attempts = d.attempts + 1, "
                "next_at = clock_timestamp() + make_interval(secs => $2) "
                f"FROM due, {self._events} e WHERE d.event_id = due.event_id AND e.id = d.event_id "
                f"RETURNING to_jsonb(e) || jsonb_build_object('dispatch', {dispatch_of(self._schema, 'e')}) AS event, "
                "d.attempts AS attempts",
                limit,
                lease,
                mark.value,
            )
        found = [Delivery(json.loads(row["event"]), row["attempts"]) for row in rows]
        return sorted(found, key=lambda delivery: delivery.event_id)

    async def delivered(self, event_id: int) -> None:
        """Note that an event was taken by its receiver."""
        await self._settle(event_id, "delivered_at = clock_timestamp()", "delivered")

    async def failed(self, event_id: int, why: str, again_in: float) -> None:
        """Note a try in vain; the next is ``again_in`` seconds from now."""
        await self._settle(event_id, "next_at = clock_timestamp() + make_interval(secs => $3)", why, again_in)

    async def not_tried(self, event_id: int, again_in: float) -> None:
        """Give back a try that this machine could not make; the next is ``again_in`` seconds from now."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"UPDATE {self._deliveries} d SET attempts = greatest(d.attempts - 1, 1), "
                "next_at = clock_timestamp() + make_interval(secs => $2) "
                "WHERE d.event_id = $1 AND d.delivered_at IS NULL",
                event_id,
                again_in,
            )

    async def died(self, event_id: int, why: str) -> None:
        """Put an event aside as a dead letter; later events of its order go on."""
        await self._settle(event_id, "dead_at = clock_timestamp()", why)

    async def _settle(self, event_id: int, change: str, outcome: str, *more: float) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                f"UPDATE {self._deliveries} d SET {change}, tries = d.tries || jsonb_build_object("
                "'at', to_jsonb(clock_timestamp()), 'outcome', $2::text, 'attempt', d.attempts) "
                "WHERE d.event_id = $1 AND d.delivered_at IS NULL",
                event_id,
                outcome,
                *more,
            )

    async def let_go(self, longest: float, pace: float) -> int:
        """Let what failed be tried again now, the oldest first and ``pace`` a second; return how many those are.

        What pauses for more than ``longest`` seconds goes on pausing: that was not the outage's doing.
        """
        async with self._database.transaction() as connection:
            status = await connection.execute(
                f"WITH failed AS (SELECT d.event_id, row_number() OVER (ORDER BY d.event_id) AS place FROM {self._deliveries} d "
                f"WHERE {_HAS_FAILED} AND d.next_at > clock_timestamp() "
                "AND extract(epoch FROM d.next_at - (d.tries->-1->>'at')::timestamptz) <= $1::float8) "
                f"UPDATE {self._deliveries} d SET next_at = least(d.next_at, "
                "clock_timestamp() + make_interval(secs => failed.place / $2::float8)) "
                f"FROM failed WHERE d.event_id = failed.event_id AND {_HAS_FAILED}",
                longest,
                pace,
            )
        return int(status.rpartition(" ")[2])

    async def counts(self) -> tuple[int, int]:
        """Return how many events wait for their delivery, and how many are dead letters."""
        async with self._database.transaction() as connection:
            row: asyncpg.Record | None = await connection.fetchrow(
                f"SELECT (SELECT count(*) FROM {self._deliveries} d WHERE {_WAITING}) AS waiting, "
                f"(SELECT count(*) FROM {self._deliveries} d WHERE {_DEAD}) AS dead"
            )
        assert row is not None
        return row["waiting"], row["dead"]

    async def replay(
        self, by: str, *, ids: list[int], order_id: str | None, since: float | None, dead: bool, waiting: bool = False
    ) -> list[int]:
        """Put events up for delivery again, at once and with all their tries; return their numbers.

        They are chosen by number, by their order, by being of the last ``since`` seconds, by being dead letters, or by ``waiting``
        for their next try. What a reopening has withdrawn is never posted.

        Raises:
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"INSERT INTO {self._deliveries} AS d (event_id, order_id) SELECT e.id, e.order_id FROM {self._events} e "
                f"LEFT JOIN {self._deliveries} d ON d.event_id = e.id WHERE (e.id = ANY($1::bigint[]) "
                "OR e.order_id::text = $2 OR e.decided_at > clock_timestamp() - make_interval(secs => $3) "
                f"OR ($4 AND {_DEAD}) OR ($6 AND {_HAS_FAILED})) AND NOT ({is_withdrawn(self._schema, 'e')}) "
                "ON CONFLICT (event_id) DO UPDATE SET delivered_at = NULL, dead_at = NULL, "
                "attempts = 0, next_at = clock_timestamp(), tries = d.tries || jsonb_build_object("
                "'at', to_jsonb(clock_timestamp()), 'outcome', 'replayed by ' || $5::text) RETURNING d.event_id",
                ids,
                order_id,
                since,
                dead,
                by,
                waiting,
            )
        return sorted(row["event_id"] for row in rows)

    async def dead(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Return the dead letters, oldest first: the event's number, its order, its tries and what came of the last."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                "SELECT d.event_id, d.order_id::text AS order_id, e.to_status, d.attempts, d.tries->-1->>'outcome' AS why, "
                f"to_char(d.dead_at, 'YYYY-MM-DD HH24:MI:SS TZ') AS since FROM {self._deliveries} d "
                f"JOIN {self._events} e ON e.id = d.event_id WHERE {_DEAD} ORDER BY d.event_id LIMIT $1",
                limit,
            )
        return [dict(row) for row in rows]
