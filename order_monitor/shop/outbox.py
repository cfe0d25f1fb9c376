"""The webhook's outbox: which events are to be posted now, and what became of each try.

An event's row is one thing and its delivery another: the shop's own code may consume the same event from the table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from order_monitor.shop.columns import quoted
from order_monitor.shop.database import Database
from order_monitor.shop.layout import DELIVERIES, EVENTS

_WAITING: Final = "d.delivered_at IS NULL AND d.dead_at IS NULL"


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
        self._deliveries = f"{quoted(schema)}.{quoted(DELIVERIES)}"
        self._events = f"{quoted(schema)}.{quoted(EVENTS)}"

    async def claim(self, limit: int, lease: float) -> list[Delivery]:
        """Take events that are due, of each order only its oldest; nobody else gets them for ``lease`` seconds.

        A try counts from here on, so that an event which kills its sender is not tried for ever.

        Raises:
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"WITH due AS (SELECT d.event_id FROM {self._deliveries} d WHERE {_WAITING} "
                f"AND d.next_at <= clock_timestamp() AND NOT EXISTS (SELECT 1 FROM {self._deliveries} p "
                "WHERE p.order_id = d.order_id AND p.event_id < d.event_id "
                "AND p.delivered_at IS NULL AND p.dead_at IS NULL) "
                "ORDER BY d.next_at, d.event_id LIMIT $1 FOR UPDATE OF d SKIP LOCKED) "
                f"UPDATE {self._deliveries} d SET attempts = d.attempts + 1, "
                "next_at = clock_timestamp() + make_interval(secs => $2) "
                f"FROM due, {self._events} e WHERE d.event_id = due.event_id AND e.id = d.event_id "
                "RETURNING to_jsonb(e) AS event, d.attempts AS attempts",
                limit,
                lease,
            )
        found = [Delivery(json.loads(row["event"]), row["attempts"]) for row in rows]
        return sorted(found, key=lambda delivery: delivery.event_id)

    async def delivered(self, event_id: int) -> None:
        """Note that an event was taken by its receiver."""
        await self._settle(event_id, "delivered_at = clock_timestamp()", "delivered")

    async def failed(self, event_id: int, why: str, again_in: float) -> None:
        """Note a try in vain; the next is ``again_in`` seconds from now."""
        await self._settle(event_id, "next_at = clock_timestamp() + make_interval(secs => $3)", why, again_in)

    async def died(self, event_id: int, why: str) -> None:
        """Put an event aside as a dead letter; later events of its order go on."""
        await self._settle(event_id, "dead_at = clock_timestamp()", why)

    async def _settle(self, event_id: int, change: str, outcome: str, *more: float) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                f"UPDATE {self._deliveries} d SET {change}, tries = d.tries || jsonb_build_object("
                "'at', to_jsonb(clock_timestamp()), 'outcome', $2::text) WHERE d.event_id = $1 AND d.delivered_at IS NULL",
                event_id,
                outcome,
                *more,
            )

    async def counts(self) -> tuple[int, int]:
        """Return how many events wait for their delivery, and how many are dead letters."""
        async with self._database.transaction() as connection:
            row: asyncpg.Record | None = await connection.fetchrow(
                f"SELECT (SELECT count(*) FROM {self._deliveries} d WHERE {_WAITING}) AS waiting, "
                f"(SELECT count(*) FROM {self._deliveries} d WHERE d.dead_at IS NOT NULL) AS dead"
            )
        assert row is not None
        return row["waiting"], row["dead"]

    async def replay(
        self, by: str, *, ids: list[int], order_id: str | None, since: float | None, dead: bool
    ) -> list[int]:
        """Put events up for delivery again, at once and with all their tries; return their numbers.

        They are chosen by number, by their order, by being of the last ``since`` seconds, or by being dead letters.

        Raises:
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"INSERT INTO {self._deliveries} AS d (event_id, order_id) SELECT e.id, e.order_id FROM {self._events} e "
                f"LEFT JOIN {self._deliveries} x ON x.event_id = e.id WHERE e.id = ANY($1::bigint[]) "
                "OR e.order_id::text = $2 OR e.decided_at > clock_timestamp() - make_interval(secs => $3) "
                "OR ($4 AND x.dead_at IS NOT NULL) ON CONFLICT (event_id) DO UPDATE SET delivered_at = NULL, dead_at = NULL, "
                "attempts = 0, next_at = clock_timestamp(), tries = d.tries || jsonb_build_object("
                "'at', to_jsonb(clock_timestamp()), 'outcome', 'replayed by ' || $5::text) RETURNING d.event_id",
                ids,
                order_id,
                since,
                dead,
                by,
            )
        return sorted(row["event_id"] for row in rows)

    async def dead(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Return the dead letters, oldest first: the event's number, its order, its tries and what came of the last."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                "SELECT d.event_id, d.order_id::text AS order_id, e.to_status, d.attempts, d.tries->-1->>'outcome' AS why, "
                f"to_char(d.dead_at, 'YYYY-MM-DD HH24:MI:SS TZ') AS since FROM {self._deliveries} d "
                f"JOIN {self._events} e ON e.id = d.event_id WHERE d.dead_at IS NOT NULL ORDER BY d.event_id LIMIT $1",
                limit,
            )
        return [dict(row) for row in rows]
