"""Due, and let through: which order is asked about next, of which account, and whether now."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from order_monitor.core.entry import Entry
from order_monitor.core.queue import READ_AGAIN
from order_monitor.watch.account import Account
from order_monitor.watch.board import Board
from order_monitor.watch.calls import Calls
from order_monitor.watch.routing import Directory

TICK: Final = 5.0
"""Seconds after which the loop looks round although nothing called: it shows that it lives, and a clock that jumped is seen."""

AT_A_TIME: Final = 50
"""Orders of one account that are read again at a time, before they are asked about."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What is done with an order whose turn it is.

    ``ask`` asks an account about it, with whether the question is a probe of a shut gate; ``look_again`` reads again those that
    were not read lately, and lets those in hand be due again.
    """

    ask: Callable[[Account, Entry, bool], Coroutine[Any, Any, None]]
    look_again: Callable[[Sequence[Entry]], Coroutine[Any, Any, None]]


class Dispatcher:
    """Starts calls as they come due, as far as gates, pace and places allow."""

    def __init__(self, board: Board, directory: Directory, asking: Asking, is_full: Callable[[str], bool]) -> None:
        """Start calls by ``asking``; no more of an account of which ``is_full`` says that its answers pile up."""
        self._board = board
        self._directory = directory
        self._asking = asking
        self._is_full = is_full
        self.is_stopping = False
        self._turn = 0
        self._calling: set[str] = set()
        self.calls = Calls(board.wake.set)
        self.looks = Calls(board.wake.set)
        self._looked_at: set[str] = set()

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
        asked = [a for a in accounts if a.is_ours(now) and queue.has_any(a.name)]
        return not self.calls and not any(queue.due(a.name) or a.gate.streak or a.sense.is_in_doubt for a in asked)

    def start_calls(self) -> float:
        """Start what may start now; return after how many seconds to look again, if nothing calls before."""
        now = self._board.clock.monotonic()
        self._board.state.ticked_at = now
        is_more_due = self._board.queue.promote(self._board.now())
        waiting = self._in_turn()
        while waiting:
            waiting = [account for account in waiting if self._may_start(account, now) and self._start(account, now)]
        return 0.0 if is_more_due else self._pause(now)

    def _is_over(self, is_waited_for: Callable[[], bool]) -> bool:
        if not self._board.policy.one_pass or self.calls or is_waited_for():
            return False
        queue = self._board.queue
        while queue.promote(self._board.now()):
            pass
        return all(not queue.due(a.name) or not a.gate.is_open or a.paused for a in self._directory.accounts.values())

    def _may_start(self, account: Account, now: float) -> bool:
        is_due = bool(self._board.queue.due(account.name)) and account.name not in self._looked_at
        return is_due and account.may_start(now) and self._has_room(account, now)

    def _in_turn(self) -> list[Account]:
        """The accounts that have orders due, another one first each time."""
        accounts = self._those(self._board.queue.accounts_due())
        self._turn = (self._turn + 1) % max(1, len(accounts))
        return accounts[self._turn :] + accounts[: self._turn]

    def _has_room(self, account: Account, now: float) -> bool:
        """Whether a place is free: for an account that is well, among those that are; for a slow one, among all."""
        if self._is_full(account.name):
            return False
        concurrency = self._board.policy.concurrency
        if len(self.calls) < concurrency:
            return True
        well = sum(other.in_flight for other in self._those(self._calling) if not other.is_slow(now))
        return not account.is_slow(now) and well < concurrency

    def _those(self, names: Iterable[str]) -> list[Account]:
        """The accounts of these names, as far as they are there."""
        known = self._directory.accounts
        return [known[name] for name in names if name in known]

    def _pause(self, now: float) -> float:
        pause, queue = TICK, self._board.queue
        wake = queue.next_wake()
        if wake is not None:
            pause = min(pause, wake - self._board.now())
        self._calling = {account.name for account in self._those(self._calling) if account.in_flight}
        # Of thousands of accounts most have nothing due, and no call under way.
        for account in self._those({*queue.accounts_due(), *self._calling}):
            # With no place free, one comes free at a call's end, which wakes us, or when an account turns out slow.
            has_room = self._has_room(account, now)
            is_due = queue.due(account.name) and account.name not in self._looked_at and account.is_held(now)
            at = (account.may_start_at() if is_due else None) if has_room else account.slow_at()
            pause = pause if at is None or (at <= now and not has_room) else min(pause, at - now)
        return max(0.0, pause)

    def _start(self, account: Account, now: float) -> bool:
        """Start what is next, if there is anything."""
        entry = self._board.queue.take(account.name)
        if entry is None:
            return False
        if self._is_stale(entry):
            self._look_again(account.name, entry)
            return True
        probe = account.gate.started()
        account.pace.take(now)
        account.calls[entry] = now
        self._calling.add(account.name)
        self.calls.start(self._asking.ask(account, entry, probe), f"check {entry.id}")
        return True

    def _is_stale(self, entry: Entry) -> bool:
        is_old = entry.read_at < self._board.stale_before or entry.read_at == READ_AGAIN
        return entry.referans is None or (is_old and not entry.awaits_pin)

    def _look_again(self, name: str, first: Entry) -> None:
        """Have an order read again before it is asked about, with what comes next or soon and was not read lately either."""
        batch, queue = [first], self._board.queue
        fresh: list[Entry] = []
        while len(batch) + len(fresh) < AT_A_TIME and (entry := queue.take(name)) is not None:
            (batch if self._is_stale(entry) else fresh).append(entry)
        for entry in fresh:
            queue.schedule(entry, entry.due, wake=self._board.now())
        until = self._board.now() + self._board.policy.reading.fresh_for / 2
        soon = queue.coming(AT_A_TIME) if len(batch) < AT_A_TIME else []
        batch += [entry for entry in soon if entry.wake <= until and self._is_stale(entry)][: AT_A_TIME - len(batch)]
        self._looked_at.add(name)
        self.looks.start(self._read(name, batch), f"read {name}")

    async def _read(self, name: str, batch: Sequence[Entry]) -> None:
        try:
            await self._asking.look_again(batch)
        finally:
            self._looked_at.discard(name)
