"""A shop with our own tables, and its events."""

from typing import Any

import asyncpg

from order_monitor.shop.migration import Migration
from order_monitor.shop.repository import Orders
from order_monitor.watch.system_clock import SystemClock
from tests.support.shops import LAYOUT, Shop


async def prepared(shop: Shop, dsn: str | None = None, **changes: Any) -> Orders:
    _ = [line async for line in Migration(shop.database(), LAYOUT, SystemClock()).apply()]
    orders = shop.orders(shop.database(dsn), **changes)
    await orders.prepare()
    return orders


async def events(shop: Shop) -> list[asyncpg.Record]:
    return await shop.connection.fetch("SELECT * FROM order_monitor_events ORDER BY id")
