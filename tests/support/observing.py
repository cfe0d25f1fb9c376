"""The other monitor, and what observing leaves as it is."""

from typing import Any

from tests.support.shops import NOW, SHOP, Shop

OURS = (
    "order_monitor_events",
    "order_monitor_deliveries",
    "order_monitor_review",
    "order_monitor_pins",
    "order_monitor_timing",
)
"""The tables that observing leaves as they are."""


async def stands(shop: Shop) -> list[tuple[Any, ...]]:
    """Return the whole table, with what tells that a row was written or locked."""
    rows = await shop.connection.fetch(
        "SELECT ctid::text AS at, xmin::text AS made, xmax::text AS locked, o.* "
        "FROM product_orders o ORDER BY id"
    )
    return [tuple(row) for row in rows]


async def counts(shop: Shop) -> dict[str, int]:
    return {name: await shop.connection.fetchval(f"SELECT count(*) FROM {name}") for name in OURS}


async def end(shop: Shop, order_id: str, status: str, at: float, pin: str | None = None) -> None:
    """End an order as the other monitor does."""
    await shop.set(order_id, external_status=status, **({"pin_code": pin} if pin else {}))
    if shop.spelling is SHOP:
        await shop.connection.execute(
            'UPDATE product_orders SET "completedAt" = to_timestamp($2::float8), '
            '"lastSyncAt" = to_timestamp($2::float8) WHERE id = $1::uuid',
            order_id,
            NOW + at,
        )
