"""procrastinate's worker. Run as a process."""

from __future__ import annotations

import asyncio

from procrastinate import App, BaseRetryStrategy, PsycopgConnector, RetryDecision
from procrastinate.jobs import Job as QueuedJob

from benchmarks.compare.contestants.job import CONNECTIONS, Job, StillOpenError, pool_of
from benchmarks.compare.load import Load, Times


class Backoff(BaseRetryStrategy):  # type: ignore[misc] # it has no types where it is not installed
    """Retries at the same pauses as all contestants."""

    def __init__(self, times: Times) -> None:
        """Use the pauses of ``times``."""
        self._times = times

    def get_retry_decision(
        self, *, exception: BaseException, job: QueuedJob
    ) -> RetryDecision | None:
        """Return the time of the next try."""
        if not isinstance(exception, StillOpenError):
            return None
        return RetryDecision(retry_in={"seconds": self._times.pause(job.attempts)})


async def work(load: Load) -> None:
    """Work until stopped."""
    app = App(connector=PsycopgConnector(conninfo=load.dsn, max_size=CONNECTIONS))
    async with pool_of(load) as pool, app.open_async():
        job = Job(load, pool)

        async def check(order_id: str) -> None:
            await job.check(order_id)

        app.task(name="check", retry=Backoff(load.times))(check)
        await app.run_worker_async(
            concurrency=load.in_flight, fetch_job_polling_interval=load.times.poll
        )


if __name__ == "__main__":
    asyncio.run(work(Load.told()))
