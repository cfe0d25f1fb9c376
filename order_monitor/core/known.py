"""The open orders this process knows, by id; values shared by many orders are stored once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from typing import Final

from order_monitor.core.order import Order
from order_monitor.core.tracked_order import (
    ODD,
    RareState,
    SharedFields,
    TrackedOrder,
    key_of,
    pack,
)

SHARED_KEPT: Final = 50_000

FOUND_WITHIN: Final = 60.0
"""Seconds within which orders may be found in another order than they were sent in."""


class KnownOrders:
    """Entries by order id."""

    def __init__(self) -> None:
        """Start with no orders."""
        self._entries: dict[int | str, TrackedOrder] = {}
        self._shared: dict[tuple[object, ...], SharedFields] = {}
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many orders are known."""
        return len(self._entries)

    def __iter__(self) -> Iterator[TrackedOrder]:
        """Iterate over all orders."""
        return iter(self._entries.values())

    def newest(self, since: float) -> list[TrackedOrder]:
        """Return the orders that were found last, newest first, down to the first one that was sent
        well before ``since`` (epoch seconds).
        """
        sent = takewhile(
            lambda entry: entry.sent_at is None or entry.sent_at >= since - FOUND_WITHIN,
            reversed(self._entries.values()),
        )
        return list(sent)

    def get(self, order_id: str) -> TrackedOrder | None:
        """Return an order's entry, None if it is not known."""
        return self._entries.get(key_of(order_id))

    def add(self, order: Order, account: str) -> TrackedOrder:
        """Add an order that was not known; it is idle."""
        return self._add(key_of(order.id), order, account)

    def enter(self, order: Order, account: str) -> tuple[TrackedOrder, bool]:
        """Return an order's entry, and whether it was added just now; one that was known is not
        changed.
        """
        key = key_of(order.id)
        entry = self._entries.get(key)
        return (self._add(key, order, account), True) if entry is None else (entry, False)

    def _add(self, key: int | str, order: Order, account: str) -> TrackedOrder:
        shared_fields = self._shared_of(order, account)
        entry = TrackedOrder(
            key, shared_fields, order.sent_at, pack(order.reference), order.last_sync_at
        )
        entry.registered, entry.understood = order.registered, order.understood
        if order.ended_at is not None:
            entry.rare = RareState(order.ended_at)
        if order.odd_at is not None:
            entry.note(odd=ODD, odd_at=order.odd_at, odd_noted=True)
        self._entries[key] = entry
        self._count[account] += 1
        return entry

    def renew(self, entry: TrackedOrder, order: Order, account: str) -> None:
        """Update ``entry`` with the newly read ``order`` and its ``account``."""
        self._count[entry.account] -= 1
        self._count[account] += 1
        entry.shared_fields = self._shared_of(order, account)
        entry.sent_at, entry.reference, entry.asked_at = (
            order.sent_at,
            order.reference,
            order.last_sync_at,
        )
        entry.registered, entry.understood = order.registered, order.understood
        if order.ended_at != entry.rare.ended_at:
            entry.note(ended_at=order.ended_at)

    def has_any(self, account: str) -> bool:
        """Whether there are orders of ``account``."""
        return self._count[account] > 0

    def remove(self, order_id: str) -> TrackedOrder | None:
        """Remove an order; return its entry if it was known."""
        entry = self._entries.pop(key_of(order_id), None)
        if entry is not None:
            self._count[entry.account] -= 1
        return entry

    def tidy(self) -> None:
        """Drop the accounts that have no known order any more."""
        self._count = +self._count
        self._shared = {
            shared_fields: shared_fields
            for shared_fields in self._shared.values()
            if shared_fields.account in self._count
        }

    def _shared_of(self, order: Order, account: str) -> SharedFields:
        """Return the shared copy of the values this order has in common with others."""
        fields = (
            account,
            order.status,
            order.tenant_id,
            order.integration,
            order.route,
            order.package,
            order.reference_from,
        )
        found = self._shared.get(fields)
        if found is None:
            if len(self._shared) >= SHARED_KEPT:
                self._shared.clear()
            found = self._shared[fields] = SharedFields(*fields)
        return found
