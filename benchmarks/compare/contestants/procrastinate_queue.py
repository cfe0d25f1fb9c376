"""procrastinate: one job per order in PostgreSQL, with a retry strategy of the same pauses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from benchmarks.compare.contestants.contestant import Contestant, Put, module
from benchmarks.compare.load import Load

_BATCH: Final = 1000


async def install(dsn: str) -> None:
    """Create its tables."""
    from procrastinate import App, PsycopgConnector  # noqa: PLC0415 - it may not be installed

    async with App(connector=PsycopgConnector(conninfo=dsn)).open_async() as app:
        await app.schema_manager.apply_schema_async()


@asynccontextmanager
async def producer(load: Load) -> AsyncIterator[Put]:
    """Defer jobs as the shop would."""
    from procrastinate import App, PsycopgConnector  # noqa: PLC0415 - it may not be installed

    async with App(connector=PsycopgConnector(conninfo=load.dsn)).open_async() as app:

        async def put(order_ids: Sequence[str], delay: float) -> None:
            deferrer = app.configure_task(
                "check", allow_unknown=True, schedule_in={"seconds": delay}
            )
            for start in range(0, len(order_ids), _BATCH):
                jobs = [{"order_id": order_id} for order_id in order_ids[start : start + _BATCH]]
                await deferrer.batch_defer_async(*jobs)

        yield put


PROCRASTINATE = Contestant(
    "procrastinate",
    "a job an order, tried again by a retry strategy of the same pauses; one worker, asyncio, psycopg",
    lambda load: [module("procrastinate_worker", load)],
    packages=("procrastinate",),
    install=install,
    producer=producer,
)
