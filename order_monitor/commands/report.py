"""``order-monitor report``: the results of a period, per account and package.

Reads the events, so it works without a daemon.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from order_monitor.commands.exits import ExitCode
from order_monitor.commands.session import Session, command
from order_monitor.commands.tables import print_csv, print_table
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.outcome import FINAL
from order_monitor.settings.model import Settings
from order_monitor.shop.reading.report import Period, read_period
from order_monitor.shop.schema.table_config import EVENTS
from order_monitor.tell.queue_summary import AGES
from order_monitor.tell.streams import show_json

_AGE_NAMES = ("open_to_5m", "open_to_1h", "open_to_6h", "open_to_24h", "open_over_24h")


@dataclass(slots=True)
class ReportRow:
    """The figures of one account and package in a period; times are seconds."""

    counts: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the figures to show."""
        names = ("sent", *map(str, FINAL), "open", *_AGE_NAMES, "overdue", "no_reference", "checks")
        took = sorted(self.took)
        mean = round(sum(took) / len(took), 1) if took else None
        p95 = round(took[min(len(took) - 1, int(0.95 * len(took)))], 1) if took else None
        return {
            **{name: self.counts[name] for name in names},
            "seconds_to_end_mean": mean,
            "seconds_to_end_p95": p95,
        }


@command("provider")
async def run_report(session: Session, *, since: float, form: str) -> int:
    """Report on the last ``since`` seconds, as ``table``, ``json`` or ``csv``."""
    orders = session.orders()
    await session.need(EVENTS)
    await orders.prepare()
    async with session.accounts() as directory:
        period = await read_period(session.database, orders, since)

        def account(order: Order) -> str:
            found = directory.account_of(order)
            return f"({found})" if isinstance(found, SkipReason) else found.name

        rows = summarise(period, account, session.settings)
    _print(rows, form)
    return ExitCode.OK


def summarise(
    period: Period, account: Callable[[Order], str], settings: Settings
) -> list[dict[str, Any]]:
    """Count a period per account and package, and in total."""
    rows: dict[tuple[str, str], ReportRow] = defaultdict(ReportRow)

    def places(order_id: str) -> list[ReportRow]:
        order = period.orders.get(order_id)
        name = account(order) if order else "(deleted)"
        return [rows[name, period.packages.get(order_id, "")], rows["all", ""]]

    # An order that was reopened since is open, and its end does not count.
    for end in (one for one in period.ended if one.order_id not in period.open):
        for row in places(end.order_id):
            row.counts.update({str(end.outcome): 1, "checks": end.checks})
            row.took += [end.took] if end.took is not None else []
    for order_id, order in period.orders.items():
        for row in places(order_id):
            row.counts["sent"] += order_id in period.sent
            if order_id in period.open:
                row.counts.update(_open(order, period.now, settings.schedule.give_up_after))
    total = rows.pop(("all", ""), ReportRow())
    named = [
        {"account": a, "package": p, **row.document(), "is_total": False}
        for (a, p), row in sorted(rows.items())
    ]
    return [*named, {"account": "all", "package": "", **total.document(), "is_total": True}]


def _open(order: Order, now: float, give_up_after: float) -> list[str]:
    age = now - order.sent_at if order.sent_at is not None else 0.0
    counted = ["open", _AGE_NAMES[sum(age >= limit for limit in AGES)]]
    counted += ["overdue"] if age >= give_up_after else []
    return counted + ([] if order.has_reference else ["no_reference"])


def _print(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        show_json(rows)
        return
    shown = [{name: value for name, value in row.items() if name != "is_total"} for row in rows]
    if form == "csv":
        # A sum over a column of the sheet must not include the total row.
        print_csv(list(shown[0]), shown[:-1] or shown)
    else:
        print_table(list(shown[0]), shown, texts=("account", "package"))
