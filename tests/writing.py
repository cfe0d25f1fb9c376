"""Writes findings as the daemon does: through its writer, which halves what the database refuses."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from order_monitor.core.recording import Finding, Result
from order_monitor.shop.repository import Orders
from order_monitor.watch.system_clock import SystemClock
from order_monitor.watch.writer import Writer


@asynccontextmanager
async def writing(orders: Orders) -> AsyncIterator[tuple[Writer, list[Result]]]:
    results: list[Result] = []
    writer = Writer(orders, SystemClock(), results.append, linger=0.001)
    task = asyncio.create_task(writer.run(), name="writer")
    try:
        yield writer, results
    finally:
        task.cancel()
        await asyncio.wait([task])


async def write_all(orders: Orders, findings: Sequence[Finding]) -> list[Result]:
    """Write findings, and return what became of those that nobody holds up."""
    results: list[Result] = []
    writer = Writer(orders, SystemClock(), results.append, linger=0.001)
    for finding in findings:
        writer.submit(finding)
    writer.close()
    async with asyncio.timeout(60):
        await writer.run()
    return results
