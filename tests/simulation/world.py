"""One run of a scenario: processes come and go, things go wrong, and what must hold is looked at all the time.

What must hold (each is a reason to stop the run):

- a final row never changes, save by the shop's own hand, and save for the PIN that an end lacked;
- no order fails that the provider did not cancel, save by the time limit after "still waiting";
- no PIN is stored that the provider did not give, and none twice in an account;
- of each end of an order one event moves money, and no more;
- the webhook tells each event at least once, of one order in order;
- never more calls at once or in a second than allowed, none of an account known to be paused;
- some time after the last fault every order that has ended at the provider has ended in the shop, with its PIN.
"""

import asyncio
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import structlog

from order_monitor.core.answer import Cancelled, Completed
from order_monitor.core.errors import OrderMonitorError
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.order import Order, Pin, SkipReason
from order_monitor.core.pin_memory import PinMemory
from order_monitor.core.recording import Finding
from order_monitor.core.schedule import Continuous, Now, OnePass, Plan, Schedule
from order_monitor.providers.provider import Provider
from order_monitor.shop.accounts import Integration
from order_monitor.shop.outbox import Outbox
from order_monitor.tell.webhook import Receiver, Sender
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.lifecycle import Lifecycle, Stop
from order_monitor.watch.policy import Policy, Reading
from tests.simulation.loop import SimClock
from tests.simulation.provider import Limits, Login, Panel
from tests.simulation.scenario import DATABASE, HOUR, PROVIDER, Fault, OrderPlan, Scenario
from tests.simulation.shop import (
    FINAL,
    OPEN,
    ModelOrders,
    Pool,
    Store,
    Stored,
    database_over,
    layout_for,
    ledger_for,
)

EPOCH = 1_790_000_000.0
SCAN = 20.0
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
CALM = 4.5 * HOUR
"""Seconds after the last fault within which everything has ended: the longest Retry-After, the longest backoff, and some more."""


MANY = Reading(small=0, share=1e6, longest=10 * SCAN, overlap=3 * SCAN, fresh_for=1.5 * SCAN)

owner: ContextVar["Process | None"] = ContextVar("owner", default=None)
owners: WeakKeyDictionary[asyncio.Task[object], "Process | None"] = WeakKeyDictionary()
"""Whose each task is: when a process is killed, all its tasks die."""


def owned(loop: asyncio.AbstractEventLoop, work: Any, **given: Any) -> asyncio.Task[Any]:
    """Make a task that is its maker's."""
    task = asyncio.Task(work, loop=loop, **given)
    owners[task] = owner.get()
    return task


class BrokenError(AssertionError):
    """Something that must hold does not."""


@dataclass
class Accounts:
    """An order's account is the one its row names."""

    accounts: dict[str, Account]

    @property
    def by_key(self) -> dict[str, Account]:
        return self.accounts

    def account_of(self, order: Order) -> Account | SkipReason:
        return self.accounts[order.integration or ""]

    def update(self, integrations: object) -> list[Provider]:
        return []

    def reopen(self, opener: Callable[[Integration | None], Account]) -> list[Provider]:
        return []


class Process:
    """One process: the real engine and webhook over its own connections, with a clock of its own."""

    def __init__(self, world: "World", number: int, plan: Plan | None = None, author: str = "daemon") -> None:
        scenario = world.scenario
        self.world = world
        self.clock = SimClock(EPOCH)
        self.limits = Limits(scenario.concurrency, scenario.per_second, len(scenario.accounts))
        layout = layout_for(
            webhook=scenario.webhook,
            give_up_after=scenario.give_up_after,
            last_sync=scenario.last_sync,
            author=author,
        )
        self.pool = Pool(world.store, ledger_for(layout, last_sync=scenario.last_sync), self._pauses_read)
        self.database = database_over(self.pool)
        self.orders = ModelOrders(self.pool, self.database, PinMemory(bytes([number % 256]) * 8))
        self.accounts = {
            name: Account(name, Login(world.panel, name, self.limits), Gate(3), Pace(scenario.per_second))
            for name in scenario.accounts
        }
        self.schedule = Schedule(give_up_after=scenario.give_up_after)
        self.policy = Policy(
            plan or Continuous(self.schedule),
            concurrency=scenario.concurrency,
            give_up_after=scenario.give_up_after,
            confirm_cancelled=scenario.confirm_cancelled if plan is None else 0.0,
            one_pass=plan is not None,
            patience=30.0 if plan is not None else None,
            reading=MANY if scenario.many else Reading(),
        )
        self.engine = Engine(self.orders, Accounts(self.accounts), self.policy, self.clock)
        self.stop = Stop()
        outbox, client = (
            Outbox(self.database, "public"),
            httpx.AsyncClient(transport=httpx.MockTransport(world.receive)),
        )
        receiver = Receiver("https://s.example/h", SECRET, layout.rules, pause=30.0)
        self.sender = Sender(outbox, client, receiver, self.clock, random.Random(number))
        beside = {"webhook": self.sender.run} if scenario.webhook and plan is None else {}
        self.life = Lifecycle(self.engine, self.clock, self.stop, scan_interval=SCAN, beside=beside)
        self.task: asyncio.Task[bool] | None = None

    def _pauses_read(self, paused: set[str]) -> None:
        """What has been read is known when the scan has been merged; a call that begins after that breaks the pause."""
        for name in set(self.limits.paused_since) - paused:
            del self.limits.paused_since[name]
        asyncio.get_running_loop().call_later(SCAN, self._know, paused)

    def _know(self, paused: set[str]) -> None:
        for name in paused:
            if self.accounts[name].paused is not None and self.world.store.pauses.get(name, 0) > self.world.store.now():
                self.limits.paused_since.setdefault(name, self.world.now())

    def start(self, *, once: bool) -> None:
        work = self.life.once() if once else self.life.forever()
        self.task = asyncio.create_task(work, name="process")

    async def kill(self) -> None:
        """As ``kill -9`` does: nothing is finished, nothing is written."""
        self.pool.is_dead = True
        if self.task is not None:
            mine = [task for task in asyncio.all_tasks() if owners.get(task) is self]
            for task in (self.task, *mine):
                task.cancel()
            await asyncio.wait({self.task, *mine}, timeout=5)

    async def end(self) -> None:
        """As SIGTERM does."""
        self.stop.event.set()
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=120)
            if not self.task.done():
                raise BrokenError("a stop took more than 120 s")
            error = None if self.task.cancelled() else self.task.exception()
            if error is not None and not isinstance(error, OrderMonitorError):
                raise BrokenError(f"a process died of {error!r}")


class World:
    """The scenario while it runs."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.chance = random.Random(f"{scenario.seed} world")
        self.panel = Panel(random.Random(f"{scenario.seed} panel"))
        self.store = Store(EPOCH, random.Random(f"{scenario.seed} shop"), self._committed)
        self.processes: list[Process] = []
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
        self.trace = hashlib.sha256()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def note(self, *words: object) -> None:
        self.trace.update(f"{self.now():.6f} {words}\n".encode())

    def check(self, holds: bool, what: str) -> None:  # noqa: FBT001 - it reads as an assertion
        if not holds:
            self.broken.append(f"at {self.now():.1f} s: {what}")

    # --- what is looked at all the time

    def _committed(self, before: Stored, after: Stored, author: str) -> None:
        self.note("row", after.id, after.status, after.pin, author)
        self._note_overlap()
        is_ours = author in ("daemon", "ask")
        if before.status in FINAL:
            late = before.status == after.status == "completed" and not (before.pin or "").strip() and after.pin
            self.check(bool(late), f"final row {after.id} changed: {before.status} -> {after.status}")
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
        await asyncio.sleep(self.chance.uniform(0.01, 0.3))
        if self.receiver_down and self.chance.random() < 0.9:
            return httpx.Response(503 if self.chance.random() < 0.5 else 200, text="<html>Login")
        data = json.loads(request.content)["data"]
        self.posted[data["order_id"]].append(int(request.headers["webhook-id"]))
        return httpx.Response(204)

    # --- running

    async def run(self) -> None:
        asyncio.get_running_loop().set_task_factory(owned)
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
        if not self.processes:
            await self._start()
        await self._calm()
        for process in list(self.processes):
            await process.end()
        self._stop_where_broken()
        self._look_at_the_end()
        self._stop_where_broken()

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
            self.broken += process.limits.broken
            process.limits.broken = []
            if process.task is not None and process.task.done() and not process.stop.event.is_set():
                error = None if process.task.cancelled() else process.task.exception()
                self.broken.append(f"a process ended by itself: {error!r}")
        if self.broken:
            raise BrokenError("; ".join(self.broken[:3]))

    async def _start(self, plan: Plan | None = None, author: str = "daemon", *, once: bool = False) -> Process:
        self.count += 1
        context = copy_context()
        made: list[Process] = []

        def make() -> None:
            process = Process(self, self.count, plan, author)
            owner.set(process)
            process.start(once=once)
            made.append(process)

        context.run(make)
        self.running += 1
        assert made[0].task is not None
        made[0].task.add_done_callback(self._ended)
        self._note_overlap()
        if not once:
            self.processes.append(made[0])
        return made[0]

    def _ended(self, _: object) -> None:
        self._note_overlap()
        self.running -= 1

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
        if fault.kind in PROVIDER:
            account = self.scenario.accounts[fault.target % len(self.scenario.accounts)]
            self.panel.begin(fault.kind, account, fault.size)
            await asyncio.sleep(fault.seconds)
            self.panel.end(fault.kind, account)
        elif fault.kind in DATABASE:
            await self._database(fault)
        else:
            await getattr(self, f"_{fault.kind}")(fault)

    async def _database(self, fault: Fault) -> None:
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

    def _some(self, fault: Fault, statuses: tuple[str, ...] = (*OPEN, *FINAL)) -> Stored | None:
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
        for order_id in [i for i, owner in self.store.locked.items() if owner is fault]:
            del self.store.locked[order_id]

    async def _stale_save(self, fault: Fault) -> None:
        if (row := self._some(fault, FINAL)) and await self._free(row):
            self._set(row, status="sent", pin=None)

    async def _refund(self, fault: Fault) -> None:
        if (row := self._some(fault)) and await self._free(row):
            self.touched.add(row.id)
            self._set(row, status="refunded")

    async def _delete(self, fault: Fault) -> None:
        if (row := self._some(fault)) and await self._free(row):
            self.touched.add(row.id)
            del self.store.rows[row.id]

    async def _resend(self, fault: Fault) -> None:
        """The shop sends an order anew at the worst moment: while somebody asks about its old reference."""
        row = self._some(fault, OPEN)
        for _ in range(4000):
            if row is None or any(row.referans in process.limits.asked for process in self.processes):
                break
            await asyncio.sleep(0.1)
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
            self.processes.remove(process)
            await process.kill()
            self._gather(process)
            await asyncio.sleep(fault.seconds / 10)
            await self._start()

    async def _stop(self, fault: Fault) -> None:
        if process := self._one(fault):
            self.processes.remove(process)
            await process.end()
            self._gather(process)
            await asyncio.sleep(fault.seconds / 10)
            await self._start()

    def _gather(self, process: Process) -> None:
        self.broken += process.limits.broken

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
            await (process.kill() if fault.size < 0.5 else process.end())
            self._gather(process)

    async def _once(self, fault: Fault) -> None:
        every = None if fault.size < 0.5 else 60.0
        await self._aside(OnePass(Schedule(give_up_after=self.scenario.give_up_after), every), "daemon")

    async def _ask(self, fault: Fault) -> None:
        await self._aside(Now(), "ask")

    async def _aside(self, plan: Plan, author: str) -> None:
        process = await self._start(plan, author, once=True)
        assert process.task is not None
        await asyncio.wait({process.task}, timeout=3 * HOUR)
        self.check(process.task.done(), "one pass did not end")
        with suppress(OrderMonitorError):
            process.task.result()
        self._gather(process)

    async def _sighup(self, fault: Fault) -> None:
        if process := self._one(fault):
            process.engine.adopt(replace(process.policy, concurrency=max(1, process.policy.concurrency - 1)))
            process.engine.adopt_accounts(None, self.scenario.per_second * 0.9, 2)

    async def _pause(self, fault: Fault) -> None:
        account = self.scenario.accounts[fault.target % len(self.scenario.accounts)]
        self.store.pauses[account] = self.store.now() + fault.seconds
        await asyncio.sleep(fault.seconds)

    async def _receiver_down(self, fault: Fault) -> None:
        self.receiver_down += 1
        await asyncio.sleep(fault.seconds)
        self.receiver_down -= 1

    async def _resolve(self, fault: Fault) -> None:
        """A person ends an order by hand, whatever is under way."""
        row = self._some(fault, OPEN)
        if row is None:
            return
        self.touched.add(row.id)
        self.count += 1
        process = Process(self, self.count, Now(), "Ayşe")
        answer = Completed(Pin(f"BY-HAND-{row.id}"), "x") if fault.size < 0.5 else Cancelled("x")
        order = Order(row.id, row.status, row.sent_at, row.referans, integration=row.account)
        with suppress(OrderMonitorError):
            async with process.database.transaction() as connection:
                await process.orders.ledger.write(
                    connection, [Finding(order, answer, self.store.now())], with_notes=True
                )

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
        money: dict[tuple[str, str], int] = defaultdict(int)
        for event in self.store.events:
            if not event.repeat and event.outcome in ("completed", "failed"):
                money[event.order_id, event.outcome] += 1
        for (order_id, outcome), count in money.items():
            self.check(count == 1, f"{count} events move money for the {outcome} of {order_id}")
        for order_id, row in self.store.rows.items():
            if row.status in ("completed", "failed") and order_id not in self.touched:
                self.check(money[order_id, row.status] == 1, f"no event moves money for the {row.status} of {order_id}")
        if self.scenario.webhook:
            self._look_at_posts()

    def _look_at_posts(self) -> None:
        told: dict[str, list[int]] = defaultdict(list)
        for event in self.store.events:
            if self.store.deliveries[event.id].is_over:
                told[event.order_id].append(event.id)
        for order_id, ids in told.items():
            posted = self.posted[order_id]
            first = [event_id for event_id in dict.fromkeys(posted) if event_id in ids]
            self.check(first == sorted(ids), f"events {ids} of {order_id} were posted as {posted}")


def hash_of(text: str, number: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{text} {number}".encode(), digest_size=4).digest())


async def play(scenario: Scenario) -> tuple[str, float]:
    """Run ``scenario``; return a digest of all that happened, and how many seconds went by.

    Raises:
        BrokenError: something that must hold does not.
    """
    random.seed(scenario.seed)
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    world = World(scenario)
    await world.run()
    return world.trace.hexdigest(), world.now()


def _drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent
