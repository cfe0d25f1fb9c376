"""Whether an account makes sense: what its answers say when none of them is understood. Pure.

One order's odd answers are that order's. When as many different orders as it takes to shut a gate were answered, and nothing was
understood between, it is the account that cannot be understood: a maintenance text, a new version of the panel, a login page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

REFUSED: Final = "refused"
NOT_UNDERSTOOD: Final = "not_understood"

FEWEST: Final = 2
"""How many different orders it takes at the least to say anything of their account."""

PATIENCE: Final = 60.0
"""Seconds without an understood answer, while several orders' answers were not, after which an account counts as not understood."""


@dataclass(slots=True)
class Sense:
    """The orders that were answered since the last answer that was understood. Times are monotonic seconds."""

    _odd: dict[str, tuple[str, float]] = field(default_factory=dict)
    _since: float = 0.0

    def understood(self) -> None:
        """Note an answer that was understood: everything before it was those orders' own."""
        self._odd.clear()

    def not_understood(self, order_id: str, outcome: str, due: float, now: float) -> None:
        """Note an order whose answer was not; ``outcome`` names the kind, ``due`` is the slot it was asked for (epoch seconds)."""
        if not self._odd:
            self._since = now
        if order_id not in self._odd or self._odd[order_id][0] != outcome:
            self._odd[order_id] = (outcome, due)

    def reason(self, limit: int) -> str:
        """Say why the account cannot be asked, where ``limit`` different orders were not understood; else nothing."""
        if len(self._odd) < max(FEWEST, limit):
            return ""
        return REFUSED if all(outcome == REFUSED for outcome, _ in self._odd.values()) else NOT_UNDERSTOOD

    def orders(self) -> Mapping[str, tuple[str, float]]:
        """Return those orders, each with the kind of its answer and the slot it was asked for."""
        return self._odd

    @property
    def is_in_doubt(self) -> bool:
        """Whether several orders were answered lately, and none understood."""
        return len(self._odd) >= FEWEST

    def is_lost(self, now: float) -> bool:
        """Whether that has lasted: then the account is no longer well, however few its orders are."""
        return self.is_in_doubt and now - self._since > PATIENCE
