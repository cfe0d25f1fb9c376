"""Read again before it is asked about: what was not read lately, and what is not noted yet as it was sent; many at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Final

from order_monitor.core.entry import Entry
from order_monitor.core.queue import READ_AGAIN
from order_monitor.watch.board import Board
from order_monitor.watch.calls import Calls
from order_monitor.watch.routing import Directory

AT_A_TIME: Final = 400
"""Orders that are read again at a time, before they are asked about: with its transaction a statement for fifty checks or more."""

FEWEST: Final = 50
"""As many even where an account asks so slowly that they will be old before all are asked about."""

Look = Callable[[Sequence[Entry]], Coroutine[Any, Any, None]]
"""Reads orders again, and lets those in hand be due again."""


class Rereading:
    """Has stale orders read again, one batch of an account at a time; ``accounts`` are those that wait for it."""

    def __init__(self, board: Board, directory: Directory, look: Look) -> None:
        """Read again by ``look``; what is due soon too, as far as this process asks about it."""
        self._board = board
        self._directory = directory
        self._look = look
        self.looks = Calls(board.wake.set)
        self.accounts: set[str] = set()

    def is_needed(self, entry: Entry) -> bool:
        """Whether an order must be read again before it is asked about."""
        if entry.awaits_pin:
            return False
        is_old = entry.read_at < self._board.stale_before or entry.read_at == READ_AGAIN
        return entry.referans is None or not entry.registered or is_old

    def start(self, account: str, first: Entry) -> None:
        """Have an order of ``account`` read again, with what else is due of any account, and with what comes next or soon.

        All accounts have their share of one statement: whichever was read first would take the places of the others.
        """
        queue, now = self._board.queue, self._board.now()
        fresh_for = self._board.policy.reading.fresh_for
        others = [key for key in queue.ready.accounts() if key not in {account, *self.accounts} and self._is_ours(key)]
        share = max(1, AT_A_TIME // (1 + len(others)))
        batch, most = [first], 0
        for key in (account, *others):
            asked = self._directory.accounts.get(key)
            pace = FEWEST if asked is None else max(FEWEST, int(asked.pace.per_second * fresh_for))
            most += min(share, pace)
            self._take(key, batch, min(share, pace) - (key == account), now)
        most, until = min(AT_A_TIME, most), now + fresh_for / 2
        if len(batch) < most:
            batch += queue.coming(
                most - len(batch), lambda e: e.wake <= until and self.is_needed(e) and self._is_ours(e.account)
            )
        self.accounts.update((account, *others))
        self.looks.start(self._read((account, *others), batch), f"read {account}")

    def _take(self, account: str, batch: list[Entry], most: int, now: float) -> None:
        """Add to ``batch`` what is due of an account and must be read again; what need not is due as before."""
        queue = self._board.queue
        fresh: list[Entry] = []
        for _ in range(most):
            if (entry := queue.take(account)) is None:
                break
            (batch if self.is_needed(entry) else fresh).append(entry)
        for entry in fresh:
            queue.schedule(entry, entry.due, wake=now)

    def _is_ours(self, key: str) -> bool:
        account = self._directory.accounts.get(key)
        return account is not None and account.is_ours(self._board.clock.monotonic())

    async def _read(self, accounts: Collection[str], batch: Sequence[Entry]) -> None:
        try:
            await self._look(batch)
        finally:
            self.accounts.difference_update(accounts)
