"""Delay until an end is found when one call covers many orders: ``python -m benchmarks.batches
[--json] [OPEN …]``.

The daemon's own loop in virtual time, at one call a second. Orders are sent at an even rate that
keeps about OPEN of them open (500 and 5,000 by default), and each ends 30 s or more after it was
sent. The delay runs from the provider's decision to the row. For comparison, the plan that this
program replaces: one order a task, retried after ``min(30 * 2^n, 600)`` seconds, by workers at the
same pace, in the order in which the tasks come due.
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import structlog

from benchmarks.virtual import EPOCH, InBatches, OneByOne, Sent, World, watch_until
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.watch.account import Account
from tests.simulation.loop import SimClock, run

PACE: Final = 1.0
"""Calls a second."""

LATENCY: Final = 0.3
BATCH: Final = 50
"""The most orders in a call of a client API."""

LEAST: Final = 30.0
MEAN: Final = 1800.0
"""The shortest time to an order's end and the mean, in seconds."""

WARM: Final = 3600.0
MEASURED: Final = 3600.0
"""Seconds of warm-up, until the number of open orders is steady, and seconds in which ends are
measured.
"""

MANY: Final = f"client API, {BATCH} orders a call"
ONE: Final = "znet, one order a call"
PLAN: Final = "Celery's plan, one order a call"


@dataclass(frozen=True, slots=True)
class Found:
    """How soon ends were found: the delay in seconds from the provider's decision to the row.

    An end that was not found counts with its delay so far. ``found`` of the ``ended`` ends were.
    """

    open_orders: int
    who: str
    ended: int
    found: int
    p50: float
    p95: float


def sent(open_orders: int) -> list[Sent]:
    """Return the orders of one run."""
    chance, found, at = random.Random(1), [], 0.0
    while at < WARM + MEASURED:
        found.append(Sent(at, at + LEAST + chance.expovariate(1 / (MEAN - LEAST))))
        at += MEAN / open_orders
    return found


async def ours(orders: Sequence[Sent], batch: int) -> dict[str, float]:
    """Return each end's delay in seconds, as written by the daemon's loop."""
    world = World(orders, SimClock(EPOCH))
    provider = InBatches(world, LATENCY, batch) if batch > 1 else OneByOne(world, LATENCY)
    account = Account("a", provider, Gate(5), Pace(PACE))
    plan = Continuous(Schedule(60, 30, 600, 0.1, 86_400))
    until = WARM + MEASURED
    await watch_until(until, world, {"a": account}, plan, scan_every=5.0, concurrency=20)
    return world.late


def planned(orders: Sequence[Sent]) -> dict[str, float]:
    """Return the same for the plan's retries, which queue for calls at the same pace."""
    waiting = [(order.at + 60.0, n, 0) for n, order in enumerate(orders)]
    heapq.heapify(waiting)
    late: dict[str, float] = {}
    now = 0.0
    while waiting and now < WARM + MEASURED:
        due, n, attempt = heapq.heappop(waiting)
        now = max(now + 1 / PACE, due)
        answered = now + LATENCY
        if answered >= orders[n].ends:
            late[str(n)] = answered - orders[n].ends
        else:
            again = answered + min(30.0 * 2**attempt, 600.0)
            heapq.heappush(waiting, (again, n, min(attempt + 1, 16)))
    return late


def measured(
    open_orders: int, who: str, orders: Sequence[Sent], late: Mapping[str, float]
) -> Found:
    """Return what became of the ends that were decided in time to be found."""
    end = WARM + MEASURED
    those = [n for n, order in enumerate(orders) if WARM <= order.ends < end - 600]
    delays = sorted(late.get(str(n), end - orders[n].ends) for n in those)
    found = sum(str(n) in late for n in those)
    p50, p95 = (delays[int(len(delays) * part)] for part in (0.5, 0.95))
    return Found(open_orders, who, len(those), found, p50, p95)


def measure(open_orders: int) -> Iterator[Found]:
    """Measure each way with so many open orders."""
    orders = sent(open_orders)
    yield measured(open_orders, MANY, orders, run(ours(orders, BATCH)))
    yield measured(open_orders, ONE, orders, run(ours(orders, 1)))
    yield measured(open_orders, PLAN, orders, planned(orders))


def main() -> None:
    """Print a table for each number of open orders, or one line of JSON for each way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each way")
    parser.add_argument("open", nargs="*", type=int, default=[500, 5000], metavar="OPEN")
    typed = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for count in typed.open:
        if not typed.json:
            print(f"\n{count} open orders, {PACE:g} call a second\n")
            print("| | ends found | p50, s | p95, s |\n|---|---|---|---|")
        for row in measure(count):
            line = f"| {row.who} | {row.found} of {row.ended} | {row.p50:.1f} | {row.p95:.1f} |"
            print(json.dumps(asdict(row)) if typed.json else line, flush=True)


if __name__ == "__main__":
    main()
