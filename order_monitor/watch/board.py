"""What every step of the walk knows: the orders, the policy, the time, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.clocks import ClockWatch
from order_monitor.core.easing import Easing
from order_monitor.core.entry import NOTHING, Entry
from order_monitor.core.order import Order
from order_monitor.core.queue import OrderQueue
from order_monitor.watch.clock_log import ClockLog
from order_monitor.watch.observer import Observer
from order_monitor.watch.policy import Policy
from order_monitor.watch.statistics import Statistics

_CLOCK_TICK: Final = 1.0


@dataclass(slots=True)
class Board:
    """Shared by the steps of one loop.

    ``read_at`` is the database's clock when it was last read (epoch seconds), and this machine's monotonic clock at that moment:
    what goes by since then is told by the latter, which nobody can set. Orders read before ``stale_before`` (monotonic seconds)
    are read again before they are asked about. ``clocks`` says whether ages may end orders. ``holds`` are the reasons for which
    nobody is asked about anything, by who has them. ``easing`` slows all calls down while this machine is short of something.
    """

    policy: Policy
    clock: Clock
    observer: Observer
    queue: OrderQueue = field(default_factory=OrderQueue)
    state: Statistics = field(default_factory=Statistics)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    name_of: Callable[[str], str] = str
    """What an account is called, by its key."""
    read_at: tuple[float, float] | None = None
    stale_before: float = float("-inf")
    clocks: ClockWatch = field(default_factory=ClockWatch)
    clock_log: ClockLog = field(default_factory=ClockLog)
    has_gone_back: bool = False
    """Whether the database's clock has gone back by so much that what was planned by it must be planned anew."""
    holds: dict[str, str] = field(default_factory=dict)
    easing: Easing = field(default_factory=Easing)
    under_way: int = 0
    """How many calls were under way when one more was wanted last."""

    @property
    def hold(self) -> str:
        """Why no call may start, whatever is due; nothing where calls may."""
        return "; ".join(self.holds.values())

    def hold_for(self, what: str, why: str) -> None:
        """Let no call start because of ``why``, until the same ``what`` has no reason any more."""
        if why:
            self.holds[what] = why
        elif self.holds.pop(what, ""):
            self.wake.set()

    def ran_out(self, why: str) -> None:
        """Go slower, for this machine has run out of something."""
        if self.easing.ran_out(self.clock.monotonic(), why, self.under_way):
            log = structlog.get_logger("order_monitor.engine")
            log.error("machine.exhausted", reason=why, calls_under_way=self.under_way)

    def look_at_machine(self) -> None:
        """Say so where nothing has run out for long enough."""
        short_of = self.easing.reason
        if self.easing.is_over(self.clock.monotonic()):
            structlog.get_logger("order_monitor.engine").info("machine.recovered", reason=short_of)

    def has_room(self, under_way: int) -> bool:
        """Whether this machine has room for one more call while so many are ``under_way``."""
        self.under_way = under_way
        return self.easing.has_room(self.clock.monotonic(), under_way)

    def now(self) -> float:
        """Return epoch seconds by the database's clock, which ``sent_at`` was written by."""
        if self.read_at is None:
            return self.clock.time()
        return self.read_at[0] + self.clock.monotonic() - self.read_at[1]

    def read_clock(self) -> float:
        """Hold this machine's clock against the seconds since boot, which are returned."""
        boot = self.clock.boot()
        self.clock_log.leapt(self.clocks.note_machine(self.clock.time(), boot), boot)
        self.clock_log.look(self.clocks, boot)
        return boot

    def compare(self, now: float, took: float = 0.0) -> None:
        """Hold the database's clock, which showed ``now`` at some time within the last ``took`` seconds, against the same."""
        boot = self.read_clock()
        leap = self.clocks.note_database(now, boot, took)
        self.clock_log.leapt(leap, boot)
        self.has_gone_back |= leap is not None and leap.seconds < 0
        self.clock_log.look(self.clocks, boot)

    def follow(self, now: float, since: float | None = None) -> None:
        """Go by the database's clock, which shows ``now`` and decides what is due; one that stands while ours does not is told.

        It was read ``since`` then (monotonic seconds), or just now.
        """
        at = self.clock.monotonic()
        self.compare(now, 0.0 if since is None else max(0.0, at - since))
        before, self.read_at = self.read_at, (now, at)
        if before is None or at - before[1] < _CLOCK_TICK:
            return
        stood = now <= before[0]
        if stood and not self.state.clock_stood_still:
            structlog.get_logger("order_monitor.intake").error("database.clock_stands_still")
        self.state.clock_stood_still = stood

    def is_past_deadline(self, order: Order | Entry) -> bool:
        """Whether an open order is older than the shop's patience, by either clock."""
        return (
            not order.awaits_pin
            and order.sent_at is not None
            and min(self.now(), self.clock.time()) - order.sent_at >= self.policy.give_up_after
        )

    def expires(self, order: Order | Entry) -> bool:
        """Whether its age may end an order now: it is past the deadline, and the clocks vouch for that."""
        return self.is_past_deadline(order) and self.clocks.vouches(self.read_clock())

    def gives_up_blind(self, order: Order | Entry) -> bool:
        """Whether an order is to be given up although the provider says nothing definite about it."""
        return self.policy.give_up_blind and self.expires(order)

    def note_odd(self, entry: Entry) -> None:
        """Count an order among those whose answers are not understood, by their own fault, or no longer."""
        if entry.is_odd and not entry.awaits_pin:
            self.state.odd[entry.id] = entry.account
        else:
            self.state.odd.pop(entry.id, None)

    def next_time(self, entry: Entry) -> float | None:
        """Return the time after the one that ``entry`` has had: the database's clock may have gone back a little since.

        One whose answers are not understood, by its own fault, is asked at the longest pause there is.
        """
        due = self.policy.plan.again(entry.planned, max(self.now(), entry.due))
        if due is None or not entry.is_odd:
            return due
        # By its id again, lest all of them come at once.
        return max(due, self.now() + self.policy.cap + due % 1.0)

    def again(self, entry: Entry) -> None:
        """Let an order that is still open be due at its plan's next time, if there is one in this run."""
        self.plan(entry, self.next_time(entry))

    def plan(self, entry: Entry, due: float | None) -> None:
        """Let an order be due then, or not again in this run. Of very many what is read again before it is asked is not kept."""
        if due is None:
            self.queue.idle(entry)
            return
        self.queue.schedule(entry, due, now=self.now())
        if self.is_many and entry.memo is NOTHING:
            entry.referans = None

    @property
    def is_many(self) -> bool:
        """Whether there are so many orders that they are not kept whole."""
        policy = self.policy
        return len(self.queue) > policy.reading.small and not policy.one_pass and not policy.give_up_blind
