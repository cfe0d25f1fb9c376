"""The shop's own writes, in the model and in PostgreSQL, and what stands in both."""

import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from order_monitor.core.check_result import WriteResult
from order_monitor.core.order import Order
from order_monitor.shop.database import Database
from order_monitor.shop.marks import KEY, set_mark
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.repository import Orders
from tests.simulation.other_tables import Login
from tests.simulation.shop import (
    ModelOrders,
    Pool,
    Store,
    Stored,
    database_over,
    layout_for,
    ledger_for,
)
from tests.support.shops import NOW, Shop

PACKAGES = [str(uuid.UUID(int=n)) for n in range(3)]
ACCOUNTS = ("a", "b", "c")
LOGINS = {"a": "kod-1", "b": "kod-1", "c": "kod-2"}
"""Two of the accounts belong to one dealer."""
TABLES = """
CREATE TABLE package_routing (id text, tenant_id text, package_id text, primary_provider_id text);
CREATE TABLE integrations (id text PRIMARY KEY, tenant_id text, name text, provider text, base_url text, kod text, sifre text,
    enabled boolean NOT NULL DEFAULT true);
ALTER TABLE product_orders ADD COLUMN provider_id text;
CREATE INDEX ON product_orders (provider_referans);
"""


class Hand(Protocol):
    """The shop's own writes, in the model or in PostgreSQL."""

    orders: Orders
    outbox: Outbox
    database: Database

    async def add(self, order_id: str, package: str, account: str) -> None: ...
    async def consume(self, order_id: str) -> None: ...
    async def change(self, order_id: str, **values: Any) -> None: ...
    async def delete(self, order_id: str) -> None: ...
    async def rows(self) -> list[tuple[Any, ...]]: ...
    async def events(self) -> list[tuple[Any, ...]]: ...
    async def reviews(self) -> set[tuple[str, str]]: ...
    async def dispatches(self) -> list[tuple[Any, ...]]: ...
    async def pins(self) -> list[tuple[Any, ...]]: ...
    async def settings(self) -> list[tuple[Any, ...]]: ...
    async def make_due(self) -> None: ...


@dataclass
class Real:
    """PostgreSQL."""

    shop: Shop
    orders: Orders
    outbox: Outbox
    database: Database

    async def add(self, order_id: str, package: str, account: str) -> None:
        reference = f"ref-{order_id[-6:]}"
        await self.shop.add(
            order_id=order_id,
            package_id=package,
            reference=reference,
            provider_id=account,
            noted=False,
        )

    async def consume(self, order_id: str) -> None:
        await self.shop.connection.execute(
            "UPDATE order_monitor_events SET consumed_at = now() WHERE order_id = $1::uuid AND consumed_at IS NULL",
            order_id,
        )

    async def change(self, order_id: str, **values: Any) -> None:
        if "sent_at" in values:
            values["sent_at"] = datetime.fromtimestamp(values["sent_at"], UTC)
        await self.shop.set(order_id, **values)

    async def delete(self, order_id: str) -> None:
        await self.shop.connection.execute(
            "DELETE FROM product_orders WHERE id = $1::uuid", order_id
        )

    async def rows(self) -> list[tuple[Any, ...]]:
        rows = await self.shop.connection.fetch(
            "SELECT id::text, external_status, pin_code, note, provider_referans, provider_id FROM product_orders ORDER BY 1"
        )
        return [tuple(row) for row in rows]

    async def events(self) -> list[tuple[Any, ...]]:
        rows = await self.shop.connection.fetch(
            "SELECT order_id::text, from_status, to_status, has_pin, message, checks, decided_by, repeat, outcome, "
            "source, cause, account, reference, consumed_at IS NOT NULL FROM order_monitor_events ORDER BY id"
        )
        return [tuple(row) for row in rows]

    async def reviews(self) -> set[tuple[str, str]]:
        rows = await self.shop.connection.fetch(
            "SELECT order_id::text, kind FROM order_monitor_review WHERE closed_at IS NULL"
        )
        return {(row[0], row[1]) for row in rows}

    async def dispatches(self) -> list[tuple[Any, ...]]:
        rows = await self.shop.connection.fetch(
            "SELECT order_id::text, account, reference, extract(epoch FROM sent_at)::float8, login, touched, "
            "extract(epoch FROM first_understood_at)::float8, extract(epoch FROM first_odd_at)::float8 FROM "
            "order_monitor_dispatches ORDER BY 1, 2, 3"
        )
        return [tuple(row) for row in rows]

    async def pins(self) -> list[tuple[Any, ...]]:
        rows = await self.shop.connection.fetch(
            "SELECT login, digest, order_id::text, seen_in::text[] FROM order_monitor_pins ORDER BY 1, 2"
        )
        return [(login, digest, order_id, sorted(seen)) for login, digest, order_id, seen in rows]

    async def settings(self) -> list[tuple[Any, ...]]:
        rows = await self.shop.connection.fetch(
            "SELECT name, value FROM order_monitor_settings WHERE name NOT IN ('first_migrate', 'first_start') ORDER BY name"
        )
        return sorted(tuple(row) for row in rows)

    async def make_due(self) -> None:
        await self.shop.connection.execute(
            "UPDATE order_monitor_deliveries SET next_at = clock_timestamp()"
        )


@dataclass
class Model:
    """The model."""

    store: Store
    orders: Orders
    outbox: Outbox
    database: Database

    async def add(self, order_id: str, package: str, account: str) -> None:
        self.store.rows[order_id] = Stored(
            order_id, "sent", NOW - 100, f"ref-{order_id[-6:]}", account, package
        )

    async def consume(self, order_id: str) -> None:
        for event in self.store.events:
            if event.order_id == order_id and event.consumed_at is None:
                event.consumed_at = NOW

    async def change(self, order_id: str, **values: Any) -> None:
        names = {"external_status": "status", "pin_code": "pin", "provider_referans": "reference"}
        names |= {"provider_id": "account", "sent_at": "sent_at"}
        if order_id in self.store.rows:
            changed: dict[str, Any] = {names[name]: value for name, value in values.items()}
            self.store.rows[order_id] = replace(self.store.rows[order_id], **changed)

    async def delete(self, order_id: str) -> None:
        self.store.rows.pop(order_id, None)

    async def rows(self) -> list[tuple[Any, ...]]:
        return sorted(
            (r.id, r.status, r.pin, r.note, r.reference, r.account)
            for r in self.store.rows.values()
        )

    async def events(self) -> list[tuple[Any, ...]]:
        names = (
            "order_id",
            "from_status",
            "to_status",
            "has_pin",
            "message",
            "checks",
            "decided_by",
            "repeat",
            "outcome",
            "source",
            "cause",
            "account",
            "reference",
        )
        return [
            (*(getattr(e, name) for name in names), e.consumed_at is not None)
            for e in self.store.events
        ]

    async def reviews(self) -> set[tuple[str, str]]:
        return set(self.store.reviews)

    async def dispatches(self) -> list[tuple[Any, ...]]:
        rows = self.store.dispatches.values()
        key = (
            "order_id",
            "account",
            "reference",
            "sent_at",
            "login",
            "touched",
            "understood_at",
            "odd_at",
        )
        return sorted(
            (tuple(getattr(d, name) for name in key) for d in rows), key=lambda row: row[:3]
        )

    async def pins(self) -> list[tuple[Any, ...]]:
        return sorted(
            (*key, row.order_id, sorted(row.seen_in)) for key, row in self.store.pins.items()
        )

    async def settings(self) -> list[tuple[Any, ...]]:
        return sorted((name, row.value) for name, row in self.store.settings.items())

    async def make_due(self) -> None:
        for delivery in self.store.deliveries.values():
            delivery.next_at = 0.0


LATER = 210_000_000.0
"""Seconds after `NOW` at which answers come if cancellations wait for a second one: after all that
the database's own clock has written.
"""


async def made(
    shop: Shop, *, from_shop: bool, brake_hold: float = 0.0, confirm_cancelled: float = 0.0
) -> tuple[Real, Model]:
    """Make both equal: the same accounts, marks, and key of the digests."""
    table_config = layout_for(
        give_up_after=86_400.0 if not confirm_cancelled else 10 * LATER,
        last_sync=False,
        from_shop=from_shop,
        brake_hold=brake_hold,
        confirm_cancelled=confirm_cancelled,
    )
    await shop.connection.execute(TABLES)
    store = Store(NOW, random.Random(1), quick=True)
    for account, kod in LOGINS.items():
        store.logins[account] = login = Login(account, kod=kod)
        await shop.connection.execute(
            "INSERT INTO integrations (id, name, provider, base_url, kod, sifre) VALUES ($1, $2, $3, $4, $5, $6)",
            *(login.id, login.name, login.provider, login.address, login.kod, login.sifre),
        )
    pool = Pool(store, ledger_for(table_config, last_sync=False))
    over, database = database_over(pool), shop.database()
    for one in (database, over):
        async with one.transaction() as connection:
            await set_mark(connection, "public", KEY, "11" * 32)
    real = Real(shop, Orders(database, table_config), Outbox(database, "public"), database)
    model = Model(store, ModelOrders(pool, over), Outbox(over, "public"), over)
    for hand in (real, model):
        await hand.orders.prepare()
        assert hand.orders.table.is_reference_indexed
    return real, model


def order_of(order_id: str, reference: str | None = None, **more: Any) -> Order:
    return Order(order_id, "sent", NOW - 100, reference or f"ref-{order_id[-6:]}", **more)


def told(results: list[WriteResult]) -> list[tuple[Any, ...]]:
    """Return each result, without details that depend on timing."""
    return sorted(
        (
            r.finding.order.id,
            *map(
                str,
                (
                    r.fate,
                    r.stuck,
                    r.review,
                    r.review_of,
                    r.detail if r.stuck != "pin_too_wide" else "",
                ),
            ),
            r.status,
            r.repeat,
            r.wait,
            r.again_at,
            r.write and (r.write.status, r.write.final),
        )
        for r in results
    )


def seen(orders: Iterable[Order]) -> list[Any]:
    """Orders without times."""
    return sorted(order._replace(ended_at=0.0 if order.awaits_pin else None) for order in orders)


def by_order(events: list[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]]:
    """Return each order's events in sequence.

    Within one statement PostgreSQL numbers those of different orders arbitrarily.
    """
    found: dict[str, list[tuple[Any, ...]]] = {}
    for event in events:
        found.setdefault(event[0], []).append(event)
    return found
