"""What many orders a call bring: `benchmarks.batches`, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.batches import Found
from benchmarks.compare.contestants.contestant import ROOT
from benchmarks.compare.processes import LONGEST, ContestantFailedError, stopped


async def batches(open_orders: int) -> list[Found]:
    """Measure each way of asking with so many open orders.

    Raises:
        ContestantFailedError: the process ended with an error.
    """
    process = await asyncio.create_subprocess_exec(
        *("timeout", str(LONGEST), sys.executable, "-m", "benchmarks.batches", "--json"),
        str(open_orders),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        await stopped(process)
    if process.returncode:
        tail = err.decode(errors="replace")[-300:]
        raise ContestantFailedError(f"it ended with {process.returncode}: {tail}")
    return [Found(**json.loads(line)) for line in out.splitlines()]
