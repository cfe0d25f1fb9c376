"""The first start on a table that may be old: which orders were sent before it, and what holds for them.

It follows from marks in the database, which all processes share and which a backup takes along: no process remembers it. An
installation that had events when its mark was made is an old one: there nothing was sent before the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from order_monitor.shop.columns import literal
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import events_of, settings_of
from order_monitor.shop.marks import FIRST_MIGRATE, FIRST_START, FIRST_START_RELEASED, add_mark, read_mark

LEFT_ALONE_BEFORE: Final = 7 * 86_400.0
"""Seconds before the first start up to which orders are watched, where ``schedule.ignore_before`` is not set."""

_NEVER: Final = -math.inf


@dataclass(frozen=True, slots=True)
class Start:
    """The marks as they stand, epoch seconds.

    ``first_migrate`` and ``moment``, the first start, are minus infinity where the installation is older than its mark.
    ``migrated`` is when ``migrate`` first made its mark, whatever was there before: what a duration counts from.
    """

    first_migrate: float = _NEVER
    moment: float = _NEVER
    migrated: float = _NEVER

    def ignored_before(self, setting: str | None) -> float:
        """Return before which time orders are left alone (epoch seconds, minus infinity for none) by ``schedule.ignore_before``.

        None leaves nothing alone; empty is the default.
        """
        if setting is None:
            return _NEVER
        if not setting:
            return self.moment - LEFT_ALONE_BEFORE
        return datetime.fromisoformat(setting).timestamp() if "-" in setting else self.migrated - float(setting)


def first_start_sql(schema: str) -> str:
    """SQL that keeps the moment of the first start, once: what ran before it is no first start."""
    marks = settings_of(schema)
    migrated = f"(SELECT value FROM {marks} WHERE name = {literal(FIRST_MIGRATE)})"
    return (
        f"INSERT INTO {marks} (name, value) SELECT {literal(FIRST_START)}, CASE WHEN EXISTS (SELECT FROM {events_of(schema)}) "
        f"THEN '-infinity' ELSE COALESCE({migrated}, extract(epoch FROM now())::text) END ON CONFLICT DO NOTHING"
    )


async def read_start(connection: Connection, schema: str) -> Start:
    """Return the marks of the first start; where its mark is missing it is made, as ``migrate`` would have made it."""
    marks = await _marks(connection, schema)
    if FIRST_START not in marks:
        await connection.execute(first_start_sql(schema))
        marks = await _marks(connection, schema)
    first, stored_at = marks.get(FIRST_MIGRATE, (_NEVER, marks[FIRST_START][1]))
    return Start(first, marks[FIRST_START][0], first if math.isfinite(first) else stored_at)


async def _marks(connection: Connection, schema: str) -> dict[str, tuple[float, float]]:
    rows = await connection.fetch(
        f"SELECT name, value, extract(epoch FROM stored_at)::float8 AS stored_at FROM {settings_of(schema)} "
        f"WHERE name IN ({literal(FIRST_MIGRATE)}, {literal(FIRST_START)})"
    )
    return {row["name"]: (float(row["value"]), row["stored_at"]) for row in rows}


async def held_before(connection: Connection, schema: str) -> float:
    """Return before which time (epoch seconds) nothing that was sent is ended by its age; minus infinity for none.

    Read in the transaction that would end it: a person may have released it a moment ago.
    """
    if await read_mark(connection, schema, FIRST_START_RELEASED) is not None:
        return _NEVER
    return float(await read_mark(connection, schema, FIRST_START) or _NEVER)


async def release(connection: Connection, schema: str, by: str) -> float | None:
    """Let orders that were sent before the first start be ended by their age; return that moment (epoch seconds).

    None where nothing is held: it was released before, or nothing was ever sent before the start.
    """
    moment = await held_before(connection, schema)
    if not math.isfinite(moment):
        return None
    now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::text")
    return moment if await add_mark(connection, schema, FIRST_START_RELEASED, str(now), by) else None
