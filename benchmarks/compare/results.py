"""Results, and the arithmetic on them: medians over rounds, percentiles, and ratios to
order-monitor. Pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

from benchmarks.batches import ONE, PLAN, Found
from benchmarks.compare.day import Day
from benchmarks.compare.delay import Delay
from benchmarks.compare.discovery import Discovery
from benchmarks.compare.memory import Memory
from benchmarks.compare.shop_writes import ShopWrites
from benchmarks.compare.speed import Speed

OURS: Final = "order-monitor"
NEAR: Final = 0.95
"""From this share of another's result on, ours counts as no worse: runs vary by that much."""

Row = TypeVar("Row", Speed, Memory)


@dataclass(slots=True)
class Results:
    """All results of one comparison."""

    about: dict[str, str]
    versions: dict[str, str]
    contestants: dict[str, str]
    left_out: list[str] = field(default_factory=list)
    speed: list[Speed] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    delay: list[Delay] = field(default_factory=list)
    shop: list[ShopWrites] = field(default_factory=list)
    discovery: list[Discovery] = field(default_factory=list)
    day: list[Day] = field(default_factory=list)
    batches: list[Found] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Compared:
    """How order-monitor compares with another: ``share`` is 1 where they are equal, below 1 where
    order-monitor is worse.
    """

    contestant: str
    what: str
    share: float


def median_of(rows: Sequence[Row]) -> Row:
    """Return the median of several rounds of one measurement, field by field."""
    first = rows[0]
    values = {one.name: [getattr(row, one.name) for row in rows] for one in fields(first)}
    return type(first)(**{name: _median(found) for name, found in values.items()})


def _median(found: list[Any]) -> Any:  # noqa: ANN401 - of a row's field, which may be a name
    return found[0] if isinstance(found[0], str) else statistics.median(found)


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], Row]:
    """Return the medians of the rows that agree in ``keys``, in order of first appearance."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(getattr(row, key) for key in keys), []).append(row)
    return {key: median_of(same) for key, same in found.items()}


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least ``part`` (0 to 1) of all values do not exceed.

    NaN for an empty list.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else math.nan


def ratio(value: float, other: float) -> float:
    """Return how many times ``other`` a value is; NaN where that is undefined."""
    return value / other if other > 0 else math.nan


def shares(results: Results, whole: Mapping[str, bool]) -> list[Compared]:
    """Return how order-monitor compares with each contestant that does the whole job."""
    found = [
        *_speed_shares(results),
        *_memory_shares(results),
        *_delay_shares(results),
        *_shop_shares(results),
    ]
    found += _discovery_shares(results)
    others = [one for one in found if whole.get(one.contestant) and one.contestant != OURS]
    return [one for one in [*others, *_batches_shares(results)] if not math.isnan(one.share)]


def worse(compared: Iterable[Compared]) -> list[Compared]:
    """Return where order-monitor is worse, the worst first."""
    return sorted((one for one in compared if one.share < NEAR), key=lambda one: one.share)


def cell_of(row: Speed) -> str:
    """Return a cell in words."""
    return f"{1000 * row.latency:.0f} ms latency, {row.in_flight:.0f} in flight"


def cost_of(row: Speed) -> float:
    """Return the CPU seconds of a check, including broker and database."""
    return row.own + row.broker + row.database


def _speed_shares(results: Results) -> list[Compared]:
    rows = grouped(results.speed, "latency", "in_flight", "contestant")
    found = []
    for (latency, in_flight, name), row in rows.items():
        ours = rows.get((latency, in_flight, OURS))
        if ours is not None:
            cell = cell_of(row)
            found.append(
                Compared(name, f"checks a second ({cell})", ratio(ours.per_second, row.per_second))
            )
            found.append(Compared(name, f"CPU a check, own ({cell})", ratio(row.own, ours.own)))
            found.append(
                Compared(
                    name, f"CPU a check, all processes ({cell})", ratio(cost_of(row), cost_of(ours))
                )
            )
            found.append(
                Compared(
                    name, f"statements a check ({cell})", ratio(row.statements, ours.statements)
                )
            )
    return found


def _memory_shares(results: Results) -> list[Compared]:
    rows = grouped(results.memory, "orders", "contestant")
    found = []
    for (orders, name), row in rows.items():
        ours = rows.get((orders, OURS))
        if ours is not None:
            both = (max(0, row.own + row.broker), ours.own + ours.broker)
            found.append(
                Compared(
                    name,
                    f"memory of {orders:,} open orders, in its processes and its broker",
                    ratio(*both),
                )
            )
    return found


def _delay_shares(results: Results) -> list[Compared]:
    rows = {row.contestant: row for row in results.delay}
    ours = rows.get(OURS)
    found = []
    for name, row in rows.items():
        if ours is None:
            break
        for part in (0.5, 0.95, 0.99):
            pairs = {
                "decided": (row.from_decided, ours.from_decided),
                "told": (row.from_told, ours.from_told),
            }
            for what, (theirs, our) in pairs.items():
                share = ratio(percentile(theirs, part), percentile(our, part))
                found.append(
                    Compared(name, f"delay from {what} to written, p{100 * part:.0f}", share)
                )
    return found


def _discovery_shares(results: Results) -> list[Compared]:
    """A scan, which finds what is new, compared with each way to find the next orders to ask
    about.
    """
    ours: dict[int, float] = {}
    for row in results.discovery:
        if row.contestant == OURS:
            ours.setdefault(row.rows, row.median)
    return [
        Compared(
            row.contestant,
            f"a scan among {row.rows:,} rows that ended ({row.way})",
            ratio(row.median, ours[row.rows]),
        )
        for row in results.discovery
        if row.rows in ours
    ]


def _batches_shares(results: Results) -> list[Compared]:
    """The same provider, one order a call: order-monitor's choice of orders, compared with the
    plan's queue.
    """
    plans = {row.open_orders: row for row in results.batches if row.who == PLAN}
    found = []
    for ours in [row for row in results.batches if row.who == ONE]:
        where = f"{ours.open_orders:,} open orders, one order a call, one call a second"
        if (plan := plans.get(ours.open_orders)) is not None:
            found.append(Compared(plan.who, f"ends found ({where})", ratio(ours.found, plan.found)))
            found.append(
                Compared(
                    plan.who,
                    f"delay from decided to written, p50 ({where})",
                    ratio(plan.p50, ours.p50),
                )
            )
    return found


def _shop_shares(results: Results) -> list[Compared]:
    kept = {row.contestant: row.beside for row in results.shop}
    apart = {row.contestant: row.apart for row in results.shop if row.apart is not None}
    tables = {row.contestant: row.tables for row in results.shop}
    return [
        Compared(name, what, ratio(share[OURS], theirs))
        for what, share in (
            ("the shop's own writes meanwhile", kept),
            ("the shop's own writes meanwhile, the database on cores of its own", apart),
            ("the shop's own writes on its tables", tables),
        )
        for name, theirs in share.items()
        if OURS in share
    ]
