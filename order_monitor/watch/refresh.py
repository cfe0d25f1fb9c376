"""Reads orders again before they are asked about, many at a time: those that are stale, and those
whose current dispatch is not recorded yet.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from order_monitor.core.queue import READ_AGAIN
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.watch.calls import Calls
from order_monitor.watch.context import Context
from order_monitor.watch.discovery import Discovery
from order_monitor.watch.routing import Directory

AT_A_TIME: Final = 400
"""How many orders are read again at a time: a transaction serves fifty checks or more."""

FEWEST: Final = 50
"""Fewest orders per account, even if some are stale again before they are asked about."""


class Refresh:
    """Reads stale orders again, in one batch at a time for each of the ``accounts`` that wait."""

    def __init__(self, context: Context, directory: Directory, discovery: Discovery) -> None:
        """Read through ``discovery``, also what is due soon and asked by this process."""
        self._context = context
        self._directory = directory
        self._discovery = discovery
        self.reads = Calls(context.wake.set)
        self.accounts: set[str] = set()

    def is_needed(self, entry: TrackedOrder) -> bool:
        """Whether an order must be read again before it is asked about."""
        if entry.awaits_pin:
            return False
        is_old = entry.read_at < self._context.stale_before or entry.read_at == READ_AGAIN
        return is_old or self._discovery.is_unread(entry)

    def start(self, account: str, first: TrackedOrder) -> None:
        """Read an order of ``account`` again, together with other due orders of any account, and
        with orders that are due next or soon.

        All accounts share one statement, each with its part: otherwise the account that is read
        first would take the places of the others.
        """
        queue, now = self._context.queue, self._context.now()
        fresh_for = self._context.policy.reading.fresh_for
        others = [
            key
            for key in queue.ready.accounts()
            if key not in {account, *self.accounts} and self._is_ours(key)
        ]
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
                most - len(batch),
                lambda e: e.wake <= until and self.is_needed(e) and self._is_ours(e.account),
            )
        self.accounts.update((account, *others))
        self.reads.start(self._read((account, *others), batch), f"read {account}")

    def _take(self, account: str, batch: list[TrackedOrder], most: int, now: float) -> None:
        """Add an account's due orders to ``batch`` that must be read again; the others stay due."""
        queue = self._context.queue
        fresh: list[TrackedOrder] = []
        for _ in range(most):
            if (entry := queue.take(account)) is None:
                break
            (batch if self.is_needed(entry) else fresh).append(entry)
        for entry in fresh:
            queue.schedule(entry, entry.due, wake=now)

    def _is_ours(self, key: str) -> bool:
        account = self._directory.accounts.get(key)
        return account is not None and account.is_ours(self._context.clock.monotonic())

    async def _read(self, accounts: Collection[str], batch: Sequence[TrackedOrder]) -> None:
        try:
            await self._discovery.refresh(batch)
        finally:
            self.accounts.difference_update(accounts)
