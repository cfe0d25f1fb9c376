"""How orders are watched: the settings for it in one record, replaceable while running."""

from __future__ import annotations

from dataclasses import dataclass

from order_monitor.core.schedule import Plan


@dataclass(frozen=True, slots=True)
class Reading:
    """How often all open orders are read. Times are seconds.

    Up to ``small`` orders, each scan reads all of them. With more, a full scan follows after
    ``share`` times its own duration, and after ``longest`` at the latest. The quick scans in
    between read what was sent since the last order seen, minus ``overlap`` for late commits. An
    order read longer than ``fresh_for`` ago is read again before it is asked about.
    """

    small: int = 5000
    share: float = 50.0
    longest: float = 600.0
    overlap: float = 120.0
    fresh_for: float = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy for watching orders. Times are seconds.

    ``concurrency`` limits the calls in flight: slow accounts share that many places, and healthy
    accounts have as many of their own. A cancellation is believed when a second answer confirms it
    ``confirm_cancelled`` later; with 0 the first is believed. With ``one_pass`` the loop ends when
    every order has had its turn or is blocked by a closed gate. An order that may have been sent
    again is asked about after ``first_check``. One whose answers are not understood, by its own
    fault, is asked about after ``cap``, and with ``give_up_unknown`` it may be failed for that.
    ``patience`` limits how long a write may be tried without progress, None for no limit. An order
    that fills a free place of a call was sent and last asked about at least ``min_interval`` ago.
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
    min_interval: float = 5.0
    reading: Reading = Reading()
