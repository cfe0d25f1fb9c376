"""Checks a second, and the cost of a check: a backlog of due orders, each asked about once within
the window.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.compare.contestants.contestant import Contestant
from benchmarks.compare.processes import ContestantFailedError
from benchmarks.compare.usage import cpu_seconds
from benchmarks.compare.world import Plan, Run, World, begun, run

_STEP: Final = 0.05
_FEWEST: Final = 300
"""The fewest checks in a window: with less, chance outweighs the contestant."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The parameters of a measurement: the provider's latency in seconds, and how many calls may be
    in flight.
    """

    latency: float
    in_flight: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters at one moment. CPU is in seconds."""

    at: float
    checks: int
    own: float
    broker: float
    database: float
    provider: float
    statements: int
    written: int


@dataclass(frozen=True, slots=True)
class Speed:
    """One contestant in one cell.

    CPU is in seconds per check; ``provider_busy`` is a fraction of one core.
    """

    contestant: str
    latency: float
    in_flight: int
    checks: int
    per_second: float
    own: float
    broker: float
    database: float
    provider_busy: float
    statements: float
    """Per thousand checks."""
    written: float
    """Rows inserted, updated or deleted per thousand checks."""
    repeated: int
    """Repeated checks of an order, though none was due again."""
    peak: int
    """The most calls that the provider saw at one time."""


async def speed(
    world: World, contestant: Contestant, cell: Cell, orders: int, window: float
) -> Speed:
    """Measure a contestant over ``window`` seconds, or until nearly all ``orders`` have been asked
    about.

    With few checks it takes up to four times as long.

    Raises:
        ContestantFailedError: it did not start asking.
    """
    await world.provider.reset(latency=cell.latency)
    plan = Plan(orders if contestant.is_whole else 0, in_flight=cell.in_flight)
    async with run(world, contestant, plan) as under_way:
        # Warm means: it has asked twice as many questions as may be in flight.
        await begun(world, under_way, max(50, 2 * cell.in_flight))
        before = await _snapshot(world, under_way)
        while not is_enough(
            time.monotonic() - before.at, await _total(world), before.checks, plan.orders, window
        ):
            await asyncio.sleep(_STEP)
        after = await _snapshot(world, under_way)
        counted = await world.provider.count()
    return compared(contestant, cell, before, after, counted)


def is_enough(seconds: float, checks: int, before: int, orders: int, window: float) -> bool:
    """Whether a window may end: nearly all orders were asked about, or it is long enough and has
    enough checks.
    """
    if orders and checks >= 0.95 * orders:
        return True
    return seconds >= window and (checks - before >= _FEWEST or seconds >= 4 * window)


async def _total(world: World) -> int:
    return (await world.provider.count())["total"]


async def _snapshot(world: World, under_way: Run) -> Snapshot:
    statements, written = await world.statements(), await world.rows_written()
    running = under_way.running
    own, broker = running.cpu("own"), running.cpu("broker")
    database, provider = cpu_seconds([world.server_pid]), cpu_seconds([world.provider.pid])
    return Snapshot(
        time.monotonic(), await _total(world), own, broker, database, provider, statements, written
    )


def compared(
    contestant: Contestant, cell: Cell, before: Snapshot, after: Snapshot, counted: dict[str, int]
) -> Speed:
    """Return the difference of two snapshots.

    Raises:
        ContestantFailedError: nothing happened between them.
    """
    checks, seconds = after.checks - before.checks, after.at - before.at
    if checks <= 0:
        raise ContestantFailedError("asked nothing within the window")
    return Speed(
        contestant.name,
        cell.latency,
        cell.in_flight,
        checks,
        checks / seconds,
        (after.own - before.own) / checks,
        (after.broker - before.broker) / checks,
        (after.database - before.database) / checks,
        (after.provider - before.provider) / seconds,
        1000 * (after.statements - before.statements) / checks,
        1000 * (after.written - before.written) / checks,
        counted["repeated"] if contestant.is_whole else 0,
        counted["peak"],
    )
