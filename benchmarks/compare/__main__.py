"""``python -m benchmarks.compare``: measure, and write build/benchmark/table.md and
build/benchmark/results.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeVar

import asyncpg

from benchmarks.compare.batches import batches
from benchmarks.compare.contestants.celery_plan import CELERY
from benchmarks.compare.contestants.contestant import ROOT, Contestant
from benchmarks.compare.contestants.limits import HTTPX, STREAMS
from benchmarks.compare.contestants.monitor import MONITOR
from benchmarks.compare.contestants.pgqueuer_queue import PGQUEUER
from benchmarks.compare.contestants.procrastinate_queue import PROCRASTINATE
from benchmarks.compare.day import day
from benchmarks.compare.delay import delay, ideal
from benchmarks.compare.discovery import Archive
from benchmarks.compare.memory import memory
from benchmarks.compare.processes import ContestantFailedError
from benchmarks.compare.results import Results, shares
from benchmarks.compare.shop_writes import shop_writes
from benchmarks.compare.speed import Cell, speed
from benchmarks.compare.table import markdown
from benchmarks.compare.versions import machine, missing, versions
from benchmarks.compare.world import World, password_of, world

CONTESTANTS: Final = (MONITOR, CELERY, PROCRASTINATE, PGQUEUER, HTTPX, STREAMS)
PARTS: Final = ("speed", "memory", "delay", "day", "shop", "discovery", "batches")
OUT: Final = ROOT / "build" / "benchmark"
_LONGEST: Final = 900.0
"""Seconds for one measurement."""

_DAILY: Final = 40
"""Orders in the one-day measurement."""

_LONG: Final = 3600.0
"""Seconds for a measurement that fills a disk first."""

T = TypeVar("T")
FAILURES: Final = (ContestantFailedError, TimeoutError, OSError, asyncpg.PostgresError)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. ``window`` and ``writes`` are seconds."""

    cells: Sequence[Cell]
    backlog: int
    window: float
    rounds: int
    open_orders: Sequence[int]
    only_ours: Sequence[int]
    placed: int
    faster: float
    day: float | None
    """The speed-up of a day; None skips the day."""
    writes: int
    turns: int
    ended: Sequence[int]
    in_batches: Sequence[int]
    """The numbers of open orders with which batches are measured."""


# Without batches, which take half a minute: three are promised for everything.
QUICK: Final = Size(
    (Cell(0, 20), Cell(0.2, 100)), 2000, 1.5, 1, (2_500,), (), 100, 60.0, None, 1, 2, (100_000,),
    (),
)  # fmt: skip
FULL: Final = Size(
    [Cell(latency, in_flight) for latency in (0, 0.2) for in_flight in (20, 100, 500)],
    12_000, 6.0, 3, (10_000, 100_000), (1_000_000,), 300, 20.0, 600.0, 2, 10,
    (1_000_000, 50_000_000), (500, 5_000),
)  # fmt: skip


class Comparison:
    """One run of all measurements."""

    def __init__(
        self, size: Size, world: World, results: Results, contestants: Sequence[Contestant]
    ) -> None:
        """Measure ``contestants`` in ``world`` into ``results``."""
        self._size, self._world, self._results, self._all = size, world, results, contestants
        self._whole = [one for one in contestants if one.is_whole]

    async def speed(self) -> None:
        """Measure each cell in rounds, the contestants in turn."""
        for cell in [cell for _ in range(self._size.rounds) for cell in self._size.cells]:
            for one in self._all:
                measuring = speed(self._world, one, cell, self._size.backlog, self._size.window)
                self._results.speed += await self._found(f"{one.name}: speed, {cell}", measuring)

    async def memory(self) -> None:
        """Measure each number of open orders."""
        for one in self._whole:
            sizes = [*self._size.open_orders, *(self._size.only_ours if one is MONITOR else ())]
            for rows in await self._found(f"{one.name}: memory", memory(self._world, one, sizes)):
                self._results.memory += rows

    async def delay(self) -> None:
        """Measure all contestants on the same orders, and compute what the schedule alone would
        reach.
        """
        for one in self._whole:
            measuring = delay(self._world, one, self._size.placed, self._size.faster)
            self._results.delay += await self._found(f"{one.name}: delay", measuring)
        self._results.delay.append(ideal(self._size.placed, self._size.faster))

    async def day(self) -> None:
        """Measure all contestants through a day."""
        faster = self._size.day
        if faster is None:
            return
        for one in self._whole:
            self._results.day += await self._found(
                f"{one.name}: day", day(self._world, one, _DAILY, faster)
            )

    async def shop(self) -> None:
        """Measure the shop's writes while each contestant runs."""
        for one in self._whole:
            measuring = shop_writes(self._world, one, self._size.writes, self._size.turns)
            self._results.shop += await self._found(f"{one.name}: shop", measuring)

    async def discovery(self) -> None:
        """Measure scans with more and more ended rows in the table."""
        archive = Archive(self._world)
        await archive.lay()
        for rows in self._size.ended:
            fits = await archive.fits(rows)
            if fits < rows:
                self._results.left_out.append(
                    f"discovery: {fits:,} rows in place of {rows:,}: the disk has no room for more"
                )
            for found in await self._found(
                f"discovery, {fits:,} rows that ended", archive.measured(fits), _LONG
            ):
                self._results.discovery += found

    async def batches(self) -> None:
        """Measure what many orders a call bring, with each number of open orders."""
        for open_orders in self._size.in_batches:
            for rows in await self._found(f"batches, {open_orders:,} open", batches(open_orders)):
                self._results.batches += rows

    async def _found(
        self, what: str, measuring: Coroutine[Any, Any, T], longest: float = _LONGEST
    ) -> list[T]:
        """Return the measurement; an empty list and a note if it failed."""
        say(what)
        try:
            async with asyncio.timeout(longest):
                return [await measuring]
        except FAILURES as error:
            why = f"{what}: {str(error) or type(error).__name__}".replace(
                password_of(self._world), "****"
            )
            self._results.left_out.append(why)
            say(f"left out: {why}")
            return []


def say(text: str) -> None:
    """Report progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def compare(size: Size, parts: Sequence[str], names: Sequence[str]) -> Results:
    """Measure the ``parts`` with the contestants whose names contain one of ``names``, or with
    all.
    """
    asked = [
        one for one in CONTESTANTS if not names or any(name in one.name.lower() for name in names)
    ]
    lacking = {one.name: why for one in asked if (why := missing(one))}
    there = [one for one in asked if one.name not in lacking]
    async with world() as made:
        (row,) = await made.ask("SHOW server_version", database="postgres")
        about = {**machine(), "faster": f"{size.faster:g}", "rounds": str(size.rounds)}
        about |= {"day": f"{size.day:g}"} if size.day else {}
        results = Results(about, versions(row[0]), {one.name: one.how for one in there})
        results.left_out += [f"{name}: {why}" for name, why in lacking.items()]
        comparison = Comparison(size, made, results, there)
        for part in parts:
            await getattr(comparison, part)()
    return results


def write(results: Results) -> str:
    """Write both files, and return the table."""
    whole = {one.name: one.is_whole for one in CONTESTANTS}
    table = markdown(results, whole)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "table.md").write_text(table, "utf-8")
    found = {**asdict(results), "shares": [asdict(one) for one in shares(results, whole)]}
    (OUT / "results.json").write_text(json.dumps(found, indent=2, allow_nan=False), "utf-8")
    return table


def options() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under 3 minutes")
    parser.add_argument("--rounds", type=int, help="how often speed is measured; medians are shown")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="only this part; may be given again"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only contestants whose name holds this",
    )
    return parser.parse_args()


async def run(typed: argparse.Namespace) -> None:
    """Compare; on SIGINT and SIGTERM end all processes started here."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    size = QUICK if typed.quick else FULL
    size = replace(size, rounds=typed.rounds or size.rounds)
    results = await compare(size, typed.part or PARTS, [name.lower() for name in typed.only])
    print(write(results))
    say(f"written to {OUT.relative_to(ROOT)}")


def main() -> int:
    """Run, and return the exit code."""
    try:
        asyncio.run(run(options()))
    except asyncio.CancelledError:
        say("stopped; nothing was written")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
