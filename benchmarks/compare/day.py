"""Calls an order over a day: orders stay open for all of it, and time runs faster by the same
factor for all contestants.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.compare.contestants.contestant import Contestant
from benchmarks.compare.delay import LATE, LATENCY, Placed, place, warmed
from benchmarks.compare.load import Times, excess, referans, slots_by
from benchmarks.compare.processes import ContestantFailedError
from benchmarks.compare.world import World

DAY: Final = 86_400.0
_WITHIN: Final = 600.0
"""Seconds at the start of the day in which the orders are placed."""


@dataclass(frozen=True, slots=True)
class Day:
    """One contestant's day: how many checks it made, and how many the orders' schedule contains."""

    contestant: str
    orders: int
    checks: int
    scheduled: int
    excess: int
    """Checks beyond the orders' schedules: duplicates, or too early."""


async def day(world: World, contestant: Contestant, orders: int, faster: float) -> Day:
    """Measure a contestant through a day, ``faster`` times as fast as real time.

    Raises:
        ContestantFailedError: it made no check.
    """
    times = Times().faster(faster)
    async with warmed(world, contestant, times) as under_way:
        begin = time.time() + 0.5
        await world.provider.reset(latency=LATENCY)
        plan = [
            Placed(n, begin + _WITHIN * (n - 2) / orders / faster, math.inf)
            for n in range(2, orders + 2)
        ]
        await place(world, under_way, plan, times.first)
        end = begin + DAY / faster
        await asyncio.sleep(max(0.0, end - time.time()))
        under_way.running.check()
        asked: Mapping[str, Sequence[float]] = (await world.provider.report())["asked"]
    schedule = times.schedule()
    by_order = [
        ([at for at in asked.get(referans(one.number), ()) if at <= end], one.sent) for one in plan
    ]
    checks = sum(len(at) for at, _ in by_order)
    if not checks:
        raise ContestantFailedError("asked nothing")
    scheduled = sum(slots_by(schedule, end - sent) for _, sent in by_order)
    return Day(
        contestant.name,
        orders,
        checks,
        scheduled,
        sum(excess(at, sent - LATE, schedule) for at, sent in by_order),
    )
