"""One run of a scenario: processes come and go, faults occur, and the invariants are checked
continuously.

The invariants (a violation stops the run):

- a final row never changes, except by the shop's own write, and except for the PIN that an end
  lacked;
- no order fails that the provider did not cancel, except by the time limit after "still waiting";
  an answer about an earlier sending, elsewhere or under the same reference, fails no order;
- an order is ended by an answer of the account and the reference in its row, noted before, and its
  event says so;
- if two orders of a login share a reference, neither is ended once that is noted;
- no PIN is stored that the provider did not give, and none twice at a login, at any time;
- a PIN that was read is in a row, or under review;
- for each end of a dispatch (order, account, reference) exactly one event moves money;
- the webhook posts each event at least once, and the events of one order in sequence;
- calls at once and calls a second stay within their limits; there is none for an account known to
  be paused or switched off, none with a login known to be old, none through a closed client, and no
  client is left open;
- the shop moves money once for each end, even if a person reopens an order;
- no order ends by its age before its time, whichever clock was moved, nor within ten minutes of a
  jump of the machine's clock;
- a process that has read that others use different settings asks nothing, writes no order, and
  posts nothing to another address;
- while nothing is in the way of a write, a process that is stopped leaves no PIN unwritten;
- every order is due within the longest pause, and without faults it is asked then;
- no order is skipped after its account has been well for some time, and a repaired login is tried
  in time;
- what holds of chains and of clusters: `tests.simulation.relatives`, `tests.simulation.members`,
  `tests.simulation.handover`;
- some time after the last fault every order that has ended at the provider has ended in the shop,
  with its PIN.
"""

import asyncio
import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import httpx
import structlog

from order_monitor.core.check_result import CheckResult
from order_monitor.core.decision import StuckReason
from order_monitor.core.errors import OrderMonitorError
from order_monitor.core.order import SAME_TIME
from order_monitor.core.schedule import OnePass, Plan, Schedule
from order_monitor.shop.marks import FIRST_MIGRATE, FIRST_START
from order_monitor.shop.reviews import HELD_PIN, UNCONFIRMED
from order_monitor.shop.webhook_mark import address_of
from order_monitor.shop.writing.dispatches import TOUCHED
from order_monitor.shop.writing.event_sql import PERSON as PERSON_DECIDED
from order_monitor.shop.writing.event_sql import PROGRAM, WEBHOOK_MARK
from order_monitor.timing.planner import Terms, Timing
from tests.simulation.handover import Handover
from tests.simulation.members import Members
from tests.simulation.other_tables import Login
from tests.simulation.people import People
from tests.simulation.process import (
    ADDRESS,
    EPOCH,
    MONEY,
    PERSON,
    SCAN,
    TAKES_EFFECT,
    BrokenError,
    Process,
    owned,
    owner,
)
from tests.simulation.provider import Panel, Truth
from tests.simulation.relatives import TENANT, Relatives, family, stranger
from tests.simulation.scenario import (
    ACCOUNTS,
    DATABASE,
    HOUR,
    PEOPLE,
    PROVIDER,
    WRONG,
    Fault,
    OrderPlan,
    Scenario,
    has_file,
)
from tests.simulation.shared import Setting
from tests.simulation.shop import FINAL, OPEN, Commit, Event, Store, Stored, lacks
from tests.simulation.shops_accounts import Accounts
from tests.simulation.sight import Sight
from tests.simulation.tape import Tape

CALM = 4.5 * HOUR
"""Seconds after the last fault within which everything has ended: the longest Retry-After, the
longest backoff, and a margin.
"""

STALE = 55.0
"""Seconds for which the provider may report the end of an earlier attempt under the same
reference.
"""

_OF_PINS = frozenset(map(str, StuckReason)) - {
    "reference_twice",
    "repeat_sent_anew",
    "unknown_state",
    "two_answers",
    "rejected_by_database",
    "changed_by_trigger",
}
"""The reviews that tell a person that a PIN was read."""
_ASKED_ON = ("reference_twice", "rejected_by_database", "changed_by_trigger", HELD_PIN)
"""Those of an order that is asked about until its PIN is written."""

LONGEST_PAUSE = 600.0 * 1.1
"""The most seconds between two questions about an order, without faults."""

__all__ = ["BrokenError", "World", "play"]


End = tuple[str, str, str, str]
"""The end of a dispatch: order, account, reference, and how it ended."""


class World:
    """The running scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.chance = random.Random(f"{scenario.seed} world")
        self.panel = Panel(random.Random(f"{scenario.seed} panel"))
        self.store = Store(EPOCH, random.Random(f"{scenario.seed} shop"), self._committed)
        self.store.settings[FIRST_MIGRATE] = Setting(str(EPOCH - 2 * HOUR), EPOCH)
        if scenario.is_first_start:
            self.store.settings[FIRST_START] = Setting(str(EPOCH), EPOCH)
        self.sight = Sight(self)
        self.relatives, self.members, self.handover = Relatives(self), Members(self), Handover(self)
        self.truth, self.people = Accounts(self), People(self)
        self.processes: list[Process] = []
        self.alive: list[Process] = []
        self.reviving: set[asyncio.Task[None]] = set()
        self.store.cut_at = scenario.cut_at
        self.is_disturbed = bool(scenario.crash_at or scenario.cut_at)
        self.going_on: Counter[str] = Counter()
        """The kinds of the active faults."""
        self.quiet_since = 0.0
        """Since when they have not changed."""
        self.counts_steps = bool(scenario.crash_at) or any(
            fault.kind in ("crash", "freeze") for fault in scenario.faults
        )
        self.watch_steps: Callable[[Process], None] = lambda _: None
        self.count = 0
        self.broken: list[str] = []
        self.plans: dict[str, OrderPlan] = {}
        self.touched: set[str] = set()
        """Orders that the shop or a person has changed: their end is not only the provider's."""
        self.crossed = any(fault.kind in ("crossed", "pair") for fault in scenario.faults)
        self.sent_again: set[str] = set()
        """Orders that the shop has sent again."""
        self.twins: dict[str, list[str]] = {}
        """The orders of each reference that several orders have."""
        self.same_pin: set[str] = set()
        """Orders whose PIN the provider has also given to another one."""
        self.times: dict[tuple[str, str, str], list[float]] = {}
        """The times of sending in the shop, by order, account and reference."""
        self.stored: set[tuple[str, str]] = set()
        """The PINs that were ever in an order's row."""
        self.was_found: dict[tuple[str, str], tuple[str, str]] = {}
        """The PINs that were read and stored or reviewed: their order, account and reference."""
        self.posted: dict[str, list[int]] = defaultdict(list)
        self.receiver_down = 0
        self.adopted_at = float("-inf")
        """When a person last set the webhook's address."""
        self.moved: dict[End, set[int]] = defaultdict(set)
        """The shop's own books: the events for which it has moved money, by end."""
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
        self.note("row", after.id, after.status, after.pin, commit.author)
        process = owner.get()
        if process is not None:
            self.check(not process.differs, f"{after.id} was written by other settings")
        event = next(
            (event for event in reversed(commit.events) if event.order_id == after.id), None
        )
        self.handover.ended(before, after, event)
        has_come = not lacks(after.pin) and after.pin != before.pin
        if before.status in FINAL:
            is_same = before.status == after.status and after.status in ("completed", "delivered")
            late = is_same and lacks(before.pin) and has_come
            reopened = commit.author == PERSON and after.status in OPEN and after.pin == before.pin
            self.check(
                late or reopened, f"final row {after.id} changed: {before.status} -> {after.status}"
            )
        elif after.status in FINAL:
            self._ended = after
            self._end.set()
            self._end = asyncio.Event()
            self.check(event is not None, f"{after.id} ended without its event")
        if not lacks(before.pin):
            self.check(after.pin == before.pin, f"the PIN of {after.id} was replaced")
        if event is not None and before.status in FINAL and has_come and event.source == PROGRAM:
            self.check(event.repeat, f"the event of the late PIN of {after.id} moves money")
            last = next(e for e in reversed(self.store.events) if e.order_id == after.id)
            is_theirs = last.source == PERSON_DECIDED
            self.check(not is_theirs, f"a PIN was added to {after.id}, which a person has ended")
        if has_come:
            self.stored.add((after.id, after.pin or ""))
            self._look_whose(after)
        if event is not None and (
            has_come or (after.status in FINAL and before.status not in FINAL)
        ):
            self._look_at_an_end(before, after, event)
            if event.source == PROGRAM:
                self._look_at_an_answer(before, after, event, commit)

    def _look_whose(self, row: Stored) -> None:
        """A code is in one order of a login at all times: the database itself enforces it."""
        kod = self.truth.kod_of(row.account)
        rows = [r for r in self.store.rows.values() if r.pin == row.pin and r.id != row.id]
        chain = row.root or row.id
        others = [
            r.id for r in rows if self.truth.kod_of(r.account) == kod and (r.root or r.id) != chain
        ]
        self.check(not others, f"PIN {row.pin} of {row.id} is in {others} too")

    def _look_at_an_end(self, before: Stored, after: Stored, event: Event) -> None:
        """The event names the party that ended the order, as in its row."""
        source = PERSON_DECIDED if event.decided_by == PERSON else PROGRAM
        self.check(
            event.to_status == after.status, f"the event of {after.id} says {event.to_status}"
        )
        self.check(event.source == source, f"{event.source} ended {after.id}, and not {source}")
        self.check(
            event.has_pin is not lacks(after.pin),
            f"the event of {after.id} says has_pin {event.has_pin}",
        )
        named = (before.account, before.reference.strip())
        told = (event.account, event.reference)
        self.check(told == named, f"{after.id} ended by an answer of {told}, its row names {named}")

    def _look_at_an_answer(
        self, before: Stored, after: Stored, event: Event, commit: Commit
    ) -> None:
        """The provider has said it: about this dispatch, to its account.

        Of an order that another tenant took, its child.
        """
        if before.status in OPEN and after.status in FINAL:
            self.sight.ended(after, commit)
        if after.account == TENANT:
            self.relatives.ended(before, after, event, commit)
            return
        truth, dispatch = self.truth_of(after), (after.id, after.account, after.reference.strip())
        if after.status == "failed":
            times = self.times[dispatch]
            is_touched = len(times) > TOUCHED
            age = self.store.now() - (times[0] if is_touched else after.sent_at)
            timed_out = age >= self.scenario.give_up_after and truth.said_waiting_at is not None
            is_cancelled = "cancelled" in truth.said or (is_touched and self._was_cancelled(truth))
            may_fail = is_cancelled or timed_out or self.sight.may_give_up(after, event)
            self.check(may_fail, f"{after.id} failed without a cancellation")
            self.check(lacks(after.pin), f"{after.id} failed with the PIN {after.pin!r}")
            process = owner.get()
            self.sight.failed(before, after, event, commit, process)
            is_read = any(key[0] == after.id for key in self.was_found)
            self.check(
                not (event.cause == "time_limit" and is_read),
                f"{after.id} ended by its age, and its PIN was read",
            )
            is_young = self.now() - self.plans[after.id].sent_at < self.scenario.give_up_after - 1
            is_by_age = event.cause == "time_limit" and not truth.plan.forgets
            self.check(
                not (is_by_age and is_young and after.id not in self.sent_again),
                f"{after.id} ended by its age before its time",
            )
            is_steady = (
                event.cause != "time_limit" or process is None or after.id not in process.unsteady
            )
            self.check(
                is_steady, f"{after.id} ended by its age while a clock could not be believed"
            )
        said = truth.approved
        if self.crossed:
            kod = self.truth.kod_of(after.account)
            said = set().union(
                *(one.approved for name, one in self.panel.truths.items() if name[0] == kod)
            )
        if after.status == "completed" and before.status != "completed":
            self.check(bool(said), f"{after.id} completed without an approval")
        if after.pin != before.pin:
            self.check(
                after.pin in said, f"{after.id} got PIN {after.pin!r}, said were {sorted(said)}"
            )
        noted = self.store.dispatches.get((after.id, after.reference.strip(), after.account))
        self.check(noted is not None, f"{after.id} ended, and its dispatch is not noted")
        twins = [
            row.order_id
            for row in self.store.dispatches.values()
            if noted is not None
            and (row.reference, row.login) == (noted.reference, noted.login)
            and row.order_id != after.id
            and row.noted_at < commit.began
        ]
        self.check(not twins, f"{after.id} ended {after.status}, and {twins} have its reference")

    @classmethod
    def _was_cancelled(cls, truth: Truth) -> bool:
        before = truth.before
        return before is not None and ("cancelled" in before.said or cls._was_cancelled(before))

    def truth_of(self, row: Stored) -> Truth:
        """What the provider knows about an order, by the reference in its row.

        About one that another tenant took: what it knows about the last of its chain.
        """
        row = self.relatives.from_here(row)[-1]
        return self.panel.truths[self.truth.kod_of(row.account), row.reference.strip()]

    def was_read(self, finding: CheckResult) -> None:
        """A PIN that was read is now in the row, or under review."""
        assert finding.pin is not None
        self.was_found[finding.order.id, finding.pin.reveal()] = (
            finding.account,
            finding.order.reference.strip(),
        )

    async def receive(self, request: httpx.Request) -> httpx.Response:
        """The shop's own address for events."""
        process = owner.get()
        if process is not None:
            self.members.post(process)
        await asyncio.sleep(self.chance.uniform(0.005, 0.15))
        if process is not None and process.is_dead:
            raise asyncio.CancelledError
        if self.receiver_down and self.chance.random() < 0.9:
            is_busy = self.chance.random() < 0.5
            return httpx.Response(503) if is_busy else httpx.Response(200, text="<html>Login")
        data = json.loads(request.content)["data"]
        mark = json.loads(self.store.settings[WEBHOOK_MARK].value)
        if mark["address"] != address_of(str(request.url)):
            self.check(
                self.now() - self.adopted_at < TAKES_EFFECT, f"an event was posted to {request.url}"
            )
        event = next(
            event for event in self.store.events if event.uid == request.headers["webhook-id"]
        )
        self.check(
            event.id == data["id"] and bool(data["dispatch"]),
            f"event {event.id} was posted as {data}",
        )
        after = next(
            (e for e in self.store.events if e.order_id == event.order_id and e.id > event.id), None
        )
        is_withdrawn = event.repeat and after is not None and after.outcome == "reopened"
        self.check(not is_withdrawn, f"event {event.id} was posted, which a reopening withdrew")
        self.posted[data["order_id"]].append(event.id)
        self._move(event, repeat=data["repeat"])
        await asyncio.sleep(self.chance.uniform(0.005, 0.15))
        return httpx.Response(204)

    def _move(self, event: Event, *, repeat: bool) -> None:
        """Move money like a correct shop: once for an event, and never for a repeat."""
        if event.outcome in ("completed", "failed") and not repeat:
            self.moved[_end_of(event)].add(event.id)

    def consume(self) -> None:
        """Read the events from their table, like a shop without a webhook."""
        for event in self.store.events:
            if event.consumed_at is None and f"event {event.id}" not in self.store.locked:
                event.consumed_at = self.store.now()
                self._move(event, repeat=event.repeat)

    async def _consume_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(1, 90))
            self.consume()

    def asked(self, login: Login, reference: str) -> None:
        """A question begins; without faults none comes too late."""
        self.sight.questions_at[reference] = now = self.now()
        if (waiting := self._questions.pop(reference, None)) is not None:
            waiting.set()
        row = self.store.rows.get(f"order-{self.panel.truths[login.kod, reference].plan.number}")
        self.check(
            row is None or not self.sight.is_left_alone(row),
            f"{reference} is asked about, and is to be left alone",
        )
        last = self.last_asked.pop(reference, None)
        if row is None or row.status not in OPEN:
            return
        self.last_asked[reference] = now
        slack = 60 + len(self.plans) * max(1.0, 1 / self.scenario.per_second)
        was_shut = self.scenario.is_special and self.sight.was_shut(
            login.id, 2 * LONGEST_PAUSE + slack
        )
        if last is not None and not self.is_disturbed and not was_shut:
            self.check(
                now - last <= LONGEST_PAUSE + slack,
                f"{reference} of {login.id} was not asked for {now - last:.0f} s",
            )

    async def next_question(self, reference: str, seconds: float) -> None:
        """Wait until an order is asked about, up to a time limit."""
        event = self._questions.setdefault(reference, asyncio.Event())
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    async def next_end(self, seconds: float) -> Stored | None:
        """Wait until an order ends, up to a time limit; return it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._end.wait(), seconds)
            return self._ended
        return None

    def is_settled(self, order_id: str) -> bool:
        """Whether the account of an order has been well for longer than its detection takes."""
        row = self.store.rows.get(order_id)
        return row is not None and self.is_account_settled(row.account)

    def is_account_settled(self, key: str) -> bool:
        """The same for an account."""
        return (
            self.truth.is_well(key)
            and self.now() - self.truth.since[key] > self.scenario.refresh + 3 * SCAN
        )

    @property
    def wrong(self) -> int:
        """The number of active faults."""
        return self.going_on.total()

    def can_write(self) -> bool:
        """Whether nothing is in the way of a write: no row is locked, no trigger slow, and the
        database answers.
        """
        store = self.store
        is_away = store.down or store.stall or store.commits or store.deadlocks
        return not (
            is_away
            or store.locked
            or store.blocked
            or store.slow
            or store.cut_at > store.statements
        )

    def was_quiet_since(self, at: float) -> bool:
        """Whether there has been no fault since then, and no process start."""
        return not self.wrong and self.quiet_since <= at

    # --- running

    async def run(self) -> None:
        asyncio.get_running_loop().set_task_factory(owned)
        if self.scenario.primed:
            self._prime()
        looking = asyncio.create_task(self._look_for_ever())
        consumer = None if self.scenario.webhook else asyncio.create_task(self._consume_for_ever())
        try:
            await self._run()
        finally:
            for task in (consumer, looking):
                if task is not None:
                    task.cancel()

    async def _look_for_ever(self) -> None:
        """Check for momentary faults."""
        seconds = 5.0 if self.scenario.is_special else 20.0
        while True:
            await asyncio.sleep(seconds)
            for process in self.processes:
                self.sight.look(process)
                process.shown.look_whether_ready()
            self.sight.look_at_the_held()
            self.sight.look_for_forgotten()
            self.sight.look_for_neglected(seconds)
            self.handover.look(seconds)
            if self.scenario.has_chains:
                self.relatives.look_for_late(seconds)

    def _prime(self) -> None:
        """Prepare some learned timing."""
        timing = Timing(Schedule(), Terms())
        for number in range(60):
            key = (self.scenario.accounts[0], f"package-{number % 3}")
            timing.ended(key, 0.0, 5.0 + self.chance.random() * 300, EPOCH - 60 * number)
        self.store.sketches |= {key: sketch.dump() for key, sketch in timing.drain().items()}

    async def _run(self) -> None:
        for _ in range(max(1, self.scenario.members)):
            await self.start()
        placing = [
            (max(0.0, plan.sent_at), partial(self.place, plan)) for plan in self.scenario.orders
        ]
        failing = [(fault.at, partial(self.begin, fault)) for fault in self.scenario.faults]
        running: list[asyncio.Task[None]] = []
        for at, act in sorted([*placing, *failing], key=lambda action: action[0]):
            await asyncio.sleep(max(0.0, at - self.now()))
            running.append(asyncio.create_task(act(), name="action"))
            self.stop_where_broken()
        if running:
            await asyncio.wait(running)
        for task in running:
            task.result()
        is_over = False
        while not is_over:
            if not self.processes:
                await self.start()
            await self._calm()
            await self._end_all()
            is_over = not self.processes
        self.consume()
        self.stop_where_broken()
        self._look_at_the_end()
        self.stop_where_broken()

    async def _end_all(self) -> None:
        """Stop all processes; one that has died has a replacement."""
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
            self.sight.look_for_forgotten()
            self.stop_where_broken()
            if not self._unfinished():
                break
        for what in self._unfinished():
            self.check(False, what)
        for process in self.processes:
            process.look_for_lost()

    def stop_where_broken(self) -> None:
        for process in self.processes:
            process.look()
            self.gather(process)
            if process.task is not None and process.task.done() and not process.stop.event.is_set():
                error = None if process.task.cancelled() else process.task.exception()
                self.broken.append(f"a process ended by itself: {error!r}")
        self.broken += [f"unknown to the model shop: {sql[:300]}" for sql in self.store.unknown]
        if self.broken:
            raise BrokenError("; ".join(self.broken[:3]))

    def gather(self, process: Process) -> None:
        """Take over a process's violations."""
        self.broken += process.limits.broken
        process.limits.broken = []

    def make(
        self,
        plan: Plan | None,
        author: str,
        work: Callable[[Process], Coroutine[Any, Any, Any]],
        *,
        is_other: bool = False,
        accepts: bool = False,
    ) -> Process:
        """Start a process that does ``work``."""
        self.count += 1
        made: list[Process] = []

        def make() -> None:
            process = Process(self, self.count, plan, author, is_other=is_other, accepts=accepts)
            owner.set(process)
            made.append(process)
            self.watch_steps(process)
            process.start(work(process))

        copy_context().run(make)
        process = made[0]
        assert process.task is not None
        process.task.add_done_callback(partial(self._over, process))
        self.alive.append(process)
        return process

    async def start(self, *, is_other: bool = False) -> Process:
        """Start a daemon."""
        process = self.make(None, "daemon", Process.daemon, is_other=is_other)
        self.processes.append(process)
        if self.count <= len(self.scenario.crash_at):
            self.die_after(process, self.scenario.crash_at[self.count - 1], 1.0)
        return process

    def die_after(self, process: Process, steps: int, pause: float) -> asyncio.Task[None]:
        """Let a process die at a chosen step, and start another one."""
        process.steps.left = steps
        task = asyncio.create_task(self._revive(process, pause), name="revive")
        self.reviving.add(task)
        task.add_done_callback(self.reviving.discard)
        return task

    async def _revive(self, process: Process, pause: float) -> None:
        await process.over.wait()
        if process.is_dead and process.is_daemon and not process.is_replaced:
            await asyncio.sleep(pause)
            await self.start()

    def died(self, process: Process) -> None:
        """A process has died."""
        self.note("died", process.number)
        if process in self.processes:
            self.processes.remove(process)
        self.gather(process)

    def commits_at_death(self, number: int) -> bool:
        """Whether the server executes the COMMIT of a dying process."""
        given = self.scenario.commits_at_death
        return (
            random.Random(f"{self.scenario.seed} {number}").random() < 0.5
            if given is None
            else given
        )

    def _over(self, process: Process, _: object) -> None:
        self.alive.remove(process)

    async def place(self, plan: OrderPlan) -> None:
        reference = f"1{plan.number:05}"
        self.panel.place((self.truth.kod_of(plan.account), reference), plan, plan.sent_at)
        if self.scenario.has_chains:
            for order_id, columns in family(plan, reference):
                self._put_row(order_id, plan, **columns)
            if plan.is_claimed:
                order_id, columns = stranger(plan)
                self._put_row(order_id, plan, **columns)
                self.relatives.strangers.add(order_id)
        else:
            self._add(plan, reference)

    def _add(self, plan: OrderPlan, reference: str) -> None:
        """Add an order's row."""
        self._put_row(f"order-{plan.number}", plan, reference=reference, account=plan.account)

    def _put_row(self, order_id: str, plan: OrderPlan, **columns: Any) -> None:
        sent_at = EPOCH + self.store.ahead + plan.sent_at
        self.plans[order_id] = plan
        row = Stored(
            order_id, "sent", sent_at=sent_at, package=f"package-{plan.package}", **columns
        )
        self.store.rows[order_id] = row
        self.times[order_id, row.account, row.reference] = [sent_at]
        self.note("placed", order_id)

    # --- what goes wrong

    async def begin(self, fault: Fault) -> None:
        self.note("fault", fault.kind)
        self.going_on[fault.kind] += 1
        self.is_disturbed = True
        try:
            await self._do(fault)
        finally:
            self.going_on -= Counter([fault.kind])
            self.quiet_since = self.now()
        if fault.kind == "password":
            await self.truth.look_whether_tried(fault)

    async def _do(self, fault: Fault) -> None:
        if fault.kind in (*PROVIDER, *WRONG):
            account = self.scenario.accounts[fault.target % len(self.scenario.accounts)]
            self.panel.begin(fault.kind, account, fault.size)
            await asyncio.sleep(fault.seconds)
            self.panel.end(fault.kind, account)
        elif fault.kind in DATABASE:
            await self._database(fault)
        elif fault.kind in ACCOUNTS:
            await self.truth.do(fault)
        elif fault.kind in (*PEOPLE, "release", "ends_paused", "replay"):
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
        self._note_away()
        await asyncio.sleep(fault.seconds)
        setattr(self.store, name, "" if name == "commits" else False)
        self._note_away()

    def _note_away(self) -> None:
        """Record since when the database has been unavailable, after a change."""
        is_away = self.store.down or self.store.stall
        if self.store.down:
            for session in self.store.members():
                session.end()
        since = self.sight.away_since
        self.sight.away_since = (self.now() if since is None else since) if is_away else None

    def some(self, fault: Fault, statuses: tuple[str, ...] = (*OPEN, *FINAL)) -> Stored | None:
        rows = [row for _, row in sorted(self.store.rows.items()) if row.status in statuses]
        return rows[fault.target % len(rows)] if rows else None

    def _set(self, row: Stored, **values: object) -> None:
        """The shop's own write; it waits for no lock of ours, since ours are short."""
        self.store.rows[row.id] = replace(self.store.rows[row.id], **values)  # type: ignore[arg-type]
        self.note("shop", row.id, sorted(values))

    async def _free(self, row: Stored) -> bool:
        for _ in range(1000):
            if row.id not in self.store.locked:
                return row.id in self.store.rows
            await asyncio.sleep(0.05)
        return False

    async def _lock(self, fault: Fault) -> None:
        for row in [
            r for i, r in sorted(self.store.rows.items()) if hash_of(i, fault.target) % 3 == 0
        ]:
            self.store.locked.setdefault(row.id, fault)
        await asyncio.sleep(fault.seconds)
        for order_id in [i for i, holder in self.store.locked.items() if holder is fault]:
            del self.store.locked[order_id]

    async def _stale_save(self, fault: Fault) -> None:
        """The shop saves an old copy of an ended order.

        With another time of sending it has sent the order again.
        """
        if (row := self.some(fault, FINAL)) and await self._free(row):
            self._send(
                row,
                status="sent",
                pin=None,
                sent_at=self.store.now() if fault.size < 0.3 else row.sent_at,
            )

    async def _refund(self, fault: Fault) -> None:
        if (row := await self._asked_about(fault)) and await self._free(row):
            self.touched.add(row.id)
            self._set(row, status="refunded")

    async def _delete(self, fault: Fault) -> None:
        if (row := await self._asked_about(fault)) and await self._free(row):
            self.touched.add(row.id)
            del self.store.rows[row.id]

    async def _asked_about(self, fault: Fault) -> Stored | None:
        """Return some order, at any time or while it is being asked about."""
        if fault.size < 0.5:
            return self.some(fault)
        row = self._soon_over(fault)
        if row is not None:
            await self.next_question(row.reference, 400.0)
            await asyncio.sleep(fault.size * 0.3)
        return row

    def _soon_over(self, fault: Fault) -> Stored | None:
        """Return some open order whose end is about to be read, or any order if there is none."""
        rows = [row for _, row in sorted(self.store.rows.items()) if row.status in OPEN]
        ends = [(row, self.truth_of(row).ends_at) for row in rows]
        found = (
            [row for row, at in ends if at is not None and at < self.now() + 60]
            if fault.size < 0.7
            else rows
        )
        found = found or rows
        return found[fault.target % len(found)] if found else None

    async def _resend(self, fault: Fault) -> None:
        """The shop sends an order again under another reference."""
        await self._send_anew(fault, to_another=False, under_another=True)

    async def _resend_same(self, fault: Fault) -> None:
        """The shop sends an order again under the same reference.

        For a while the provider still reports the earlier state.
        """
        await self._send_anew(fault, to_another=False, under_another=False)

    async def _reassign(self, fault: Fault) -> None:
        """The shop moves an order to another account, under the same reference."""
        await self._send_anew(fault, to_another=True, under_another=False)

    async def _reassign_anew(self, fault: Fault) -> None:
        """The shop moves an order to another account, with a new reference."""
        await self._send_anew(fault, to_another=True, under_another=True)

    async def _send_anew(self, fault: Fault, *, to_another: bool, under_another: bool) -> None:
        """At the worst moment: while the earlier dispatch is being asked about."""
        row = self._soon_over(fault)
        if row is None or (to_another and len(self.scenario.accounts) < 2):
            return
        await self.next_question(row.reference, 400.0)
        await asyncio.sleep(fault.size * 0.3)
        await self._send_row_anew(row, fault, to_another=to_another, under_another=under_another)

    async def _resend_cancelled(self, fault: Fault) -> None:
        """The shop sends an order again whose cancellation waits for a second answer."""
        for _ in range(50):
            waiting = {order_id for order_id, kind in self.store.reviews if kind == UNCONFIRMED}
            rows = [row for i, row in sorted(self.store.rows.items()) if i in waiting]
            if rows:
                row, to_another = rows[fault.target % len(rows)], fault.size < 0.3
                under_another = 0.2 < fault.size < 0.5
                await self._send_row_anew(
                    row, fault, to_another=to_another, under_another=under_another
                )
                return
            await asyncio.sleep(2)

    async def _send_row_anew(
        self, row: Stored, fault: Fault, *, to_another: bool, under_another: bool
    ) -> None:
        accounts = self.scenario.accounts
        if not await self._free(row) or (row := self.store.rows[row.id]).status not in OPEN:
            return
        # An attempt that was never noted cannot be distinguished from the next one under its
        # reference.
        is_noted = (row.id, row.reference, row.account) in self.store.dispatches
        if not (is_noted or under_another) or row.reference in self.twins:
            return
        others = [account for account in accounts if account != row.account]
        account = others[fault.target % len(others)] if to_another else row.account
        kod = self.truth.kod_of(account)
        if (
            not under_another
            and (kod, row.reference) in self.panel.truths
            and to_another
            and fault.target % 2
        ):
            return
        reference = f"2{len(self.panel.truths):05}" if under_another else row.reference
        outcome = ("pin", "direct", "late", "cancelled")[fault.target // 2 % 4]
        plan = replace(
            self.plans[row.id],
            sent_at=self.now(),
            account=account,
            outcome=outcome,
            unknown_for=0.0,
        )
        if fault.size < 0.5:
            self.panel.cancel(self.truth_of(row))
        stale_for = 0.0 if under_another or to_another else fault.size * STALE
        self.panel.place((kod, reference), plan, self.now(), stale_for)
        self.plans[row.id] = plan
        self.sent_again.add(row.id)
        # Some shops keep the first time of sending when another account takes the order.
        sent_at = row.sent_at if to_another and fault.target % 3 == 0 else self.store.now()
        self._send(row, account=account, reference=reference, sent_at=sent_at, status="sent")

    def _send(self, row: Stored, **values: Any) -> None:
        """Change how an order was sent, and record when."""
        self._set(row, **values)
        now = self.store.rows[row.id]
        times = self.times.setdefault((now.id, now.account, now.reference), [])
        if not times or abs(times[-1] - now.sent_at) >= SAME_TIME:
            times.append(now.sent_at)

    async def _touch(self, fault: Fault) -> None:
        """The shop gives some orders another time at each save."""
        ids = {i for i in self.store.rows if hash_of(i, fault.target) % 3 == 0}
        end = self.now() + fault.seconds
        while self.now() < end:
            for row in [self.store.rows[i] for i in sorted(ids & self.store.rows.keys())]:
                if row.status in OPEN and row.id not in self.store.locked:
                    self._send(row, sent_at=self.store.now())
            await asyncio.sleep(3 + fault.size * 40)

    async def _twins(self, fault: Fault) -> None:
        """The shop sends an order under a reference that another order of the same dealer has, or
        had.
        """
        row = self.some(fault, OPEN if fault.size < 0.6 else FINAL)
        if row is None:
            return
        if fault.size < 0.3:
            await self.next_question(row.reference, 100.0)
        row = self.store.rows.get(row.id)
        if row is None:
            return
        kod = self.truth.kod_of(row.account)
        same = [account for account in self.scenario.accounts if self.truth.kod_of(account) == kod]
        plan = replace(
            self.plans[row.id],
            number=1000 + len(self.plans),
            sent_at=self.now(),
            account=same[fault.target % len(same)],
        )
        self._add(plan, row.reference)
        self.twins.setdefault(row.reference, [row.id]).append(f"order-{plan.number}")

    async def _same_pin(self, fault: Fault) -> None:
        """The provider gives one PIN to two orders."""
        rows = [row for _, row in sorted(self.store.rows.items()) if row.status in OPEN]
        found = [
            (row, truth)
            for row in rows
            if (truth := self.truth_of(row)).plan.outcome in ("pin", "late") and not truth.said
        ]
        for (one, truth), (other, another) in pairwise(found):
            if (
                self.truth.kod_of(one.account) == self.truth.kod_of(other.account)
                and truth is not another
            ):
                another.pin = truth.pin
                self.same_pin |= {one.id, other.id}
                return

    async def _poison(self, fault: Fault) -> None:
        """A trigger refuses some rows.

        While the database is down before that, answers pile up: the rows come in batches with
        others.
        """
        ids = {
            i
            for i, row in sorted(self.store.rows.items())
            if row.status in OPEN and hash_of(i, fault.target) % 3 == 0
        }
        self.store.poisoned |= ids
        if fault.size < 0.6:
            self.store.down = True
            self._note_away()
            await asyncio.sleep(90)
            self.store.down = False
            self._note_away()
        await asyncio.sleep(fault.seconds)
        self.store.poisoned -= ids

    async def _fails_over_ahead(self, fault: Fault) -> None:
        """The same, and the standby's clock is another one."""
        await self._fails_over(fault, (-40.0, 20.0, 400.0, 1500.0)[fault.target % 4])

    async def _fails_over_far(self, fault: Fault) -> None:
        """The same, and the standby's clock is wrong by hours or months."""
        day = 24 * HOUR
        await self._fails_over(fault, (-3 * HOUR, -day, -100 * day, 100 * day)[fault.target % 4])

    async def _fails_over(self, fault: Fault, ahead: float = 0.0) -> None:
        """A standby without the last commits takes the database's place, with a clock ``ahead`` of
        the earlier one by so many seconds.

        The shop's books are in it too. Not in the first minute: a process that loses the start of
        posting just after it was first set does not post those events until it is set again.
        """
        await asyncio.sleep(max(0.0, 60.0 - self.now()))
        kept, books, stored = self.store.copied(), deepcopy(self.moved), set(self.stored)
        for _ in range(40):
            if await self.next_end(3.0) is not None:
                break
            kept, books, stored = self.store.copied(), deepcopy(self.moved), set(self.stored)
        await asyncio.sleep(fault.size * 2)
        self.store.down = True
        self._note_away()
        self.store.go_back(kept)
        self.moved, self.stored = books, stored
        self.store.ahead += ahead
        # An order whose row is lost with them was, as far as anyone can know, never sent. One that
        # is sent in the future by the new clock is not asked again until then, with an alert.
        self.was_found = {
            key: whose
            for key, whose in self.was_found.items()
            if (row := self.store.rows.get(key[0])) is not None
            and (row.status in FINAL or row.sent_at <= self.store.now())
        }
        self.store.ahead_since = self.now() if ahead else self.store.ahead_since
        self.note("failed over", len(self.store.events))
        await asyncio.sleep(fault.seconds)
        self.store.down = False
        self._note_away()
        if ahead:
            self.store.ahead_since = self.now()

    async def _refuses_all(self, fault: Fault) -> None:
        """A trigger refuses every write to any existing order."""
        ids = set(self.store.rows)
        self.store.poisoned |= ids
        await asyncio.sleep(fault.seconds)
        self.store.poisoned -= ids

    async def _rewrites(self, fault: Fault) -> None:
        """A trigger changes the writes to some rows."""
        kinds = ("open", "no pin", "nothing", "delivered")
        found = {
            i: kinds[(fault.target + hash_of(i, 7)) % 4]
            for i, row in sorted(self.store.rows.items())
            if row.status in OPEN and hash_of(i, fault.target) % 5 == 0
        }
        self.store.rewriting |= found
        await asyncio.sleep(fault.seconds)
        for order_id in found:
            self.store.rewriting.pop(order_id, None)

    async def _pin_by_hand(self, fault: Fault) -> None:
        """The shop puts a PIN into an order that has none, open or ended.

        Some look like placeholders.
        """
        statuses = ("completed",) if fault.size < 0.4 else OPEN
        rows = [
            row
            for _, row in sorted(self.store.rows.items())
            if row.status in statuses and lacks(row.pin)
        ]
        if not rows or not await self._free(row := rows[fault.target % len(rows)]):
            return
        row = self.store.rows[row.id]
        if row.status in statuses and lacks(row.pin):
            self.touched.add(row.id)
            self._set(row, pin=f"SHOP-{fault.target if fault.target % 2 else 'ABC'}")

    async def _ended_by_shop(self, fault: Fault) -> None:
        """The shop ends an order, without its PIN and without an event, just when it is asked
        about.
        """
        row = self._soon_over(fault)
        if row is None:
            return
        await self.next_question(row.reference, 400.0)
        if await self._free(row) and (row := self.store.rows[row.id]).status in OPEN:
            self.touched.add(row.id)
            self._set(row, status="completed")

    async def _blocked(self, fault: Fault) -> None:
        """A trigger waits for another session's lock at each write of some rows."""
        ids = {i for i in self.store.rows if hash_of(i, fault.target) % 4 == 0}
        self.store.blocked |= ids
        await asyncio.sleep(fault.seconds)
        self.store.blocked -= ids

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
            await self.start()

    async def _crash(self, fault: Fault) -> None:
        """Some process dies at one of its awaits: a daemon, or a person's command."""
        if not self.alive:
            return
        process = self.alive[fault.target % len(self.alive)]
        if process.steps.left is None:
            await asyncio.wait(
                {self.die_after(process, 1 + int(fault.size**3 * 3000), fault.seconds / 10)},
                timeout=600,
            )
            process.steps.left = None

    async def _stop(self, fault: Fault) -> None:
        """A daemon is stopped and started again; half of the time just when it asks."""
        if fault.target % 2:
            await self._asked_about(fault)
        if process := self._one(fault):
            self.processes.remove(process)
            process.is_replaced = True
            await process.end()
            self.gather(process)
            await asyncio.sleep(fault.seconds / 10)
            await self.start()

    async def _clock(self, fault: Fault) -> None:
        if process := self._one(fault):
            process.clock.leap(process.clock.step + (fault.size - 0.5) * 8000)
            await asyncio.sleep(fault.seconds)
            process.clock.leap(0.0)

    async def _freeze(self, fault: Fault) -> None:
        """A process stands still for a while, and does not know it."""
        if process := self._one(fault):
            process.steps.freeze()
            await asyncio.sleep(min(fault.seconds, 90.0))
            process.steps.thaw()

    async def _session_cut(self, fault: Fault) -> None:
        """The network between a member's session and the server is cut."""
        if (process := self._one(fault)) and (session := process.pool.session) is not None:
            session.is_cut = True
            await asyncio.sleep(min(fault.seconds, 90.0))
            session.is_cut = False

    async def _session_ended(self, fault: Fault) -> None:
        """The server ends a member's session."""
        if (process := self._one(fault)) and (session := process.pool.session) is not None:
            session.end()

    async def _cut_off(self, fault: Fault) -> None:
        """A process cannot reach an account's provider, or none can."""
        account = self.scenario.accounts[fault.target // 8 % len(self.scenario.accounts)]
        process = self._one(fault)
        number = process.number if process is not None and fault.size < 0.7 else 0
        kod = self.truth.kod_of(account)
        self.handover.cut_off.add((number, kod))
        await asyncio.sleep(fault.seconds)
        self.handover.cut_off.discard((number, kod))

    async def _unsays(self, fault: Fault) -> None:
        """The provider says that open orders wait again whose PIN it has given."""
        for row in self.store.rows.values():
            truth = self.truth_of(row)
            if row.status in OPEN and truth.pin in truth.said:
                truth.ends_at = None
                self.sight.unsaid.add(row.id)

    async def _recants(self, fault: Fault) -> None:
        """The provider changes its mind about an order after its end."""
        self.handover.recant(fault)

    async def _second(self, fault: Fault) -> None:
        process = await self.start()
        await asyncio.sleep(fault.seconds)
        if process in self.processes:
            self.processes.remove(process)
            process.is_replaced = True
            await (process.kill() if fault.size < 0.5 else process.end())
            self.gather(process)

    async def _other_file(self, fault: Fault) -> None:
        """A daemon with another settings file is started next to the running one, or in its place.

        Then a person adopts the earlier settings.
        """
        if fault.size < 0.3 and (old := self._one(fault)):
            self.processes.remove(old)
            old.is_replaced = True
            await old.end()
            self.gather(old)
        process = await self.start(is_other=True)
        process.is_replaced = True
        await asyncio.sleep(fault.seconds)
        if fault.target % 2:
            # While it asks, if it was the only one: from then on its settings are the other ones.
            await self._asked_about(fault)
            self._adopt()
            await asyncio.sleep(5 * SCAN)
        if process in self.processes:
            self.processes.remove(process)
            await process.end()
            self.gather(process)
        self._adopt()
        if not self.processes:
            await self.start()

    def _adopt(self) -> None:
        """A person decides what holds again: ``settings adopt``, and ``webhook adopt``."""
        now = self.store.now()
        self.store.settings[f"money.{MONEY}"] = Setting(str(self.scenario.give_up_after), now)
        if (mark := self.store.settings.get(WEBHOOK_MARK)) is not None:
            value = {**json.loads(mark.value), "address": address_of(ADDRESS)}
            self.store.settings[WEBHOOK_MARK] = Setting(json.dumps(value), now)
            self.adopted_at = self.now()

    async def _once(self, fault: Fault) -> None:
        every = None if fault.size < 0.5 else 60.0
        plan = OnePass(Schedule(give_up_after=self.scenario.give_up_after), every)
        process = self.make(plan, "daemon", Process.once, **has_file(fault))
        assert process.task is not None
        await asyncio.wait({process.task}, timeout=3 * HOUR)
        self.check(process.task.done(), "one pass did not end")
        if not process.task.cancelled():
            with suppress(OrderMonitorError):
                process.task.result()
        self.gather(process)

    async def _pair(self, fault: Fault) -> None:
        """Two passes at a time next to the daemon, while answers cross."""
        account = self.scenario.accounts[fault.target % len(self.scenario.accounts)]
        self.panel.begin("crossed", account, fault.size)
        await asyncio.gather(self._once(fault), self._once(fault))
        self.panel.end("crossed", account)

    async def _sighup(self, fault: Fault) -> None:
        if process := self._one(fault):
            schedule = replace(
                process.schedule,
                base=(20.0, 30.0)[fault.target % 2],
                cap=(300.0, 600.0)[fault.target // 2 % 2],
            )
            concurrency = max(1, process.policy.concurrency - 1)
            process.reload(
                schedule, concurrency, self.scenario.per_second * 0.9, reopen=fault.size < 0.6
            )

    async def _receiver_down(self, fault: Fault) -> None:
        self.receiver_down += 1
        await asyncio.sleep(fault.seconds)
        self.receiver_down -= 1

    # --- what is looked at in the end

    def _unfinished(self) -> list[str]:
        """Return what has ended at the provider but not yet in the shop."""
        left = []
        for order_id, plan in self.plans.items():
            row = self.store.rows.get(order_id)
            if (
                row is None
                or order_id in self.touched | self.relatives.strangers
                or (row.status in OPEN and self.sight.is_kept(row))
            ):
                continue
            truth = self.truth_of(row)
            age = self.store.now() - row.sent_at
            is_due = bool(truth.plan.forgets) or (
                truth.ends_at is not None and self.now() > truth.ends_at
            )
            if (
                row.status in OPEN
                and (is_due or age > self.scenario.give_up_after)
                and not self._is_kept_open(row)
            ):
                left.append(
                    f"{order_id} ({plan.outcome}) is still {row.status} at an age of {age:.0f} s"
                )
        if self.scenario.has_chains:
            left += self.relatives.unfinished()
        left += self.handover.unfinished()
        waiting = [d for d in self.store.deliveries.values() if not d.is_over]
        if waiting:
            left.append(f"{len(waiting)} events are not told")
        return left

    def _is_kept_open(self, row: Stored) -> bool:
        """Whether the order is under review because of changes to it."""
        kinds = {kind for order_id, kind in self.store.reviews if order_id == row.id}
        is_odd = self.crossed or row.id in self.same_pin or row.id in self.sent_again
        twins = [i for ids in self.twins.values() if row.id in ids for i in ids]
        if HELD_PIN in kinds and row.id in self.sight.unsaid:
            return True
        return (is_odd and bool(kinds & {"pin_duplicate", "failed_with_pin"})) or any(
            (i, "reference_twice") in self.store.reviews for i in twins
        )

    def _look_at_the_end(self) -> None:
        for order_id, plan in self.plans.items():
            row = self.store.rows.get(order_id)
            if (
                row is not None
                and not self.crossed
                and not {one.id for one in self.relatives.from_here(row)}
                & (self.touched | self.same_pin)
            ):
                truth = self.truth_of(row)
                if row.status == "completed" and plan.outcome == "pin" and truth.before is None:
                    self.check(
                        row.pin == truth.pin,
                        f"{order_id} ended with PIN {row.pin!r} and not {truth.pin!r}",
                    )
        self._look_at_what_was_read()
        self.sight.look_at_the_unreadable()
        self._look_at_the_money()
        self.handover.look_at_the_end()
        if self.scenario.webhook:
            self._look_at_posts()

    def _look_at_what_was_read(self) -> None:
        """A PIN that was read is or was in an order's row, or is under review for the order that it
        was first read for.
        """
        kept = {pin for _, pin in self.stored}
        reviewed = self.store.reviews.keys() | self.store.decided.keys()
        for order_id, pin in self.was_found:
            keys, row = {(order_id, kind) for kind in _OF_PINS}, self.store.rows.get(order_id)
            if row is not None and (
                row.status in OPEN or (row.status == "completed" and lacks(row.pin))
            ):
                keys |= {(order_id, kind) for kind in _ASKED_ON}
            if keys & reviewed:
                kept.add(pin)
        for (order_id, pin), (account, reference) in self.was_found.items():
            self.check(
                pin in kept,
                f"PIN {pin} of {order_id} was read at {account} as {reference}, and is nowhere",
            )

    def _look_at_the_money(self) -> None:
        money: dict[End, int] = defaultdict(int)
        for event in self.store.events:
            if event.outcome not in ("completed", "failed"):
                continue
            self.check(
                bool(event.source and event.cause and event.account and event.reference),
                f"event {event.id} of {event.order_id} does not say whose it is",
            )
            if not event.repeat:
                money[_end_of(event)] += 1
        for end, count in money.items():
            self.check(count == 1, f"{count} events move money for {end}")
        for end, numbers in self.moved.items():
            self.check(len(numbers) == 1, f"events {sorted(numbers)} moved money for {end}")
        for order_id, row in self.store.rows.items():
            if row.status in ("completed", "failed") and order_id not in self.touched:
                end = (order_id, row.account, row.reference.strip(), row.status)
                self.check(money[end] == 1, f"no event moves money for {end}")
                self.check(bool(self.moved[end]), f"no money was moved for {end}")

    def _look_at_posts(self) -> None:
        told: dict[str, list[int]] = defaultdict(list)
        for event in self.store.events:
            delivery = self.store.deliveries.get(event.id)
            self.check(
                delivery is not None, f"event {event.id} of {event.order_id} is never posted"
            )
            if delivery is not None and delivery.is_over and not delivery.is_withdrawn:
                told[event.order_id].append(event.id)
        for order_id, ids in told.items():
            posted = self.posted[order_id]
            first = [event_id for event_id in dict.fromkeys(posted) if event_id in ids]
            self.check(first == sorted(ids), f"events {ids} of {order_id} were posted as {posted}")


def _end_of(event: Event) -> End:
    return event.order_id, event.account or "", event.reference or "", event.outcome


def hash_of(text: str, number: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{text} {number}".encode(), digest_size=4).digest())


async def play(
    scenario: Scenario,
    watch_steps: Callable[[Process], None] | None = None,
    tape: Tape | None = None,
) -> tuple[str, float]:
    """Run ``scenario``; return a digest of all that happened, and how many seconds passed.

    ``tape`` records the shop's data.

    Raises:
        BrokenError: an invariant does not hold.
    """
    random.seed(scenario.seed)
    structlog.configure(processors=[drop], cache_logger_on_first_use=False)
    world = World(scenario)
    world.store.tape = tape
    if watch_steps is not None:
        world.counts_steps, world.watch_steps = True, watch_steps
    key = random.Random(f"{scenario.seed} key")
    with (
        patch("secrets.token_hex", lambda size: key.randbytes(size).hex()),
        patch("secrets.randbits", key.getrandbits),
    ):
        await world.run()
    if tape is not None:
        tape.end(world.store)
    return world.trace.hexdigest(), world.now()


def drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent
