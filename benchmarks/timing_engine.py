"""The mixed day again, in the daemon's own loop in virtual time: ``python -m
benchmarks.timing_engine [LOAD …]``.

The loop is the program's, learning included, over a table and a provider in memory that answers
after 0.2 s (`benchmarks.virtual`). The run covers two days with different orders of the same
packages: on the second, the first day's learning is available.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from benchmarks.timing import CEILING, DAY, SCHEDULE, TERMS, Placed, products, stream
from benchmarks.virtual import EPOCH, OneByOne, Sent, World, watch_until
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.schedule import Continuous, Plan
from order_monitor.timing.learning import Learning
from order_monitor.timing.memory import Key
from order_monitor.timing.plan import Learned
from order_monitor.timing.planner import Timing
from order_monitor.timing.sketch import Sketch
from order_monitor.watch.account import Account
from tests.simulation.loop import SimClock, run

LATENCY: Final = 0.2
SCAN_EVERY: Final = 10.0
EACH: Final = 5.2
"""Calls an order with backoff, used to set the load."""

ROOM: Final = 7_200.0
"""Seconds after the last day, in which most of its orders are found."""


class Nowhere:
    """A store that keeps nothing."""

    async def read(self) -> Mapping[Key, str] | None:
        return {}

    async def history(self) -> Sequence[object]:
        return []

    async def save(self, learned: Mapping[Key, Sketch]) -> None:
        pass


def sent_of(placed: Sequence[Placed]) -> list[Sent]:
    """Return the orders as the provider and the shop's table have them."""
    return [Sent(one.at, one.at + one.lasts, *one.key) for one in placed]


async def through(placed: Sequence[Placed], *, learns: bool, until: float) -> World:
    """Run the daemon's loop until then."""
    clock = SimClock(EPOCH)
    world = World(sent_of(placed), clock)
    timing = Timing(SCHEDULE, TERMS)
    learning = Learning(timing, Nowhere(), clock, SCHEDULE)  # type: ignore[arg-type]
    names = sorted({order.key[0] for order in placed})
    provider = OneByOne(world, LATENCY)
    accounts = {name: Account(name, provider, Gate(5), Pace(CEILING)) for name in names}
    plan: Plan = Learned(SCHEDULE, timing) if learns else Continuous(SCHEDULE)

    await watch_until(
        until,
        world,
        accounts,
        plan,
        scan_every=SCAN_EVERY,
        concurrency=100,
        learning=learning if learns else None,
    )
    return world


def told(load: float) -> None:
    """Print the rows of one load."""
    rate = load * 3 * CEILING / EACH
    placed = [
        o
        for key, share, draw in products()
        for o in stream(7, key, draw, 1 / (rate * share), 0.0, 2 * DAY)
    ]
    placed.sort(key=lambda order: order.at)
    plain = run(through(placed, learns=False, until=2 * DAY + ROOM))
    learned = run(through(placed, learns=True, until=2 * DAY + ROOM))
    for name, start in (("first, nothing known", 0.0), ("second", DAY)):
        ours = [str(n) for n, order in enumerate(placed) if start <= order.at < start + DAY]
        both = [n for n in ours if n in plain.late and n in learned.late]
        before, after = (sum(day.late[n] for n in both) / len(both) for day in (plain, learned))
        calls = sum(learned.asked[n] for n in both) / sum(plain.asked[n] for n in both)
        print(
            f"| {load:.0%} | {name} | {len(both)} of {len(ours)} | {before:.0f} | {after:.0f} "
            f"| {calls:.2f} | {after / before:.2f} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(
        "| load | day | orders found | backoff s | learned s | calls learned / backoff | learned / backoff |"
    )
    print("|---|---|---|---|---|---|---|")
    for load in [float(text) for text in sys.argv[1:]] or [0.01]:
        told(load)


if __name__ == "__main__":
    main()
