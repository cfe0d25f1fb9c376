"""pgqueuer's worker. Run as a process."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from functools import partial

from pgqueuer import DatabaseRetryEntrypointExecutor, PgQueuer
from pgqueuer import Job as QueuedJob

from benchmarks.compare.contestants.job import Job, pool_of
from benchmarks.compare.load import Load

_FOR_EVER = 1_000_000


async def work(load: Load) -> None:
    """Work until stopped."""
    async with pool_of(load) as orders, pool_of(load) as own:
        job, queuer = Job(load, orders), PgQueuer.from_asyncpg_pool(own)
        executor = partial(
            DatabaseRetryEntrypointExecutor,
            max_attempts=_FOR_EVER,
            initial_delay=timedelta(seconds=load.times.base),
            max_delay=timedelta(seconds=load.times.cap),
        )

        free = asyncio.Semaphore(load.in_flight)

        async def check(queued: QueuedJob) -> None:
            assert queued.payload is not None
            async with free:
                await job.check(queued.payload.decode())

        queuer.qm.entrypoint("check", executor_factory=executor)(check)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
        # It counts a job until its end has been written: a limit at the number in flight would
        # leave it mostly waiting.
        await queuer.qm.run(
            timedelta(seconds=load.times.dequeue),
            batch_size=load.in_flight,
            max_concurrent_tasks=4 * load.in_flight,
        )


if __name__ == "__main__":
    asyncio.run(work(Load.told()))
