"""The gain of learned timing at the same number of calls as backoff, on orders it has not seen.

``python benchmarks/timing.py [--quick]``, or one section: ``stationary``, ``changing``, ``mixed``,
``budget``, ``planning``, ``heldout``.

Everything is simulated in virtual time with fixed seeds; only the cost of planning is measured with
a real clock. Delay is the time from an order's end to the answer that reports it. The optimum knows
the true distribution: dynamic programming on its own grid, twice as fine as the program's, at
exactly the same number of calls (between two of its plans, each gets a share of the orders).
"""

from __future__ import annotations

import gc
import heapq
import itertools
import math
import random
import resource
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist, fmean, median, stdev
from typing import Protocol

from order_monitor.core.schedule import Schedule
from order_monitor.timing.advice import Past, advise
from order_monitor.timing.memory import Key
from order_monitor.timing.plan import precedence, slot_before
from order_monitor.timing.planner import Terms, Timing

QUICK = "--quick" in sys.argv
SCHEDULE = Schedule()
TERMS = Terms()
EPOCH = 1_790_000_000.0
DAY = 86_400.0
CEILING = 2.0
LOOK = 2.0
"""Seconds between two tables that the daemon rebuilds."""

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

SAME = 1e-3
"""Numbers of calls that differ by no more than this part are the same."""

GRID = [
    300 * math.expm1(k * 0.0025) for k in range(math.ceil(math.log1p(86_400 / 300) / 0.0025) + 1)
]


@dataclass(frozen=True)
class Distribution:
    """The share of the orders that have ended by each edge of `GRID`, and the mean of the end's age
    counted only up to that edge (seconds).
    """

    done: Sequence[float]
    mean: Sequence[float]

    @classmethod
    def of(cls, durations: Sequence[float]) -> Distribution:
        """Return the distribution of these very durations."""
        ordered = sorted(durations)
        sums = [0.0, *itertools.accumulate(ordered)]
        counts = [bisect_right(ordered, at) for at in GRID]
        n = len(ordered)
        return cls([c / n for c in counts], [sums[c] / n for c in counts])

    @classmethod
    def given(cls, by: Callable[[float], float]) -> Distribution:
        """Return the distribution with the function ``by``, cut off as `bounded` does."""
        done = [
            0.0 if at < 1 else 1.0 if at >= SCHEDULE.give_up_after - 1 else by(at) for at in GRID
        ]
        waited = [0.0]
        for k, (a, b) in enumerate(itertools.pairwise(GRID)):
            waited.append(waited[-1] + (b - a) * (done[k] + done[k + 1]) / 2)
        return cls(done, [at * d - w for at, d, w in zip(GRID, done, waited, strict=True)])


def best_plan(law: Distribution, price: float) -> tuple[float, float, list[int]]:
    """Return (delay, calls) an order of the best plan at ``price``, and the edge of the check that
    follows each edge.
    """
    done, mean, end = law.done, law.mean, len(GRID) - 1
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
    return cost - price * calls[0], calls[0], best


def optimum(products: Sequence[tuple[float, Sequence[float]]], calls: float) -> float:
    """Return the smallest possible delay an order at ``calls`` an order, over products given with
    their share of the orders.
    """
    laws = [(share, Distribution.of(durations)) for share, durations in products]

    def made(price: float) -> tuple[float, float]:
        plans = [(share, best_plan(law, price)) for share, law in laws]
        return (
            math.fsum(share * plan[0] for share, plan in plans),
            math.fsum(share * plan[1] for share, plan in plans),
        )

    return at_calls(made, calls)


def optimum_by_law(
    products: Sequence[tuple[Callable[[float], float], Sequence[float]]], calls: float
) -> float:
    """Return the delay an order at ``calls`` an order of the best plans for products given by their
    distribution function and the durations of their orders.
    """
    laws = [(Distribution.given(by), durations) for by, durations in products if durations]
    number = sum(len(durations) for _, durations in laws)

    def made(price: float) -> tuple[float, float]:
        late, asked = 0.0, 0
        for law, durations in laws:
            best, ages, k = best_plan(law, price)[2], [], 0
            while k < len(GRID) - 1:
                k = best[k]
                ages.append(GRID[k])
            found = [bisect_left(ages, lasts) for lasts in durations]
            late += math.fsum(ages[n] - lasts for n, lasts in zip(found, durations, strict=True))
            asked += sum(n + 1 for n in found)
        return late / number, asked / number

    return at_calls(made, calls)


def at_calls(made: Callable[[float], tuple[float, float]], calls: float) -> float:
    """Return the delay at ``calls`` an order, where ``made`` returns (delay, calls) at a price: between
    two prices each gets a share of the orders.
    """
    before = (math.nan, math.inf)
    for price in (0.25 * 1.4**k for k in range(28)):
        delay, wanted = made(price)
        if wanted <= calls * (1 + SAME):
            apart = before[1] - wanted
            part = 0.0 if math.isinf(apart) else max(0.0, calls - wanted) / apart
            return delay if not part else delay + part * (before[0] - delay)
        before = (delay, wanted)
    return math.nan


# --- the strategies


class Strategy(Protocol):
    def next_check(
        self, key: Key, order_id: str, age: float, sent_at: float | None = None
    ) -> float:
        """Return the age of the next check of an order that was sent at ``sent_at`` (epoch
        seconds).
        """

    def found(self, order_id: str, age: float, due: float) -> None:
        """Learn that an order was found late, at an age."""

    def told(
        self, order_id: str, key: Key, before: float, age: float, now: float, *, ended: bool
    ) -> None:
        """Learn from an answer."""

    def key(self, key: Key, before: float, due: float, now: float) -> float:
        """Return the sort key among due orders; the smallest goes first."""

    def surprised(self) -> Iterable[Key]:
        """Return, once, the products whose waiting orders are to be planned again."""


class Backoff:
    def next_check(
        self, key: Key, order_id: str, age: float, sent_at: float | None = None
    ) -> float:
        return SCHEDULE.following(order_id, age + 1e-3)

    def found(self, order_id: str, age: float, due: float) -> None:
        pass

    def told(
        self, order_id: str, key: Key, before: float, age: float, now: float, *, ended: bool
    ) -> None:
        pass

    def key(self, key: Key, before: float, due: float, now: float) -> float:
        return now

    def surprised(self) -> Iterable[Key]:
        return ()


class Fixed(Backoff):
    def next_check(
        self, key: Key, order_id: str, age: float, sent_at: float | None = None
    ) -> float:
        return age + 60


@dataclass
class Learned:
    timing: Timing = field(default_factory=lambda: Timing(SCHEDULE, TERMS))
    looked: float = 0.0

    def next_check(
        self, key: Key, order_id: str, age: float, sent_at: float | None = None
    ) -> float:
        return self.timing.next_check(key, order_id, age, sent_at)

    def found(self, order_id: str, age: float, due: float) -> None:
        self.timing.found(order_id, 0.0, age, due)

    def told(
        self, order_id: str, key: Key, before: float, age: float, now: float, *, ended: bool
    ) -> None:
        found = self.timing.found_late(order_id)
        if ended:
            self.timing.ended(key, before, age, EPOCH + now, found)
        else:
            self.timing.waiting(key, before, age, EPOCH + now, found)
        if looks := int((now - self.looked) / LOOK):
            self.timing.refresh(looks)
            self.looked = now

    def key(self, key: Key, before: float, due: float, now: float) -> float:
        return precedence(now, self.timing.chance(key, before, due), SCHEDULE.cap)

    def surprised(self) -> Iterable[Key]:
        return self.timing.surprised()


@dataclass
class Metered:
    """A strategy that records the time of each call of an account."""

    strategy: Strategy
    made: dict[str, list[float]] = field(default_factory=dict)

    def next_check(
        self, key: Key, order_id: str, age: float, sent_at: float | None = None
    ) -> float:
        return self.strategy.next_check(key, order_id, age, sent_at)

    def found(self, order_id: str, age: float, due: float) -> None:
        self.strategy.found(order_id, age, due)

    def told(
        self, order_id: str, key: Key, before: float, age: float, now: float, *, ended: bool
    ) -> None:
        self.made.setdefault(key[0], []).append(now)
        self.strategy.told(order_id, key, before, age, now, ended=ended)

    def key(self, key: Key, before: float, due: float, now: float) -> float:
        return self.strategy.key(key, before, due, now)

    def surprised(self) -> Iterable[Key]:
        return self.strategy.surprised()

    def rate(self, name: str, since: float, until: float) -> float:
        made = self.made[name]
        return (bisect_right(made, until) - bisect_right(made, since)) / (until - since)


# --- the simulation


@dataclass
class Placed:
    at: float
    key: Key
    lasts: float
    found: float = 0.0
    """Seconds from sending until its row exists."""

    delay: float = 0.0
    calls: int = 0


@dataclass
class Timers:
    """The orders that wait, by product, each with its time and the age at which it was last asked.

    An order that was planned again has an older time in the heap, which counts no more.
    """

    heap: list[tuple[float, int, float]] = field(default_factory=list)
    waiting: dict[Key, dict[int, tuple[float, float]]] = field(default_factory=dict)

    def add(self, key: Key, at: float, i: int, before: float) -> None:
        heapq.heappush(self.heap, (at, i, before))
        self.waiting.setdefault(key, {})[i] = at, before

    def first(self, orders: Sequence[Placed]) -> float:
        while self.heap:
            at, i, before = self.heap[0]
            if self.waiting[orders[i].key].get(i) == (at, before):
                return at
            heapq.heappop(self.heap)
        return math.inf

    def pop(self, orders: Sequence[Placed]) -> tuple[float, int, float]:
        at, i, before = heapq.heappop(self.heap)
        del self.waiting[orders[i].key][i]
        return at, i, before

    def plan_again(self, orders: Sequence[Placed], strategy: Strategy, now: float) -> None:
        for key in strategy.surprised():
            for i, (at, before) in list(self.waiting.get(key, {}).items()):
                age = strategy.next_check(key, str(i), before, EPOCH + orders[i].at)
                again = max(now, orders[i].at + age)
                if again < at:
                    self.add(key, again, i, before)


def simulate(orders: Sequence[Placed], strategy: Strategy, ceiling: float = math.inf) -> None:
    """Check every order until its end is found, each account at most ``ceiling`` times a second."""
    due = Timers()
    arriving = iter(sorted(range(len(orders)), key=lambda i: orders[i].at + orders[i].found))
    coming = next(arriving, None)
    ready: dict[str, list[tuple[float, int, float]]] = {}
    free: dict[str, float] = {}
    wake: list[tuple[float, str]] = []
    while True:
        first_due = due.first(orders)
        first = min(first_due, wake[0][0] if wake else math.inf)
        if coming is not None and orders[coming].at + orders[coming].found <= first:
            order = orders[coming]
            age = strategy.next_check(order.key, str(coming), 0.0, EPOCH + order.at)
            strategy.found(str(coming), order.found, age)
            due.add(order.key, order.at + max(age, order.found), coming, 0.0)
            coming = next(arriving, None)
            continue
        if math.isinf(first):
            return
        if wake and wake[0][0] <= first_due:
            now, account = heapq.heappop(wake)
            _, i, before = heapq.heappop(ready[account])
        else:
            now, i, before = due.pop(orders)
            account = orders[i].key[0]
            if free.get(account, 0.0) > now:
                place = strategy.key(orders[i].key, before, now - orders[i].at, now)
                heapq.heappush(ready.setdefault(account, []), (place, i, before))
                heapq.heappush(wake, (free[account], account))
                free[account] += 1 / ceiling
                continue
            free[account] = now + 1 / ceiling
        ask(orders[i], i, before, now, strategy, due)
        due.plan_again(orders, strategy, now)


def ask(order: Placed, i: int, before: float, now: float, strategy: Strategy, due: Timers) -> None:
    age = now - order.at
    order.calls += 1
    ended = age >= order.lasts
    strategy.told(str(i), order.key, before, age, now, ended=ended)
    if ended:
        order.delay = age - max(order.lasts, order.found)
    else:
        at = order.at + strategy.next_check(order.key, str(i), age, EPOCH + order.at)
        due.add(order.key, max(now, at), i, age)


def stream(
    seed: int, key: Key, draw: Draw, every: float, start: float, end: float
) -> Iterator[Placed]:
    r = random.Random(f"{seed}/{key}")
    at = start + r.expovariate(1 / every)
    while at < end:
        yield Placed(at, key, bounded(draw(r)))
        at += r.expovariate(1 / every)


def again(orders: Sequence[Placed]) -> list[Placed]:
    return [Placed(order.at, order.key, order.lasts, order.found) for order in orders]


def delay(orders: Sequence[Placed]) -> float:
    return math.fsum(order.delay for order in orders) / len(orders)


def calls(orders: Sequence[Placed]) -> float:
    return sum(order.calls for order in orders) / len(orders)


def judged(
    orders: Sequence[Placed], strategy: Strategy, since: float = 0.0, ceiling: float = math.inf
) -> list[Placed]:
    """Return the orders placed since then, after the simulation."""
    done = again(orders)
    simulate(done, strategy, ceiling)
    return [order for order in done if order.at >= since]


# --- the tables


def row(*cells: object) -> None:
    print(
        "| "
        + " | ".join(
            f"{c:.2f}"
            if isinstance(c, float) and c < 20
            else f"{c:.0f}"
            if isinstance(c, float)
            else str(c)
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
    row(
        "case",
        "backoff s",
        "learned s",
        "calls ratio",
        "learned / backoff, whole day",
        "after noon",
    )
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
                stream(
                    k, key, (first, second)[k % 2], every, DAY + k * 7200.0, DAY + (k + 1) * 7200.0
                )
                for k in range(12)
            ]
        else:
            parts = [
                stream(1, key, first, every, DAY, 1.5 * DAY),
                stream(2, key, second, every, 1.5 * DAY, 2 * DAY),
            ]
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
    """Return 40 packages of 3 accounts with their shares of the orders (Zipf's) and their
    distributions, each at its own speed.
    """
    r = random.Random(5)
    draws = list(CASES.values())
    shares = [1 / (k + 1) for k in range(40)]
    r.shuffle(shares)
    found: list[tuple[Key, float, Draw]] = []
    for k, share in enumerate(shares):
        draw, speed = draws[k % len(draws)], math.exp(r.uniform(-0.7, 0.7))
        found.append(
            ((f"account {k % 3}", f"package {k}"), share / math.fsum(shares), sped(draw, speed))
        )
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
    """The effect of a budget of calls a second: on the mixed day, and at half a ceiling with 200
    orders open.

    "Cap alone" is the rate below which some order would wait longer than the cap: no budget goes
    below it.
    """
    length = DAY / 4 if QUICK else DAY
    print(f"\n### A budget in calls/s an account: a mixed day at 10 % of 3 x {CEILING:g} calls/s\n")
    row(
        "budget",
        "account",
        "cap alone",
        "backoff",
        "learned",
        "backoff s",
        "learned s",
        "ratio",
        "most above, calls",
    )
    row(*["---"] * 9)
    orders = day_of(0.1, length / 2)
    backoff = Metered(Backoff())
    plain = judged(orders, backoff, 0.0, CEILING)
    for allowed in (0.1, 0.2, 0.4):
        learned = Metered(Learned(Timing(SCHEDULE, Terms(budget=allowed, ceiling=CEILING))))
        done = judged(orders, learned, 0.0, CEILING)
        for name in sorted(learned.made):
            before, after = (
                [order for order in ended if order.key[0] == name] for ended in (plain, done)
            )
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
    """Return two days' orders of the mixed packages, at a load that is a share of the ceilings with
    backoff.
    """
    rate = load * 3 * CEILING / 5.2
    kinds = products()
    found = [
        o
        for key, share, draw in kinds
        for o in stream(7, key, draw, 1 / (rate * share), 0.0, 2 * length)
    ]
    return sorted(found, key=lambda order: order.at)


def above(made: Sequence[float], allowed: float) -> float:
    """Return the largest excess, in calls, of any period over ``allowed`` a second."""
    level = most = 0.0
    for before, now in itertools.pairwise([0.0, *made]):
        level = max(0.0, level - allowed * (now - before)) + 1
        most = max(most, level)
    return most


def half_the_ceiling(length: float) -> None:
    ceiling, wanted = 10.0, 200
    print(
        f"\n### Half the ceiling of {ceiling:g} calls/s for one account of {wanted} open orders\n"
    )
    row("strategy", "open", "calls/s", "mean s", "p50 s", "p95 s")
    row(*["---"] * 6)
    kinds = products()
    r = random.Random(9)
    lasting = math.fsum(
        share * math.fsum(bounded(draw(r)) for _ in range(2000)) / 2000 for _, share, draw in kinds
    )
    rate = wanted / lasting
    streams = [
        stream(7, ("shop", key[1]), draw, 1 / (rate * share), 0.0, 2 * length)
        for key, share, draw in kinds
    ]
    orders = sorted(itertools.chain(*streams), key=lambda order: order.at)
    half = Learned(Timing(SCHEDULE, Terms(budget=ceiling / 2, ceiling=ceiling)))
    for name, strategy in (
        ("backoff", Backoff()),
        ("learned, equal calls", Learned()),
        ("learned, 5 calls/s", half),
    ):
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
    """The time for one decision, and the cost of building a table."""
    orders = list(stream(3, ("shop", "product"), log_normal(240, 1.0), 20.0, 0.0, 20_000.0))
    learned = Learned()
    simulate(orders, learned)
    ages = [bounded(k * 7.3 % 1500) for k in range(20_000)]
    print("\n### What it costs\n")
    row("step", "µs of CPU")
    row("---", "---")
    for name, strategy in (
        ("plan one next check: learned", learned),
        ("plan one next check: backoff", Backoff()),
    ):
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
    row("rebuild a product's table", sorted(costs)[5] * 1e6)


def heldout() -> None:
    """The other guarantees, one line each: memory and time, calls, and inputs that must do no
    harm.
    """
    print("\n### Promises\n")
    row("what", "measured", "at most")
    row("---", "---", "---")
    size, longest_table, longest_end = kept_a_package(300 if QUICK else 1000)
    row("kB a package with 100 orders open, three times as many seen", size, "20")
    row("ms of CPU the longest step of making tables takes", longest_table, "10")
    row("ms of CPU the longest end takes", longest_end, "10")
    for name, ratio in found_late().items():
        row(f"calls learned / backoff, {name}", ratio, "1.03")

    for day, ratio in few_orders().items():
        row(f"delay learned / backoff, five orders a day, day {day}", ratio, "1.00")
    row("calls spent of a budget of 4 times backoff's", four_times(), "0.97 to 1.03")
    for name, (worst, hour, whole) in by_the_hour().items():
        row(f"delay learned / backoff, {name}, worst of its hours ({hour:+d})", worst, "1.30")
        row(f"calls learned / backoff, {name}", whole, "1.03")
    for name, ratios in against_the_optimum().items():
        noise = 2 * stdev(ratios) / math.sqrt(len(ratios))
        row(f"delay learned / optimum, {name}, median of the draws", median(ratios), "1.08")
        row(f"delay learned / optimum, {name}, mean", f"{fmean(ratios):.2f} ± {noise:.2f}", "")
        row(f"delay learned / optimum, {name}, worst of the draws", ratios[-1], "1.30")
    for name, value in by_the_clock().items():
        row(name, value, "")
    by_day = by_the_day()
    row("delay learned / optimum, day and night, third day, median", median(by_day), "1.30")
    row("delay learned / optimum, day and night, third day, worst", by_day[-1], "")
    row("ends known after a leap of 60 days, of 1,000", *after_a_leap())
    row("calls of advise's backoff with one sent_at of 1970", *advised())


def few_orders() -> dict[str, float]:
    """Return, by day, the delay of learned timing as a share of backoff's, pooled over draws of 200
    packages with five orders a day in all.
    """
    days, draws = 10, 4 if QUICK else 20
    sums: dict[str, list[float]] = {}
    for number in range(draws):
        r = random.Random(1000 + number)
        kinds = list(CASES.values())
        made = [sped(r.choice(kinds), math.exp(r.uniform(-0.7, 0.7))) for _ in range(200)]
        orders = []
        for n in range(5 * days):
            k = r.randrange(200)
            at = (n // 5 + r.random()) * DAY
            orders.append(Placed(at, ("shop", f"package {k}"), bounded(made[k](r))))
        orders.sort(key=lambda order: order.at)
        for plain, learned in zip(
            judged(orders, Backoff()), judged(orders, Learned()), strict=True
        ):
            day = "1" if plain.at < DAY else "6 and later" if plain.at >= 5 * DAY else "2 to 5"
            sums.setdefault(day, [0.0, 0.0])
            sums[day][0] += learned.delay
            sums[day][1] += plain.delay
    return {day: ours / theirs for day, (ours, theirs) in sorted(sums.items())}


HOUR = 3600.0
FIRST_SEED = 500
"""The draws of the families begin here; nothing was tuned on them."""


def by_the_hour(
    first_seed: int = FIRST_SEED, draws: int = 3 if QUICK else 12
) -> dict[str, tuple[float, int, float]]:
    """Return, for each kind of change, the delay of learned timing as a share of backoff's in the
    worst of its hours, pooled over the draws; which hour that is, counted from the change; and the
    share of backoff's calls in all hours.
    """
    kinds = (
        "an outage of 3 h",
        "an hour to a minute",
        "a minute to an hour",
        "turns every 3 h",
        "rare fast, then fast",
    )
    found = {}
    for kind in kinds:
        sums: dict[int, list[float]] = {}
        made = [0, 0]
        for seed in range(first_seed, first_seed + draws):
            orders, change = changing_at(kind, random.Random(f"{kind} {seed}"), seed)
            for plain, learned in zip(
                judged(orders, Backoff()), judged(orders, Learned()), strict=True
            ):
                hour = sums.setdefault(int((plain.at - change) // HOUR), [0.0, 0.0])
                hour[0] += learned.delay
                hour[1] += plain.delay
                made[0] += learned.calls
                made[1] += plain.calls
        worst, hour_of_it = max((ours / theirs, hour) for hour, (ours, theirs) in sums.items())
        found[kind] = worst, hour_of_it, made[0] / made[1]
    return found


def changing_at(kind: str, r: random.Random, seed: int) -> tuple[list[Placed], float]:
    """Return the orders of one drawn product that changes, and when it does."""
    key, every, change = ("shop", "product"), r.uniform(20, 60), 5 * HOUR
    if kind.startswith("an outage"):
        draw = log_normal(math.exp(r.uniform(math.log(60), math.log(900))), r.uniform(0.5, 1.1))
        up = change + 3 * HOUR
        orders = list(stream(seed, key, draw, every, 0.0, up + 3 * HOUR))
        for order in orders:
            if order.at < up and change < order.at + order.lasts < up:
                order.lasts = bounded(up - order.at)
        return orders, up
    slow, fast = near(r.gauss(3600, 300)), near(r.uniform(30, 90))
    if kind.startswith("turns"):
        parts = [
            stream(seed + k, key, (fast, slow)[k % 2], every, k * 3 * HOUR, (k + 1) * 3 * HOUR)
            for k in range(4)
        ]
        return list(itertools.chain(*parts)), 6 * HOUR
    first, second = (fast, slow) if kind.startswith("a minute") else (slow, fast)
    if kind.startswith("rare"):
        first = either(r.uniform(0.01, 0.04), fast, slow)
    before = stream(seed, key, first, every, 0.0, change)
    return [*before, *stream(-seed, key, second, every, change, change + 3 * HOUR)], change


@dataclass(frozen=True)
class Law:
    """A distribution of durations: how one is drawn, and the share that ends by an age."""

    draw: Draw
    by: Callable[[float], float]

    def __call__(self, r: random.Random) -> float:
        return self.draw(r)


def near(middle: float) -> Law:
    return normal(middle, 0.05 * middle)


def normal(middle: float, spread: float) -> Law:
    return Law(lambda r: r.gauss(middle, spread), NormalDist(middle, spread).cdf)


FAMILIES: dict[str, Callable[[random.Random], Law]] = {
    "log-normal": lambda r: logs(log_uniform(r, 60, 3600), r.uniform(0.3, 1.2)),
    "Weibull": lambda r: weibull(log_uniform(r, 60, 3600), r.uniform(0.7, 4)),
    "Pareto": lambda r: pareto(log_uniform(r, 20, 300), r.uniform(0.9, 2.5)),
    "two ways": lambda r: either(
        r.uniform(0.2, 0.8), near(log_uniform(r, 20, 200)), near(log_uniform(r, 600, 7200))
    ),
    "direct": lambda r: near(log_uniform(r, 70, 600)),
    "direct, 40 s": lambda _: normal(40, 3),
}


def log_uniform(r: random.Random, low: float, high: float) -> float:
    return math.exp(r.uniform(math.log(low), math.log(high)))


def logs(median: float, spread: float) -> Law:
    by = NormalDist(math.log(median), spread).cdf
    return Law(log_normal(median, spread), lambda age: by(math.log(age)))


def weibull(scale: float, shape: float) -> Law:
    return Law(
        lambda r: r.weibullvariate(scale, shape),
        lambda age: -math.expm1(-((age / scale) ** shape)),
    )


def pareto(least: float, tail: float) -> Law:
    return Law(
        lambda r: least * r.paretovariate(tail),
        lambda age: max(0.0, 1 - (least / age) ** tail),
    )


def either(part: float, one: Law, other: Law) -> Law:
    return Law(
        lambda r: one(r) if r.random() < part else other(r),
        lambda age: part * one.by(age) + (1 - part) * other.by(age),
    )


def against_the_optimum() -> dict[str, Sequence[float]]:
    """Return, for each family, learned / optimum at the same calls of each draw, ascending: 1,000
    orders seen, 1,500 judged.

    The optimum knows the law and not the durations that come.
    """
    seen, number, every, key = 1000, 2500, 30.0, ("shop", "product")
    found: dict[str, Sequence[float]] = {}
    for family, drawn in FAMILIES.items():
        ratios = []
        for seed in range(FIRST_SEED, FIRST_SEED + (3 if QUICK else 20)):
            law = drawn(random.Random(f"{family} {seed}"))
            orders = list(stream(seed, key, law, every, 0.0, every * number))
            learned = judged(orders, Learned(), every * seen)
            lasting = [order.lasts for order in learned]
            ratios.append(delay(learned) / optimum_by_law([(law.by, lasting)], calls(learned)))
        found[family] = sorted(ratios)
    return found


def by_the_clock() -> dict[str, float]:
    """Return the delay of learned timing where all orders end in a batch, as seconds and as a share
    of backoff's, from the twelfth hour on.
    """
    hours, since, key = 18, 12 * HOUR, ("shop", "product")
    kinds = {"each hour": (HOUR, 1.0), "each hour, within a minute": (HOUR, 20.0)}
    kinds["each 15 minutes"] = (HOUR / 4, 1.0)
    found = {}
    for name, (period, spread) in kinds.items():
        orders = list(stream(6, key, normal(60, spread), 30.0, 0.0, hours * HOUR))
        for order in orders:
            order.lasts += period - order.at % period
        learned, plain = judged(orders, Learned(), since), judged(orders, Backoff(), since)
        found[f"delay, batches {name}, s"] = delay(learned)
        found[f"delay learned / backoff, batches {name}"] = delay(learned) / delay(plain)
        found[f"calls learned / backoff, batches {name}"] = calls(learned) / calls(plain)
    return found


def by_the_day() -> list[float]:
    """Return learned / optimum at the same calls, on the third day, of products whose orders take
    longer when they are sent by night; the optimum knows both laws and the hours.
    """
    days, every, key = 3, 120.0, ("shop", "product")
    ratios = []
    for seed in range(FIRST_SEED, FIRST_SEED + (1 if QUICK else 5)):
        r = random.Random(f"day and night {seed}")
        dawn = r.uniform(6, 10) * HOUR
        dusk = dawn + r.uniform(8, 14) * HOUR
        laws = (
            logs(log_uniform(r, 1200, 5400), r.uniform(0.2, 0.6)),
            logs(log_uniform(r, 30, 300), r.uniform(0.3, 0.8)),
        )
        orders = list(stream(seed, key, lambda _: 1.0, every, 0.0, days * DAY))
        for order in orders:
            order.lasts = bounded(laws[dawn <= order.at % DAY < dusk](r))
        learned = judged(orders, Learned(), (days - 1) * DAY)
        lasting = [
            [order.lasts for order in learned if (dawn <= order.at % DAY < dusk) is by_day]
            for by_day in (False, True)
        ]
        products = [(law.by, those) for law, those in zip(laws, lasting, strict=True)]
        ratios.append(delay(learned) / optimum_by_law(products, calls(learned)))
    return sorted(ratios)


def four_times() -> float:
    """Return the share spent of a budget of four times backoff's calls."""
    number, every = 2500 if QUICK else 10_000, 20.0
    key = ("shop", "product")
    orders = list(stream(4, key, CASES["manual, median 45 min"], every, 0.0, every * number))
    half, end = every * number / 2, every * number
    backoff = Metered(Backoff())
    judged(orders, backoff)
    allowed = 4 * backoff.rate("shop", half, end)
    learned = Metered(Learned(Timing(SCHEDULE, Terms(budget=allowed))))
    judged(orders, learned)
    return learned.rate("shop", half, end) / allowed


def after_a_leap() -> tuple[float, str]:
    """Return how many ends are known after a clock jumped ahead and back, and how many should
    be.
    """
    timing = Timing(SCHEDULE, TERMS)
    for n in range(1000):
        timing.ended(("shop", "product"), 60.0, 90.0, EPOCH + n)
    for at in (EPOCH + 60 * DAY, EPOCH + 1000):
        timing.ended(("shop", "product"), 60.0, 90.0, at)
    return timing.orders()["shop"], "at least 900"


def advised() -> tuple[float, str]:
    """Return backoff's calls an order on a history with one order sent in 1970, and without it."""
    r, sound = random.Random(2), []
    for n in range(200):
        end, age = bounded(log_normal(240, 1.0)(r)), 0.0
        while age < end:
            age = SCHEDULE.following(str(n), age)
        before = slot_before(SCHEDULE, str(n), age)
        sound.append(Past(("shop", "product"), str(n), before, age, EPOCH + n))
    odd = Past(("shop", "product"), "odd", 0.0, EPOCH, EPOCH + 200)
    (with_it,), (without,) = advise([*sound, odd], SCHEDULE, TERMS), advise(sound, SCHEDULE, TERMS)
    return with_it.backoff.calls, f"{without.backoff.calls:.2f}"


def found_late() -> dict[str, float]:
    """Return calls as a multiple of backoff's where orders are found late: each 300 s after it was
    sent, or three hours' orders at once after a downtime.
    """
    key, every = ("shop", "product"), 30.0
    number = 1500 if QUICK else 5000
    orders = list(stream(4, key, CASES["log-normal, median 4 min"], every, 0.0, every * number))
    late = [Placed(order.at, key, order.lasts, 300.0) for order in orders]
    pause = [
        Placed(order.at, key, order.lasts, max(0.0, up - order.at))
        for order in orders
        for up in [(order.at // 21_600) * 21_600 + 10_800]
    ]
    return {
        name: calls(judged(those, Learned(), every * number / 2, CEILING))
        / calls(judged(those, Backoff(), every * number / 2, CEILING))
        for name, those in (("found after 300 s", late), ("a downtime of 3 h in every 6", pause))
    }


OPEN = 100
"""The orders of a package that wait, at as many ages."""


def kept_a_package(room: int) -> tuple[float, float, float]:
    """Return the process's growth in kB for each package that fits in memory, with many orders
    open, and the CPU milliseconds of the longest steps.
    """
    r = random.Random(11)
    timing = Timing(SCHEDULE, Terms(packages=room))
    gc.collect()
    before, longest = resident(), [0.0, 0.0]

    def timed(which: int, work: Callable[[], object]) -> object:
        start = time.process_time()
        result = work()
        longest[which] = max(longest[which], (time.process_time() - start) * 1e3)
        return result

    for n in range(3 * room):
        key, median = ("shop", f"package {n}"), 30 * math.exp(4 * r.random())
        for k in range(20):
            age = bounded(log_normal(median, 0.5)(r))
            at = EPOCH + 20 * n + k
            timed(1, lambda key=key, age=age, at=at: timing.ended(key, age * 0.8, age * 1.1, at))  # type: ignore[misc]
        for _ in range(OPEN):
            age = bounded(log_normal(5 * median, 1.5)(r))
            timing.waiting(key, 0.0, age, EPOCH + 20 * (n + 1))
        pieces = 200 if n >= 2 * room else 0
        while pieces and timed(0, timing.step):
            pieces -= 1
    timing.drain()
    gc.collect()
    return (resident() - before) / room, longest[0], longest[1]


def resident() -> float:
    """Return the process's resident size in kB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1000


if __name__ == "__main__":
    sections = {
        "stationary": stationary,
        "changing": changing,
        "mixed": mixed,
        "budget": budget,
        "planning": planning,
        "heldout": heldout,
    }
    for wanted in [name for name in sections if name in sys.argv] or sections:
        sections[wanted]()
