"""A shop's database for tests: the table in one of its two spellings, and helpers for the shop's
own writes.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from order_monitor.core.decision import Rules
from order_monitor.core.order import CONFIGURED, Order
from order_monitor.settings.sections import FINAL_STATUSES
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.migration import Migration
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.columns import LOGICAL
from order_monitor.shop.schema.own_tables import NEEDED
from order_monitor.shop.schema.table_config import TableConfig
from order_monitor.watch.system_clock import SystemClock

NOW = 1_790_000_000.0
"""The start of the tests with virtual time."""


@dataclass(frozen=True)
class Spelling:
    """One way a shop names and types its columns."""

    index: int
    ddl: str

    def name(self, logical: str) -> str:
        return LOGICAL[logical][self.index]


PLAIN = Spelling(
    0,
    """
    CREATE TABLE product_orders (
        id uuid PRIMARY KEY, tenant_id uuid, status varchar(20) NOT NULL DEFAULT 'pending',
        external_status varchar(30) DEFAULT 'not_sent', sent_at timestamptz, pin_code varchar(120), note text,
        package_id uuid, provider_referans varchar(255)
    )
    """,
)
SHOP = Spelling(
    1,
    """
    CREATE TABLE product_orders (
        id uuid PRIMARY KEY, "tenantId" uuid, status varchar(20) NOT NULL DEFAULT 'pending',
        "externalStatus" varchar(30) DEFAULT 'not_sent', "sentAt" timestamptz, "pinCode" varchar(120),
        "lastMessage" varchar(250), note text DEFAULT 'the customer''s own note', "packageId" uuid,
        provider_referans varchar(255), "providerMessage" text, "lastSyncAt" timestamptz,
        "completedAt" timestamptz, "durationMs" integer
    )
    """,
)


def least_rights(role: str) -> str:
    """Return SQL for the rights of the program's role on its own tables."""
    return "; ".join(
        f"GRANT {', '.join(rights)} ON {table} TO {role}" for table, rights in NEEDED.items()
    )


NO_FIRST_START = "UPDATE order_monitor_settings SET value = '-infinity' WHERE name = 'first_start'"
"""SQL that turns a newly migrated shop into one where the program has run for long: orders of any
time end by their age.
"""


async def migrate(dsn: str) -> None:
    """Add what order-monitor needs."""
    database = Database(parse_dsn(dsn))
    try:
        _ = [line async for line in Migration(database, LAYOUT, SystemClock()).apply()]
        async with database.transaction() as connection:
            await connection.execute(NO_FIRST_START)
    finally:
        await database.close()


LAYOUT = TableConfig(
    schema="public",
    table="product_orders",
    overrides={},
    time_zone=None,
    open=("sent", "pending", "processing", "queued"),
    known=(*FINAL_STATUSES, "not_sent"),
    rules=Rules(),
)


@dataclass
class Shop:
    """The shop's own connection, with helpers that use the columns' logical names."""

    dsn: str
    spelling: Spelling
    connection: asyncpg.Connection
    table_config: TableConfig = LAYOUT
    databases: list[Database] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def create(cls, dsn: str, spelling: Spelling) -> AsyncIterator["Shop"]:
        connection = await asyncpg.connect(dsn)
        await connection.execute(spelling.ddl)
        await connection.close()
        await migrate(dsn)
        async with cls.opened(dsn, spelling) as shop:
            yield shop

    @classmethod
    @asynccontextmanager
    async def opened(cls, dsn: str, spelling: Spelling) -> AsyncIterator["Shop"]:
        """The shop of a database that already has the table."""
        connection = await asyncpg.connect(dsn)
        shop = cls(dsn, spelling, connection)
        try:
            yield shop
        finally:
            for database in shop.databases:
                await database.close()
            await connection.close()

    def database(
        self, dsn: str | None = None, *, statement_timeout: float = 10.0, **more: Any
    ) -> Database:
        database = Database(parse_dsn(dsn or self.dsn), statement_timeout=statement_timeout, **more)
        self.databases.append(database)
        return database

    def orders(self, database: Database | None = None, **changes: Any) -> Orders:
        return Orders(database or self.database(), replace(self.table_config, **changes))

    async def add(
        self,
        status: str | None = "sent",
        *,
        sent_at: float | None = NOW - 100,
        reference: str | None = None,
        pin: str | None = None,
        note: str | None = None,
        tenant_id: str | None = None,
        order_id: str | None = None,
        noted: bool = True,
        **more: Any,
    ) -> str:
        """Add an order like the shop, ``noted`` as before its first question, and return its id."""
        order_id = order_id or str(uuid.uuid4())
        values = {
            "id": order_id,
            "external_status": status,
            "pin_code": pin,
            "note": note,
            "provider_referans": reference if reference is not None else f"r-{order_id[:8]}",
            "tenant_id": tenant_id,
            **more,
        }
        names = [f'"{self.spelling.name(n)}"' for n in values]
        marks = [f"${i}" for i in range(1, len(values) + 1)]
        await self.connection.execute(
            f'INSERT INTO product_orders ({", ".join(names)}, "{self.spelling.name("sent_at")}") '
            f"VALUES ({', '.join(marks)}, to_timestamp(${len(values) + 1}::float8))",
            *values.values(),
            sent_at,
        )
        # The program must find out under which of the shop's accounts an order is noted.
        if noted and sent_at is not None and not await self.has("integrations"):
            await self.note(order_id)
        return order_id

    async def has(self, table: str) -> bool:
        return bool(await self.connection.fetchval(f"SELECT to_regclass('{table}') IS NOT NULL"))

    async def note(self, order_id: str, account: str = CONFIGURED) -> None:
        """Note how an order was sent, like the program before it asks."""
        await self._note(f"id::text = '{order_id}' AND", account)

    async def _note(self, which: str, account: str) -> None:
        if not await self.has("order_monitor_dispatches"):
            return
        sent = f'"{self.spelling.name("sent_at")}"'
        await self.connection.execute(
            "INSERT INTO order_monitor_dispatches (order_id, account, reference, sent_at, login) "
            f"SELECT id, $1, btrim(provider_referans), {sent}, 'test' FROM product_orders "
            f"WHERE {which} btrim(provider_referans) <> '' AND isfinite({sent}) ON CONFLICT DO NOTHING",
            account,
        )

    async def note_all(self, account: str = CONFIGURED) -> None:
        """Note how every order was sent."""
        await self._note("", account)

    async def row(self, order_id: str) -> dict[str, Any]:
        """Return an order's row by logical names, with all other columns under their own."""
        row = await self.connection.fetchrow(
            "SELECT * FROM product_orders WHERE id = $1::uuid", order_id
        )
        assert row is not None
        logical = {
            n[self.spelling.index]: key for key, n in LOGICAL.items() if key != "shop_status"
        }
        own = {name: f"shop's {name}" for name in LOGICAL}
        return {logical.get(name, own.get(name, name)): value for name, value in row.items()}

    async def set(self, order_id: str, **values: Any) -> None:
        """Change a row like the shop."""
        sets = ", ".join(f'"{self.spelling.name(n)}" = ${i}' for i, n in enumerate(values, 2))
        await self.connection.execute(
            f"UPDATE product_orders SET {sets} WHERE id = $1::uuid", order_id, *values.values()
        )

    def order(self, order_id: str, **changes: Any) -> Order:
        """Return the order as a scan would, for an order added with the defaults."""
        return Order(order_id, "sent", NOW - 100, f"r-{order_id[:8]}")._replace(**changes)
