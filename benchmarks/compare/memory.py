"""Memory of open orders: the contestant's processes with many orders, compared with the same
processes without any.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.compare.contestants.contestant import Contestant
from benchmarks.compare.load import Times
from benchmarks.compare.processes import ContestantFailedError
from benchmarks.compare.world import Plan, Run, World, run

_NEVER: Final = 36_000.0
"""Seconds to the first check: no calls are made while the memory is read."""

_QUIET: Final = 1.5
_LEAST: Final = 2.0
_LONGEST: Final = 300.0
_STEP: Final = 0.25
_SAME: Final = 0.003


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes above the empty process: in the contestant's own processes, in its broker's, and in its
    queue's tables on disk.
    """

    contestant: str
    orders: int
    own: int
    broker: int
    tables: int


async def memory(world: World, contestant: Contestant, sizes: list[int]) -> list[Memory]:
    """Measure a contestant with each number of open orders."""
    await world.provider.reset()
    empty = await _settled(world, contestant, 0)
    found = []
    for orders in sizes:
        full = await _settled(world, contestant, orders)
        own, broker, tables = (have - had for have, had in zip(full, empty, strict=True))
        found.append(Memory(contestant.name, orders, own, broker, tables))
    return found


async def _settled(world: World, contestant: Contestant, orders: int) -> tuple[int, int, int]:
    plan = Plan(orders, age=0.0, times=Times(first=_NEVER), due_in=_NEVER)
    async with run(world, contestant, plan) as under_way:
        await _quiet(contestant, under_way)
        running = under_way.running
        return running.resident("own"), running.resident("broker"), await world.queued_bytes()


async def _quiet(contestant: Contestant, under_way: Run) -> None:
    """Wait until the contestant has loaded every order, and its memory has stopped changing.

    Raises:
        ContestantFailedError: that takes too long.
    """
    began = time.monotonic()
    last, since = 0, began
    while (now := time.monotonic()) < began + _LEAST or now < since + _QUIET:
        under_way.running.check()
        size = under_way.running.resident("own")
        if abs(size - last) > _SAME * size or contestant.untaken(under_way.load):
            last, since = size, now
        if now > began + _LONGEST:
            raise ContestantFailedError(f"had not taken up all orders after {_LONGEST:g} s")
        await asyncio.sleep(_STEP)
