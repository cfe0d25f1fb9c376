"""The published table: Markdown from results. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.compare.results import (
    OURS,
    Compared,
    Results,
    cell_of,
    cost_of,
    grouped,
    percentile,
    ratio,
    shares,
    worse,
)

_MIB = 1024 * 1024


def markdown(results: Results, whole: Mapping[str, bool]) -> str:
    """Return the whole page; ``whole`` says which contestants do the whole job."""
    compared = shares(results, whole)
    parts = [
        "# order-monitor compared with other ways to do its job",
        "Only ratios mean anything on another machine. `to ours`: the figure as a multiple of order-monitor's in the same run.",
        _worse(compared),
        _speed(results, whole),
        _memory(results),
        _delay(results),
        _day(results),
        _shop(results),
        _discovery(results),
        _batches(results),
        _about(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def rows_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Return a number with three significant figures, – for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def times(value: float, ours: float) -> str:
    """Return how many times our value a value is."""
    share = ratio(value, ours)
    return "–" if math.isnan(share) else number(share)


def _worse(compared: Sequence[Compared]) -> str:
    found = worse(compared)
    lines = [f"- {one.what}: {number(one.share)} of {one.contestant}'s" for one in found]
    intro = "How good order-monitor's figure is, as a part of the other's (1 would be as good):"
    return "\n".join(
        [
            "## Where order-monitor is worse",
            "",
            intro if lines else "Nowhere in this run.",
            "",
            *lines,
        ]
    )


def _speed(results: Results, whole: Mapping[str, bool]) -> str:
    head = (
        "cell", "contestant", "checks/s", "to ours", "own CPU ms a check", "broker's", "database's", "all, to ours",
        "statements a 1,000", "rows written", "asked again too soon", "most at once", "provider busy",
    )  # fmt: skip
    rows = grouped(results.speed, "latency", "in_flight", "contestant")
    lines = []
    for (latency, in_flight, name), row in rows.items():
        ours = rows.get((latency, in_flight, OURS))
        per_second, cost = (ours.per_second, cost_of(ours)) if ours else (math.nan, math.nan)
        lines.append([
            cell_of(row), name, number(row.per_second), times(row.per_second, per_second),
            number(1000 * row.own), number(1000 * row.broker), number(1000 * row.database), times(cost_of(row), cost),
            number(row.statements), number(row.written), number(row.repeated) if whole.get(name) else "–",
            number(row.peak) if latency else "–", f"{row.provider_busy:.0%}",
        ])  # fmt: skip
    note = (
        "Due orders that stay open, of which nothing new is to be written. The limits do less: no database, no schedule. What a "
        "queue's jobs cost to enqueue is not counted. A provider that is busy all of the time would be the bottleneck."
    )
    return _part("Checks a second, and what a check costs", note, head, lines)


def _memory(results: Results) -> str:
    rows = grouped(results.memory, "orders", "contestant")
    lines = []
    for (orders, name), row in rows.items():
        ours = rows.get((orders, OURS))
        both = max(0, row.own) + max(0, row.broker)
        share = times(both, ours.own) if ours else "–"
        sizes = [number(max(0, n) / _MIB) for n in (row.own, row.broker)]
        lines.append([f"{orders:,}", name, *sizes, share, number(row.tables / _MIB)])
    head = [
        "open orders",
        "contestant",
        "own MiB",
        "broker's MiB",
        "both, to ours",
        "its tables on disk, MiB",
    ]
    return _part(
        "Memory above the empty process",
        "None of the orders is due. A queue in PostgreSQL keeps its orders there: on disk, and in the server's buffers.",
        head,
        lines,
    )


def _delay(results: Results) -> str:
    ours = next((row for row in results.delay if row.contestant == OURS), None)
    lines = []
    for row in results.delay:
        cells = [row.contestant]
        for name, unit in (("from_decided", 1), ("from_told", 1000)):
            for part in (0.5, 0.95, 0.99):
                value = percentile(getattr(row, name), part)
                our = percentile(getattr(ours, name), part) if ours else math.nan
                cells.append(f"{number(unit * value)} ({times(value, our)})")
        lines.append(
            [
                *cells,
                number(row.checks / row.orders),
                f"{1000 * ratio(row.excess, row.checks):.0f}",
                str(row.missing),
            ]
        )
    percentiles = [
        f"{what} p{part}"
        for what in ("decided → written, s", "reported → written, ms")
        for part in (50, 95, 99)
    ]
    head = [
        "contestant",
        *percentiles,
        "checks an order",
        "beyond the schedule, of 1,000",
        "PINs missing",
    ]
    note = (
        f"Every pause of every contestant is {results.about['faster']} times shorter than in life; work is not, so what machinery "
        "adds looks that much larger from decided to written. `the schedule itself` is what no machinery at all would reach."
    )
    return _part("From the provider's decision to the PIN in the database", note, head, lines)


def _day(results: Results) -> str:
    lines = [
        [row.contestant, number(row.checks / row.orders), number(row.scheduled / row.orders),
         f"{1000 * ratio(row.excess, row.checks):.0f}"]
        for row in results.day
    ]  # fmt: skip
    head = [
        "contestant",
        "calls an order",
        "as its schedule has it",
        "asked twice or too soon, of 1,000",
    ]
    note = (
        f"Orders that stay open for a day, which passes {results.about.get('day', '–')} times as fast: "
        "who is late because of that alone makes fewer calls."
    )
    return _part("Calls an order over a day", note, head, lines)


def _shop(results: Results) -> str:
    lines = [
        [
            row.contestant,
            f"{row.beside:.2f}",
            "–" if row.apart is None else f"{row.apart:.2f}",
            f"{row.tables:.2f}",
            number(row.checks_per_second),
        ]
        for row in results.shop
    ]
    head = [
        "contestant", "at work / paused", "the same, database and shop on cores of their own", "its tables / bare tables",
        "checks/s meanwhile",
    ]  # fmt: skip
    note = (
        "The transactions a second of pgbench, four clients, an INSERT and an UPDATE each: as ratios, in turns. At most 100 checks "
        "a second each write a PIN meanwhile. Where all share the machine's cores, each computation takes from the shop."
    )
    return _part("What the shop's own writes keep", note, head, lines)


def _discovery(results: Results) -> str:
    least = {(row.contestant, row.way): row.median for row in reversed(results.discovery)}
    lines = [
        [f"{row.rows:,}", row.contestant, row.way, number(1000 * row.median), number(1000 * row.slowest),
         times(row.median, least[row.contestant, row.way])]
        for row in results.discovery
    ]  # fmt: skip
    head = [
        "rows that ended",
        "contestant",
        "reads",
        "median ms",
        "slowest ms",
        "to the first size",
    ]
    note = (
        "1,000 orders are open. What the plan's batch reads is measured on the shop's bare table, and on that with "
        "order-monitor's indexes."
    )
    return _part("Finding open orders among those that have ended", note, head, lines)


def _batches(results: Results) -> str:
    lines = [
        [f"{row.open_orders:,}", row.who, f"{row.found} of {row.ended}", number(row.p50), number(row.p95)]
        for row in results.batches
    ]  # fmt: skip
    head = ["open orders", "asked", "ends found", "p50 s", "p95 s"]
    note = (
        "From the provider's decision to the row, in virtual time: the daemon's own loop, and the schedule of Celery's plan "
        "with workers that cost nothing. An end that was not found counts with its delay so far."
    )
    return _part("One call a second: many orders a call, or one", note, head, lines)


def _part(title: str, note: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return f"## {title}\n\n{note}\n\n{rows_of(head, lines)}" if lines else ""


def _about(results: Results) -> str:
    who = [f"- **{name}**: {how}" for name, how in results.contestants.items()]
    left = [f"- {why}" for why in results.left_out] or ["- Nothing."]
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    about = ", ".join(f"{name} {value}" for name, value in results.about.items())
    return "\n".join(
        [
            "## The contestants",
            "",
            *who,
            "",
            "## Left out",
            "",
            *left,
            "",
            f"{versions}.",
            "",
            f"{about}.",
        ]
    )
