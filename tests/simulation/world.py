"""One run of a scenario: processes come and go, things go wrong, and what must hold is looked at all the time.

What must hold (each is a reason to stop the run):

- a final row never changes, save by the shop's own hand, and save for the PIN that an end lacked;
- no order fails that the provider did not cancel, save by the time limit after "still waiting";
- no PIN is stored that the provider did not give, and none twice in an account;
- of each end of an order one event moves money, and no more;
- the webhook tells each event at least once, of one order in order;
- never more calls at once or in a second than allowed; none of an account known to be paused or switched off, none by a login known
  to be old, none through a client that was closed, and no client is left open;
- the shop moves money once for each end, also where a person puts an order back to open;
- every order is due within the longest pause, and where nothing is wrong it is asked then;
- no order is skipped whose account has been well for some time, and a mended login is tried in time;
- some time after the last fault every order that has ended at the provider has ended in the shop, with its PIN.
"""

import asyncio
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import httpx
import structlog

from order_monitor.core.errors import OrderMonitorError
from order_monitor.core.schedule import OnePass, Plan, Schedule
from order_monitor.core.timing.planner import Timing
from order_monitor.core.timing.terms import Terms
from order_monitor.shop.event_sql import WEBHOOK_MARK
from order_monitor.shop.marks import FIRST_MIGRATE
from tests.simulation.people import PERSON, People
from tests.simulation.process import EPOCH, SCAN, BrokenError, Process, owned, owner
from tests.simulation.provider import Panel
from tests.simulation.scenario import ACCOUNTS, DATABASE, HOUR, PEOPLE, PROVIDER, Fault, OrderPlan, Scenario
from tests.simulation.shared import Setting
from tests.simulation.shop import FINAL, OPEN, Commit, Store, Stored
from tests.simulation.shops_accounts import Truth

CALM = 4.5 * HOUR
"""Seconds after the last fault within which everything has ended: the longest Retry-After, the longest backoff, and some more."""

LONGEST_PAUSE = 600.0 * 1.1
"""Seconds between two questions about an order, at the most, where nothing is wrong."""

__all__ = ["BrokenError", "World", "play"]


class World:
    """The scenario while it runs."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.chance = random.Random(f"{scenario.seed} world")
        self.panel = Panel(random.Random(f"{scenario.seed} panel"))
        self.store = Store(EPOCH, random.Random(f"{scenario.seed} shop"), self._committed)
        self.store.settings[FIRST_MIGRATE] = Setting(str(EPOCH - 2 * HOUR), EPOCH)
        if scenario.webhook:
            self.store.settings[WEBHOOK_MARK] = Setting("", EPOCH)
        self.truth = Truth(self)
        self.people = People(self)
        self.processes: list[Process] = []
        self.alive: list[Process] = []
        self.reviving: set[asyncio.Task[None]] = set()
        self.store.cut_at = scenario.cut_at
        self.is_disturbed = bool(scenario.crash_at or scenario.cut_at)
        self.wrong = 0
        self.quiet_since = 0.0
        """How many things are wrong just now, and since when that has not changed."""
        self.counts_steps = bool(scenario.crash_at) or any(fault.kind == "crash" for fault in scenario.faults)
        self.watch_steps: Callable[[Process], None] = lambda _: None
        self.count = 0
        self.broken: list[str] = []
        self.plans: dict[str, OrderPlan] = {}
        self.touched: set[str] = set()
        """Orders that the shop or a person has had a hand in: their end is not only the provider's."""
        self.crossed = any(fault.kind == "crossed" for fault in scenario.faults)
        self.running = 0
        self.overlapped_at = float("-inf")
        self.posted: dict[str, list[int]] = defaultdict(list)
        self.receiver_down = 0
        self.moved: dict[tuple[str, str], set[int]] = defaultdict(set)
        """By the shop's own books: which events of which end of an order it has moved money for."""
        self.last_asked: dict[str, float] = {}
        self._questions: dict[str, asyncio.Event] = {}
        self._end = asyncio.Event()
        self._ended: Stored | None = None
        self.trace = hashlib.sha256()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def note(self, *words: object) -> None:
        self.trace.update(f"{self.now():.6f} {words}\n".encode())

    def check(self, holds: bool, what: str) -> None:  # noqa: FBT001 - it reads as an assertion
        if not holds:
            self.broken.append(f"at {self.now():.1f} s: {what}")

    # --- what is looked at all the time

    def _committed(self, before: Stored, after: Stored, commit: Commit) -> None:
        author = commit.author
        self.note("row", after.id, after.status, after.pin, author)
        self._note_overlap()
        is_ours = author in ("daemon", "ask")
        if before.status in FINAL:
            late = before.status == after.status == "completed" and not (before.pin or "").strip() and after.pin
            reopened = author == PERSON and after.status in OPEN and after.pin == before.pin
            self.check(bool(late) or reopened, f"final row {after.id} changed: {before.status} -> {after.status}")
        elif after.status in FINAL:
            self._ended = after
            self._end.set()
            self._end = asyncio.Event()
        if (before.pin or "").strip():
            self.check(after.pin == before.pin, f"the PIN of {after.id} was replaced")
        truth = self.panel.truths[after.referans]
        if after.status == "failed" and before.status != "failed" and is_ours:
            age = self.store.now() - after.sent_at
            timed_out = age >= self.scenario.give_up_after and truth.said_waiting_at is not None
            self.check("cancelled" in truth.said or timed_out, f"{after.id} failed without a cancellation")
        if after.status == "completed" and before.status != "completed" and is_ours and not self.crossed:
            self.check(bool(truth.said - {"cancelled"}), f"{after.id} completed without an approval")
        if after.pin != before.pin and is_ours and not self.crossed:
            self.check(after.pin in truth.said, f"{after.id} got PIN {after.pin!r}, said were {sorted(truth.said)}")
        # Two processes may each write one PIN before either has read the other's event: nothing but time parts them.
        if after.pin and is_ours and self.now() > self.overlapped_at + 3 * SCAN:
            twice = [r.id for r in self.store.rows.values() if r.pin == after.pin and r.account == after.account]
            self.check(twice == [after.id], f"PIN {after.pin} went to {twice}")

    async def receive(self, request: httpx.Request) -> httpx.Response:
        """The shop's own address for events."""
        process = owner.get()
        await asyncio.sleep(self.chance.uniform(0.005, 0.15))
        if process is not None and process.is_dead:
            raise asyncio.CancelledError
        if self.receiver_down and self.chance.random() < 0.9:
            return httpx.Response(503 if self.chance.random() < 0.5 else 200, text="<html>Login")
        data = json.loads(request.content)["data"]
        number = int(request.headers["webhook-id"])
        self.posted[data["order_id"]].append(number)
        self._move(data["order_id"], data["outcome"], number, repeat=data["repeat"])
        await asyncio.sleep(self.chance.uniform(0.005, 0.15))
        return httpx.Response(204)

    def _move(self, order_id: str, outcome: str, event_id: int, *, repeat: bool) -> None:
        """Move money as the shop should: once for an event, and never for a repeat."""
        if outcome in ("completed", "failed") and not repeat:
            self.moved[order_id, outcome].add(event_id)

    def consume(self) -> None:
        """Take the events from their table, as a shop without a webhook does."""
        for event in self.store.events:
            if event.consumed_at is None and f"event {event.id}" not in self.store.locked:
                event.consumed_at = self.store.now()
                self._move(event.order_id, event.outcome, event.id, repeat=event.repeat)

    async def _consume_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(1, 90))
            self.consume()

    def asked(self, account: str, referans: str) -> None:
        """A question begins; where nothing is wrong none comes too late."""
        now = self.now()
        if (waiting := self._questions.pop(referans, None)) is not None:
            waiting.set()
        row = self.store.rows.get(f"order-{self.panel.truths[referans].plan.number}")
        last = self.last_asked.pop(referans, None)
        if row is None or row.status not in OPEN:
            return
        self.last_asked[referans] = now
        if last is not None and not self.is_disturbed:
            slack = 60 + len(self.plans) * max(1.0, 1 / self.scenario.per_second)
            self.check(
                now - last <= LONGEST_PAUSE + slack, f"{referans} of {account} was not asked for {now - last:.0f} s"
            )

    async def next_question(self, referans: str, seconds: float) -> None:
        """Wait until somebody asks about an order, so long at most."""
        event = self._questions.setdefault(referans, asyncio.Event())
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    async def next_end(self, seconds: float) -> Stored | None:
        """Wait until an order ends, so long at most; return it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._end.wait(), seconds)
            return self._ended
        return None

    def is_settled(self, order_id: str) -> bool:
        """Whether the account of an order has been well for longer than it takes to be seen."""
        row = self.store.rows.get(order_id)
        if row is None or not self.truth.is_well(row.account):
            return False
        return self.now() - self.truth.since[row.account] > self.scenario.refresh + 3 * SCAN

    def was_quiet_since(self, at: float) -> bool:
        """Whether nothing was wrong from then on, and no process began."""
        return not self.wrong and self.quiet_since <= at

    # --- running

    async def run(self) -> None:
        asyncio.get_running_loop().set_task_factory(owned)
        if self.scenario.primed:
            self._prime()
        consumer = None if self.scenario.webhook else asyncio.create_task(self._consume_for_ever())
        try:
            await self._run()
        finally:
            if consumer is not None:
                consumer.cancel()

    def _prime(self) -> None:
        """Let something be known of when orders end."""
        timing = Timing(Schedule(), Terms())
        for number in range(60):
            key = (self.scenario.accounts[0], f"package-{number % 3}")
            timing.ended(key, 0.0, 5.0 + self.chance.random() * 300, EPOCH - 60 * number)
        self.store.sketches |= {key: sketch.dump() for key, sketch in timing.take().items()}

    async def _run(self) -> None:
        await self._start()
        placing = [(max(0.0, plan.sent_at), partial(self._place, plan)) for plan in self.scenario.orders]
        failing = [(fault.at, partial(self._begin, fault)) for fault in self.scenario.faults]
        running: list[asyncio.Task[None]] = []
        for at, act in sorted([*placing, *failing], key=lambda action: action[0]):
            await asyncio.sleep(max(0.0, at - self.now()))
            running.append(asyncio.create_task(act(), name="action"))
            self._stop_where_broken()
        if running:
            await asyncio.wait(running)
        for task in running:
            task.result()
        is_over = False
        while not is_over:
            if not self.processes:
                await self._start()
            await self._calm()
            await self._end_all()
            is_over = not self.processes
        self.consume()
        self._stop_where_broken()
        self._look_at_the_end()
        self._stop_where_broken()

    async def _end_all(self) -> None:
        """Stop all processes; one that died meanwhile has another in its place."""
        while self.processes:
            process = self.processes.pop()
            await process.end()
            self.gather(process)
        if self.reviving:
            await asyncio.wait(self.reviving)

    async def _calm(self) -> None:
        end = self.now() + CALM
        while self.now() < end:
            await asyncio.sleep(60)
            self._stop_where_broken()
            if not self._unfinished():
                break
        for what in self._unfinished():
            self.check(False, what)

    def _stop_where_broken(self) -> None:
        for process in self.processes:
            process.look()
            self.gather(process)
            if process.task is not None and process.task.done() and not process.stop.event.is_set():
                error = None if process.task.cancelled() else process.task.exception()
                self.broken.append(f"a process ended by itself: {error!r}")
        if self.broken:
            raise BrokenError("; ".join(self.broken[:3]))

    def gather(self, process: Process) -> None:
        """Take over what a process has done that it must not."""
        self.broken += process.limits.broken
        process.limits.broken = []

    def make(self, plan: Plan | None, author: str, work: Callable[[Process], Coroutine[Any, Any, Any]]) -> Process:
        """Start a process that does ``work``."""
        self.count += 1
        made: list[Process] = []

        def make() -> None:
            process = Process(self, self.count, plan, author)
            owner.set(process)
            made.append(process)
            self.watch_steps(process)
            process.start(work(process))

        copy_context().run(make)
        process = made[0]
        assert process.task is not None
        process.task.add_done_callback(partial(self._over, process))
        self.alive.append(process)
        self.running += 1
        self._note_overlap()
        return process

    async def _start(self) -> Process:
        """Start a daemon."""
        process = self.make(None, "daemon", Process.daemon)
        self.processes.append(process)
        if self.count <= len(self.scenario.crash_at):
            self.die_after(process, self.scenario.crash_at[self.count - 1], 1.0)
        return process

    def die_after(self, process: Process, steps: int, pause: float) -> asyncio.Task[None]:
        """Let a process die at a step of its life, and another take its place."""
        process.steps.left = steps
        task = asyncio.create_task(self._revive(process, pause), name="revive")
        self.reviving.add(task)
        task.add_done_callback(self.reviving.discard)
        return task

    async def _revive(self, process: Process, pause: float) -> None:
        await process.over.wait()
        if process.is_dead and process.is_daemon and not process.is_replaced:
            await asyncio.sleep(pause)
            await self._start()

    def died(self, process: Process) -> None:
        """A process is no more."""
        self.note("died", process.number)
        if process in self.processes:
            self.processes.remove(process)
        self.gather(process)

    def commits_at_death(self, number: int) -> bool:
        """Whether the server does what a dying process has asked it to commit."""
        given = self.scenario.commits_at_death
        return random.Random(f"{self.scenario.seed} {number}").random() < 0.5 if given is None else given

    def _over(self, process: Process, _: object) -> None:
        self._note_overlap()
        self.running -= 1
        self.alive.remove(process)

    def _note_overlap(self) -> None:
        if self.running > 1:
            self.overlapped_at = self.now()

    async def _place(self, plan: OrderPlan) -> None:
        order_id = f"order-{plan.number}"
        self.plans[order_id] = plan
        referans = f"1{plan.number:05}"
        self.panel.place(referans, plan, plan.sent_at)
        self.store.rows[order_id] = Stored(
            order_id, "sent", EPOCH + plan.sent_at, referans, plan.account, f"package-{plan.package}"
        )
        self.note("placed", order_id)

    # --- what goes wrong

    async def _begin(self, fault: Fault) -> None:
        self.note("fault", fault.kind)
        self.wrong += 1
        self.is_disturbed = True
        try:
            await self._do(fault)
        finally:
            self.wrong -= 1
            self.quiet_since = self.now()
        if fault.kind == "password":
            await self.truth.look_whether_tried(fault)

    async def _do(self, fault: Fault) -> None:
        if fault.kind in PROVIDER:
            account = self.scenario.accounts[fault.target % len(self.scenario.accounts)]
            self.panel.begin(fault.kind, account, fault.size)
            await asyncio.sleep(fault.seconds)
            self.panel.end(fault.kind, account)
        elif fault.kind in DATABASE:
            await self._database(fault)
        elif fault.kind in ACCOUNTS:
            await self.truth.do(fault)
        elif fault.kind in PEOPLE:
            await self.people.do(fault)
        else:
            await getattr(self, f"_{fault.kind}")(fault)

    async def _database(self, fault: Fault) -> None:
        if fault.kind == "db_cut":
            self.store.cut_at = self.store.statements + 1 + int(fault.size * 60)
            await asyncio.sleep(fault.seconds)
            return
        name, value = {
            "db_down": ("down", True),
            "db_stall": ("stall", True),
            "commit_lost": ("commits", "lost"),
            "commit_cut": ("commits", "cut"),
            "deadlocks": ("deadlocks", True),
        }[fault.kind]
        setattr(self.store, name, value)
        await asyncio.sleep(fault.seconds)
        setattr(self.store, name, "" if name == "commits" else False)

    def some(self, fault: Fault, statuses: tuple[str, ...] = (*OPEN, *FINAL)) -> Stored | None:
        rows = [row for _, row in sorted(self.store.rows.items()) if row.status in statuses]
        return rows[fault.target % len(rows)] if rows else None

    def _set(self, row: Stored, **values: object) -> None:
        """The shop's own hand; it waits for no lock of ours, since ours are short."""
        self.store.rows[row.id] = replace(self.store.rows[row.id], **values)  # type: ignore[arg-type]
        self.note("shop", row.id, sorted(values))

    async def _free(self, row: Stored) -> bool:
        for _ in range(1000):
            if row.id not in self.store.locked:
                return row.id in self.store.rows
            await asyncio.sleep(0.05)
        return False

    async def _lock(self, fault: Fault) -> None:
        for row in [r for i, r in sorted(self.store.rows.items()) if hash_of(i, fault.target) % 3 == 0]:
            self.store.locked.setdefault(row.id, fault)
        await asyncio.sleep(fault.seconds)
        for order_id in [i for i, holder in self.store.locked.items() if holder is fault]:
            del self.store.locked[order_id]

    async def _stale_save(self, fault: Fault) -> None:
        if (row := self.some(fault, FINAL)) and await self._free(row):
            self._set(row, status="sent", pin=None)

    async def _refund(self, fault: Fault) -> None:
        if (row := self.some(fault)) and await self._free(row):
            self.touched.add(row.id)
            self._set(row, status="refunded")

    async def _delete(self, fault: Fault) -> None:
        if (row := self.some(fault)) and await self._free(row):
            self.touched.add(row.id)
            del self.store.rows[row.id]

    async def _resend(self, fault: Fault) -> None:
        """The shop sends an order anew at the worst moment: while somebody asks about its old reference."""
        row = self.some(fault, OPEN)
        if row is not None:
            await self.next_question(row.referans, 400.0)
        if row is not None and self.store.rows.get(row.id, row).status in OPEN and await self._free(row):
            referans = f"2{len(self.panel.truths):05}"
            plan = replace(self.plans[row.id], sent_at=self.now())
            self.panel.place(referans, plan, self.now())
            self.touched.add(row.id)
            self._set(row, referans=referans, sent_at=self.store.now(), status="sent")

    async def _poison(self, fault: Fault) -> None:
        """A trigger refuses some rows; while the database is away before it, answers pile up: they come with others."""
        ids = {
            i for i, row in sorted(self.store.rows.items()) if row.status in OPEN and hash_of(i, fault.target) % 3 == 0
        }
        self.store.poisoned |= ids
        if fault.size < 0.6:
            self.store.down = True
            await asyncio.sleep(90)
            self.store.down = False
        await asyncio.sleep(fault.seconds)
        self.store.poisoned -= ids

    async def _slow_trigger(self, fault: Fault) -> None:
        ids = set(sorted(self.store.rows)[:: 1 + fault.target % 3])
        self.store.slow |= ids
        await asyncio.sleep(fault.seconds)
        self.store.slow -= ids

    def _one(self, fault: Fault) -> Process | None:
        return self.processes[fault.target % len(self.processes)] if self.processes else None

    async def _kill(self, fault: Fault) -> None:
        if process := self._one(fault):
            process.is_replaced = True
            await process.kill()
            await asyncio.sleep(fault.seconds / 10)
            await self._start()

    async def _crash(self, fault: Fault) -> None:
        """Some process dies at an await of its: a daemon, or a command that somebody has typed."""
        if not self.alive:
            return
        process = self.alive[fault.target % len(self.alive)]
        if process.steps.left is None:
            await asyncio.wait(
                {self.die_after(process, 1 + int(fault.size**3 * 3000), fault.seconds / 10)}, timeout=600
            )
            process.steps.left = None

    async def _stop(self, fault: Fault) -> None:
        if process := self._one(fault):
            self.processes.remove(process)
            process.is_replaced = True
            await process.end()
            self.gather(process)
            await asyncio.sleep(fault.seconds / 10)
            await self._start()

    async def _clock(self, fault: Fault) -> None:
        if process := self._one(fault):
            process.clock.step += (fault.size - 0.5) * 8000
            await asyncio.sleep(fault.seconds)
            process.clock.step = 0.0

    async def _second(self, fault: Fault) -> None:
        process = await self._start()
        await asyncio.sleep(fault.seconds)
        if process in self.processes:
            self.processes.remove(process)
            process.is_replaced = True
            await (process.kill() if fault.size < 0.5 else process.end())
            self.gather(process)

    async def _once(self, fault: Fault) -> None:
        every = None if fault.size < 0.5 else 60.0
        plan = OnePass(Schedule(give_up_after=self.scenario.give_up_after), every)
        process = self.make(plan, "daemon", Process.once)
        assert process.task is not None
        await asyncio.wait({process.task}, timeout=3 * HOUR)
        self.check(process.task.done(), "one pass did not end")
        if not process.task.cancelled():
            with suppress(OrderMonitorError):
                process.task.result()
        self.gather(process)

    async def _sighup(self, fault: Fault) -> None:
        if process := self._one(fault):
            schedule = replace(
                process.schedule, base=(20.0, 30.0)[fault.target % 2], cap=(300.0, 600.0)[fault.target // 2 % 2]
            )
            concurrency = max(1, process.policy.concurrency - 1)
            process.reload(schedule, concurrency, self.scenario.per_second * 0.9, reopen=fault.size < 0.6)

    async def _receiver_down(self, fault: Fault) -> None:
        self.receiver_down += 1
        await asyncio.sleep(fault.seconds)
        self.receiver_down -= 1

    # --- what is looked at in the end

    def _unfinished(self) -> list[str]:
        """What the provider has ended and the shop has not yet."""
        left = []
        for order_id, plan in self.plans.items():
            row = self.store.rows.get(order_id)
            if row is None or order_id in self.touched:
                continue
            truth = self.panel.truths[row.referans]
            age = self.store.now() - row.sent_at
            is_due = truth.ends_at is not None and self.now() > truth.ends_at
            if row.status in OPEN and (is_due or age > self.scenario.give_up_after) and not self._same_pin(row):
                left.append(f"{order_id} ({plan.outcome}) is still {row.status} at an age of {age:.0f} s")
        waiting = [d for d in self.store.deliveries.values() if not d.is_over]
        if waiting:
            left.append(f"{len(waiting)} events are not told")
        return left

    def _same_pin(self, row: Stored) -> bool:
        """Whether the order is kept open since its PIN went to another one, through a crossed answer."""
        return self.crossed and (row.id, "pin_duplicate") in self.store.reviews

    def _look_at_the_end(self) -> None:
        for order_id, plan in self.plans.items():
            row = self.store.rows.get(order_id)
            if row is not None and order_id not in self.touched and not self.crossed:
                truth = self.panel.truths[row.referans]
                if row.status == "completed" and plan.outcome == "pin":
                    self.check(row.pin == truth.pin, f"{order_id} ended with PIN {row.pin!r} and not {truth.pin!r}")
        self._look_at_the_money()
        if self.scenario.webhook:
            self._look_at_posts()

    def _look_at_the_money(self) -> None:
        money: dict[tuple[str, str], int] = defaultdict(int)
        for event in self.store.events:
            if not event.repeat and event.outcome in ("completed", "failed"):
                money[event.order_id, event.outcome] += 1
        for (order_id, outcome), count in money.items():
            self.check(count == 1, f"{count} events move money for the {outcome} of {order_id}")
        for (order_id, outcome), numbers in self.moved.items():
            self.check(len(numbers) == 1, f"events {sorted(numbers)} moved money for the {outcome} of {order_id}")
        for order_id, row in self.store.rows.items():
            if row.status in ("completed", "failed") and order_id not in self.touched:
                self.check(money[order_id, row.status] == 1, f"no event moves money for the {row.status} of {order_id}")
                self.check(
                    bool(self.moved[order_id, row.status]), f"no money was moved for the {row.status} of {order_id}"
                )

    def _look_at_posts(self) -> None:
        told: dict[str, list[int]] = defaultdict(list)
        for event in self.store.events:
            delivery = self.store.deliveries[event.id]
            if delivery.is_over and not delivery.is_withdrawn:
                told[event.order_id].append(event.id)
        for order_id, ids in told.items():
            posted = self.posted[order_id]
            first = [event_id for event_id in dict.fromkeys(posted) if event_id in ids]
            self.check(first == sorted(ids), f"events {ids} of {order_id} were posted as {posted}")


def hash_of(text: str, number: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{text} {number}".encode(), digest_size=4).digest())


async def play(scenario: Scenario, watch_steps: Callable[[Process], None] | None = None) -> tuple[str, float]:
    """Run ``scenario``; return a digest of all that happened, and how many seconds went by.

    Raises:
        BrokenError: something that must hold does not.
    """
    random.seed(scenario.seed)
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    world = World(scenario)
    if watch_steps is not None:
        world.counts_steps, world.watch_steps = True, watch_steps
    key = random.Random(f"{scenario.seed} key")
    with patch("order_monitor.shop.marks.secrets.token_hex", lambda size: key.randbytes(size).hex()):
        await world.run()
    return world.trace.hexdigest(), world.now()


def _drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent
