"""Due, and let through: which order is asked about next, of which account, and whether now."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from order_monitor.core.entry import Entry
from order_monitor.providers.provider import batch_of
from order_monitor.watch.account import Account
from order_monitor.watch.board import Board
from order_monitor.watch.calls import Calls
from order_monitor.watch.rereading import Rereading
from order_monitor.watch.routing import Directory

TICK: Final = 5.0
"""Seconds after which the loop looks round although nothing called: it shows that it lives, and a clock that jumped is seen."""


Ask = Callable[[Account, Entry, Sequence[Entry], bool], Coroutine[Any, Any, None]]
"""Asks an account about an order whose turn it is, and others in the same call; whether that is a probe of a shut gate."""


class Dispatcher:
    """Starts calls as they come due, as far as gates, pace and places allow."""

    def __init__(
        self, board: Board, directory: Directory, ask: Ask, rereading: Rereading, is_full: Callable[[str], bool]
    ) -> None:
        """Start calls by ``ask``, of what was not read lately after ``rereading``.

        No more of an account of which ``is_full`` says that its answers pile up.
        """
        self._board = board
        self._directory = directory
        self._ask = ask
        self.rereading = rereading
        self._is_full = is_full
        self.is_stopping = False
        self._turn = 0
        self._calling: set[str] = set()
        self.calls = Calls(board.wake.set)

    def stop(self) -> None:
        """Start no more calls."""
        self.is_stopping = True
        self._board.wake.set()

    async def run(self, is_waited_for: Callable[[], bool]) -> None:
        """Start calls as they come due, until stopped or, in one pass, until nothing is left to do nor ``is_waited_for``."""
        while not self.is_stopping and not self._is_over(is_waited_for):
            self._board.wake.clear()
            pause = self.start_calls()
            await self._board.clock.wait(self._board.wake, pause)

    def is_idle(self) -> bool:
        """Whether nothing is asked nor could be: no account that may be asked has orders due, or is held back by its failures."""
        queue, accounts, now = self._board.queue, self._directory.accounts.values(), self._board.clock.monotonic()
        asked = [a for a in accounts if a.is_ours(now) and queue.has_any(a.key)]
        return not self.calls and not any(
            queue.ready.count(a.key) or a.gate.streak or a.judge.is_in_doubt for a in asked
        )

    def start_calls(self) -> float:
        """Start what may start now; return after how many seconds to look again, if nothing calls before."""
        now = self._board.clock.monotonic()
        self._board.state.ticked_at = now
        self._board.read_clock()
        self._board.look_at_machine()
        if self._board.hold:
            return TICK
        is_more_due = self._board.queue.promote(self._board.now())
        waiting = self._in_turn()
        while waiting:
            waiting = [account for account in waiting if self._may_start(account, now) and self._start(account, now)]
        return 0.0 if is_more_due else self._pause(now)

    def _is_over(self, is_waited_for: Callable[[], bool]) -> bool:
        if not self._board.policy.one_pass or self.calls or self.rereading.accounts:
            return False
        if self._board.hold:
            return True
        if is_waited_for():
            return False
        queue = self._board.queue
        while queue.promote(self._board.now()):
            pass
        return all(
            not queue.ready.count(a.key) or not (a.gate.is_open or a.judge.spare) or a.paused
            for a in self._directory.accounts.values()
        )

    def _may_start(self, account: Account, now: float) -> bool:
        is_due = bool(self._board.queue.ready.count(account.key)) and account.key not in self.rereading.accounts
        return is_due and account.may_start(now) and self._has_room(account, now)

    def _in_turn(self) -> list[Account]:
        """The accounts that have orders due, another one first each time."""
        accounts = self._those(self._board.queue.ready.accounts())
        self._turn = (self._turn + 1) % max(1, len(accounts))
        return accounts[self._turn :] + accounts[: self._turn]

    def _has_room(self, account: Account, now: float) -> bool:
        """Whether a place is free: for an account that is well, among those that are; for a slow one, among all."""
        if self._is_full(account.key) or not self._board.has_room(len(self.calls)):
            return False
        concurrency = self._board.policy.concurrency
        if len(self.calls) < concurrency:
            return True
        well = sum(other.in_flight for other in self._those(self._calling) if not other.is_slow(now))
        return not account.is_slow(now) and well < concurrency

    def _those(self, keys: Iterable[str]) -> list[Account]:
        """The accounts of these keys, as far as they are there."""
        known = self._directory.accounts
        return [known[key] for key in keys if key in known]

    def _pause(self, now: float) -> float:
        pause, queue = TICK, self._board.queue
        if now < self._board.easing.until:
            return min(pause, self._board.easing.until - now)
        wake = queue.next_wake()
        if wake is not None:
            pause = min(pause, wake - self._board.now())
        self._calling = {account.key for account in self._those(self._calling) if account.in_flight}
        # Of thousands of accounts most have nothing due, and no call under way.
        for account in self._those({*queue.ready.accounts(), *self._calling}):
            # With no place free, one comes free at a call's end, which wakes us, or when an account turns out slow.
            has_room = self._has_room(account, now)
            is_due = (
                queue.ready.count(account.key) and account.key not in self.rereading.accounts and account.is_held(now)
            )
            at = (account.may_start_at() if is_due else None) if has_room else account.slow_at()
            pause = pause if at is None or (at <= now and not has_room) else min(pause, at - now)
        return max(0.0, pause)

    def _start(self, account: Account, now: float) -> bool:
        """Start what is next, if there is anything."""
        entry = self._board.queue.take(account.key, probe=None if account.gate.is_open else int(self._board.now()))
        if entry is None:
            return False
        if self.rereading.is_needed(entry):
            self.rereading.start(account.key, entry)
            return True
        probe = account.gate.started()
        account.pace.take(now)
        account.calls[entry] = now
        self._calling.add(account.key)
        # What a call about several left without an answer is asked about alone: one of them may be why it failed.
        others = [] if probe or entry.memo.failures else self._others(account)
        self.calls.start(self._ask(account, entry, others, probe), f"check {entry.id}")
        return True

    def _others(self, account: Account) -> list[Entry]:
        """Take what else of an account is due and goes into the same call."""
        others: list[Entry] = []
        most = batch_of(account.provider) - 1
        while len(others) < most:
            entry = self._board.queue.take(account.key)
            if entry is None:
                break
            if self.rereading.is_needed(entry):
                self.rereading.start(account.key, entry)
                break
            others.append(entry)
        return others
