"""What may be set of learned timing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """``min_interval`` and ``half_life`` are seconds.

    ``budget`` is calls a second an account, never above ``ceiling``; None for as many as backoff would make for the same orders.
    ``packages`` bounds how many products are remembered one by one.
    """

    min_interval: float = 5.0
    budget: float | None = None
    ceiling: float = 10.0
    half_life: float = 7 * 86_400.0
    packages: int = 1000
