"""Times for people: in the machine's time zone, with the time left or passed."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from order_monitor.tell import history

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_ROUNDED: Final = 3600
"""From one hour on, the next smaller unit is shown as well."""


def iso(seconds: float | None) -> str | None:
    """Format epoch seconds as UTC, to the second; None if they are not a valid date."""
    return history.iso(seconds, "seconds")


def local(seconds: float | None) -> str:
    """Format epoch seconds in this machine's time zone; a dash if they are not a valid date."""
    if seconds is None:
        return "-"
    try:
        return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    except (ValueError, OverflowError, OSError):
        return "-"


def seconds_of(text: str | None) -> float | None:
    """Return epoch seconds for a time formatted by `iso`."""
    return datetime.fromisoformat(text).timestamp() if text else None


def local_of(text: str | None) -> str:
    """Convert a time formatted by `iso` to this machine's time zone."""
    return local(seconds_of(text))


def span(seconds: float) -> str:
    """Format a duration: ``40 s``, ``24 min``, ``3 h 5 min``, ``2 d 4 h``.

    Rounded down.
    """
    if not math.isfinite(seconds):
        return "ever"
    whole = max(0, int(seconds))
    n = next((n for n, (size, _) in enumerate(_UNITS) if whole >= size), len(_UNITS) - 1)
    size, unit = _UNITS[n]
    said = f"{whole // size} {unit}"
    if size < _ROUNDED:
        return said
    smaller, name = _UNITS[n + 1]
    rest = whole % size // smaller
    return f"{said} {rest} {name}" if rest else said


def relative(seconds: float, now: float) -> str:
    """Format a time relative to ``now``: ``in 7 min``, ``3 min ago``."""
    return f"in {span(seconds - now)}" if seconds > now else f"{span(now - seconds)} ago"


def moment(seconds: float | None, now: float) -> str:
    """Format a time in both ways, absolute and relative."""
    shown = local(seconds)
    return shown if seconds is None or shown == "-" else f"{shown} ({relative(seconds, now)})"
