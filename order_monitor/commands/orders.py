"""``order-monitor orders``: the open orders, oldest first, and which of them need a person.

Works without a daemon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Final

from order_monitor.commands.exits import ExitCode
from order_monitor.commands.lookup import account_of, when
from order_monitor.commands.session import Session, command
from order_monitor.commands.tables import print_csv, print_table
from order_monitor.commands.times import iso, local_of, span
from order_monitor.core.order import Order, SkipReason
from order_monitor.shop.accounts.pauses import EVERY_ACCOUNT, only_ends
from order_monitor.shop.reviews import Reviews
from order_monitor.shop.schema.own_tables import may_use
from order_monitor.shop.schema.table_config import REVIEW
from order_monitor.tell.streams import say, show, show_json
from order_monitor.watch.routing import Directory, asked_of

_COLUMNS: Final = (
    *("order_id", "status", "account", "sent_at", "age_seconds", "referans", "last_sync_at"),
    *("overdue", "stuck", "skipped"),
)
_SKIPPED: Final = {str(SkipReason.WAITS_FOR_CHILD): "waits for its child"}
_HELD: Final = "held_by_brake"
_MOST_OLD: Final = 10_000
"""Maximum number of orders read that are left alone."""

_OLD_DO: Final = "schedule.ignore_before says which"

_SHOWN: Final = ("order", "status", "account", "sent", "age", "referans", "remarks")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which open orders to list: those that match all criteria.

    ``older_than`` is seconds. Those that come from codes or are delivered by hand are listed only
    with ``no_provider``, and then nothing else is.
    """

    account: str | None = None
    overdue: bool = False
    stuck: bool = False
    no_reference: bool = False
    older_than: float | None = None
    no_provider: bool = False

    def takes(self, row: dict[str, Any]) -> bool:
        """Whether a row matches; a row without a date has no age."""
        age = row["age_seconds"]
        return (
            ((row["skipped"] == SkipReason.NO_PROVIDER) is self.no_provider)
            and (self.account is None or row["account"] == self.account)
            and (row["overdue"] or not self.overdue)
            and (row["stuck"] is not None or not self.stuck)
            and (row["referans"] is None or not self.no_reference)
            and (self.older_than is None or (age is not None and age >= self.older_than))
        )


@dataclass(frozen=True, slots=True)
class _Listing:
    """The context for judging an order. ``now`` is epoch seconds by the database's clock."""

    directory: Directory
    now: float
    give_up_after: float
    stuck: dict[str, str] = field(default_factory=dict)

    def row(self, order: Order) -> dict[str, Any]:
        """Return an order's row in machine-readable form."""
        found = asked_of(self.directory, order, self.now)
        skipped = found if isinstance(found, SkipReason) else None
        found = self.directory.account_of(order)
        sent = order.sent_at
        age = None if sent is None or not math.isfinite(sent) else self.now - sent
        return {
            "order_id": order.id,
            "status": order.status,
            "account": None if isinstance(found, SkipReason) else found.name,
            "sent_at": iso(sent),
            "age_seconds": None if age is None else round(max(0.0, age)),
            "referans": order.reference if order.has_reference else None,
            "last_sync_at": iso(order.last_sync_at),
            "overdue": age is not None and age >= self.give_up_after,
            "stuck": self.stuck.get(order.id),
            "skipped": None if skipped is None else str(skipped),
        }


@command("provider")
async def run_orders(session: Session, wanted: Wanted, *, limit: int, form: str) -> int:
    """List the matching open orders, ``limit`` at most, as ``table``, ``json`` or ``csv``.

    Return 2 for an unknown account.
    """
    orders, give_up_after = session.orders(), session.settings.schedule.give_up_after
    async with session.directory() as directory:
        scan = await orders.scan()
        old = await orders.reader.left_alone(_MOST_OLD) if scan.apart.left_alone else []
        directory.update(scan.integrations or [])
        if wanted.account is not None:
            meant = account_of(directory, wanted.account, otherwise=ExitCode.BAD_SETTINGS)
            wanted = replace(wanted, account=meant.name)
        stuck = await _stuck(session, is_wanted=wanted.stuck)
    names = {account.key: account.name for account in directory.accounts.values()}
    for key, pause in only_ends(scan.pauses).items():
        whose = "all accounts" if key == EVERY_ACCOUNT else names.get(key, key)
        say(
            f"order-monitor: the ends of {whose} are held since {when(pause.since)} by {pause.by}: {pause.reason}"
        )
    view = _Listing(directory, scan.now, give_up_after, stuck)
    watched = [view.row(order) for order in sorted(scan.orders, key=_oldest)]
    alone = [{**view.row(order), "skipped": str(SkipReason.BEFORE_START)} for order in old]
    rows = [row for row in (*watched, *alone) if wanted.takes(row)]
    _print(rows[:limit], form)
    if len(rows) > limit:
        say(f"order-monitor: {limit} of {len(rows)} orders shown; --limit shows more")
    unlisted = sum(row["skipped"] == SkipReason.NO_PROVIDER for row in watched)
    if unlisted and not wanted.no_provider:
        say(
            f"order-monitor: {unlisted} from codes or by hand ({SkipReason.NO_PROVIDER}) not listed; --no-provider lists them"
        )
    if count := scan.apart.left_alone:
        say(
            f"order-monitor: {count} left alone ({SkipReason.BEFORE_START}), listed last; {_OLD_DO}"
        )
    return ExitCode.OK


def _oldest(order: Order) -> tuple[float, str]:
    return (math.inf if order.sent_at is None else order.sent_at), order.id


async def _stuck(session: Session, *, is_wanted: bool) -> dict[str, str]:
    """Return the orders that could not be written, each with the reason.

    Empty if there is no readable table of reviews.
    """
    schema = session.schema
    async with session.database.transaction() as connection:
        if await may_use(connection, schema, REVIEW, "SELECT"):
            return dict(sorted(await Reviews(schema).stuck(connection)))
    if is_wanted:
        say(
            f"order-monitor: there is no table {schema}.{REVIEW} that may be read, so none is known to be stuck"
        )
    return {}


def _print(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        show_json(rows)
    elif form == "csv":
        print_csv(_COLUMNS, rows)
    elif rows:
        print_table(_SHOWN, [_for_people(row) for row in rows], texts=_SHOWN)
    else:
        show("no such order is open")


def _for_people(row: dict[str, Any]) -> dict[str, object]:
    sent, age = row["sent_at"], row["age_seconds"]
    remarks = [
        *(["overdue"] if row["overdue"] else []),
        *([f"stuck: {row['stuck']}"] if row["stuck"] not in (None, _HELD) else []),
        *(["held by the brake"] if row["stuck"] == _HELD else []),
        *([_SKIPPED.get(row["skipped"], f"not asked: {row['skipped']}")] if row["skipped"] else []),
    ]
    return {
        "order": row["order_id"],
        "status": row["status"],
        "account": row["account"],
        "sent": local_of(sent),
        "age": None if age is None else span(age),
        "referans": row["referans"],
        "remarks": ", ".join(remarks),
    }
