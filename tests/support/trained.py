"""A product whose timing is learned."""

from functools import cache

from order_monitor.core.schedule import Schedule
from order_monitor.timing.plan_table import Reference
from order_monitor.timing.planner import Terms, Timing

NOW = 1_790_000_000.0
KEY = ("shop", "top-up")
SCHEDULE = Schedule()
SLOTS = Reference(SCHEDULE).ages


def trained(n: int = 120, age: float = 240.0, terms: Terms | None = None) -> Timing:
    """A product whose orders end around ``age``, seen at backoff's cost and a little more sharply."""
    timing = Timing(SCHEDULE, terms or Terms())
    teach(timing, n, age)
    return timing


def teach(timing: Timing, n: int, age: float) -> None:
    for k in range(n):
        end = age * (0.7 + 0.6 * (k * 0.618 % 1))
        before = 0.0
        for slot in [*[s for s in SLOTS if s < end * 0.9][:-1], end * 0.95]:
            timing.waiting(KEY, before, slot, NOW + k)
            before = slot
        timing.ended(KEY, before, end * 1.05, NOW + k)
        if k % 20 == 19:
            while timing.refresh(2):
                pass


@cache
def well_trained() -> Timing:
    """Return one that the tests share and do not change: it takes too long for an import."""
    return trained()
