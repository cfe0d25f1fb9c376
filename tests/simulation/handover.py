"""What goes along with an account from one member of a cluster to the next, and what must hold where
nothing but members that come and go decides who asks (`Scenario.in_turn`):

- an order is asked about once for each of its times: who takes its account over does not repeat what
  it must know that the holder before has asked;
- none of these times is left out, whichever member holds the account by then;
- each order that the program ended is asked about once more, some time after its end, by the
  member that holds its account by then (`Scenario.recheck`), and an answer that contradicts its end is before a
  person;
- an account that its holder alone cannot reach goes to a member that can, and to no other.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

from order_monitor.cluster.reach import KEPT
from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.judge import Fault as Whose
from order_monitor.shop.locks import lock_number
from order_monitor.shop.writing.event_sql import PROGRAM
from tests.simulation.members import SPACE, Session
from tests.simulation.scenario import Fault
from tests.simulation.shop import OPEN, Event, Stored, lacks

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

SEES = 5.0
"""Seconds after it has joined within which a member has seen who holds what."""

REPEATS = 30.0 + 2 * SEES
"""Seconds before a take-over for which the taker may ask again: the program's margin, and the time
until it sees a change.
"""

_JITTER = 0.5
"""Seconds by which a process may see the time of a question otherwise than the model."""

SETTLED = 30.0
"""Seconds after which a new holder asks what is due."""

LATE_BY = 60.0
"""Seconds for which an order may be due while nothing is in the way of its question."""

MOVES_IN = 60.0
"""Seconds within which an account is with a member that reaches its provider."""


class Handover:
    """The state needed for these checks."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._last: dict[str, tuple[float, int]] = {}
        """For each reference the last question that was answered "waiting": when, and by which
        process.
        """
        self._due_for: dict[tuple[str, float], float] = {}
        self._ended: dict[str, float] = {}
        """When the program ended each order that is still as it left it."""
        self._rechecks: dict[str, list[tuple[float, int]]] = defaultdict(list)
        """When each of them was asked about again, and by which process."""
        self._contradicted: set[tuple[str, str]] = set()
        self.cut_off: set[tuple[int, str]] = set()
        """The processes that cannot reach a dealer's provider; 0 stands for all."""
        self._unreached: dict[tuple[int, str], float] = {}
        self._holders: dict[str, Session] = {}
        self._moved: dict[str, float] = {}
        self._behind_at: dict[str, float] = {}
        """When a login's holder last left what was due unasked: closed, or paused by a person."""
        self._changed_at = 0.0
        """When a member came or went last."""
        self._there: frozenset[int] = frozenset()

    def forget(self) -> None:
        """Forget what was asked and what ended: an endless run would keep it all."""
        for kept in (self._last, self._due_for, self._ended, self._rechecks, self._contradicted):
            kept.clear()

    def is_cut_off(self, process: "Process", account: str) -> bool:
        """Whether a process cannot reach an account's provider."""
        kod = self._world.truth.kod_of(account)
        return bool({(process.number, kod), (0, kod)} & self.cut_off)

    # --- questions

    def begin(self, process: "Process", account: str, reference: str) -> float:
        """A question begins; return its time."""
        world, now = self._world, self._world.store.now()
        row = self._row_of(reference)
        if row is None or not world.scenario.in_turn:
            return now
        if self.is_cut_off(process, account):
            # Its gate may shut, and the account go to another process, before the next look.
            self._behind_at[process.engine.accounts[account].login] = now
        if row.status in OPEN:
            self._look_whether_repeated(process, account, row, now)
        elif self._is_rechecked(row) and now >= self._ended[row.id] + world.scenario.recheck - 1:
            for at, number in self._rechecks[row.id]:
                is_known = number != process.number and self._must_know(process, account, at, at)
                what = f"{row.id} was checked after its end by process {process.number}"
                world.check(not is_known, f"{what}, {now - at:.0f} s after process {number} did it")
            self._rechecks[row.id].append((now, process.number))
        return now

    def answered(self, process: "Process", reference: str, answer: Answer, began: float) -> None:
        """A question that began then was answered."""
        row = self._row_of(reference)
        if row is None or not self._world.scenario.in_turn:
            return
        if isinstance(answer, Waiting):
            self._last[reference] = (began, process.number)
        if (began, process.number) not in self._rechecks.get(row.id, ()):
            return
        if isinstance(answer, Completed) and row.status == "failed":
            self._contradicted.add((row.id, "completed_after_failed"))
        elif isinstance(answer, Cancelled) and row.status == "completed":
            self._contradicted.add((row.id, "cancelled_after_completed"))

    def _row_of(self, reference: str) -> Stored | None:
        rows = self._world.store.rows.values()
        return next((row for row in rows if row.reference == reference), None)

    def _look_whether_repeated(
        self, process: "Process", account: str, row: Stored, now: float
    ) -> None:
        """Check that the question is not one that this process must know to be answered."""
        began, number = self._last.get(row.reference, (0.0, process.number))
        slot = process.schedule.latest(row.id, now + _JITTER - row.sent_at)
        if number == process.number or slot is None or began < row.sent_at + slot:
            return
        is_known = self._must_know(process, account, began, row.sent_at + slot)
        what = f"{row.id} was asked about by process {process.number} {now - began:.0f} s after"
        self._world.check(
            not is_known, f"{what} process {number}, and was not due again in between"
        )

    def _must_know(self, process: "Process", account: str, asked: float, due: float) -> bool:
        """Whether a process saw another one hold an account when that asked, long before it took
        the account over.
        """
        session, known = process.pool.session, process.engine.accounts.get(account)
        if session is None or not session.is_there or known is None:
            return False
        gained = session.keys.get(lock_number(SPACE, known.login))
        was_behind = self._behind_at.get(known.login, float("-inf")) > asked - 2 * SEES
        return (
            gained is not None
            and not was_behind
            and session.began + SEES < asked
            and max(asked, due) + REPEATS < gained
        )

    # --- ends

    def ended(self, before: Stored, after: Stored, event: Event | None) -> None:
        """A row was changed by the program, or by a person."""
        if after.status in OPEN or event is None or event.source != PROGRAM:
            self._ended.pop(after.id, None)
        elif before.status in OPEN:
            self._ended[after.id] = self._world.store.now()
            self._rechecks.pop(after.id, None)

    def _is_rechecked(self, row: Stored) -> bool:
        """Whether an order has ended, and is asked about for no other reason than its recheck."""
        is_awaited = row.status != "failed" and lacks(row.pin)
        is_ours = row.id in self._ended and row.id not in self._world.touched
        return bool(self._world.scenario.recheck) and is_ours and not is_awaited

    def unfinished(self) -> list[str]:
        """Return the ended orders that were not asked about again yet."""
        rows = [self._world.store.rows.get(order_id) for order_id in self._ended]
        return [
            f"{row.id} is not checked after its end"
            for row in rows
            if row is not None and self._is_rechecked(row) and not self._rechecks.get(row.id)
        ]

    def look_at_the_end(self) -> None:
        """Check that each contradiction is before a person."""
        reviewed = self._world.store.reviews.keys() | self._world.store.decided.keys()
        for key in sorted(self._contradicted - reviewed):
            self._world.check(False, f"{key[0]} is {key[1]}, and no person sees it")

    def recant(self, fault: Fault) -> None:
        """The provider changes its mind about an order that has ended."""
        rows = [self._world.store.rows[i] for i in sorted(self._ended)]
        rows = [row for row in rows if self._is_rechecked(row) and not self._rechecks.get(row.id)]
        if rows:
            row = rows[fault.target % len(rows)]
            outcome = "pin" if row.status == "failed" else "cancelled"
            self._world.panel.recant(self._world.truth_of(row), outcome)

    # --- who holds what

    def look(self, seconds: float) -> None:
        """Look at all accounts, and at the orders that are due; the last look was ``seconds`` ago."""
        if not self._world.scenario.members or not self._world.scenario.in_turn:
            return
        self._look_who_is_there()
        known, self._unreached = self._unreached, {}
        for process in self._members():
            for account in self._world.scenario.accounts:
                self._look_at_account(process, account, known, seconds)
        self._look_for_left_out(seconds)

    def _members(self) -> "list[Process]":
        there = self._world.store.members()
        return [p for p in self._world.processes if not p.is_dead and p.pool.session in there]

    def _look_who_is_there(self) -> None:
        there = frozenset(session.pid for session in self._world.store.members())
        if there != self._there:
            self._there, self._changed_at = there, self._world.store.now()

    def _held_since(self, process: "Process", account: str) -> float | None:
        """Return since when a process holds an account's login; None if it does not."""
        session, known = process.pool.session, process.engine.accounts.get(account)
        if session is None or known is None:
            return None
        return session.keys.get(lock_number(SPACE, known.login))

    def _look_at_account(
        self,
        process: "Process",
        account: str,
        known: dict[tuple[int, str], float],
        seconds: float,
    ) -> None:
        """Check that an account which others reach does not stay with who does not, nor goes to who
        does not.
        """
        world, now, session = self._world, self._world.store.now(), process.pool.session
        if self._held_since(process, account) is None or session is None:
            return
        before = self._holders.get(account)
        self._holders[account] = session
        is_unreached = self.is_cut_off(process, account)
        is_steady = now - self._changed_at > MOVES_IN
        if before is not None and before is not session and before.is_there:
            self._moved[account] = now
            what = f"{account} was given to process {process.number}, which cannot reach it"
            world.check(not (is_steady and is_unreached), what)
        state = process.engine.accounts[account]
        if not state.gate.is_open or account in world.store.pauses:
            self._behind_at[state.login] = now
        is_shut = all(
            not one.gate.is_open and one.fault is Whose.NETWORK
            for one in process.engine.accounts.values()
            if one.login == state.login
        )
        others = [p for p in self._members() if not self.is_cut_off(p, account)]
        lately = now - self._moved.get(account, float("-inf")) < KEPT
        if is_unreached and is_shut and others and is_steady and not lately:
            waited = known.get((process.number, account), 0.0) + seconds
            self._unreached[process.number, account] = waited
            what = f"{account} is with process {process.number}, which cannot reach it"
            world.check(waited <= MOVES_IN, f"{what}, while others can, for {waited:.0f} s")

    def _look_for_left_out(self, seconds: float) -> None:
        """Check that each time of each order has its question, from any holder of its account."""
        world, now = self._world, self._world.store.now()
        holders = {
            account: (process, since)
            for process in self._members()
            for account in world.scenario.accounts
            if (since := self._held_since(process, account)) is not None
        }
        waited, self._due_for = self._due_for, {}
        for row in world.store.rows.values():
            process, since = holders.get(row.account, (None, now))
            if process is None or row.status not in OPEN or not world.is_settled(row.id):
                continue
            slot = process.schedule.latest(row.id, now - row.sent_at)
            asked = world.sight.questions_at.get(row.reference, -1.0) + world.store.epoch
            if slot is None or asked + _JITTER >= row.sent_at + slot:
                continue
            key = (row.id, slot)
            is_free = now - since > SETTLED and not (
                row.account in world.store.pauses
                or self.is_cut_off(process, row.account)
                or world.sight.was_shut(row.account, SETTLED)
            )
            self._due_for[key] = waited.get(key, 0.0) + (seconds if is_free else 0.0)
            slack = LATE_BY + len(world.plans) / world.scenario.per_second
            what = (
                f"{row.id} is due since {now - row.sent_at - slot:.0f} s, and nothing is in the way"
            )
            world.check(self._due_for[key] <= slack, f"{what} of process {process.number}")
