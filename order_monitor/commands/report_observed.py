"""``order-monitor report --observed``: what another monitor did, compared with what
would have been written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from order_monitor.commands.exits import ExitCode
from order_monitor.commands.lookup import account_names
from order_monitor.commands.session import Session, command
from order_monitor.commands.tables import print_csv, print_table
from order_monitor.shop.reading.comparison import Compared, Verdict, read_comparison
from order_monitor.shop.schema.table_config import OBSERVATIONS
from order_monitor.tell.history import iso
from order_monitor.tell.streams import show, show_json

_COLUMNS: Final = (
    *("order_id", "tenant_id", "account", "reference", "verdict", "why"),
    *("ours", "theirs", "ours_at", "theirs_at", "lead_seconds"),
)


@command()
async def run_report_observed(session: Session, *, since: float, form: str) -> int:
    """Compare what was observed in the last ``since`` seconds, as ``table``, ``json`` or ``csv``."""
    orders = session.orders()
    await session.need(OBSERVATIONS)
    await orders.complete()
    compared = await read_comparison(session.database, orders, since)
    names = await account_names(session) if compared else {}
    rows = [_row(one, names.get(one.account, one.account)) for one in compared]
    summary = summarise(compared)
    if form == "csv":
        print_csv(list(_COLUMNS), rows)
    elif form == "json":
        different = [row for row in rows if row["verdict"] == Verdict.DIFFERENT]
        show_json({**summary, "different": different})
    else:
        _print(summary, rows)
    return ExitCode.OK


def summarise(compared: Sequence[Compared]) -> dict[str, Any]:
    """Count what was compared; times are seconds.

    Who was first, and by how much, counts those that both have ended the same way.
    """
    verdicts = Counter(one.verdict for one in compared)
    same = [one for one in compared if one.verdict is Verdict.SAME]
    whys = Counter(one.why for one in compared if one.verdict is Verdict.NOT_COMPARABLE)
    return {
        "compared": verdicts[Verdict.SAME] + verdicts[Verdict.DIFFERENT],
        "same": verdicts[Verdict.SAME],
        "different_count": verdicts[Verdict.DIFFERENT],
        "ours_first": _times([one for one in same if one.were_they_first is False], 1.0),
        "theirs_first": _times([one for one in same if one.were_they_first], -1.0),
        "not_comparable": dict(sorted(whys.items())),
    }


def _times(compared: Sequence[Compared], sign: float) -> dict[str, Any]:
    """Return how many those are, and the median and 95th percentile of by how much."""
    found = sorted(sign * one.lead for one in compared if one.lead is not None)
    return {
        "count": len(compared),
        "timed": len(found),
        "seconds_median": _percentile(found, 0.5),
        "seconds_p95": _percentile(found, 0.95),
    }


def _percentile(found: Sequence[float], share: float) -> float | None:
    """Return the smallest value that so large a ``share`` of the sorted ones does not exceed."""
    return round(found[max(0, math.ceil(share * len(found)) - 1)], 1) if found else None


def _row(one: Compared, account: str) -> dict[str, Any]:
    return {
        "order_id": one.order_id,
        "tenant_id": one.tenant_id,
        "account": account,
        "reference": one.reference,
        "verdict": str(one.verdict),
        "why": one.why,
        "ours": one.ours,
        "theirs": one.theirs,
        "ours_at": iso(one.ours_at),
        "theirs_at": iso(one.theirs_at),
        "lead_seconds": None if one.lead is None else round(one.lead, 1),
    }


def _print(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    for key in ("compared", "same", "different_count"):
        show(f"{key.removesuffix('_count'):<16}{summary[key]:>8}")
    for key, name in (("ours_first", "ours first"), ("theirs_first", "theirs first")):
        times = summary[key]
        by = ""
        if times["timed"]:
            by = f"  by {times['seconds_median']:g} s (median), {times['seconds_p95']:g} s (p95)"
        show(f"{name:<16}{times['count']:>8}{by}")
    not_comparable = summary["not_comparable"]
    whys = ", ".join(f"{why} {count}" for why, count in not_comparable.items())
    total = sum(not_comparable.values())
    show(f"{'not comparable':<16}{total:>8}{'  ' + whys if whys else ''}")
    shown = ("order_id", "account", "why", "ours", "theirs", "ours_at", "theirs_at")
    different = [
        {name: row[name] for name in shown} for row in rows if row["verdict"] == Verdict.DIFFERENT
    ]
    if different:
        show("")
        print_table(list(shown), different, texts=shown)
