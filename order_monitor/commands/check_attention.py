"""What a person should look at, as far as the shop's tables show it: by the same rules as the
running daemon.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from order_monitor.core.gate import Pause
from order_monitor.core.order import SkipReason
from order_monitor.settings.model import Settings
from order_monitor.shop.accounts.pauses import EVERY_ACCOUNT, is_of_ends, key_of
from order_monitor.shop.check.line import CheckLine
from order_monitor.shop.database import Database
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.reading.orders import Scan
from order_monitor.shop.reviews import Reviews
from order_monitor.shop.writing.brake import KIND
from order_monitor.tell.attention import REMEDIES, Facts, causes_of
from order_monitor.tell.messages import Messages
from order_monitor.watch.routing import Directory, asked_of

_SUBJECT: Final = "attention"

OWN_LINES: Final = {
    "paused": "account",
    "beside": "daemons",
    "mixed": "daemons",
    "skipped": "open orders",
    "first_start": "first start",
    "dead": "webhook",
    "clocks": "clocks",
    "differ": "clocks",
}
"""The kinds for which `check` has a more detailed line, and the subject of that line."""


async def check_attention(
    settings: Settings, database: Database, scan: Scan, directory: Directory
) -> list[CheckLine]:
    """Judge what a ``scan`` and the other tables contain.

    Return one line for each finding, except the kinds in `OWN_LINES`.

    Raises:
        ShopError: the database is not available.
    """
    schema = settings.database.schema_
    async with database.transaction() as connection:
        stuck = {
            order_id for order_id, kind in await Reviews(schema).stuck(connection) if kind != KIND
        }
    dead = (await Outbox(database, schema).counts())[1] if settings.webhook.url is not None else 0
    causes = causes_of(_facts(scan, directory, stuck, dead, settings.schedule.give_up_after))
    said = Messages("en", "")
    lines = [
        CheckLine("warning", _SUBJECT, said.sentence(cause), REMEDIES[cause.kind])
        for cause in causes
        if cause.kind not in OWN_LINES
    ]
    lines = lines or [CheckLine("ok", _SUBJECT, "no order and no event waits for an operator")]
    return [*_pauses(scan.pauses, directory), *lines]


def _pauses(pauses: Mapping[str, Pause], directory: Directory) -> list[CheckLine]:
    """Report what people have paused, by account name, and how to end each pause."""
    lines = []
    for stored, pause in pauses.items():
        is_ends = is_of_ends(stored)
        key = key_of(stored)
        name = directory.accounts[key].name if key in directory.accounts else key
        whose = "all accounts" if key == EVERY_ACCOUNT else f"account {name}"
        target = [] if key == EVERY_ACCOUNT else [shlex.quote(name)]
        what = "ends are held" if is_ends else "is paused"
        do = " ".join(["order-monitor resume", *target, *(["--ends"] if is_ends else [])])
        lines.append(CheckLine("warning", whose, f"{what} by {pause.by}: {pause.reason}", do))
    return lines


def _facts(
    scan: Scan, directory: Directory, stuck: set[str], dead: int, give_up_after: float
) -> Facts:
    found = [(order, asked_of(directory, order, scan.now)) for order in scan.orders]
    asked = [order for order, by in found if not isinstance(by, SkipReason)]
    since = scan.waiting[1] if scan.waiting is not None else None
    return Facts(
        accounts=len(directory.accounts),
        paused=sum(key in scan.pauses for key in directory.accounts),
        stuck=sum(order.id in stuck for order in asked),
        held=len(scan.held),
        overdue=sum(
            order.sent_at is not None and scan.now - order.sent_at >= give_up_after
            for order in asked
        ),
        skipped=sum(isinstance(by, SkipReason) and by.is_mendable for _, by in found)
        + len(scan.unknown),
        first_start=scan.apart.held,
        events=0.0 if since is None else max(0.0, scan.now - since),
        dead=dead,
        reviews=scan.reviews,
    )
