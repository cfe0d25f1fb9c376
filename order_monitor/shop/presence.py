"""Which processes work on this shop, and how their clocks stood: one small row each, told every few seconds.

A process that has ended leaves its row for a day: what it saw of its machine's clocks is what the next one of the same boot goes on
with. The boot's id alone says whose clocks those were; a host's name is another in each container.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from order_monitor.core.clocks import ClockMemory
from order_monitor.shop.columns import quoted
from order_monitor.shop.database import Database
from order_monitor.shop.layout import PRESENCE

DAEMON: Final = "daemon"
GONE: Final = "gone"

_LOCK_WAIT: Final = 1.0
_NOW: Final = "extract(epoch FROM clock_timestamp())::float8"


@dataclass(frozen=True, slots=True)
class Ident:
    """One process: an id unlike any other's, where it runs, and what it is: ``daemon``, ``once``, ``ask``."""

    id: str
    host: str
    pid: int
    kind: str
    version: str


class Peer(NamedTuple):
    """A daemon that lives, by its last word; ``settings`` is a digest of those that decide money, None where it told none."""

    id: str
    host: str
    pid: int
    version: str
    settings: str | None


class Recollection(NamedTuple):
    """What is known of this boot's clocks, None where nobody has told anything; ``now`` is the database's clock, epoch seconds."""

    memory: ClockMemory | None
    now: float


class Presence:
    """The table of them: our own row, and the others'."""

    def __init__(self, database: Database, schema: str, ident: Ident) -> None:
        """Tell of ``ident`` in the table in ``schema``."""
        self._database = database
        self._table = f"{quoted(schema)}.{quoted(PRESENCE)}"
        self.ident = ident

    async def tell(
        self, boot_id: str, memory: ClockMemory, settings: str | None = None, *, prunes: bool = False, kind: str = ""
    ) -> float:
        """Write this process's row; return the database's clock, epoch seconds. ``prunes`` drops what was not seen for a day.

        Nothing is to be pruned by a clock that nobody vouches for: what it takes for old may be from just now.

        Raises:
            ShopError: the database could not be asked, or the table is not there.
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
        """Return what others have seen of this boot's clocks: the newest offsets, and until when ages were not to be believed.

        Which row is the newest is told by the seconds since boot at which it was written: what ``seen_at`` says less the row's own
        offset. A row written while the database's clock was ahead is not newer for that.

        Raises:
            ShopError: as `tell`.
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
        memory = ClockMemory(row["utc_offset"], row["database_offset"], 0.0 if until is None else until, row["at"])
        return Recollection(memory, row["now"])

    async def others(self, within: float = 60.0, settings: str | None = None) -> list[Peer]:
        """Return the daemons beside this one that were seen within so many seconds; with ``settings`` those of this digest.

        Raises:
            ShopError: as `tell`.
        """
        async with self._database.transaction(lock_wait=_LOCK_WAIT) as connection:
            rows = await connection.fetch(
                f"SELECT id, host, pid, version, settings FROM {self._table} WHERE kind = $1 AND id <> $2 "
                "AND seen_at BETWEEN clock_timestamp() - make_interval(secs => $3) "
                "AND clock_timestamp() + make_interval(secs => $3) AND ($4::text IS NULL OR settings = $4) "
                "ORDER BY started_at, id",
                *(DAEMON, self.ident.id, within, settings),
            )
        return [Peer(*row) for row in rows]

    async def seen(self, within: float) -> list[tuple[Peer, float]]:
        """Return the daemons beside this one that were seen within so many seconds, each with when (the database's epoch seconds).

        Raises:
            ShopError: as `tell`.
        """
        async with self._database.transaction(lock_wait=_LOCK_WAIT) as connection:
            rows = await connection.fetch(
                f"SELECT id, host, pid, version, settings, extract(epoch FROM seen_at)::float8 AS at FROM {self._table} "
                "WHERE kind = $1 AND id <> $2 AND seen_at > clock_timestamp() - make_interval(secs => $3) "
                "ORDER BY started_at, id",
                *(DAEMON, self.ident.id, within),
            )
        return [(Peer(*list(row)[:-1]), row["at"]) for row in rows]

    async def leave(self, boot_id: str, memory: ClockMemory, settings: str | None = None) -> None:
        """Say that this process works no more; what it has seen of the clocks stays.

        Raises:
            ShopError: as `tell`.
        """
        await self.tell(boot_id, memory, settings, kind=GONE)


async def database_time(database: Database) -> float:
    """Return the database's clock, epoch seconds.

    Raises:
        ShopError: the database could not be asked.
    """
    async with database.transaction() as connection:
        now: float = await connection.fetchval(f"SELECT {_NOW}")
    return now
