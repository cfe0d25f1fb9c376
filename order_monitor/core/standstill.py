"""Detect that writing stands still: writes are refused or blocked, and nothing gets written.

Pure; times are seconds of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

STANDSTILL: Final = 60.0
"""Seconds without anything written after which writing counts as standing still."""

FEWEST: Final = 3
"""Minimum number of different orders: if only one or two are refused, these orders are at fault."""


class StalledWrites:
    """The orders that the database refuses, and those blocked by a lock, since something was last
    written.

    A refused order is tried again with its next answer, minutes later. It is remembered until it is
    written, needs no write any more, or is no longer ours.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._refused: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._why = ""

    def refused(self, order_id: str, why: str, now: float) -> None:
        """Record a refused write and the reason."""
        self._held.pop(order_id, None)
        self._refused.setdefault(order_id, now)
        self._why = why

    def held_up(self, order_id: str, now: float) -> None:
        """Record a write that waits for a lock, or for another temporary obstacle."""
        self._held.setdefault(order_id, now)

    def passed(self, order_id: str) -> None:
        """Forget an order that needs no write now: this is neither progress nor an obstacle."""
        self._refused.pop(order_id, None)
        self._held.pop(order_id, None)

    def written(self, now: float) -> None:
        """Start over: a write succeeded. Blocked writes get another minute."""
        self._refused.clear()
        self._held = dict.fromkeys(self._held, now)

    def problem(self, now: float, is_known: Callable[[str], bool]) -> str:
        """Return a description of the standstill, empty if there is none.

        A refused order counts while ``is_known`` is true for it: it is open and ours.
        """
        for order_id in [i for i in self._refused if not is_known(i)]:
            del self._refused[order_id]
        waiting = [
            i
            for i, since in self._held.items()
            if now - since >= STANDSTILL and i not in self._refused
        ]
        long_ago = bool(waiting) or any(
            now - since >= STANDSTILL for since in self._refused.values()
        )
        if not long_ago or len(self._refused) + len(waiting) < FEWEST:
            return ""
        refused = f"orders refused: {len(self._refused)} ({self._why})" if self._refused else ""
        held = f"held up: {len(waiting)}" if waiting else ""
        return f"nothing written for {STANDSTILL:g} s: {', '.join(filter(None, (refused, held)))}"
