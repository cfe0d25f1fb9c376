"""Writes findings like the daemon: through its writer, which halves batches that the database
refuses.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from order_monitor.core.check_result import CheckResult, WriteResult
from order_monitor.shop.repository import Orders
from order_monitor.watch.system_clock import SystemClock
from order_monitor.watch.write_queue import WriteQueue


class Results(list[WriteResult]):
    """Stores each write's result, in place of the engine's handler."""

    def handle(self, result: WriteResult) -> None:
        self.append(result)

    def wrote(self, count: int, seconds: float) -> None:
        pass

    def is_stuck(self, order_id: str) -> bool:
        return True


@asynccontextmanager
async def writing(orders: Orders) -> AsyncIterator[tuple[WriteQueue, list[WriteResult]]]:
    results = Results()
    writer = WriteQueue(orders, SystemClock(), results, linger=0.001)
    task = asyncio.create_task(writer.run(), name="writer")
    try:
        yield writer, results
    finally:
        task.cancel()
        await asyncio.wait([task])


async def write_all(orders: Orders, findings: Sequence[CheckResult]) -> list[WriteResult]:
    """Write findings, and return the results of those that are not held up."""
    results = Results()
    writer = WriteQueue(orders, SystemClock(), results, linger=0.001)
    for finding in findings:
        writer.submit(finding)
    writer.close()
    async with asyncio.timeout(60):
        await writer.run()
    return results
