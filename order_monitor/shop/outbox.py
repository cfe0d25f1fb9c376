"""The webhook's outbox: which events are due for posting, and the result of each try.

An event and its delivery are separate rows: the shop's own code may consume the same event from the
table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from order_monitor.shop.database import Database
from order_monitor.shop.marks import read_mark, set_mark
from order_monitor.shop.money_settings import refuse_while_observed
from order_monitor.shop.schema.columns import literal, qualified
from order_monitor.shop.schema.table_config import DELIVERIES, EVENTS, settings_of
from order_monitor.shop.webhook_mark import Mark, read_webhook, set_first
from order_monitor.shop.writing.event_sql import WEBHOOK_MARK, dispatch_of, is_withdrawn

SLICE: Final = 10_000
"""Number of events that one statement searches for those not queued yet."""

OVERLAP: Final = 10_000
"""Overlap between searches: an event of a long transaction has a lower id than the newest seen."""

LONGEST_RETRY: Final = 3600.0
"""The longest pause before an event is tried again, in seconds, without the tenth that spreads
retries.
"""

_LONGEST: Final = 2 * LONGEST_RETRY
"""Seconds beyond its lease for which no event pauses. One that seems to was dated before the
database's clock went back, and is due.
"""

_SWEPT: Final = "webhook_swept"
"""The name of the mark that stores up to which event they were searched."""

_WAITING: Final = "d.delivered_at IS NULL AND d.dead_at IS NULL"
_DEAD: Final = "d.dead_at IS NOT NULL AND d.attempts > 0"
"""A dead letter; an event put aside without a try was withdrawn."""

_IS_DUE: Final = (
    "(d.next_at <= clock_timestamp() OR d.attempts = 0 "
    f"OR d.next_at > clock_timestamp() + make_interval(secs => $2::float8 + {_LONGEST}))"
)
"""One that was not tried yet is due whatever the clock says."""

_SLOW_DOWN: Final = "http_429"

_HAS_FAILED: Final = f"{_WAITING} AND (d.tries->-1->>'attempt')::int = d.attempts"
"""Its last try has failed, and no other is under way."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event to be posted; ``attempts`` includes this try. Its columns hold no PIN."""

    event: dict[str, Any]
    attempts: int

    @property
    def event_id(self) -> int:
        """The event's number."""
        return int(self.event["id"])


class Outbox:
    """The deliveries table that belongs to the events.

    Each method raises `ShopError` where the database cannot be asked.
    """

    def __init__(self, database: Database, schema: str) -> None:
        """Work on the tables in ``schema``."""
        self._database = database
        self._schema = schema
        self._deliveries = qualified(schema, DELIVERIES)
        self._events = qualified(schema, EVENTS)

    async def mark(self) -> Mark | None:
        """Return since when and to which address events are posted, None if that is not set."""
        async with self._database.transaction() as connection:
            return await read_webhook(connection, self._schema)

    async def set_first(self, address: str, since: int | None = None) -> Mark:
        """Return the mark; if it is not set, set it to this ``address``, from now on."""
        async with self._database.transaction() as connection:
            return await set_first(connection, self._schema, address, since=since)

    async def sweep(self, since: int) -> int:
        """Queue the events from ``since`` on that are not queued yet.

        Return how many there were. The process that writes an event queues it, except a statement
        that began before the mark was set, and an older version, which uses its own settings. All
        events are searched once, later only new ones. Events withdrawn by a reopening are left out.
        """
        async with self._database.transaction() as connection:
            newest = await connection.fetchval(f"SELECT COALESCE(max(id), 0) FROM {self._events}")
            swept = int(await read_mark(connection, self._schema, _SWEPT) or 0)
        found = 0
        for first in range(max(since, min(swept, newest) - OVERLAP), newest + 1, SLICE):
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
        """Take events that are due, for each order only its oldest.

        No other process gets them for ``lease`` seconds. A try counts from here on, so that an
        event that kills its sender is not tried without end. Nothing is taken if the mark in the
        database is no longer ``mark``.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"WITH due AS (SELECT d.event_id FROM {self._deliveries} d WHERE {_WAITING} "
                f"AND EXISTS (SELECT FROM {settings_of(self._schema)} WHERE name = {literal(WEBHOOK_MARK)} AND value = $3) "
                f"AND {_IS_DUE} AND NOT EXISTS (SELECT 1 FROM {self._deliveries} p "
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
        """Record that the receiver accepted an event."""
        await self._settle(event_id, "delivered_at = clock_timestamp()", "delivered")

    async def failed(self, event_id: int, why: str, again_in: float) -> None:
        """Record a failed try; the next is ``again_in`` seconds from now."""
        await self._settle(
            event_id, "next_at = clock_timestamp() + make_interval(secs => $3)", why, again_in
        )

    async def not_tried(self, event_id: int, again_in: float) -> None:
        """Do not count a try that this machine could not make; try in ``again_in`` seconds."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"UPDATE {self._deliveries} d SET attempts = greatest(d.attempts - 1, 1), "
                "next_at = clock_timestamp() + make_interval(secs => $2) "
                "WHERE d.event_id = $1 AND d.delivered_at IS NULL",
                event_id,
                again_in,
            )

    async def died(self, event_id: int, why: str) -> None:
        """Put an event aside as a dead letter; later events of its order continue."""
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

    async def let_go(self, longest: float, pace: float, first: float) -> int:
        """Let what failed be tried again now, the oldest first and ``pace`` a second.

        Return how many those are. What pauses for more than ``longest`` seconds goes on pausing:
        that was not the outage's doing. But where the pause is only as long because the receiver
        wished it, and its tries alone would make none of that length (``first`` is the pause after
        the first), the wish ended with the outage; save one to be called less often (429).
        """
        async with self._database.transaction() as connection:
            status = await connection.execute(
                f"WITH failed AS (SELECT d.event_id, row_number() OVER (ORDER BY d.event_id) AS place FROM {self._deliveries} d "
                f"WHERE {_HAS_FAILED} AND d.next_at > clock_timestamp() "
                "AND (extract(epoch FROM d.next_at - (d.tries->-1->>'at')::timestamptz) <= $1::float8 "
                f"OR (d.tries->-1->>'outcome' <> {literal(_SLOW_DOWN)} "
                "AND 1.1 * $3::float8 * power(2::float8, least(d.attempts - 1, 20)) <= $1::float8))) "
                f"UPDATE {self._deliveries} d SET next_at = least(d.next_at, "
                "clock_timestamp() + make_interval(secs => failed.place / $2::float8)) "
                f"FROM failed WHERE d.event_id = failed.event_id AND {_HAS_FAILED}",
                longest,
                pace,
                first,
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
        self,
        by: str,
        *,
        ids: list[int],
        order_id: str | None,
        since: float | None,
        dead: bool,
        waiting: bool = False,
    ) -> list[int]:
        """Queue events again, at once and with all their tries; return their numbers.

        They are selected by number, by order, by being from the last ``since`` seconds, by being
        dead letters, or by ``waiting`` for their next try. Events withdrawn by a reopening are
        never posted.
        """
        async with self._database.transaction() as connection:
            await refuse_while_observed(connection, self._schema)
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
        """Return the dead letters, oldest first: event, order, attempts, last result."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                "SELECT d.event_id, d.order_id::text AS order_id, e.to_status, d.attempts, d.tries->-1->>'outcome' AS why, "
                f"to_char(d.dead_at, 'YYYY-MM-DD HH24:MI:SS TZ') AS since FROM {self._deliveries} d "
                f"JOIN {self._events} e ON e.id = d.event_id WHERE {_DEAD} ORDER BY d.event_id LIMIT $1",
                limit,
            )
        return [dict(row) for row in rows]
