"""Whether writing stands still: whose writes were refused or wait since something was last written.

Pure; times are seconds of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

STANDSTILL: Final = 60.0
"""Seconds without anything written after which writing counts as standing still."""

FEWEST: Final = 3
"""How many different orders it takes: what is refused for one or two is these orders' own."""


class Hindered:
    """The orders that the database refuses, and those that somebody holds up, since something was last written.

    A refused order is tried again with its next answer, minutes later: it is remembered until it is written, needs nothing written
    any more, or is nobody's concern any more.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._refused: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._why = ""

    def refused(self, order_id: str, why: str, now: float) -> None:
        """Take note of a write that was refused, and why."""
        self._held.pop(order_id, None)
        self._refused.setdefault(order_id, now)
        self._why = why

    def held_up(self, order_id: str, now: float) -> None:
        """Take note of a write that waits for somebody's lock, or for what else may pass."""
        self._held.setdefault(order_id, now)

    def passed(self, order_id: str) -> None:
        """Forget an order of which nothing is to be written just now: no progress, and nothing that stands against it."""
        self._refused.pop(order_id, None)
        self._held.pop(order_id, None)

    def written(self, now: float) -> None:
        """Begin anew: something got through. What still waits has a minute more."""
        self._refused.clear()
        self._held = dict.fromkeys(self._held, now)

    def problem(self, now: float, is_known: Callable[[str], bool]) -> str:
        """Say what stands still, nothing where nothing does. A refused order counts while it ``is_known``: it is open, and ours."""
        for order_id in [i for i in self._refused if not is_known(i)]:
            del self._refused[order_id]
        waiting = [i for i, since in self._held.items() if now - since >= STANDSTILL and i not in self._refused]
        long_ago = bool(waiting) or any(now - since >= STANDSTILL for since in self._refused.values())
        if not long_ago or len(self._refused) + len(waiting) < FEWEST:
            return ""
        refused = f"orders refused: {len(self._refused)} ({self._why})" if self._refused else ""
        held = f"held up: {len(waiting)}" if waiting else ""
        return f"nothing written for {STANDSTILL:g} s: {', '.join(filter(None, (refused, held)))}"
