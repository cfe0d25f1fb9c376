"""``order-monitor report --observed``: what another monitor did, beside what would have been
written.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from order_monitor.app import database_of, settings_of, table_config_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import account_names
from order_monitor.commands.tables import print_csv, print_table
from order_monitor.settings.model import Settings
from order_monitor.shop.reading.comparison import Compared, Verdict, read_comparison
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.own_tables import need_tables
from order_monitor.shop.schema.table_config import OBSERVATIONS
from order_monitor.tell.history import iso
from order_monitor.tell.streams import say

_COLUMNS: Final = (
    "order_id",
    "tenant_id",
    "account",
    "reference",
    "verdict",
    "why",
    "ours",
    "theirs",
    "ours_at",
    "theirs_at",
    "lead_seconds",
)


def run_report_observed(config: Path | None, *, since: float, form: str) -> int:
    """Compare what was observed in the last ``since`` seconds, as ``table``, ``json`` or ``csv``."""
    settings, sink, _ = settings_of(config, "database", least="error")
    return run_to_exit(_report(settings, since=since, form=form), sink.close)


async def _report(settings: Settings, *, since: float, form: str) -> int:
    async with database_of(settings) as database:
        orders = Orders(database, table_config_of(settings))
        async with database.transaction() as connection:
            await need_tables(connection, settings.database.schema_, OBSERVATIONS)
        await orders.complete()
        compared = await read_comparison(database, orders, since)
        names = await account_names(settings, database) if compared else {}
    rows = [_row(one, names.get(one.account, one.account)) for one in compared]
    summary = summarise(compared)
    if form == "csv":
        print_csv(list(_COLUMNS), rows)
    elif form == "json":
        different = [row for row in rows if row["verdict"] == Verdict.DIFFERENT]
        say(json.dumps({**summary, "different": different}, ensure_ascii=False), to_stdout=True)
    else:
        _print(summary, rows)
    return ExitCode.OK


def summarise(compared: Sequence[Compared]) -> dict[str, Any]:
    """Count what was compared; times are seconds.

    Who was first, and by how much, is told of those that both have ended the same way.
    """
    verdicts = Counter(one.verdict for one in compared)
    same = [one for one in compared if one.verdict is Verdict.SAME]
    return {
        "compared": verdicts[Verdict.SAME] + verdicts[Verdict.DIFFERENT],
        "same": verdicts[Verdict.SAME],
        "different_count": verdicts[Verdict.DIFFERENT],
        "ours_first": _times([one for one in same if one.were_they_first is False], 1.0),
        "theirs_first": _times([one for one in same if one.were_they_first], -1.0),
        "not_comparable": dict(
            sorted(
                Counter(
                    one.why for one in compared if one.verdict is Verdict.NOT_COMPARABLE
                ).items()
            )
        ),
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
    say(f"{'compared':<16}{summary['compared']:>8}", to_stdout=True)
    say(f"{'same':<16}{summary['same']:>8}", to_stdout=True)
    say(f"{'different':<16}{summary['different_count']:>8}", to_stdout=True)
    for key, name in (("ours_first", "ours first"), ("theirs_first", "theirs first")):
        times = summary[key]
        by = (
            f"  by {times['seconds_median']:g} s (median), {times['seconds_p95']:g} s (p95)"
            if times["timed"]
            else ""
        )
        say(f"{name:<16}{times['count']:>8}{by}", to_stdout=True)
    not_comparable = summary["not_comparable"]
    whys = ", ".join(f"{why} {count}" for why, count in not_comparable.items())
    total = sum(not_comparable.values())
    say(f"{'not comparable':<16}{total:>8}{'  ' + whys if whys else ''}", to_stdout=True)
    shown = ("order_id", "account", "why", "ours", "theirs", "ours_at", "theirs_at")
    different = [
        {name: row[name] for name in shown} for row in rows if row["verdict"] == Verdict.DIFFERENT
    ]
    if different:
        say("", to_stdout=True)
        print_table(list(shown), different, texts=shown)
