"""Many simulated checks with some faults: memory stays flat, and at the end no task and no file is
left.

``LEAKS_CHECKS=1000000`` for a long run, ``LEAKS_HOURS=24`` for a day in which accounts and
passwords also come and go: `make leaks`.
"""

import asyncio
import gc
import os
import random
import resource
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import structlog

from order_monitor.core.schedule import Continuous
from tests.simulation.loop import run
from tests.simulation.scenario import HOUR, Fault, OrderPlan, Scenario
from tests.simulation.world import World, drop

pytestmark = pytest.mark.outside

CHECKS = int(os.environ.get("LEAKS_CHECKS", "20000"))
HOURS = float(os.environ.get("LEAKS_HOURS", "2"))
TENTHS = 10
BATCH = 20
ACCOUNTS = ("a", "b")
FAULTS = (
    "outage",
    "cut",
    "busy",
    "db_down",
    "commit_cut",
    "commit_lost",
    "lock",
    "receiver_down",
    "deadlocks",
)
SLACK_OBJECTS = 50
GROWS_BY = 1_000_000
"""Bytes by which the resident size may differ between hours, after a quarter of the day."""

BOUND = 50


@dataclass
class Sample:
    """Memory at a quiet moment: objects by their class, and the interpreter's allocated blocks (one
    per small object).
    """

    objects: Counter[str]
    blocks: int


@dataclass
class Endless:
    """One process for a given number of checks.

    Ended orders are removed from the world around it.
    """

    world: World
    chance: random.Random
    placed: int = 0
    samples: list[Sample] = field(default_factory=list)

    async def go_on(self, checks: int) -> None:
        for tenth in range(1, TENTHS + 1):
            while self.world.panel.calls < checks * tenth // TENTHS:
                await self._round()
            await self._settle()
            self.samples.append(sample())

    async def _round(self) -> None:
        for _ in range(BATCH):
            await self.world.place(self._plan())
        kind = FAULTS[self.placed // BATCH % len(FAULTS)]
        fault = Fault(0.0, kind, self.chance.uniform(2, 30), self.placed, self.chance.random())
        await self.world.begin(fault)
        await asyncio.sleep(60)
        self.world.stop_where_broken()
        self._clear()

    def _plan(self) -> OrderPlan:
        self.placed += 1
        after = self.chance.choice((5.0, 200.0, 400.0)) * self.chance.random()
        outcome = self.chance.choice(("pin", "pin", "cancelled", "direct"))
        package = 0 if outcome == "direct" else 1
        return OrderPlan(
            self.placed, self.world.now(), self.chance.choice(ACCOUNTS), package, after, outcome
        )

    async def _settle(self) -> None:
        """Wait until everything has ended and the program has forgotten it."""
        for _ in range(500):
            await asyncio.sleep(60)
            self._clear()
            if not self.world.store.rows:
                break
        assert not self.world.store.rows
        await asyncio.sleep(600)

    def _clear(self) -> None:
        """Remove ended orders: the world keeps them for final checks, which are not made here."""
        world, store = self.world, self.world.store
        told = {event_id for event_id, delivery in store.deliveries.items() if delivery.is_over}
        waiting = {
            delivery.order_id for delivery in store.deliveries.values() if not delivery.is_over
        }
        done = {
            i
            for i, row in store.rows.items()
            if row.status in ("completed", "failed") and i not in waiting
        }
        store.events = [event for event in store.events if event.order_id not in done]
        for order_id in done:
            row = store.rows.pop(order_id)
            world.panel.truths.pop((world.truth.kod_of(row.account), row.reference), None)
            world.times.pop((order_id, row.account, row.reference), None)
            world.plans.pop(order_id, None)
            world.posted.pop(order_id, None)
            world.last_asked.pop(row.reference, None)
        for event_id in told:
            del store.deliveries[event_id]
        store.dispatches = {key: row for key, row in store.dispatches.items() if key[0] not in done}
        store.pins = {key: row for key, row in store.pins.items() if row.order_id not in done}
        store.reviews.clear()
        world.moved.clear()
        world.stored.clear()
        world.was_found.clear()
        world.sight.forget()
        world.handover.forget()


@dataclass
class Day(Endless):
    """One process for some hours, in which accounts appear, get other passwords and names, are
    switched off, and disappear.
    """

    born: dict[str, float] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    """The resident size after each hour, in bytes."""

    async def live(self, hours: float) -> None:
        world = self.world
        while world.now() < hours * HOUR:
            self._come_and_go()
            kind = self.chance.choice(
                (*FAULTS, "password", "switched_off", "renamed", "moved", "removed")
            )
            await world.begin(
                Fault(0.0, kind, self.chance.uniform(2, 30), self.placed, self.chance.random())
            )
            for _ in range(self.chance.randrange(BATCH)):
                await world.place(
                    replace(self._plan(), account=self.chance.choice([*ACCOUNTS, *self.born]))
                )
            await asyncio.sleep(60)
            world.stop_where_broken()
            self._clear()
            if world.now() >= HOUR * (len(self.sizes) + 1):
                gc.collect()
                self.sizes.append(resident_size())

    def _come_and_go(self) -> None:
        """An account exists for an hour, with its orders."""
        world, now = self.world, self.world.now()
        for key, at in list(self.born.items()):
            if now - at > HOUR and not any(row.account == key for row in world.store.rows.values()):
                world.truth.put(key, None)
                del self.born[key]
        if len(self.born) < 5:
            key = f"new-{self.placed}-{int(now)}"
            world.truth.versions[key], world.truth.since[key] = 0, now
            world.truth.put(key, world.truth.row(key))
            self.born[key] = now


def resident_size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def sample() -> Sample:
    gc.collect()
    found = Counter(
        f"{kind.__module__}.{kind.__name__}"
        for kind in map(type, gc.get_objects())
        if str(kind.__module__).startswith(("order_monitor.", "asyncio", "_asyncio", "httpx"))
    )
    return Sample(found, sys.getallocatedblocks())


async def endless(checks: int) -> tuple[list[Sample], int]:
    """Run this many checks; return the samples, and the number of orders."""
    structlog.configure(processors=[drop], cache_logger_on_first_use=False)
    world = World(Scenario(1, (), (), ACCOUNTS, per_second=100.0))
    life = Endless(world, random.Random(1))
    process = await world.start()
    # Frequent questions, so that most of the work is checks.
    process.engine.reconfigure(
        replace(process.policy, plan=Continuous(replace(process.schedule, base=1.0, cap=4.0)))
    )
    await life.go_on(checks)
    await process.end()
    world.stop_where_broken()
    await asyncio.sleep(60)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left over"
    return life.samples, life.placed


async def day(hours: float) -> list[int]:
    """Run for this many hours; return the resident size after each."""
    structlog.configure(processors=[drop], cache_logger_on_first_use=False)
    world = World(Scenario(1, (), (), ACCOUNTS, per_second=100.0, refresh=20.0))
    life = Day(world, random.Random(1))
    process = await world.start()
    await life.live(hours)
    await process.end()
    return life.sizes


def open_files() -> set[str]:
    return {
        f"{path.name} {path.readlink()}"
        for path in Path("/proc/self/fd").iterdir()
        if path.is_symlink()
    }


@pytest.mark.long
@pytest.mark.untraced
@pytest.mark.timeout(3600)
def test_a_day_leaves_nothing_resident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("order_monitor.watch.intake.REMEMBERED", BOUND)
    monkeypatch.setattr("order_monitor.shop.reading.recent_ends.LOOKED_AT", BOUND)
    sizes = run(day(HOURS))
    sys.stdout.write(
        f"resident, in MB after each hour: {[round(size / 1e6, 1) for size in sizes]}\n"
    )
    settled = sizes[len(sizes) // 4 :]
    assert max(settled) - min(settled) < GROWS_BY, sizes


@pytest.mark.long
@pytest.mark.untraced
def test_many_checks_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is the same after the last tenth as after the first; no task and no file is left."""
    # History is bounded; a small bound is reached within the first tenth.
    monkeypatch.setattr("order_monitor.watch.intake.REMEMBERED", BOUND)
    monkeypatch.setattr("order_monitor.shop.reading.recent_ends.LOOKED_AT", BOUND)
    monkeypatch.setattr("order_monitor.tell.history.MINUTES", TENTHS)
    monkeypatch.setattr("order_monitor.tell.history.DELAYS", BOUND)
    before = open_files()
    samples, placed = run(endless(CHECKS))
    assert placed > CHECKS / 50
    first, last = samples[0], samples[-1]
    grown = last.objects - first.objects
    assert grown.total() < SLACK_OBJECTS, grown.most_common(10)
    # Python 3.11's own `re`, under httpx's addresses, keeps some: less than one an order.
    assert last.blocks - first.blocks < placed, [s.blocks for s in samples]
    # What an earlier test of this process left may be closed meanwhile.
    assert not open_files() - before
