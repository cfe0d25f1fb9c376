"""Ask in an endless loop over order-monitor's own client: the limit of that client. Run as a process."""

from __future__ import annotations

import asyncio
import itertools

from benchmarks.compare.contestants.client import client
from benchmarks.compare.load import Load, referans


async def ask_for_ever(load: Load) -> None:
    """Keep the load's number of calls in flight."""
    znet, numbers = client(load.url), itertools.count()

    async def work() -> None:
        while True:
            await znet.ask(referans(next(numbers)))

    await asyncio.gather(*[work() for _ in range(load.in_flight)])


if __name__ == "__main__":
    asyncio.run(ask_for_ever(Load.told()))
