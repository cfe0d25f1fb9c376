"""What people have been notified of, in one row of the settings table; and the daily line's
figures.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from order_monitor.shop.database import Database
from order_monitor.shop.marks import add_mark, digest_key, set_mark
from order_monitor.shop.schema.columns import literal
from order_monitor.shop.schema.table_config import events_of, settings_of

NAME: Final = "notify"
"""The name of the row."""

_DAY: Final = 86_400.0


@dataclass(slots=True)
class Row:
    """The locked row. The ``value`` at the end of the transaction is stored."""

    value: str
    key: bytes

    def digest(self, url: str) -> str:
        """Return a service's identifier: a keyed digest of its address, which is a secret."""
        return blake2b(url.encode(), digest_size=8, key=self.key).hexdigest()


@dataclass(frozen=True, slots=True)
class Figures:
    """Orders completed and failed in 24 hours; ``half``: the median seconds from sending to end."""

    completed: int = 0
    failed: int = 0
    half: float | None = None


class NoticeStore:
    """The row in a shop's schema."""

    def __init__(self, database: Database, schema: str) -> None:
        """Store it in ``schema``."""
        self._database = database
        self._schema = schema

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[Row]:
        """Lend the row to one process at a time.

        Raises:
            ShopError: the database could not be asked, or the table does not exist.
        """
        async with self._database.transaction() as connection:
            key = await digest_key(connection, self._schema)
            await add_mark(connection, self._schema, NAME, "")
            value = await connection.fetchval(
                f"SELECT value FROM {settings_of(self._schema)} WHERE name = {literal(NAME)} FOR UPDATE"
            )
            row = Row(str(value), key)
            yield row
            if row.value != value:
                await set_mark(connection, self._schema, NAME, row.value)

    async def figures(self) -> Figures:
        """Return the figures of the last 24 hours; a repeated end counts once.

        Raises:
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            found = await connection.fetchrow(
                "SELECT count(*) FILTER (WHERE outcome = 'completed') AS completed, "
                "count(*) FILTER (WHERE outcome = 'failed') AS failed, "
                "percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM decided_at - sent_at)::float8) AS half "
                f"FROM {events_of(self._schema)} WHERE NOT repeat AND outcome IN ('completed', 'failed') "
                "AND decided_at > clock_timestamp() - make_interval(secs => $1)",
                _DAY,
            )
        assert found is not None
        return Figures(found["completed"], found["failed"], found["half"])
