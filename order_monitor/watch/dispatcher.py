"""Chooses which order is asked about next, at which account, and whether a call may start now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from order_monitor.core.tracked_order import Stage, TrackedOrder
from order_monitor.providers.provider import batch_of
from order_monitor.watch.account import Account
from order_monitor.watch.answer_handler import AnswerHandler
from order_monitor.watch.asker import ask
from order_monitor.watch.calls import Calls
from order_monitor.watch.context import Context
from order_monitor.watch.filler import Filler
from order_monitor.watch.refresh import Refresh
from order_monitor.watch.routing import Directory
from order_monitor.watch.write_queue import WriteQueue

TICK: Final = 5.0
"""Seconds after which the loop runs anyway: it shows that it lives, and sees a clock jump."""


BACKLOG: Final = 2000
"""Unwritten answers of an account, without those locks hold up, above which it gets no call."""


class Dispatcher:
    """Starts calls when they are due, as far as gates, pace and places allow."""

    def __init__(
        self,
        context: Context,
        directory: Directory,
        refresh: Refresh,
        answers: AnswerHandler,
        writer: WriteQueue,
    ) -> None:
        """Ask about orders of ``directory``'s accounts; ``answers`` processes the results.

        Stale orders are read again first, by ``refresh``. No call starts for an account whose
        answers pile up at ``writer``.
        """
        self._context = context
        self._directory = directory
        self._answers = answers
        self._writer = writer
        self.refresh = refresh
        self.filler = Filler(context, refresh)
        self.is_stopping = False
        self._turn = 0
        self._calling: set[str] = set()
        self.calls = Calls(context.wake.set)

    def stop(self) -> None:
        """Start no more calls."""
        self.is_stopping = True
        self._context.wake.set()

    async def run(self) -> None:
        """Start calls when due, until stopped or, in a single pass, until nothing is left."""
        while not self.is_stopping and not self._is_over():
            self._context.wake.clear()
            pause = self.start_calls()
            await self._context.clock.wait(self._context.wake, pause)

    def is_idle(self) -> bool:
        """Whether no call runs or is possible: no askable account has due orders or failures."""
        queue, now = self._context.queue, self._context.clock.monotonic()
        accounts = self._directory.accounts.values()
        asked = [a for a in accounts if a.is_ours(now) and queue.has_any(a.key)]
        return not self.calls and not any(
            queue.ready.count(a.key) or a.gate.streak or a.judge.is_in_doubt for a in asked
        )

    def start_calls(self) -> float:
        """Start the calls that may start; return the seconds until the next look, if not woken."""
        now = self._context.clock.monotonic()
        self._context.state.ticked_at = now
        self._context.read_clock()
        self._context.look_at_machine()
        if self._context.hold:
            return TICK
        is_more_due = self._context.queue.promote(self._context.now())
        waiting = self._in_turn()
        while waiting:
            waiting = [
                account
                for account in waiting
                if self._may_start(account, now) and self._start(account, now)
            ]
        return 0.0 if is_more_due else self._pause(now)

    def _is_over(self) -> bool:
        if not self._context.policy.one_pass or self.calls or self.refresh.accounts:
            return False
        if self._context.hold:
            return True
        queue = self._context.queue
        unconfirmed = (queue.get(order_id) for order_id in self._context.state.unconfirmed)
        if len(self._writer) or any(e and e.stage is Stage.SCHEDULED for e in unconfirmed):
            return False
        while queue.promote(self._context.now()):
            pass
        return all(
            not queue.ready.count(a.key) or not (a.gate.is_open or a.judge.spare) or a.paused
            for a in self._directory.accounts.values()
        )

    def _may_start(self, account: Account, now: float) -> bool:
        if account.key in self.refresh.accounts:
            return False
        is_due = bool(self._context.queue.ready.count(account.key))
        return is_due and account.may_start(now) and self._has_room(account, now)

    def _in_turn(self) -> list[Account]:
        """The accounts that have due orders, starting with another one each time."""
        accounts = self._accounts_of(self._context.queue.ready.accounts())
        self._turn = (self._turn + 1) % max(1, len(accounts))
        return accounts[self._turn :] + accounts[: self._turn]

    def _has_room(self, account: Account, now: float) -> bool:
        """Whether a place is free: for a healthy account among the healthy ones', else of all."""
        if self._writer.backlog.free[account.key] >= BACKLOG or not self._context.has_room(
            len(self.calls)
        ):
            return False
        concurrency = self._context.policy.concurrency
        if len(self.calls) < concurrency:
            return True
        well = sum(
            other.in_flight for other in self._accounts_of(self._calling) if not other.is_slow(now)
        )
        return not account.is_slow(now) and well < concurrency

    def _accounts_of(self, keys: Iterable[str]) -> list[Account]:
        """The accounts with these keys, as far as they exist."""
        known = self._directory.accounts
        return [known[key] for key in keys if key in known]

    def _pause(self, now: float) -> float:
        pause, queue = TICK, self._context.queue
        if now < self._context.easing.until:
            return min(pause, self._context.easing.until - now)
        wake = queue.next_wake()
        if wake is not None:
            pause = min(pause, wake - self._context.now())
        self._calling = {
            account.key for account in self._accounts_of(self._calling) if account.in_flight
        }
        # With thousands of accounts, most have nothing due and no call in flight.
        for account in self._accounts_of({*queue.ready.accounts(), *self._calling}):
            # With no place free, one becomes free when a call ends, which wakes the loop, or when
            # an account turns out to be slow.
            has_room = self._has_room(account, now)
            is_due = (
                queue.ready.count(account.key)
                and account.key not in self.refresh.accounts
                and account.is_held(now)
            )
            at = (account.may_start_at() if is_due else None) if has_room else account.slow_at()
            pause = pause if at is None or (at <= now and not has_room) else min(pause, at - now)
        return max(0.0, pause)

    def _start(self, account: Account, now: float) -> bool:
        """Start the account's next call, if there is one."""
        entry = self._context.queue.take(
            account.key, probe=None if account.gate.is_open else int(self._context.now())
        )
        if entry is None:
            return False
        if self.refresh.is_needed(entry):
            self.refresh.start(account.key, entry)
            return True
        probe = account.gate.started()
        account.pace.spend(now)
        account.calls[entry] = now
        self._calling.add(account.key)
        # An order that a call about several left without an answer is asked about alone: it may be
        # the cause.
        entries = [entry]
        if not probe and not entry.rare.failures:
            entries += self._others(account)
            filled = self.filler.fill(account, entries)
            if filled:
                self._context.observer.filled(account.name, len(filled))
            entries += filled
        self.calls.start(self._call(account, entries, probe=probe), f"check {entry.id}")
        return True

    async def _call(self, account: Account, entries: list[TrackedOrder], *, probe: bool) -> None:
        """Ask, and process the answers."""
        call = await ask(self._context, account, entries, probe=probe)
        self._answers.handle_call(account, call, probe=probe)

    def _others(self, account: Account) -> list[TrackedOrder]:
        """Take other due orders of the account that fit into the same call."""
        others: list[TrackedOrder] = []
        most = batch_of(account.provider) - 1
        while len(others) < most:
            entry = self._context.queue.take(account.key)
            if entry is None:
                break
            if self.refresh.is_needed(entry):
                self.refresh.start(account.key, entry)
                break
            others.append(entry)
        return others
