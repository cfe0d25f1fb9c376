"""Whether a product still behaves as learned: a cumulative sum of surprises (Page 1954)."""

from __future__ import annotations

from typing import Final

from order_monitor.core.timing.curve import Curve
from order_monitor.core.timing.memory import Place

NEAR: Final = 1.5
RARE: Final = 0.03
EXPECTED: Final = 0.15
ALARM: Final = 4.0
ENOUGH: Final = 30.0
"""Orders without which no judgement is made."""

LEFT: Final = 8.0
"""Orders that are remembered of a product that has changed."""


def surprising(curve: Curve, after: float, until: float) -> bool:
    """Whether fewer than ``RARE`` of the orders were known to end anywhere near: from ``after`` / 1.5 to ``until`` x 1.5."""
    return curve.share_by(until * NEAR) - curve.share_by(after / NEAR) < RARE


def changed(place: Place, curve: Curve, after: float, until: float) -> bool:
    """Note one more end between two ages; where that makes too many surprises, forget all but ``LEFT`` orders and return True.

    By chance alone that happens once in tens of thousands of orders.
    """
    if place.sketch.total < ENOUGH:
        return False
    place.misfit = max(0.0, place.misfit + (1.0 if surprising(curve, after, until) else -EXPECTED))
    if place.misfit < ALARM:
        return False
    place.misfit = place.built = 0.0
    place.sketch.scale(LEFT / place.sketch.total)
    return True
