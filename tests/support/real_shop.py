"""The tables of the running shop, as created by its own migrations: all tenants together, and both
spellings side by side.
"""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import httpx
import pytest

from order_monitor.core.gate import Gate, Pace
from order_monitor.providers.client_api.client import ClientApi, ClientApiAccount
from order_monitor.providers.client_api.dialect import ZDK
from order_monitor.providers.tenant.dialect import TENANT
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.settings.sections import StatusSettings
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.migration import Migration
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.table_config import TableConfig
from order_monitor.watch.account import Account
from order_monitor.watch.routing import label
from order_monitor.watch.system_clock import SystemClock
from tests.support.clocks import ManualClock
from tests.support.engines import text
from tests.support.shops import LAYOUT, NO_FIRST_START, NOW

TABLES = """
CREATE TABLE product_orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid, "orderNo" int, "productId" uuid,
    "packageId" uuid, quantity int NOT NULL DEFAULT 1, status varchar NOT NULL DEFAULT 'pending',
    "userId" uuid, "userIdentifier" varchar, "extraField" varchar, "providerId" varchar,
    "externalOrderId" varchar, "externalStatus" varchar NOT NULL DEFAULT 'not_sent',
    attempts int NOT NULL DEFAULT 0, "lastMessage" varchar(250), "manualNote" text,
    notes jsonb NOT NULL DEFAULT '[]', "pinCode" varchar(120), "sentAt" timestamptz,
    "lastSyncAt" timestamptz, "completedAt" timestamptz, "durationMs" int,
    "createdAt" timestamptz NOT NULL DEFAULT now(), "providerMessage" text,
    "notesCount" int NOT NULL DEFAULT 0, "orderUuid" varchar(64),
    origin varchar(20) NOT NULL DEFAULT 'panel', provider_referans varchar(255),
    root_order_id uuid REFERENCES product_orders (id) ON DELETE SET NULL, mode varchar(50),
    chain_path text);
CREATE INDEX ON product_orders (provider_referans);
CREATE TABLE package_routing (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid NOT NULL, package_id uuid NOT NULL,
    mode varchar(10) NOT NULL DEFAULT 'manual', "primaryProviderId" varchar,
    "fallbackProviderId" varchar, "providerType" varchar(32) NOT NULL DEFAULT 'manual',
    "codeGroupId" uuid, "internalTenantId" uuid, "internalApiUserId" uuid);
CREATE TABLE integrations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid NOT NULL,
    name varchar(120) NOT NULL, provider varchar(20) NOT NULL, "baseUrl" varchar(255),
    "apiToken" varchar(255), kod varchar(120), sifre varchar(120),
    enabled boolean NOT NULL DEFAULT true, balance numeric(18,3), "createdAt" timestamptz NOT NULL
    DEFAULT now(), UNIQUE ("tenantId", name));
"""

WATAN = StatusSettings.model_validate({"preset": "watan"})
CONFIG = replace(
    LAYOUT,
    open=WATAN.open,
    known=WATAN.known,
    settled=WATAN.settled,
    rules=replace(LAYOUT.rules, completed=WATAN.completed, failed=WATAN.failed),
    accounts_from_shop=True,
    follows_chains=True,
)


def new_id() -> str:
    return str(uuid.uuid4())


@dataclass
class RealShop:
    """The shop's own writes to its tables; columns have their real names."""

    dsn: str
    connection: asyncpg.Connection
    databases: list[Database]
    tenant: str

    def database(self) -> Database:
        database = Database(parse_dsn(self.dsn), statement_timeout=10.0)
        self.databases.append(database)
        return database

    def orders(self, database: Database | None = None, **changes: Any) -> Orders:
        config: TableConfig = replace(CONFIG, **changes)
        return Orders(database or self.database(), config)

    async def _insert(self, table: str, values: dict[str, Any]) -> None:
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"
        await self.connection.execute(sql, *values.values())

    async def integration(self, provider: str, **more: Any) -> str:
        made = new_id()
        values = {
            "id": made,
            "tenantId": self.tenant,
            "name": f"{provider} {made[:8]}",
            "provider": provider,
            "baseUrl": "https://provider.example",
            "kod": f"kod-{made[:8]}",
            "sifre": "sifre",
            "apiToken": f"token-{made[:8]}",
            **more,
        }
        await self._insert("integrations", values)
        return made

    async def route(self, package: str, kind: str, target: str | None = None) -> None:
        values = {
            "tenantId": self.tenant,
            "package_id": package,
            "providerType": kind,
            "primaryProviderId": target,
        }
        await self._insert("package_routing", values)

    async def add(self, status: str = "sent", *, age: float | None = 100.0, **more: Any) -> str:
        """Add an order that was sent ``age`` seconds before the tests' time."""
        made = str(more.pop("id", new_id()))
        values = {"id": made, "tenantId": self.tenant, "externalStatus": status, **more}
        await self._insert("product_orders", values)
        sent = None if age is None else NOW - age
        sql = 'UPDATE product_orders SET "sentAt" = to_timestamp($2::float8) WHERE id = $1'
        await self.connection.execute(sql, made, sent)
        return made

    async def set(self, order_id: str, **values: Any) -> None:
        sets = ", ".join(f'"{name}" = ${n}' for n, name in enumerate(values, 2))
        sql = f"UPDATE product_orders SET {sets} WHERE id = $1"
        await self.connection.execute(sql, order_id, *values.values())

    async def row(self, order_id: str) -> dict[str, Any]:
        row = await self.connection.fetchrow("SELECT * FROM product_orders WHERE id = $1", order_id)
        assert row is not None
        return dict(row)

    async def events(self, order_id: str) -> list[dict[str, Any]]:
        sql = "SELECT * FROM order_monitor_events WHERE order_id = $1 ORDER BY id"
        return [dict(row) for row in await self.connection.fetch(sql, order_id)]


@asynccontextmanager
async def real_shop(dsn: str) -> AsyncIterator[RealShop]:
    """The shop of an empty database."""
    connection = await asyncpg.connect(dsn)
    shop = RealShop(dsn, connection, [], new_id())
    try:
        await connection.execute(TABLES)
        _ = [line async for line in Migration(shop.database(), CONFIG, SystemClock()).apply()]
        await connection.execute(NO_FIRST_START)
        yield shop
    finally:
        for database in shop.databases:
            await database.close()
        await connection.close()


@pytest.fixture
async def shop(database_dsn: str) -> AsyncIterator[RealShop]:
    async with real_shop(database_dsn) as made:
        yield made


def code_of(reference: str) -> str:
    """The code that a provider gives for a reference: each its own."""
    return f"PIN-{sum(map(ord, reference)):06d}-{reference[-6:].upper()}"


class Providers:
    """A dealer panel and a client API, each of which ends whatever it is asked about."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.asked: list[tuple[str, str]] = []

    def open(self, made: Integration) -> Account:
        if made.provider == "znet":
            login = ZnetAccount("https://x.example", made.user, made.password)
            client: Any = Znet(login, httpx.MockTransport(self.znet), self.clock)
        else:
            dialect = TENANT if made.provider == "internal" else ZDK
            account = ClientApiAccount("https://y.example", made.token, dialect=dialect)
            client = ClientApi(account, httpx.MockTransport(self.client_api), self.clock)
        return Account(label(made), client, Gate(5), Pace(1000.0))

    def znet(self, request: httpx.Request) -> httpx.Response:
        reference = request.url.params["tahsilat_api_islem_id"]
        self.asked.append(("znet", reference))
        return text(f"OK|2|{code_of(reference)}|tamam")

    def client_api(self, request: httpx.Request) -> httpx.Response:
        if "x-tenant-host" in request.headers:
            assert "uuid" not in request.url.params
            names = request.url.params["orders"].split(",")
            self.asked += [("tenant", name) for name in names]
            return text(
                json.dumps([{"id": n, "status": "accept", "pin": code_of(n)} for n in names])
            )
        names = json.loads(request.url.params["orders"])
        kind = "uuid" if request.url.params.get("uuid") == "1" else "id"
        self.asked += [(kind, name) for name in names]
        data = [{"order_id": n, "status": "accept", "pin": code_of(n)} for n in names]
        return text(json.dumps({"status": "OK", "data": data}))
