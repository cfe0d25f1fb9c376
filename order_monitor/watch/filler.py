"""Fills the free places of a call about several orders with orders that are not due yet.

A call goes out for orders that are due; its free places cost nothing. Filling never causes a call
and changes no order's planned time: an order that is still waiting stays due at its old time. If
the answer about such an order is not understood, it counts as not asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from order_monitor.core.tracked_order import NOTHING, Stage, TrackedOrder
from order_monitor.providers.provider import AsksMany
from order_monitor.watch.account import Account
from order_monitor.watch.context import Context
from order_monitor.watch.refresh import Refresh

_SORT_EVERY: Final = 5.0
_SORT_EMPTY_EVERY: Final = 1.0
"""Seconds after which the candidates are sorted again; the second where none is left."""

_RATED: Final = 500
"""How many of the orders asked longest ago are rated by learned timing, at microseconds each."""

Chance = Callable[[TrackedOrder], float]
"""The probability that an order has ended since it was last asked about."""


class Filler:
    """Chooses orders for the free places: asked longest ago, or most likely to have ended."""

    def __init__(self, context: Context, refresh: Refresh) -> None:
        """Fill from the queue of ``context``, without orders that ``refresh`` must read first."""
        self._context = context
        self._refresh = refresh
        self._candidates: dict[str, deque[TrackedOrder]] = {}
        self._sorted_at = float("-inf")
        self.chance: Chance | None = None
        """The rating by learned timing, if that is enabled."""

    def fill(self, account: Account, due: Sequence[TrackedOrder]) -> list[TrackedOrder]:
        """Take orders for the free places of the call about ``due``, ahead of their time."""
        provider, policy = account.provider, self._context.policy
        queue = self._context.queue
        if not isinstance(provider, AsksMany) or policy.one_pass:
            return []
        # Sorting very many would hold up the loop.
        if len(queue) > policy.reading.small:
            return []
        references = [entry.reference for entry in due]
        calls = provider.calls_of(references)
        free = calls * provider.batch - len(references)
        candidates, wanted = self._sorted(account.key), list[TrackedOrder]()
        while candidates and len(wanted) < free:
            entry = candidates.popleft()
            if self._may_go(entry, account.key):
                wanted.append(entry)
        chosen = _that_fit(provider, references, wanted, calls)
        for entry in chosen:
            queue.fill(entry)
        return chosen

    def _sorted(self, key: str) -> deque[TrackedOrder]:
        """Return the candidates of an account, the most useful first."""
        found, now = self._candidates.get(key), self._context.clock.monotonic()
        if now - self._sorted_at >= (_SORT_EVERY if found else _SORT_EMPTY_EVERY):
            self._sorted_at = now
            by_account: dict[str, list[TrackedOrder]] = {}
            for entry in self._context.queue:
                if entry.stage is Stage.SCHEDULED and entry.rare is NOTHING:
                    by_account.setdefault(entry.account, []).append(entry)
            self._candidates = {name: self._by_gain(those) for name, those in by_account.items()}
            found = self._candidates.get(key)
        return found if found is not None else deque()

    def _by_gain(self, entries: list[TrackedOrder]) -> deque[TrackedOrder]:
        entries.sort(key=_last_asked)
        if self.chance is not None:
            chance = self.chance
            entries[:_RATED] = sorted(entries[:_RATED], key=lambda entry: -chance(entry))
        return deque(entries)

    def _may_go(self, entry: TrackedOrder, key: str) -> bool:
        """Whether an order may be asked about before it is due.

        False for an order with any problem, and for one sent or asked about a moment ago, because
        the provider may not know it yet.
        """
        is_known = entry.rare is NOTHING and entry.account == key and entry.sent_at is not None
        since = self._context.now() - _last_asked(entry)
        return (
            is_known
            and entry.stage is Stage.SCHEDULED
            and since >= self._context.policy.min_interval
            and not self._refresh.is_needed(entry)
        )


def _that_fit(
    provider: AsksMany, references: list[str], wanted: list[TrackedOrder], calls: int
) -> list[TrackedOrder]:
    """Return those that make no further call: all of them, but where an address would get too long,
    or ids of another kind need a call of their own.
    """
    if provider.calls_of([*references, *(entry.reference for entry in wanted)]) <= calls:
        return wanted
    chosen: list[TrackedOrder] = []
    for entry in wanted:
        if provider.calls_of([*references, entry.reference]) <= calls:
            chosen.append(entry)
            references = [*references, entry.reference]
    return chosen


def _last_asked(entry: TrackedOrder) -> float:
    """Return when an order was last asked about, or else sent (epoch seconds)."""
    return max(entry.asked_at or 0.0, entry.sent_at or 0.0)
