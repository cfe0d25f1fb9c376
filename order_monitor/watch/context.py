"""What all steps of the loop share: the orders, the policy, the time, and the observer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.clocks import ClockWatch
from order_monitor.core.easing import Easing
from order_monitor.core.order import Order
from order_monitor.core.queue import OrderQueue
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.watch.clock_log import ClockLog
from order_monitor.watch.counters import Counters
from order_monitor.watch.elsewhere import Elsewhere
from order_monitor.watch.observer import Observer
from order_monitor.watch.policy import Policy

_CLOCK_TICK: Final = 1.0


@dataclass(slots=True)
class Context:
    """Shared by the steps of one loop.

    ``read_at`` is the database's clock when it was last read (epoch seconds), and this machine's
    monotonic clock at that moment. The time since then is measured by the monotonic clock, which
    cannot be set. Orders read before ``stale_before`` (monotonic seconds) are read again before
    they are asked about. ``clocks`` decides whether ages may end orders. ``holds`` maps each
    component that stops all calls to its reason. ``easing`` slows all calls down while this machine
    is short of a resource. ``elsewhere`` are the orders that other members of the cluster ask about.
    """

    policy: Policy
    clock: Clock
    observer: Observer
    queue: OrderQueue = field(default_factory=OrderQueue)
    state: Counters = field(default_factory=Counters)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    name_of: Callable[[str], str] = str
    """The name of an account, by its key."""
    read_at: tuple[float, float] | None = None
    stale_before: float = float("-inf")
    clocks: ClockWatch = field(default_factory=ClockWatch)
    clock_log: ClockLog = field(default_factory=ClockLog)
    has_gone_back: bool = False
    """Whether the database's clock has gone back so far that plans must be made again."""
    holds: dict[str, str] = field(default_factory=dict)
    easing: Easing = field(default_factory=Easing)
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    under_way: int = 0
    """The number of calls in flight when one more was last wanted."""

    @property
    def hold(self) -> str:
        """Why no call may start, even if orders are due; empty if calls may start."""
        return "; ".join(self.holds.values())

    def hold_for(self, what: str, why: str) -> None:
        """Let no call start because of ``why``; an empty one lets ``what`` go."""
        if why:
            self.holds[what] = why
        elif self.holds.pop(what, ""):
            self.wake.set()

    def ran_out(self, why: str) -> None:
        """Slow down, because this machine has run out of a resource."""
        if self.easing.ran_out(self.clock.monotonic(), why, self.under_way):
            log = structlog.get_logger("order_monitor.engine")
            log.error("machine.exhausted", reason=why, calls_under_way=self.under_way)

    def look_at_machine(self) -> None:
        """Log the recovery when nothing has run out for long enough."""
        short_of = self.easing.reason
        if self.easing.is_over(self.clock.monotonic()):
            structlog.get_logger("order_monitor.engine").info("machine.recovered", reason=short_of)

    def has_room(self, under_way: int) -> bool:
        """Whether this machine has room for one more call in addition to ``under_way``."""
        self.under_way = under_way
        return self.easing.has_room(self.clock.monotonic(), under_way)

    def now(self) -> float:
        """Return epoch seconds by the database's clock, on which ``sent_at`` is based."""
        if self.read_at is None:
            return self.clock.time()
        return self.read_at[0] + self.clock.monotonic() - self.read_at[1]

    def read_clock(self) -> float:
        """Compare this machine's clock with the seconds since boot, and return the latter."""
        boot = self.clock.boot()
        self.clock_log.leapt(self.clocks.note_machine(self.clock.time(), boot), boot)
        self.clock_log.log_changes(self.clocks, boot)
        return boot

    def compare(self, now: float, took: float = 0.0) -> None:
        """Compare the database's clock, which showed ``now`` at some time within the last ``took``
        seconds, with the seconds since boot.
        """
        boot = self.read_clock()
        leap = self.clocks.note_database(now, boot, took)
        self.clock_log.leapt(leap, boot)
        self.has_gone_back |= leap is not None and leap.seconds < 0
        self.clock_log.log_changes(self.clocks, boot)

    def follow(self, now: float, since: float | None = None) -> None:
        """Follow the database's clock, which shows ``now`` and decides what is due.

        Log it if that clock stands still while ours does not. It was read after ``since``
        (monotonic seconds), or just now.
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

    def is_past_deadline(self, order: Order | TrackedOrder) -> bool:
        """Whether an open order is past ``give_up_after``, by both clocks."""
        return (
            not order.awaits_pin
            and order.sent_at is not None
            and min(self.now(), self.clock.time()) - order.sent_at >= self.policy.give_up_after
        )

    def expires(self, order: Order | TrackedOrder) -> bool:
        """Whether an order's age may end it now: past the deadline, by reliable clocks."""
        return self.is_past_deadline(order) and self.clocks.vouches(self.read_clock())

    def gives_up_blind(self, order: Order | TrackedOrder) -> bool:
        """Whether to give an order up although the provider reports nothing definite about it."""
        return self.policy.give_up_blind and self.expires(order)

    def note_odd(self, entry: TrackedOrder) -> None:
        """Add an order to those that are odd by their own fault, or remove it."""
        if entry.is_odd and not entry.awaits_pin:
            self.state.odd[entry.id] = entry.account
        else:
            self.state.odd.pop(entry.id, None)

    def next_time(self, entry: TrackedOrder) -> float | None:
        """Return the time after ``entry``'s current one: the database's clock may have gone back
        a little since.

        An order whose answers are not understood, by its own fault, gets the longest pause.
        """
        due = self.policy.plan.again(entry.planned, max(self.now(), entry.due))
        if due is None or not entry.is_odd:
            return due
        # Spread by the jitter of its id, so that not all of them are due at once.
        return max(due, self.now() + self.policy.cap + due % 1.0)

    def again(self, entry: TrackedOrder) -> None:
        """Make an order that is still open due at its plan's next time, if there is one in this
        run.

        An order that was asked about before its time keeps that time.
        """
        self.plan(entry, entry.due if self.queue.is_filled(entry) else self.next_time(entry))

    def plan(self, entry: TrackedOrder, due: float | None) -> None:
        """Make an order due at ``due``, or not again in this run if None."""
        if due is None:
            self.queue.idle(entry)
            return
        self.queue.schedule(entry, due, now=self.now())
