"""pgqueuer: one job per order in PostgreSQL, with its database-level retries at the same pauses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import asyncpg

from benchmarks.compare.contestants.contestant import Contestant, Put, module
from benchmarks.compare.load import Load

_BATCH: Final = 1000


async def install(dsn: str) -> None:
    """Create its tables."""
    from pgqueuer import AsyncpgDriver, Queries  # noqa: PLC0415 - it may not be installed

    connection = await asyncpg.connect(dsn)
    try:
        await Queries(AsyncpgDriver(connection)).install()
    finally:
        await connection.close()


@asynccontextmanager
async def producer(load: Load) -> AsyncIterator[Put]:
    """Enqueue jobs as the shop would."""
    from pgqueuer import AsyncpgDriver, Queries  # noqa: PLC0415 - it may not be installed

    connection = await asyncpg.connect(load.dsn)
    queries = Queries(AsyncpgDriver(connection))

    async def put(order_ids: Sequence[str], delay: float) -> None:
        for start in range(0, len(order_ids), _BATCH):
            payloads = [order_id.encode() for order_id in order_ids[start : start + _BATCH]]
            n = len(payloads)
            await queries.enqueue(["check"] * n, payloads, [0] * n, [timedelta(seconds=delay)] * n)

    try:
        yield put
    finally:
        await connection.close()


PGQUEUER = Contestant(
    "pgqueuer",
    "a job an order, tried again by its database-level retries of the same pauses; one worker, asyncio, asyncpg",
    lambda load: [module("pgqueuer_worker", load)],
    packages=("pgqueuer",),
    install=install,
    producer=producer,
)
