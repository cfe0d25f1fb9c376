"""Delay from decision to write: orders placed one by one, each with its own end, while time runs
faster by the same factor for all contestants.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.compare.contestants.contestant import Contestant
from benchmarks.compare.load import Times, excess, order_id, referans, slots_by
from benchmarks.compare.processes import ContestantFailedError
from benchmarks.compare.world import Plan, Run, World, begun, run

_PLACED: Final = 240.0
_SOONEST, _LATEST = 10.0, 240.0
_LAST_SLOT: Final = 270.0
LATENCY: Final = 0.02
"""The provider's latency in seconds."""

_GRACE: Final = 6.0
LATE: Final = 0.05
"""Seconds by which two clocks' readings may differ: a check early by less is not counted as
extra.
"""

_INSERT: Final = (
    "INSERT INTO product_orders (id, external_status, sent_at, provider_referans, note) "
    "VALUES ($1::text::uuid, 'processing', to_timestamp($2), $3, 'bekleniyor')"
)


@dataclass(frozen=True, slots=True)
class Placed:
    """One order: when it is sent and when the provider decides, in epoch seconds."""

    number: int
    sent: float
    ends: float


@dataclass(frozen=True, slots=True)
class Delay:
    """One contestant's delays, in seconds of the accelerated time."""

    contestant: str
    orders: int
    missing: int
    """Orders whose PIN was missing from the database at the end."""
    from_decided: list[float]
    """From the provider's decision to the database."""
    from_told: list[float]
    """From the provider's answer to the database."""
    checks: int
    excess: int
    """Checks beyond the orders' schedules."""


def placed(orders: int, faster: float, begin: float) -> list[Placed]:
    """Return the same orders for every contestant, sent from ``begin`` on (epoch seconds)."""
    drawn = random.Random(20)
    found = []
    for number in range(1, orders + 1):
        sent = begin + _PLACED * number / orders / faster
        found.append(Placed(number, sent, sent + drawn.uniform(_SOONEST, _LATEST) / faster))
    return found


def ideal(orders: int, faster: float) -> Delay:
    """Return what the schedule alone would reach: every check on time, answered and written
    immediately.
    """
    schedule = Times().faster(faster).schedule()
    plan = placed(orders + 1, faster, 0.0)[1:]
    found = [one.sent + schedule.following("", one.ends - one.sent) for one in plan]
    checks = sum(slots_by(schedule, at - one.sent) for one, at in zip(plan, found, strict=True))
    delays = [at - one.ends for one, at in zip(plan, found, strict=True)]
    return Delay("the schedule itself", len(plan), 0, delays, [], checks, 0)


async def delay(world: World, contestant: Contestant, orders: int, faster: float) -> Delay:
    """Measure a contestant while ``orders`` are placed, ``faster`` times as fast as real time.

    Raises:
        ContestantFailedError: no PIN arrived.
    """
    times = Times().faster(faster)
    async with warmed(world, contestant, times) as under_way:
        plan = placed(orders + 1, faster, time.time() + 0.5)[1:]
        await world.provider.reset(
            latency=LATENCY, ends={referans(one.number): one.ends for one in plan}
        )
        await place(world, under_way, plan, times.first)
        await _all_written(world, len(plan), plan[-1].sent + _LAST_SLOT / faster + _GRACE)
        under_way.running.check()
    return await _judged(world, contestant, plan, times)


@asynccontextmanager
async def warmed(world: World, contestant: Contestant, times: Times) -> AsyncIterator[Run]:
    """Run a contestant that has already asked about one order, which is not counted."""
    async with run(world, contestant, Plan(1, times=times)) as under_way:
        await world.provider.reset(latency=LATENCY)
        await begun(world, under_way, 1)
        yield under_way


async def place(world: World, under_way: Run, plan: Sequence[Placed], first: float) -> None:
    """Act as the shop: insert each order at its time, and put it into the queue."""
    for one in plan:
        await asyncio.sleep(max(0.0, one.sent - time.time()))
        await world.ask(_INSERT, order_id(one.number), one.sent, referans(one.number))
        await under_way.put([order_id(one.number)], first)


async def _all_written(world: World, orders: int, until: float) -> None:
    while time.time() < until and len(await _written(world)) < orders:
        await asyncio.sleep(0.25)


async def _written(world: World) -> dict[str, float]:
    rows = await world.ask(
        "SELECT order_id::text, extract(epoch FROM at)::float8 AS at FROM benchmark_written"
    )
    return {row["order_id"]: row["at"] for row in rows}


async def _judged(
    world: World, contestant: Contestant, plan: Sequence[Placed], times: Times
) -> Delay:
    report, written = await world.provider.report(), await _written(world)
    there = [one for one in plan if order_id(one.number) in written]
    if not there:
        raise ContestantFailedError("no PIN arrived")
    asked: Mapping[str, Sequence[float]] = report["asked"]
    at = [
        (written[order_id(one.number)], one.ends, report["told"][referans(one.number)])
        for one in there
    ]
    schedule = times.schedule()
    return Delay(
        contestant.name,
        len(plan),
        len(plan) - len(there),
        [end - decided for end, decided, _ in at],
        [end - told for end, _, told in at],
        sum(len(asked.get(referans(one.number), ())) for one in plan),
        sum(excess(asked.get(referans(one.number), ()), one.sent - LATE, schedule) for one in plan),
    )
