"""How orders are watched: what the settings say of it, in one record that may be exchanged while running."""

from __future__ import annotations

from dataclasses import dataclass

from order_monitor.core.schedule import Plan


@dataclass(frozen=True, slots=True)
class Policy:
    """Times are seconds.

    ``concurrency`` is how many calls may be under way: accounts that keep calls waiting share that many places among themselves,
    those that answer have as many of their own. A cancellation is believed when a second answer agrees ``confirm_cancelled``
    later; 0 believes the first. With ``one_pass`` the loop ends when every order has had its turn or stands before a shut gate.
    ``patience`` is how long a write may be tried without progress, None for ever.
    """

    plan: Plan
    concurrency: int = 20
    give_up_after: float = 86_400.0
    give_up_blind: bool = False
    confirm_cancelled: float = 0.0
    one_pass: bool = False
    patience: float | None = None
