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
                f"WITH due AS (SELECT d.event_id FROM {self._deliveries} d WHERE {_WAITING} "  # noqa: S608
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
                f"UPDATE {self._deliveries} d SET {change}, tries = d.tries || jsonb_build_object("  # noqa: S608
                "'at', to_jsonb(clock_timestamp()), 'outcome', $2::text) WHERE d.event_id = $1 AND d.delivered_at IS NULL",
                event_id,
                outcome,
                *more,
            )

    async def counts(self) -> tuple[int, int]:
        """Return how many events wait for their delivery, and how many are dead letters."""
        async with self._database.transaction() as connection:
            row: asyncpg.Record | None = await connection.fetchrow(
                f"SELECT (SELECT count(*) FROM {self._deliveries} d WHERE {_WAITING}) AS waiting, "  # noqa: S608
                f"(SELECT count(*) FROM {self._deliveries} d WHERE d.dead_at IS NOT NULL) AS dead"
            )
        assert row is not None  # noqa: S101 - it is one row of counts
        return row["waiting"], row["dead"]
