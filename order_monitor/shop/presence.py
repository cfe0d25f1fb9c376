"""Which processes work on this shop, and the state of their clocks: one small row for each, written
every few seconds.

A process that has ended leaves its row for a day: the next process of the same boot continues with
what it saw of the machine's clocks. Only the boot id identifies the machine, since a host name
differs between containers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from order_monitor.core.clocks import ClockMemory
from order_monitor.shop.database import Database
from order_monitor.shop.schema.columns import qualified
from order_monitor.shop.schema.table_config import PRESENCE

DAEMON: Final = "daemon"
GONE: Final = "gone"

_LOCK_WAIT: Final = 1.0
_NOW: Final = "extract(epoch FROM clock_timestamp())::float8"


@dataclass(frozen=True, slots=True)
class Ident:
    """One process: a unique id, where it runs, and its kind: ``daemon``, ``once``, ``ask``."""

    id: str
    host: str
    pid: int
    kind: str
    version: str


class Peer(NamedTuple):
    """Another daemon, and when it was last seen (the database's epoch seconds)."""

    id: str
    host: str
    pid: int
    seen_at: float


class Recollection(NamedTuple):
    """What is known of this boot's clocks, if anything, and the database's (epoch seconds)."""

    memory: ClockMemory | None
    now: float


class Presence:
    """The presence table: our own row and the others'.

    Each method raises `ShopError` where the database cannot be asked, or the table does not exist.
    """

    def __init__(self, database: Database, schema: str, ident: Ident) -> None:
        """Write the row of ``ident`` in the table in ``schema``."""
        self._database = database
        self._table = qualified(schema, PRESENCE)
        self.ident = ident

    async def tell(
        self,
        boot_id: str,
        memory: ClockMemory,
        settings: str | None = None,
        *,
        prunes: bool = False,
        kind: str = "",
    ) -> float:
        """Write this process's row; return the database's clock, epoch seconds.

        ``prunes`` deletes rows not seen for a day. Do not prune by a clock that is not vouched for:
        what seems old may be recent.
        """
        me = self.ident
        async with self._database.transaction(lock_wait=_LOCK_WAIT) as connection:
            now: float = await connection.fetchval(
                f"WITH pruned AS (DELETE FROM {self._table} "
                "WHERE $11::boolean AND id <> $1 AND seen_at < clock_timestamp() - interval '1 day') "
                f"INSERT INTO {self._table} AS p (id, host, pid, kind, version, settings, boot_id, "
                "utc_offset, database_offset, unsteady_until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
                "ON CONFLICT (id) DO UPDATE SET kind = EXCLUDED.kind, settings = COALESCE(EXCLUDED.settings, p.settings), "
                "boot_id = EXCLUDED.boot_id, utc_offset = EXCLUDED.utc_offset, database_offset = EXCLUDED.database_offset, "
                f"unsteady_until = EXCLUDED.unsteady_until, seen_at = clock_timestamp() RETURNING {_NOW}",
                *(me.id, me.host, me.pid, kind or me.kind, me.version, settings, boot_id),
                *(memory.machine, memory.database, memory.unsteady_until, prunes),
            )
        return now

    async def recall(self, boot_id: str) -> Recollection:
        """Return what others have seen of this boot's clocks: the newest offsets, and until when
        ages were not to be trusted.

        The newest row is determined by the seconds since boot at which it was written: ``seen_at``
        minus the row's own offset. A row written while the database's clock was ahead does not
        count as newer because of that.
        """
        async with self._database.transaction(lock_wait=_LOCK_WAIT) as connection:
            row = await connection.fetchrow(
                "WITH kept AS (SELECT utc_offset, database_offset, unsteady_until, "
                f"extract(epoch FROM seen_at)::float8 - database_offset AS at FROM {self._table} "
                "WHERE boot_id = $1 AND boot_id <> '' AND id <> $2) "
                f"SELECT {_NOW} AS now, (SELECT max(unsteady_until) FROM kept) AS unsteady_until, k.* "
                "FROM (SELECT) AS one LEFT JOIN (SELECT utc_offset, database_offset, at, true AS is_there FROM kept "
                "ORDER BY at DESC NULLS LAST LIMIT 1) k ON true",
                boot_id,
                self.ident.id,
            )
        assert row is not None
        if row["is_there"] is None:
            return Recollection(None, row["now"])
        until = row["unsteady_until"]
        memory = ClockMemory(
            row["utc_offset"], row["database_offset"], 0.0 if until is None else until, row["at"]
        )
        return Recollection(memory, row["now"])

    async def seen(self, within: float) -> list[Peer]:
        """Return the other daemons that were seen within that many seconds."""
        async with self._database.transaction(lock_wait=_LOCK_WAIT) as connection:
            rows = await connection.fetch(
                f"SELECT id, host, pid, extract(epoch FROM seen_at)::float8 AS seen_at FROM {self._table} "
                "WHERE kind = $1 AND id <> $2 AND seen_at > clock_timestamp() - make_interval(secs => $3) "
                "ORDER BY started_at, id",
                *(DAEMON, self.ident.id, within),
            )
        return [Peer(*row) for row in rows]

    async def leave(self, boot_id: str, memory: ClockMemory, settings: str | None = None) -> None:
        """Record that this process has ended; what it has seen of the clocks stays."""
        await self.tell(boot_id, memory, settings, kind=GONE)
