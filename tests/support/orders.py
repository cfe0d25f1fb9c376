"""A shop's orders, as they are read and as they stand."""

from typing import Any

from order_monitor.core.answer import Answer
from order_monitor.core.check_result import CheckResult
from order_monitor.core.order import Order
from order_monitor.shop.repository import Orders
from tests.support.shops import NOW, Shop


def found(
    order: Order, answer: Answer, *, age: float = 130.5, account: str = "default"
) -> CheckResult:
    return CheckResult(
        order, answer, seen_at=(order.sent_at or NOW) + age, checks=3, account=account
    )


async def prepared(shop: Shop, **changes: Any) -> Orders:
    orders = shop.orders(**changes)
    await orders.prepare()
    return orders


async def reviews(shop: Shop) -> set[tuple[str, str]]:
    rows = await shop.connection.fetch(
        "SELECT order_id::text AS id, kind FROM order_monitor_review "
        "WHERE closed_at IS NULL AND kind <> 'pin_held'"
    )
    return {(row["id"], row["kind"]) for row in rows}


async def kept(shop: Shop) -> list[tuple[str, bool, float]]:
    rows = await shop.connection.fetch(
        "SELECT order_id::text AS id, closed_at IS NULL AS is_open, "
        "extract(epoch FROM opened_at)::float8 AS since FROM order_monitor_review "
        "WHERE kind = 'cancel_unconfirmed' ORDER BY order_monitor_review.id"
    )
    return [(row["id"], row["is_open"], row["since"]) for row in rows]
