"""Many simulated checks with faults among them: memory is flat, and at the end no task and no file is left over.

``LEAKS_CHECKS=1000000`` for a long run.
"""

import asyncio
import gc
import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import structlog

from order_monitor.core.schedule import Continuous
from tests.simulation.loop import run
from tests.simulation.scenario import Fault, OrderPlan, Scenario
from tests.simulation.world import World, _drop

CHECKS = int(os.environ.get("LEAKS_CHECKS", "20000"))
TENTHS = 10
BATCH = 20
ACCOUNTS = ("a", "b")
FAULTS = ("outage", "cut", "busy", "db_down", "commit_cut", "commit_lost", "lock", "receiver_down", "deadlocks")
SLACK_OBJECTS = 50
BOUND = 50


@dataclass
class Sample:
    """What is held at a quiet moment: objects by their class, and the interpreter's allocated blocks (one for each small thing)."""

    objects: Counter[str]
    blocks: int


@dataclass
class Endless:
    """One process for as many checks as are wanted; what has ended is taken out of the world around it."""

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
            await self.world._place(self._plan())
        kind = FAULTS[self.placed // BATCH % len(FAULTS)]
        fault = Fault(0.0, kind, self.chance.uniform(2, 30), self.placed, self.chance.random())
        await self.world._begin(fault)
        await asyncio.sleep(60)
        self.world._stop_where_broken()
        self._clear()

    def _plan(self) -> OrderPlan:
        self.placed += 1
        after = self.chance.choice((5.0, 200.0, 400.0)) * self.chance.random()
        outcome = self.chance.choice(("pin", "pin", "cancelled", "direct"))
        package = 0 if outcome == "direct" else 1
        return OrderPlan(self.placed, self.world.now(), self.chance.choice(ACCOUNTS), package, after, outcome)

    async def _settle(self) -> None:
        """Let everything end, and the program forget it."""
        for _ in range(500):
            await asyncio.sleep(60)
            self._clear()
            if not self.world.store.rows:
                break
        assert not self.world.store.rows
        await asyncio.sleep(600)

    def _clear(self) -> None:
        """Take away what is over: the world keeps it for its questions at the end, which nobody asks here."""
        world, store = self.world, self.world.store
        told = {event_id for event_id, delivery in store.deliveries.items() if delivery.is_over}
        waiting = {delivery.order_id for delivery in store.deliveries.values() if not delivery.is_over}
        done = {i for i, row in store.rows.items() if row.status in ("completed", "failed") and i not in waiting}
        store.events = [event for event in store.events if event.order_id not in done]
        for order_id in done:
            row = store.rows.pop(order_id)
            world.panel.truths.pop((world.truth.kod_of(row.account), row.referans), None)
            world.times.pop((order_id, row.account, row.referans), None)
            world.plans.pop(order_id, None)
            world.posted.pop(order_id, None)
            world.last_asked.pop(row.referans, None)
        for event_id in told:
            del store.deliveries[event_id]
        store.dispatches = {key: row for key, row in store.dispatches.items() if key[0] not in done}
        store.pins = {key: row for key, row in store.pins.items() if row.order_id not in done}
        store.reviews.clear()
        world.moved.clear()
        world.stored.clear()
        world.was_found.clear()
        world.sight.forget()


def sample() -> Sample:
    gc.collect()
    found = Counter(
        f"{kind.__module__}.{kind.__name__}"
        for kind in map(type, gc.get_objects())
        if str(kind.__module__).startswith(("order_monitor.", "asyncio", "_asyncio", "httpx"))
    )
    return Sample(found, sys.getallocatedblocks())


async def endless(checks: int) -> tuple[list[Sample], int]:
    """Run so many checks; return the samples, and how many orders there were."""
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    world = World(Scenario(1, (), (), ACCOUNTS, per_second=100.0))
    life = Endless(world, random.Random(1))
    process = await world._start()
    # Often asked about, so that most of the work is checks.
    process.engine.adopt(replace(process.policy, plan=Continuous(replace(process.schedule, base=1.0, cap=4.0))))
    await life.go_on(checks)
    await process.end()
    world._stop_where_broken()
    await asyncio.sleep(60)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left over"
    return life.samples, life.placed


def open_files() -> set[str]:
    return {f"{path.name} {path.readlink()}" for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


@pytest.mark.untraced
def test_many_checks_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much memory after the last tenth as after the first; no task and no file stays."""
    # What is remembered of the past is bounded; a small bound is reached within the first tenth.
    monkeypatch.setattr("order_monitor.watch.intake._REMEMBERED", BOUND)
    monkeypatch.setattr("order_monitor.shop.recent_ends.LOOKED_AT", BOUND)
    before = open_files()
    samples, placed = run(endless(CHECKS))
    assert placed > CHECKS / 50
    first, last = samples[0], samples[-1]
    grown = last.objects - first.objects
    assert grown.total() < SLACK_OBJECTS, grown.most_common(10)
    # Python 3.11's own `re`, under httpx's addresses, keeps some: less than one an order.
    assert last.blocks - first.blocks < placed, [s.blocks for s in samples]
    assert open_files() == before
