"""One account at a provider while the program runs: who is asked, whether, how fast, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, field

from order_monitor.gate import Gate, Pace
from order_monitor.providers.seam import Provider


@dataclass(slots=True)
class Account:
    """An account's provider with its own gate and pace; nothing here is shared with another account."""

    name: str
    provider: Provider
    gate: Gate = field(default_factory=Gate)
    pace: Pace = field(default_factory=lambda: Pace(10.0))
    in_flight: int = 0
    last_error: str = ""

    def may_start(self, now: float) -> bool:
        """Whether one more call may start at ``now`` (monotonic seconds)."""
        return self.gate.lets_through(now) and self.pace.ready_at() <= now

    def may_start_at(self) -> float | None:
        """When that will be; None while only a call's end can tell."""
        if self.gate.is_open:
            return self.pace.ready_at()
        opens = self.gate.opens_at()
        return None if opens is None else max(opens, self.pace.ready_at())
