"""A learned plan in one sentence, for people."""

from __future__ import annotations

from typing import Final

from order_monitor.timing.planner import Reason

FEW_MINUTES: Final = 90
FEW_HOURS: Final = 5400


def duration(seconds: float) -> str:
    """Return a duration as a person would say it: ``35 s``, ``4 min``, ``2.5 h``."""
    if seconds < FEW_MINUTES:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < FEW_HOURS else f"{seconds / 3600:.1f} h"


def explained(reason: Reason, age: float) -> str:
    """Return in one sentence why an order of ``age`` seconds is asked about when it is."""
    following, known, is_own = reason
    soon = f"asked again in {duration(following.age - age)}"
    whose = "this package's orders" if is_own else "orders like it"
    if known is None:
        return f"no end of {whose} was seen yet; {soon}, as backoff has it"
    half = known.quantile(0.5)
    part = "most of" if half is None else "half of"
    until = "take longer than a day" if half is None else f"end within {duration(half)}"
    return f"{part} {whose} {until}; {soon}" + (
        "" if following.learned else ", as backoff has it: too few ends were seen of this age"
    )
