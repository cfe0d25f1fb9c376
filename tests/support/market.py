"""A shop with tenants, packages and integrations, and the panels of their accounts."""

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from order_monitor.core.gate import Gate, Pace
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.repository import Orders
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import ShopAccounts, label
from tests.support.clocks import Drive, ManualClock
from tests.support.engines import AtClock
from tests.support.shops import SHOP, Shop

PLAIN_TABLES = """
CREATE TABLE package_routing (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id uuid, package_id uuid, mode varchar(20),
    provider_type varchar(20), primary_provider_id varchar(64), fallback_provider_id varchar(64));
CREATE TABLE integrations (id uuid PRIMARY KEY, tenant_id uuid, name varchar(100), provider varchar(40), base_url varchar(255),
    kod varchar(100), sifre varchar(100), enabled boolean NOT NULL DEFAULT true);
ALTER TABLE product_orders ADD COLUMN provider_id varchar(64);
"""
SHOP_TABLES = """
CREATE TABLE package_routing (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid, package_id uuid, mode varchar(20),
    "providerType" varchar(20), "primaryProviderId" varchar(64), "fallbackProviderId" varchar(64));
CREATE TABLE integrations (id uuid PRIMARY KEY, "tenantId" uuid, name varchar(100), provider varchar(40), "baseUrl" varchar(255),
    "apiToken" text, kod varchar(100), sifre varchar(100), enabled boolean NOT NULL DEFAULT true);
ALTER TABLE product_orders ADD COLUMN "providerId" varchar(64);
"""


@dataclass
class Market:
    """A shop with tenants, packages and integrations."""

    shop: Shop
    secrets: list[str] = field(default_factory=list)

    @property
    def is_shop(self) -> bool:
        return self.shop.spelling is SHOP

    async def integration(
        self, tenant: str | None, *, provider: str = "znet", enabled: bool = True, **more: str
    ) -> str:
        integration_id = str(uuid.uuid4())
        values = {
            "name": "main",
            "kod": f"kod-{integration_id[:8]}",
            "sifre": "sifre-1",
            "base": "https://x.example",
            **more,
        }
        tenant_column, url_column = (
            ('"tenantId"', '"baseUrl"') if self.is_shop else ("tenant_id", "base_url")
        )
        await self.shop.connection.execute(
            f"INSERT INTO integrations (id, {tenant_column}, name, provider, {url_column}, kod, sifre, enabled) "
            "VALUES ($1::uuid, $2::uuid, $3, $4, $5, $6, $7, $8)",
            integration_id,
            tenant,
            values["name"],
            provider,
            values["base"],
            values["kod"],
            values["sifre"],
            enabled,
        )
        return integration_id

    async def route(self, tenant: str | None, package: str, target: str | None) -> None:
        tenant_column, target_column = (
            ('"tenantId"', '"primaryProviderId"')
            if self.is_shop
            else ("tenant_id", "primary_provider_id")
        )
        await self.shop.connection.execute(
            f"INSERT INTO package_routing ({tenant_column}, package_id, {target_column}) VALUES ($1::uuid, $2::uuid, $3)",
            tenant,
            package,
            target,
        )

    def orders(self) -> Orders:
        return self.shop.orders(accounts_from_shop=True, refresh=60.0)


@pytest.fixture
async def market(shop: Shop) -> Market:
    await shop.connection.execute(SHOP_TABLES if shop.spelling is SHOP else PLAIN_TABLES)
    return Market(shop)


def new_id() -> str:
    return str(uuid.uuid4())


class Silent:
    def __init__(self) -> None:
        self.closed = False

    async def ask(self, reference: str) -> Any:
        raise NotImplementedError

    async def balance(self) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True


class Panels:
    """One panel an account, told apart by its kod."""

    def __init__(self, market: Market, answer: Callable[[str], Any], **options: Any) -> None:
        self.clock = ManualClock()
        self.calls: Counter[str] = Counter()
        self.answer = answer
        self.directory = ShopAccounts(self._open)
        self.engine = Engine(
            AtClock(market.orders(), self.clock),
            self.directory,
            Policy(Continuous(Schedule(jitter=0)), **options),
            self.clock,
        )

    def _open(self, made: Integration) -> Account:
        login = ZnetAccount(made.base_url, made.user, made.password)
        return Account(
            label(made),
            Znet(login, httpx.MockTransport(self.ask), self.clock),
            Gate(5),
            Pace(1000.0),
        )

    async def ask(self, request: httpx.Request) -> httpx.Response:
        kod = request.url.params["kod"]
        self.calls[kod] += 1
        answer = self.answer(kod)
        return answer if isinstance(answer, httpx.Response) else await answer


@asynccontextmanager
async def running(panels: Panels) -> AsyncIterator[Drive]:
    async with Drive(panels.engine, panels.clock) as drive:
        yield drive
