"""Which open orders would not be asked about, and why: determined by the daemon's own code, one
line per reason with what to do.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Final

from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.order import Order, SkipReason
from order_monitor.shop.check.line import CheckLine
from order_monitor.shop.reading.orders import Apart, Scan
from order_monitor.shop.repository import Orders
from order_monitor.watch.routing import Directory, asked_of

_SUBJECT: Final = "open orders"
_NAMED: Final = 3
"""How many orders are listed for each reason."""

_ROUTE: Final = (
    "write the integration's id into the order's provider_id, or add its package to package_routing"
)

REMEDIES: Final = {
    SkipReason.NO_REFERENCE: "save provider_referans before an order is sent; see docs/shop.md",
    SkipReason.BAD_REFERENCE: "no provider knows this: save what the order was sent under in provider_referans; see docs/shop.md",
    SkipReason.NO_SENT_AT: "set the time these orders were sent, or end them by hand",
    SkipReason.SENT_IN_FUTURE: "correct their time; a column without a time zone needs database.time_zone",
    SkipReason.UNKNOWN_STATUS: "add the status to statuses.open, if it is an open one",
    SkipReason.NO_ROUTING: _ROUTE,
    SkipReason.NO_INTEGRATION: "the table integrations has not the one that they name: correct provider_id or the route",
    SkipReason.SEVERAL_ACCOUNTS: "write into each order's provider_id the integration that took it, or end them by hand",
    SkipReason.DISABLED: "enable the integration, or end these orders by hand (order-monitor resolve)",
    SkipReason.BAD_ADDRESS: "correct the address, login or proxy of the integration: see its line",
}
"""What to do about orders that are not asked about, by reason.

Reasons that are intended have no entry.
"""

_MEANT: Final = {
    SkipReason.SETTLED_BY_SHOP: "the shop's own status says that they are over",
    SkipReason.OTHER_PROVIDER: "another provider's",
    SkipReason.NO_PROVIDER: "from the shop's codes, or delivered by hand",
    SkipReason.WAITS_FOR_CHILD: "another tenant's order decides them",
}


async def check_orders(orders: Orders, directory: Directory) -> tuple[list[CheckLine], Scan | None]:
    """Read the open orders as the daemon does, and report which it would ask about.

    Also return the scan, None if it failed. Afterwards ``directory`` contains the shop's accounts.

    Raises:
        ShopUnavailableError: the database cannot be reached.
    """
    try:
        scan = await orders.reader.peek()
    except (ShopError, SettingsError) as error:
        return [CheckLine("error", _SUBJECT, f"cannot be read: {error}")], None
    if scan.integrations is not None:
        directory.update(scan.integrations)
    return [
        *_reasons(scan, directory),
        *_first_start(scan.apart, orders.row_writer.ignored_before),
    ], scan


def _reasons(scan: Scan, directory: Directory) -> list[CheckLine]:
    found: dict[SkipReason, list[Order]] = {}
    if scan.unknown:
        found[SkipReason.UNKNOWN_STATUS] = scan.unknown
    for order in scan.orders:
        reason = asked_of(directory, order, scan.now)
        if isinstance(reason, SkipReason):
            found.setdefault(reason, []).append(order)
    counts = Counter({reason: len(some) for reason, some in found.items()})
    text = f"{len(scan.orders)} found, {counts.total()} of them cannot be asked about"
    lines = [CheckLine("ok", _SUBJECT, text)]
    for reason, some in sorted(found.items()):
        if not reason.is_mendable:
            text = f"{len(some)} not asked about ({reason}): {_MEANT[reason]}"
            lines.append(CheckLine("ok", _SUBJECT, text))
            continue
        text = f"{len(some)} order{'s' if len(some) > 1 else ''} cannot be asked about: {reason}"
        lines.append(CheckLine("warning", _SUBJECT, text, f"{REMEDIES[reason]}{_such_as(some)}"))
    return lines


def _such_as(orders: list[Order]) -> str:
    """Name some of the orders, so that no search is needed."""
    named = ", ".join(order.id for order in orders[:_NAMED])
    return f"; such as {named}" if len(orders) > _NAMED else f": {named}"


def _first_start(apart: Apart, before: float) -> list[CheckLine]:
    """Report the orders that the first start keeps from being asked about, and those it keeps from
    being failed by age.
    """
    lines = []
    if apart.left_alone:
        when = datetime.fromtimestamp(before, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        text = f"{apart.left_alone} left alone ({SkipReason.BEFORE_START}): sent before {when}"
        do = "set schedule.ignore_before, if some are to be watched"
        lines.append(CheckLine("ok", _SUBJECT, text, do))
    if apart.held:
        text = f"{apart.held} order{'s' if apart.held > 1 else ''} sent before the first start would fail by age"
        do = "order-monitor release --first-start"
        lines.append(CheckLine("warning", "first start", text, do))
    return lines
