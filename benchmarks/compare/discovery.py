"""The cost of finding open orders in a table full of ended ones: order-monitor's scan, and the
plan's batch.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import asyncpg

from benchmarks.compare.contestants.celery_plan import CELERY
from benchmarks.compare.contestants.monitor import MONITOR
from benchmarks.compare.load import BATCH, OLDEST_SQL, OPEN
from benchmarks.compare.processes import ContestantFailedError
from benchmarks.compare.world import World
from benchmarks.throughput import LAYOUT
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.reading.orders import Part
from order_monitor.shop.repository import Orders
from order_monitor.watch.policy import Reading

_OPEN_ORDERS: Final = 1000
_AT_A_TIME: Final = 500_000
_LOOKS: Final = 100
_SCANS: Final = 3
_ROOM: Final = 0.6
"""The share of the free disk that the table and its indexes may take."""

_LONG: Final = 1800.0
_FILL: Final = """
INSERT INTO product_orders (id, status, external_status, sent_at, pin_code, note, completed_at, duration_ms, provider_referans)
SELECT ('ffffffff-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'approved', 'completed', sent, 'PIN-' || n, 'tamam',
    sent + interval '4 minutes', 240000, (1000000000000000 + n)::text
FROM (SELECT n, now() - interval '2 years' * (1 - n / $2::float8) - interval '1 hour' AS sent
      FROM generate_series($1::bigint, $1 + $3::bigint - 1) n) made
"""
_ADDED_SQL: Final = """
SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indrelid = 'product_orders'::regclass AND NOT indisprimary
"""
"""The shop's own table, with only its primary key."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Seconds that one way to scan takes in a table with ``rows`` ended orders.

    1,000 orders are open.
    """

    contestant: str
    way: str
    rows: int
    median: float
    slowest: float


class Archive:
    """A shop's table that grows step by step."""

    def __init__(self, world: World) -> None:
        """Create it in ``world``'s database."""
        self._world = world
        self._rows = 0

    async def lay(self) -> None:
        """Create it with only its open orders."""
        await self._world.prepare(MONITOR, _OPEN_ORDERS, 600.0)

    async def fits(self, rows: int) -> int:
        """Return how many of ``rows`` fit on the disk, judged by the size of the rows already
        there.
        """
        if not self._rows:
            return rows
        size = (await self._world.ask("SELECT pg_total_relation_size('product_orders')"))[0][
            0
        ] / self._rows
        free = shutil.disk_usage(self._world.postgres.directory).free
        return min(rows, self._rows + int(_ROOM * free / size / _AT_A_TIME) * _AT_A_TIME)

    async def measured(self, rows: int) -> list[Discovery]:
        """Grow the table to this many ended rows, and scan.

        Raises:
            ContestantFailedError: a scan found other orders than the open ones.
        """
        connection = await asyncpg.connect(self._world.dsn)
        try:
            while self._rows < rows:
                count = min(_AT_A_TIME, rows - self._rows)
                await connection.execute(_FILL, self._rows + 1, rows, count, timeout=_LONG)
                self._rows += count
            await connection.execute("VACUUM (ANALYZE) product_orders", timeout=_LONG)
            return [*await self._ours(), *await self._plans(connection)]
        finally:
            await connection.close()

    async def _ours(self) -> list[Discovery]:
        database = Database(parse_dsn(self._world.dsn))
        orders = Orders(database, LAYOUT)
        try:
            await orders.prepare()
            first = await orders.scan()
            if len(first.orders) != _OPEN_ORDERS:
                raise ContestantFailedError(f"{len(first.orders)} open orders were found")
            since = max(order.sent_at or -math.inf for order in first.orders) - Reading().overlap
            ways = {
                "what was sent lately": lambda: orders.scan(Part(since=since)),
                f"all {_OPEN_ORDERS:,} open orders": orders.scan,
            }
            return [
                self._found(MONITOR.name, way, await timed(look, _LOOKS))
                for way, look in ways.items()
            ]
        finally:
            await database.close()

    async def _plans(self, connection: asyncpg.Connection) -> list[Discovery]:
        async def batch() -> None:
            await connection.fetch(OLDEST_SQL, OPEN, 60.0, BATCH, timeout=_LONG)

        helped = self._found(
            CELERY.name, "its batch of 100, by order-monitor's index", await timed(batch, _LOOKS)
        )
        transaction = connection.transaction()
        await transaction.start()
        for row in await connection.fetch(_ADDED_SQL):
            await connection.execute(f"DROP INDEX {row['name']}")
        alone = self._found(
            CELERY.name, "its batch of 100, on the shop's bare table", await timed(batch, _SCANS)
        )
        await transaction.rollback()
        return [helped, alone]

    def _found(self, name: str, way: str, seconds: list[float]) -> Discovery:
        return Discovery(name, way, self._rows, statistics.median(seconds), max(seconds))


async def timed(look: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """Return the seconds of each scan, without the first one, which warms all caches."""
    await look()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        await look()
        found.append(time.perf_counter() - began)
    return found
