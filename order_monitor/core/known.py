"""The open orders this process knows, by id; what they have in common is kept once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from order_monitor.core.entry import ODD, Entry, Memo, Traits
from order_monitor.core.order import Order

_TRAITS_KEPT: Final = 50_000


class KnownOrders:
    """Entries by their orders' ids."""

    def __init__(self) -> None:
        """Start with no orders."""
        self._entries: dict[str, Entry] = {}
        self._traits: dict[Traits, Traits] = {}
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many orders are known."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Go through all orders."""
        return iter(self._entries.values())

    def get(self, order_id: str) -> Entry | None:
        """Return an order's entry, None where it is not known."""
        return self._entries.get(order_id)

    def add(self, order: Order, account: str) -> Entry:
        """Take up an order that was not known; it is idle."""
        traits = self._traits_of(order, account)
        entry = Entry(order.id, traits, order.sent_at, order.referans, order.last_sync_at)
        entry.registered, entry.understood = order.registered, order.understood
        if order.ended_at is not None:
            entry.memo = Memo(order.ended_at)
        if order.odd_at is not None:
            entry.note(odd=ODD, odd_at=order.odd_at, odd_noted=True)
        self._entries[order.id] = entry
        self._count[account] += 1
        return entry

    def renew(self, entry: Entry, order: Order, account: str) -> None:
        """Let ``entry`` be what was read of its order now, and ``account``'s."""
        self._count[entry.account] -= 1
        self._count[account] += 1
        entry.traits = self._traits_of(order, account)
        entry.sent_at, entry.referans, entry.asked_at = order.sent_at, order.referans, order.last_sync_at
        entry.registered, entry.understood = order.registered, order.understood
        if order.ended_at != entry.memo.ended_at:
            entry.note(ended_at=order.ended_at)

    def has_any(self, account: str) -> bool:
        """Whether there are orders of ``account``."""
        return self._count[account] > 0

    def remove(self, order_id: str) -> Entry | None:
        """Drop an order; return its entry where it was known."""
        entry = self._entries.pop(order_id, None)
        if entry is not None:
            self._count[entry.account] -= 1
        return entry

    def tidy(self) -> None:
        """Forget the accounts of which no order is known any more."""
        self._count = +self._count
        self._traits = {traits: traits for traits in self._traits if traits.account in self._count}

    def _traits_of(self, order: Order, account: str) -> Traits:
        """Return the one copy of what this order has in common with others."""
        traits = Traits(account, order.status, order.tenant_id, order.integration, order.route, order.package)
        if len(self._traits) >= _TRAITS_KEPT:
            self._traits.clear()
        return self._traits.setdefault(traits, traits)
