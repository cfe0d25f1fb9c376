"""The first start on a table that may be old: which orders were sent before it, and what applies to
them.

This follows from marks in the database, which all processes share and which backups include; no
process has to remember it. An installation that had events when its mark was made counts as an old
one: there, no order counts as sent before the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from order_monitor.shop.database import Connection
from order_monitor.shop.marks import (
    FIRST_MIGRATE,
    FIRST_START,
    FIRST_START_RELEASED,
    add_mark,
    read_mark,
)
from order_monitor.shop.money_settings import refuse_while_observed
from order_monitor.shop.schema.columns import literal
from order_monitor.shop.schema.table_config import events_of, settings_of

LEFT_ALONE_BEFORE: Final = 7 * 86_400.0
"""By default orders sent up to this many seconds before the first start are watched."""

_NEVER: Final = -math.inf


@dataclass(frozen=True, slots=True)
class Start:
    """The marks, epoch seconds.

    ``first_migrate`` and ``moment``, the first start, are minus infinity if the installation is
    older than its mark. ``migrated`` is when ``migrate`` first set its mark, whatever existed
    before; durations count from it.
    """

    first_migrate: float = _NEVER
    moment: float = _NEVER
    migrated: float = _NEVER

    def ignored_before(self, setting: str | None) -> float:
        """Return the time before which orders are left alone according to
        ``schedule.ignore_before`` (epoch seconds, minus infinity for none).

        None leaves nothing alone; empty is the default.
        """
        if setting is None:
            return _NEVER
        if not setting:
            return self.moment - LEFT_ALONE_BEFORE
        if "-" in setting:
            return datetime.fromisoformat(setting).timestamp()
        return self.migrated - float(setting)


def first_start_sql(schema: str) -> str:
    """SQL that stores the moment of the first start, once; minus infinity if events are older."""
    marks = settings_of(schema)
    migrated = f"(SELECT value FROM {marks} WHERE name = {literal(FIRST_MIGRATE)})"
    return (
        f"INSERT INTO {marks} (name, value) SELECT {literal(FIRST_START)}, CASE WHEN EXISTS (SELECT FROM {events_of(schema)}) "
        f"THEN '-infinity' ELSE COALESCE({migrated}, extract(epoch FROM now())::text) END ON CONFLICT DO NOTHING"
    )


async def read_start(connection: Connection, schema: str) -> Start:
    """Return the marks of the first start; one that is missing is made, as by ``migrate``."""
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
    """Return the time (epoch seconds) before which sent orders are not ended by their age.

    Minus infinity if there is none. Read in the transaction that would end an order, because a
    person may just have released it.
    """
    if await read_mark(connection, schema, FIRST_START_RELEASED) is not None:
        return _NEVER
    return float(await read_mark(connection, schema, FIRST_START) or _NEVER)


async def release(connection: Connection, schema: str, by: str) -> float | None:
    """Allow orders that were sent before the first start to be ended by their age.

    Return the moment of that start (epoch seconds). None if nothing is held: it was released
    before, or no order was sent before the start.
    """
    await refuse_while_observed(connection, schema)
    moment = await held_before(connection, schema)
    if not math.isfinite(moment):
        return None
    now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::text")
    return (
        moment if await add_mark(connection, schema, FIRST_START_RELEASED, str(now), by) else None
    )
