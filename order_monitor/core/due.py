"""The orders that are due: of each account in two lines at once, the newest first and the longest waiting first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from order_monitor.core.entry import Entry, Stage
from order_monitor.core.line import Line

LONGEST_WAITING_EVERY: Final = 4
"""Of the orders that are due the newest goes first, its customer being still there; but each fourth turn goes to the
one due longest, so that no order starves however little the provider allows."""

STALE_ALLOWED: Final = 1000
_LOOKED_AT: Final = 200
"""Among how many of the first in line a probe is chosen."""

_STRIDE: Final = 79
"""Steps between two choices: a prime, so that one after the other is met, and neighbours, which were sent together, are not."""

_BEHIND: Final = 1e11
"""Seconds by which each failure puts an order behind all others: longer than any time differs from another."""

Rank: TypeAlias = Callable[[Entry], float]
"""What due orders are sorted by, the least first; it is asked when an order becomes due."""


def newest(entry: Entry) -> float:
    """Sort an order by its age."""
    return -(entry.sent_at or 0.0)


def _behind(entry: Entry) -> float:
    memo = entry.memo
    return (memo.failures + bool(memo.odd)) * _BEHIND if memo.failures or memo.odd else 0.0


class Lines:
    """The due orders of one account; whoever was taken from one line has left the other too."""

    def __init__(self, account: str, rank: Rank) -> None:
        """Sort one line by ``rank``."""

        def belongs(entry: Entry) -> bool:
            return entry.stage is Stage.READY and entry.traits.account == account

        # Whoever could not be asked, or not be understood, stands behind the others: it must not be every probe's choice.
        self._ranked = Line(lambda entry: _behind(entry) + rank(entry), belongs)
        self._longest = Line(lambda entry: _behind(entry) + entry.due, belongs)
        self._turns = 0
        self.count = 0

    def __len__(self) -> int:
        """How many places there are, those of whoever has left included."""
        return len(self._ranked) + len(self._longest)

    def add(self, entry: Entry) -> None:
        """Let an order that is ready stand in both lines."""
        for line in (self._ranked, self._longest):
            # Each order leaves a stale place in the line it was not taken from: those must not pile up.
            if len(line) > 2 * self.count + STALE_ALLOWED:
                line.tidy()
            line.add(entry)
        self.count += 1

    def first(self) -> Entry | None:
        """Return whose turn it is."""
        self._turns += 1
        return (self._longest if self._turns % LONGEST_WAITING_EVERY == 0 else self._ranked).first()

    def best_for_a_probe(self, salt: int) -> Entry | None:
        """Return one that was understood before; else one that was never asked.

        Any of them, as ``salt`` has it: those that stand side by side may be unknown one and all.
        """
        self._turns += 1
        near = self._ranked.soonest(_LOOKED_AT, _LOOKED_AT)
        fresh = [entry for entry in near if not entry.memo.failures and not entry.memo.odd]
        understood = [entry for entry in near if entry.understood and not entry.memo.failures]
        best = understood or fresh
        return best[(salt + self._turns) * _STRIDE % len(best)] if best else self.first()


class Due:
    """The due orders of all accounts."""

    def __init__(self, rank: Rank | None = None) -> None:
        """Of each account the newest goes first, or the least by ``rank``."""
        self.rank: Rank = rank or newest
        self.lines: dict[str, Lines] = {}

    def add(self, entry: Entry) -> None:
        """Take up an order that is ready."""
        lines = self.lines.get(entry.account)
        if lines is None:
            lines = self.lines[entry.account] = Lines(entry.account, self.rank)
        lines.add(entry)

    def left(self, entry: Entry) -> None:
        """One that was ready is so no more."""
        lines = self.lines[entry.account]
        lines.count -= 1
        if not lines.count:
            del self.lines[entry.account]

    def first(self, account: str) -> Entry | None:
        """Return whose turn it is of an account; None where nothing is due."""
        lines = self.lines.get(account)
        return lines.first() if lines is not None else None

    def best_for_a_probe(self, account: str, salt: int) -> Entry | None:
        """Return by which an account is best tried, another one for another ``salt``; None where nothing is due."""
        lines = self.lines.get(account)
        return lines.best_for_a_probe(salt) if lines is not None else None

    def count(self, account: str) -> int:
        """How many orders of an account are due."""
        lines = self.lines.get(account)
        return lines.count if lines is not None else 0

    def accounts(self) -> list[str]:
        """Return the accounts that have due orders: of thousands most are idle."""
        return list(self.lines)
