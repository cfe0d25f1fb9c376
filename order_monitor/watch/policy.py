"""How orders are watched: what the settings say of it, in one record that may be exchanged while running."""

from __future__ import annotations

from dataclasses import dataclass

from order_monitor.core.schedule import Plan


@dataclass(frozen=True, slots=True)
class Reading:
    """How often all open orders are read. Times are seconds.

    Up to ``small`` of them at each look. Of more, all are read again after ``share`` times as long as that took, and after
    ``longest`` at the latest; the quick looks between read what was sent since the last order seen, less ``overlap`` for commits
    that come late. An order read longer than ``fresh_for`` ago is read again before it is asked about.
    """

    small: int = 5000
    share: float = 50.0
    longest: float = 600.0
    overlap: float = 120.0
    fresh_for: float = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Times are seconds.

    ``concurrency`` is how many calls may be under way: accounts that keep calls waiting share that many places among themselves,
    those that answer have as many of their own. A cancellation is believed when a second answer agrees ``confirm_cancelled``
    later; 0 believes the first. With ``one_pass`` the loop ends when every order has had its turn or stands before a shut gate.
    An order that may have been sent anew is asked again after ``first_check``; one whose answers are not understood, by its own
    fault, after ``cap``, and with ``give_up_unknown`` it may be failed for that. ``patience`` is how long a write may be tried
    without progress, None for ever.
    """

    plan: Plan
    concurrency: int = 20
    give_up_after: float = 86_400.0
    give_up_blind: bool = False
    confirm_cancelled: float = 0.0
    one_pass: bool = False
    first_check: float = 60.0
    cap: float = 600.0
    give_up_unknown: bool = False
    patience: float | None = None
    reading: Reading = Reading()
