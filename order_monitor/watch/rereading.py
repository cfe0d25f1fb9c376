"""Read again before it is asked about: what was not read lately, and what is not noted yet as it was sent; many at a time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
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
        """Have an order of ``account`` read again, with what comes next or soon and was not read lately either."""
        batch, queue, now = [first], self._board.queue, self._board.now()
        fresh: list[Entry] = []
        fresh_for, asked = self._board.policy.reading.fresh_for, self._directory.accounts.get(account)
        most = max(FEWEST, min(AT_A_TIME, int(asked.pace.per_second * fresh_for))) if asked is not None else FEWEST
        while len(batch) + len(fresh) < most and (entry := queue.take(account)) is not None:
            (batch if self.is_needed(entry) else fresh).append(entry)
        for entry in fresh:
            queue.schedule(entry, entry.due, wake=now)
        until = now + fresh_for / 2
        if len(batch) < most:
            batch += queue.coming(
                most - len(batch), lambda e: e.wake <= until and self.is_needed(e) and self._is_ours(e.account)
            )
        self.accounts.add(account)
        self.looks.start(self._read(account, batch), f"read {account}")

    def _is_ours(self, key: str) -> bool:
        account = self._directory.accounts.get(key)
        return account is not None and account.is_ours(self._board.clock.monotonic())

    async def _read(self, account: str, batch: Sequence[Entry]) -> None:
        try:
            await self._look(batch)
        finally:
            self.accounts.discard(account)
