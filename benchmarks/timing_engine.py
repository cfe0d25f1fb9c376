"""The mixed day again, through the daemon's own loop in virtual time: ``python -m benchmarks.timing_engine [LOAD …]``.

Discovery, queue, dispatcher, pace, answers, writer and what learns from them are the program's; the provider answers after 0.2 s,
the table is a list. Two days, the second of other orders of the same packages: what is known by then was learned on the first.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from benchmarks.timing import CEILING, DAY, SCHEDULE, TERMS, Placed, products, stream
from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.decision import Write
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.core.schedule import Continuous, Plan
from order_monitor.core.timing.memory import Key
from order_monitor.core.timing.plan import Learned
from order_monitor.core.timing.planner import Timing
from order_monitor.core.timing.sketch import Sketch
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.shop.order_reader import Scan, Take
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.learning import Learning
from order_monitor.watch.observer import Observer
from order_monitor.watch.policy import Policy
from tests.simulation.loop import SimClock, run
from tests.stages import Accounts

EPOCH: Final = 1_790_000_000.0
LATENCY: Final = 0.2
SCAN_EVERY: Final = 10.0
EACH: Final = 5.2
"""Calls that backoff makes an order, by which the load is set."""

ROOM: Final = 7_200.0
"""Seconds after the last day in which most of its orders are found."""


class Nowhere:
    """Keeps nothing."""

    async def read(self) -> Mapping[Key, str] | None:
        return {}

    async def history(self) -> Sequence[object]:
        return []

    async def add(self, learned: Mapping[Key, Sketch]) -> None:
        pass


@dataclass
class Day:
    """The provider and the table of one run: who was asked about how often, and how late each end was found."""

    placed: Sequence[Placed]
    clock: SimClock
    open: dict[str, Order] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
    records_every_check = False
    _arrived: int = 0

    async def ask(self, referans: str) -> Reply:
        self.calls[referans] = self.calls.get(referans, 0) + 1
        await asyncio.sleep(LATENCY)
        order = self.placed[int(referans)]
        return Reply(Completed(None) if self.clock.monotonic() >= order.at + order.lasts else Waiting(""))

    async def balance(self) -> Balance | NoBalance:
        return Balance("0")

    async def aclose(self) -> None:
        pass

    async def scan(self, *, since: float | None = None, take: Take | None = None) -> Scan:
        now = self.clock.monotonic()
        while self._arrived < len(self.placed) and self.placed[self._arrived].at <= now:
            n, order = self._arrived, self.placed[self._arrived]
            account, package = order.key
            self.open[str(n)] = Order(str(n), "sent", EPOCH + order.at, str(n), integration=account, package=package)
            self._arrived += 1
        return Scan(self.clock.time(), list(self.open.values()), [])

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        return [self.open[order.id] for order in orders if order.id in self.open]

    async def record(self, findings: Sequence[Finding], lock_wait: float = 1.0) -> list[Result]:
        return [self._write(finding) for finding in findings]

    def _write(self, finding: Finding) -> Result:
        order = finding.order
        if not isinstance(finding.answer, Completed):
            return Result(finding, Fate.UNCHANGED, status=order.status)
        del self.open[order.id]
        placed = self.placed[int(order.id)]
        self.late[order.id] = finding.seen_at - EPOCH - placed.at - placed.lasts
        return Result(finding, Fate.WRITTEN, write=Write(Outcome.COMPLETED, "completed"), status=order.status)


async def through(placed: Sequence[Placed], *, learns: bool, until: float) -> Day:
    """Let the daemon's loop run until then."""
    clock = SimClock(EPOCH)
    day = Day(placed, clock)
    timing = Timing(SCHEDULE, TERMS)
    learning = Learning(timing, Nowhere(), clock, SCHEDULE)  # type: ignore[arg-type]
    names = sorted({order.key[0] for order in placed})
    accounts = {name: Account(name, day, Gate(5), Pace(CEILING)) for name in names}
    plan: Plan = Learned(SCHEDULE, timing) if learns else Continuous(SCHEDULE)
    observer: Observer = learning if learns else Observer()
    engine = Engine(day, Accounts(accounts), Policy(plan, concurrency=100), clock, observer)  # type: ignore[arg-type]
    beside = [engine.run(), engine.writer.run()]
    if learns:
        learning.watch(engine)
        beside.append(learning.run())
    tasks = [asyncio.create_task(one) for one in beside]
    while clock.monotonic() < until:
        await engine.scan()
        await asyncio.sleep(SCAN_EVERY)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return day


def told(load: float) -> None:
    """Print the rows of one load."""
    rate = load * 3 * CEILING / EACH
    placed = [o for key, share, draw in products() for o in stream(7, key, draw, 1 / (rate * share), 0.0, 2 * DAY)]
    placed.sort(key=lambda order: order.at)
    plain = run(through(placed, learns=False, until=2 * DAY + ROOM))
    learned = run(through(placed, learns=True, until=2 * DAY + ROOM))
    for name, start in (("first, nothing known", 0.0), ("second", DAY)):
        ours = [str(n) for n, order in enumerate(placed) if start <= order.at < start + DAY]
        both = [n for n in ours if n in plain.late and n in learned.late]
        before, after = (sum(day.late[n] for n in both) / len(both) for day in (plain, learned))
        calls = sum(learned.calls[n] for n in both) / sum(plain.calls[n] for n in both)
        print(
            f"| {load:.0%} | {name} | {len(both)} of {len(ours)} | {before:.0f} | {after:.0f} "
            f"| {calls:.2f} | {after / before:.2f} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print("| load | day | orders found | backoff s | learned s | calls learned / backoff | learned / backoff |")
    print("|---|---|---|---|---|---|---|")
    for load in [float(text) for text in sys.argv[1:]] or [0.01]:
        told(load)


if __name__ == "__main__":
    main()
