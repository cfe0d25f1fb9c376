"""The worth of each rule of learned timing: what gets better or worse where it is left out or its
constant is another: ``python -m benchmarks.timing_rules [--quick] [NAME …]``.

Every variant meets the same draws, and is compared with the rules as they are draw by draw. "Noise"
is two standard errors of the mean of those differences: a smaller one may be chance. The draws are
others than those of ``benchmarks/timing.py heldout``.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Final
from unittest.mock import patch

from benchmarks.timing import (
    FAMILIES,
    HOUR,
    Backoff,
    Learned,
    Placed,
    calls,
    changing_at,
    delay,
    judged,
    near,
    optimum,
    stream,
)
from order_monitor.timing import distribution, memory, planner
from order_monitor.timing.memory import Place
from order_monitor.timing.surprise import Instant

DRAWS: Final = 1 if "--quick" in sys.argv else 3
"""Draws of each family, of each kind of change, and of hourly batches."""

FIRST_SEED: Final = 7000
EVERY: Final = 30.0
SEEN: Final = 300
JUDGED: Final = 900
AFTER: Final = 2 * HOUR
KINDS: Final = ("an outage of 3 h", "an hour to a minute", "a minute to an hour", "turns every 3 h")

Change = tuple[object, str, object]
"""Where a name stands, the name, and its value in a variant."""


def never(*_: object) -> bool:
    return False


VARIANTS: Final[dict[str, Sequence[Change]]] = {
    "waiting orders are not planned again": [(Learned, "surprised", lambda _: ())],
    "no backoff after a change (AGAIN 0)": [(memory, "AGAIN", 0)],
    "AGAIN 50": [(memory, "AGAIN", 50)],
    "orders sent before a change count": [(Place, "precedes", never)],
    "one end is no surprise (NEVER 0)": [(memory, "NEVER", 0.0)],
    "NEVER 0.01": [(memory, "NEVER", 0.01)],
    "WORRY 0.75": [(memory, "WORRY", 0.75)],
    "WORRY 3": [(memory, "WORRY", 3.0)],
    "nothing is forgotten at once (ALARM)": [(memory, "ALARM", math.inf)],
    "one early end is no suspicion (UNUSUAL 0)": [(memory, "UNUSUAL", 0.0)],
    "LEFT 2": [(memory, "LEFT", 2.0)],
    "no scouts (SCOUTS 0)": [(planner, "SCOUTS", 1e-9)],
    "SCOUTS 0.15": [(planner, "SCOUTS", 0.15)],
    "no probes (PROBES 0)": [(planner, "PROBES", 0.0)],
    "PROBES 0.12": [(planner, "PROBES", 0.12)],
    "no stalls (STALL)": [(memory, "STALL", math.inf)],
    "a wait is never usual (LASTING 0)": [(memory, "LASTING", 0.0)],
    "no outages": [(Instant, "is_one", property(never))],
    "few ends are smoothed as many (FEW 0)": [(distribution, "FEW", 0.0)],
    "no jitter (SWAY 0)": [(planner, "SWAY", 0.0)],
}


@contextmanager
def changed(changes: Sequence[Change]) -> Iterator[None]:
    """Let the rules be a variant's meanwhile."""
    with ExitStack() as stack:
        for where, name, value in changes:
            stack.enter_context(patch.object(where, name, value))
        yield


@dataclass(frozen=True)
class Draw:
    """A product's orders, and which of them are judged: those sent from ``since`` on."""

    orders: Sequence[Placed]
    since: float
    backoff: Sequence[Placed]
    is_steady: bool

    def result(self) -> tuple[float, float]:
        """Return the delay, as a part of the optimum's (backoff's where it is not steady), and the calls
        as a part of backoff's.
        """
        learned = judged(self.orders, Learned(), self.since)
        made = calls(learned)
        least = (
            optimum([(1.0, [order.lasts for order in learned])], made)
            if self.is_steady
            else delay(self.backoff)
        )
        return delay(learned) / least, made / calls(self.backoff)


def draws() -> list[Draw]:
    """Return all draws."""
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + DRAWS):
        for family, drawn in FAMILIES.items():
            draw = drawn(random.Random(f"{family} {seed}"))
            end = EVERY * (SEEN + JUDGED)
            orders = list(stream(seed, ("shop", "product"), draw, EVERY, 0.0, end))
            since = EVERY * SEEN
            found.append(Draw(orders, since, judged(orders, Backoff(), since), is_steady=True))
        for kind in KINDS:
            orders, change = changing_at(kind, random.Random(f"{kind} {seed}"), seed)
            orders = [order for order in orders if order.at < change + AFTER]
            since = change - HOUR
            found.append(Draw(orders, since, judged(orders, Backoff(), since), is_steady=False))
        orders, since = batches(seed)
        found.append(Draw(orders, since, judged(orders, Backoff(), since), is_steady=False))
    return found


def batches(seed: int) -> tuple[list[Placed], float]:
    """Return orders that all end within a minute after the next full hour, and when to judge."""
    found = list(stream(seed, ("shop", "product"), near(20.0), EVERY, 0.0, 8 * HOUR))
    for order in found:
        order.lasts += HOUR - order.at % HOUR
    return found, 5 * HOUR


Results = Sequence[tuple[float, float]]


def compared(name: str, ours: Results, usual: Results, is_steady: Sequence[bool]) -> None:
    """Print a variant's row."""
    cells = [name]
    for steady in (True, False):
        those = [k for k, is_so in enumerate(is_steady) if is_so is steady]
        ratios = [ours[k][0] for k in those]
        shifts = [math.log(ours[k][0] / usual[k][0]) for k in those]
        noise = 2 * stdev(shifts) / math.sqrt(len(shifts))
        cells += [
            f"{median(ratios):.3f}",
            f"{max(ratios):.2f}",
            f"{100 * fmean(shifts):+.1f} ± {100 * noise:.1f}",
            f"{fmean(ours[k][1] for k in those):.3f}",
        ]
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the table."""
    print(
        "| rule | steady: median | worst | delay, % | calls "
        "| changes and batches: median | worst | delay, % | calls |"
    )
    print("|---" * 9 + "|")
    those = draws()
    is_steady = [draw.is_steady for draw in those]
    usual = [draw.result() for draw in those]
    compared("as they are", usual, usual, is_steady)
    wanted = [name for name in VARIANTS if any(word in name for word in sys.argv[1:])]
    for name in wanted or VARIANTS:
        with changed(VARIANTS[name]):
            compared(name, [draw.result() for draw in those], usual, is_steady)


if __name__ == "__main__":
    main()
