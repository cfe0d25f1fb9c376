"""What learned timing brings at as many calls as backoff makes, on orders it has not seen.

``python benchmarks/timing.py [--quick]``, or a part of it: ``stationary``, ``changing``, ``mixed``, ``budget``, ``planning``.

Everything is simulated in virtual time with fixed seeds; only the cost of planning is measured with a clock. Delay is the time from
an order's end to the answer that tells it. The optimum knows the true distribution: dynamic programming on a grid of its own, twice
as fine as the program's, at exactly as many calls (between two of its plans, a part of the orders each).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from order_monitor.core.schedule import Schedule
from order_monitor.core.timing.memory import Key
from order_monitor.core.timing.planner import Timing
from order_monitor.core.timing.precedence import precedence
from order_monitor.core.timing.terms import Terms

QUICK = "--quick" in sys.argv
SCHEDULE = Schedule()
TERMS = Terms()
EPOCH = 1_790_000_000.0
DAY = 86_400.0
CEILING = 2.0
LOOK = 2.0
"""Seconds between two tables that the daemon makes anew."""

Draw = Callable[[random.Random], float]


def log_normal(median: float, spread: float) -> Draw:
    return lambda r: median * math.exp(spread * r.gauss(0, 1))


def two_ways(r: random.Random) -> float:
    return r.gauss(30, 4) if r.random() < 0.8 else r.gauss(3600, 600)


CASES: dict[str, Draw] = {
    "log-normal, median 4 min": log_normal(240, 1.0),
    "manual, median 45 min": log_normal(2700, 0.5),
    "80 % at 30 s, 20 % at 1 h": two_ways,
    "exponential, mean 20 min": lambda r: r.expovariate(1 / 1200),
    "operator's batch each hour": lambda r: r.gauss(3700, 220),
    "Pareto tail": lambda r: 30 * r.paretovariate(0.9),
    "log-normal, median 40 s": log_normal(40, 0.5),
}


def bounded(age: float) -> float:
    return min(SCHEDULE.give_up_after - 1, max(1.0, age))


# --- the optimum

GRID = [300 * math.expm1(k * 0.0025) for k in range(math.ceil(math.log1p(86_400 / 300) / 0.0025) + 1)]


def best_plan(samples: Sequence[float], price: float) -> tuple[float, float]:
    """Return (delay, calls) an order of the plan that is best at ``price``, for orders that last as long as ``samples``."""
    ordered = sorted(samples)
    sums = [0.0, *itertools.accumulate(ordered)]
    counts = [bisect_right(ordered, at) for at in GRID]
    n, end = len(ordered), len(GRID) - 1
    done = [c / n for c in counts]
    mean = [sums[c] / n for c in counts]
    offers, calls, best = [0.0] * (end + 1), [0.0] * (end + 1), [end] * (end + 1)
    offers[end] = GRID[end] * done[end] - mean[end]
    cost = 0.0
    for a in range(end - 1, -1, -1):
        low = min(end, bisect_left(GRID, GRID[a] + TERMS.min_interval))
        high = min(max(low, bisect_right(GRID, GRID[a] + SCHEDULE.cap) - 1), best[a + 1])
        best[a] = min(range(high, low - 1, -1), key=lambda b, a=a: offers[b] - GRID[b] * done[a])  # type: ignore[misc]
        cost = price * (1 - done[a]) + mean[a] + offers[best[a]] - GRID[best[a]] * done[a]
        offers[a] = GRID[a] * done[a] - mean[a] + cost
        calls[a] = 1 - done[a] + calls[best[a]]
    return cost - price * calls[0], calls[0]


def optimum(products: Sequence[tuple[float, Sequence[float]]], calls: float) -> float:
    """Return the least delay an order at ``calls`` an order, over products given with their share of the orders."""
    before = (math.nan, math.inf)
    for price in (0.25 * 1.4**k for k in range(28)):
        plans = [(share, best_plan(samples, price)) for share, samples in products]
        delay = math.fsum(share * plan[0] for share, plan in plans)
        made = math.fsum(share * plan[1] for share, plan in plans)
        if made <= calls:
            part = 0.0 if math.isinf(before[1]) else (calls - made) / (before[1] - made)
            return delay if not part else delay + part * (before[0] - delay)
        before = (delay, made)
    return math.nan


# --- the strategies


class Strategy(Protocol):
    def next_check(self, key: Key, order_id: str, age: float) -> float:
        """The age at which to ask next."""

    def told(self, key: Key, before: float, age: float, now: float, *, ended: bool) -> None:
        """What an answer said."""

    def key(self, key: Key, before: float, due: float, now: float) -> float:
        """The place among due orders, the least first."""


class Backoff:
    def next_check(self, key: Key, order_id: str, age: float) -> float:
        return SCHEDULE.following(order_id, age + 1e-3)

    def told(self, key: Key, before: float, age: float, now: float, *, ended: bool) -> None:
        pass

    def key(self, key: Key, before: float, due: float, now: float) -> float:
        return now


class Fixed(Backoff):
    def next_check(self, key: Key, order_id: str, age: float) -> float:
        return age + 60


@dataclass
class Learned:
    timing: Timing = field(default_factory=lambda: Timing(SCHEDULE, TERMS))
    looked: float = 0.0

    def next_check(self, key: Key, order_id: str, age: float) -> float:
        return self.timing.next_check(key, order_id, age)

    def told(self, key: Key, before: float, age: float, now: float, *, ended: bool) -> None:
        if ended:
            self.timing.ended(key, before, age, EPOCH + now)
        else:
            self.timing.waiting(key, before, age, EPOCH + now)
        if looks := int((now - self.looked) / LOOK):
            self.timing.refresh(looks)
            self.looked = now

    def key(self, key: Key, before: float, due: float, now: float) -> float:
        return precedence(now, self.timing.chance(key, before, due), SCHEDULE.cap)


@dataclass
class Metered:
    """A strategy, with the time of each call of an account noted."""

    strategy: Strategy
    made: dict[str, list[float]] = field(default_factory=dict)

    def next_check(self, key: Key, order_id: str, age: float) -> float:
        return self.strategy.next_check(key, order_id, age)

    def told(self, key: Key, before: float, age: float, now: float, *, ended: bool) -> None:
        self.made.setdefault(key[0], []).append(now)
        self.strategy.told(key, before, age, now, ended=ended)

    def key(self, key: Key, before: float, due: float, now: float) -> float:
        return self.strategy.key(key, before, due, now)

    def rate(self, name: str, since: float, until: float) -> float:
        made = self.made[name]
        return (bisect_right(made, until) - bisect_right(made, since)) / (until - since)


# --- the simulation


@dataclass
class Placed:
    at: float
    key: Key
    lasts: float
    delay: float = 0.0
    calls: int = 0


def simulate(orders: Sequence[Placed], strategy: Strategy, ceiling: float = math.inf) -> None:
    """Let every order be asked about until its end is found, each account at most ``ceiling`` times a second."""
    due: list[tuple[float, int, float]] = []
    arriving = iter(sorted(range(len(orders)), key=lambda i: orders[i].at))
    coming = next(arriving, None)
    ready: dict[str, list[tuple[float, int, float]]] = {}
    free: dict[str, float] = {}
    wake: list[tuple[float, str]] = []
    while due or wake or coming is not None:
        first = min(due[0][0] if due else math.inf, wake[0][0] if wake else math.inf)
        if coming is not None and orders[coming].at <= first:
            order = orders[coming]
            heapq.heappush(due, (order.at + strategy.next_check(order.key, str(coming), 0.0), coming, 0.0))
            coming = next(arriving, None)
            continue
        if wake and wake[0][0] <= (due[0][0] if due else math.inf):
            now, account = heapq.heappop(wake)
            _, i, before = heapq.heappop(ready[account])
        else:
            now, i, before = heapq.heappop(due)
            account = orders[i].key[0]
            if free.get(account, 0.0) > now:
                place = strategy.key(orders[i].key, before, now - orders[i].at, now)
                heapq.heappush(ready.setdefault(account, []), (place, i, before))
                heapq.heappush(wake, (free[account], account))
                free[account] += 1 / ceiling
                continue
            free[account] = now + 1 / ceiling
        ask(orders[i], i, before, now, strategy, due)


def ask(
    order: Placed, i: int, before: float, now: float, strategy: Strategy, due: list[tuple[float, int, float]]
) -> None:
    age = now - order.at
    order.calls += 1
    ended = age >= order.lasts
    strategy.told(order.key, before, age, now, ended=ended)
    if ended:
        order.delay = age - order.lasts
    else:
        heapq.heappush(due, (max(now, order.at + strategy.next_check(order.key, str(i), age)), i, age))


def stream(seed: int, key: Key, draw: Draw, every: float, start: float, end: float) -> Iterator[Placed]:
    r = random.Random(f"{seed}/{key}")
    at = start + r.expovariate(1 / every)
    while at < end:
        yield Placed(at, key, bounded(draw(r)))
        at += r.expovariate(1 / every)


def again(orders: Sequence[Placed]) -> list[Placed]:
    return [Placed(order.at, order.key, order.lasts) for order in orders]


def delay(orders: Sequence[Placed]) -> float:
    return math.fsum(order.delay for order in orders) / len(orders)


def calls(orders: Sequence[Placed]) -> float:
    return sum(order.calls for order in orders) / len(orders)


def judged(orders: Sequence[Placed], strategy: Strategy, since: float = 0.0, ceiling: float = math.inf) -> list[Placed]:
    """Return the orders placed since then, as the strategy left them."""
    done = again(orders)
    simulate(done, strategy, ceiling)
    return [order for order in done if order.at >= since]


# --- the tables


def row(*cells: object) -> None:
    print(
        "| "
        + " | ".join(
            f"{c:.2f}" if isinstance(c, float) and c < 20 else f"{c:.0f}" if isinstance(c, float) else str(c)
            for c in cells
        )
        + " |"
    )


def stationary() -> None:
    trained, tested = 500, 2_000 if QUICK else 20_000
    print(f"\n### One product at a time: {trained} orders seen, then {tested}\n")
    row(
        "case",
        "backoff s",
        "calls",
        "every 60 s",
        "calls ratio",
        "optimum s",
        "learned s, next 2,000",
        "learned s, all",
        "calls ratio",
        "learned / optimum, next 2,000",
        "all",
        "learned / backoff",
    )
    row(*["---"] * 12)
    key = ("shop", "product")
    for name, draw in CASES.items():
        orders = list(stream(1, key, draw, 20.0, 0.0, 20.0 * (trained + tested)))
        since = orders[trained].at
        plain = judged(orders, Backoff(), since)
        fixed = judged(orders, Fixed(), since)
        learned = judged(orders, Learned(), since)
        least = optimum([(1.0, [order.lasts for order in plain])], calls(plain))
        early, all_of_it = delay(learned[:2000]), delay(learned)
        row(
            name,
            delay(plain),
            calls(plain),
            delay(fixed),
            calls(fixed) / calls(plain),
            least,
            early,
            all_of_it,
            calls(learned) / calls(plain),
            early / least,
            all_of_it / least,
            all_of_it / delay(plain),
        )
        sys.stdout.flush()


def changing() -> None:
    every = 80.0 if QUICK else 20.0
    print("\n### A product that changes at noon, after a day as it was\n")
    row("case", "backoff s", "learned s", "calls ratio", "learned / backoff, whole day", "after noon")
    row(*["---"] * 6)
    key = ("shop", "product")
    at_once, hour = (lambda r: r.gauss(30, 4)), (lambda r: r.gauss(3600, 60))
    turns: dict[str, tuple[Draw, Draw]] = {
        "drift: 4 min to 45 min": (log_normal(240, 1.0), log_normal(2700, 0.5)),
        "drift: 45 min to 4 min": (log_normal(2700, 0.5), log_normal(240, 1.0)),
        "adversary: 30 s to 1 h": (at_once, hour),
        "adversary: 1 h to 30 s": (hour, at_once),
        "adversary: turns every 2 h": (at_once, hour),
    }
    for name, (first, second) in turns.items():
        if "every" in name:
            parts = [
                stream(k, key, (first, second)[k % 2], every, DAY + k * 7200.0, DAY + (k + 1) * 7200.0)
                for k in range(12)
            ]
        else:
            parts = [stream(1, key, first, every, DAY, 1.5 * DAY), stream(2, key, second, every, 1.5 * DAY, 2 * DAY)]
        orders = list(itertools.chain(stream(0, key, first, every, 0.0, DAY), *parts))
        plain, learned = judged(orders, Backoff(), DAY), judged(orders, Learned(), DAY)
        late = [k for k, order in enumerate(plain) if order.at >= 1.5 * DAY]
        row(
            name,
            delay(plain),
            delay(learned),
            calls(learned) / calls(plain),
            delay(learned) / delay(plain),
            delay([learned[k] for k in late]) / delay([plain[k] for k in late]),
        )
        sys.stdout.flush()


def products() -> list[tuple[Key, float, Draw]]:
    """Return 40 packages of 3 accounts with their shares of the orders (Zipf's) and their ways of ending, each at its own speed."""
    r = random.Random(5)
    draws = list(CASES.values())
    shares = [1 / (k + 1) for k in range(40)]
    r.shuffle(shares)
    found: list[tuple[Key, float, Draw]] = []
    for k, share in enumerate(shares):
        draw, speed = draws[k % len(draws)], math.exp(r.uniform(-0.7, 0.7))
        found.append(((f"account {k % 3}", f"package {k}"), share / math.fsum(shares), sped(draw, speed)))
    return found


def sped(draw: Draw, speed: float) -> Draw:
    return lambda r: speed * draw(r)


def mixed() -> None:
    print(f"\n### A mixed day: 3 accounts of {CEILING:g} calls/s, 40 packages\n")
    row(
        "backoff's load",
        "day",
        "orders",
        "backoff s",
        "optimum s",
        "learned s",
        "calls ratio",
        "learned / backoff",
        "learned / optimum",
    )
    row(*["---"] * 9)
    length = DAY / 4 if QUICK else DAY
    for load in (0.01, 0.1) if QUICK else (0.01, 0.1, 1.0):
        kinds = products()
        orders = day_of(load, length)
        plain = judged(orders, Backoff(), 0.0, CEILING)
        learned = judged(orders, Learned(), 0.0, CEILING)
        for day, start in (("first, nothing known", 0.0), ("second", length)):
            ours = [k for k, order in enumerate(plain) if start <= order.at < start + length]
            before, after = [plain[k] for k in ours], [learned[k] for k in ours]
            r = random.Random(9)
            samples = [(share, [bounded(draw(r)) for _ in range(2000)]) for _, share, draw in kinds]
            least = optimum(samples, calls(before)) if load < 1 else math.nan
            row(
                f"{load:.0%}",
                day,
                len(ours),
                delay(before),
                least,
                delay(after),
                calls(after) / calls(before),
                delay(after) / delay(before),
                delay(after) / least,
            )
            sys.stdout.flush()


def budget() -> None:
    """What a number of calls a second brings: on the mixed day, and at half a ceiling with 200 orders open.

    "Cap alone" is the calls a second without which some order would not be asked within the cap: no budget goes below it.
    """
    length = DAY / 4 if QUICK else DAY
    print(f"\n### A budget in calls/s an account: a mixed day at 10 % of 3 x {CEILING:g} calls/s\n")
    row("budget", "account", "cap alone", "backoff", "learned", "backoff s", "learned s", "ratio", "most above, calls")
    row(*["---"] * 9)
    orders = day_of(0.1, length / 2)
    backoff = Metered(Backoff())
    plain = judged(orders, backoff, 0.0, CEILING)
    for allowed in (0.1, 0.2, 0.4):
        learned = Metered(Learned(Timing(SCHEDULE, Terms(budget=allowed, ceiling=CEILING))))
        done = judged(orders, learned, 0.0, CEILING)
        for name in sorted(learned.made):
            before, after = ([order for order in ended if order.key[0] == name] for ended in (plain, done))
            row(
                allowed,
                name,
                f"{sum(math.ceil(order.lasts / SCHEDULE.cap) for order in before) / length:.3f}",
                f"{backoff.rate(name, 0.0, length):.3f}",
                f"{learned.rate(name, 0.0, length):.3f}",
                delay(before),
                delay(after),
                delay(after) / delay(before),
                above(learned.made[name], allowed),
            )
        sys.stdout.flush()
    half_the_ceiling(length / 4)


def day_of(load: float, length: float) -> list[Placed]:
    """Return two days' orders of the mixed packages, at a load of backoff's that is a part of the ceilings."""
    rate = load * 3 * CEILING / 5.2
    kinds = products()
    found = [o for key, share, draw in kinds for o in stream(7, key, draw, 1 / (rate * share), 0.0, 2 * length)]
    return sorted(found, key=lambda order: order.at)


def above(made: Sequence[float], allowed: float) -> float:
    """Return by how many calls a stretch of time held more than ``allowed`` a second, at the most."""
    level = most = 0.0
    for before, now in itertools.pairwise([0.0, *made]):
        level = max(0.0, level - allowed * (now - before)) + 1
        most = max(most, level)
    return most


def half_the_ceiling(length: float) -> None:
    ceiling, wanted = 10.0, 200
    print(f"\n### Half the ceiling of {ceiling:g} calls/s for one account of {wanted} open orders\n")
    row("strategy", "open", "calls/s", "mean s", "p50 s", "p95 s")
    row(*["---"] * 6)
    kinds = products()
    r = random.Random(9)
    lasting = math.fsum(share * math.fsum(bounded(draw(r)) for _ in range(2000)) / 2000 for _, share, draw in kinds)
    rate = wanted / lasting
    streams = [stream(7, ("shop", key[1]), draw, 1 / (rate * share), 0.0, 2 * length) for key, share, draw in kinds]
    orders = sorted(itertools.chain(*streams), key=lambda order: order.at)
    half = Learned(Timing(SCHEDULE, Terms(budget=ceiling / 2, ceiling=ceiling)))
    for name, strategy in (("backoff", Backoff()), ("learned, equal calls", Learned()), ("learned, 5 calls/s", half)):
        metered = Metered(strategy)
        done = judged(orders, metered, length, ceiling)
        found = sorted(order.delay for order in done)
        row(
            name,
            math.fsum(order.lasts + order.delay for order in done) / length,
            metered.rate("shop", length, 2 * length),
            delay(done),
            found[len(found) // 2],
            found[len(found) * 95 // 100],
        )
        sys.stdout.flush()


def planning() -> None:
    """How long one decision takes, and what it costs to make a table."""
    orders = list(stream(3, ("shop", "product"), log_normal(240, 1.0), 20.0, 0.0, 20_000.0))
    learned = Learned()
    simulate(orders, learned)
    ages = [bounded(k * 7.3 % 1500) for k in range(20_000)]
    print("\n### What it costs\n")
    row("step", "µs of CPU")
    row("---", "---")
    for name, strategy in (("plan one next check: learned", learned), ("plan one next check: backoff", Backoff())):
        start = time.process_time()
        for k, age in enumerate(ages):
            strategy.next_check(("shop", "product"), str(k), age)
        row(name, (time.process_time() - start) / len(ages) * 1e6)
    start = time.process_time()
    for k, age in enumerate(ages):
        learned.timing.waiting(("shop", "product"), age / 2, age, EPOCH + k)
    row("learn from one answer: waits", (time.process_time() - start) / len(ages) * 1e6)
    table = learned.timing
    costs = []
    for k in range(10):
        for j in range(200):
            table.ended(("shop", "product"), 100.0 + j, 130.0 + j + k, EPOCH + 20_000.0 + k)
        start = time.process_time()
        table.refresh()
        costs.append(time.process_time() - start)
    row("make a product's table anew", sorted(costs)[5] * 1e6)


if __name__ == "__main__":
    sections = {"stationary": stationary, "changing": changing, "mixed": mixed, "budget": budget, "planning": planning}
    for wanted in [name for name in sections if name in sys.argv] or sections:
        sections[wanted]()
