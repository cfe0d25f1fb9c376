"""``make simulate SEEDS=10000``: run this many seeds, and report failures as shortened scenarios.

``python -m tests.simulation --crashes 0-9`` kills a process at each await of its life, in the small
runs of these seeds.
"""

import argparse
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulation.crashes import Sweep
from tests.simulation.loop import run
from tests.simulation.scenario import HOUR, Scenario, small
from tests.simulation.special import drawn
from tests.simulation.world import BrokenError, play


def why(scenario: Scenario) -> str:
    """Run it, and return what broke; an empty string if everything held."""
    return judged(scenario)[0]


def judged(scenario: Scenario) -> tuple[str, float]:
    """Run it; return what broke, if anything, and how many simulated seconds passed."""
    try:
        return "", run(play(scenario))[1]
    except BrokenError as error:
        return str(error), 0.0
    except Exception as error:  # noqa: BLE001 - whatever a run dies of is a finding
        return f"{type(error).__name__}: {error}", 0.0


def say(text: str) -> None:
    """Print it immediately."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def shortened(scenario: Scenario, breaks: Callable[[Scenario], object] | None = None) -> Scenario:
    """Return the scenario with as few orders and faults as still break something."""
    breaks = breaks or why
    smaller = True
    while smaller:
        smaller = False
        for candidate in candidates(scenario):
            if breaks(candidate):
                scenario, smaller = candidate, True
                break
    return scenario


def candidates(scenario: Scenario) -> Iterator[Scenario]:
    """Halves first, then one less."""
    for name in ("faults", "orders"):
        things = getattr(scenario, name)
        for size in sorted({len(things) // 2, 1} - {0}, reverse=True):
            for start in range(0, len(things), size):
                yield replace(scenario, **{name: things[:start] + things[start + size :]})


def seeds(text: str) -> range:
    """Read ``200`` or ``100-200``."""
    given = re.fullmatch(r"(?:([0-9]+)-)?([0-9]+)", text)
    if given is None:
        msg = f"{text!r} is no range of seeds: give 200, or 100-200"
        raise argparse.ArgumentTypeError(msg)
    first, last = given[1], int(given[2])
    found = range(int(first), last + 1) if first else range(last)
    if not found:
        msg = f"there are no seeds in {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return found


def sweep(chosen: range, every: int) -> int:
    """Kill a process at each step of the small runs of some seeds."""
    done, began = Sweep(), time.monotonic()
    for seed in chosen:
        before = len(done.broken)
        done.go_through(small(seed), every)
        done.cut(small(seed), every)
        for broken in done.broken[before:]:
            say(broken)
    say(f"{done.told()}, in {time.monotonic() - began:.0f} s")
    return 1 if done.broken else 0


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(prog="make simulate SEEDS=…")
    parser.add_argument("--seeds", type=seeds, default=range(200), help="how many, or from-to")
    parser.add_argument(
        "--random", action="store_true", help="begin at a seed nobody has chosen, and print it"
    )
    parser.add_argument(
        "--short", action="store_true", help="stop at the first, and do not shorten it"
    )
    parser.add_argument(
        "--crashes", type=seeds, help="die at each step of small runs instead: 200, or from-to"
    )
    parser.add_argument(
        "--every", type=int, default=1, help="with --crashes: at each k-th step only"
    )
    given = parser.parse_args()
    if given.crashes is not None:
        return sweep(given.crashes, given.every)
    first = random.SystemRandom().randrange(1 << 40) if given.random else 0
    began, hours, broken = time.monotonic(), 0.0, 0
    for seed in (first + n for n in given.seeds):
        for scenario in drawn(seed):
            reason, lasted = judged(scenario)
            hours += lasted / HOUR
            if not reason:
                continue
            broken += 1
            say(f"seed {seed}: {reason}")
            if given.short:
                break
            small = shortened(scenario)
            say(
                f"  shortened to {len(small.orders)} orders and {len(small.faults)} faults: {why(small)}\n  {small}"
            )
        if broken and given.short:
            break
    say(
        f"{len(given.seeds)} seeds from {first + given.seeds.start}, {hours / 8766:.3f} simulated years "
        f"in {time.monotonic() - began:.0f} s: {broken} broken"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
