"""What the book tells a shop to do is done here, word for word, over a real database and with real
processes.
"""

import asyncio
import os
import random
import re
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from order_monitor.core.answer import Cancelled, Completed
from order_monitor.core.pin import Pin
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.schema.columns import LOGICAL, quoted
from tests.support import readme
from tests.support.events import prepared
from tests.support.market import PLAIN_TABLES, SHOP_TABLES
from tests.support.orders import found
from tests.support.processes import KOD, PIN, SIFRE, Panel, once, panel, running, sent, settings
from tests.support.shops import SHOP, Shop
from tests.support.webhooks import SECRET, Receiver, receiver

pytestmark = pytest.mark.outside

__all__ = ["panel", "receiver"]

SETTINGS = """
import os, sys
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": {name!r}, "USER": {user!r},
    "PASSWORD": {password!r}, "HOST": {host!r}, "PORT": {port!r}}}}}
"""
MODELS = """
from django.db import models

class ProductOrder(models.Model):
    id = models.UUIDField(primary_key=True)
    external_status = models.CharField(max_length=30, db_column={external_status!r})
    sent_at = models.DateTimeField(null=True, db_column={sent_at!r})
    provider_referans = models.CharField(max_length=255, null=True)
    status = models.CharField(max_length=20)

    class Meta:
        managed = False
        db_table = "product_orders"
"""
MONEY = """
from django.db import connection

def _note(what, order):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO money (what, order_id) VALUES (%s, %s)", [what, order.pk])

def approve(order):
    _note("approve", order)

def refund(order):
    _note("refund", order)
"""
ZNET = """
from django.db import connection

def send_to_znet(order, referans):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO dispatched SELECT id, provider_referans FROM product_orders WHERE id = %s", [order.pk])
"""
START = "import django, os; os.environ['DJANGO_SETTINGS_MODULE'] = 'project'; django.setup();"


class Project:
    """A small Django project over the shop's database, with the book's code in it."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.shop = shop
        self.folder = folder
        address = parse_dsn(shop.dsn)
        database = {
            "name": address.name,
            "user": address.user,
            "password": address.password or "",
            "host": address.hosts[0],
            "port": str(address.ports[0]),
        }
        app = folder / "shop"
        app.mkdir()
        files = {
            "__init__.py": "",
            "models.py": MODELS.format(
                **{n: shop.spelling.name(n) for n in ("external_status", "sent_at")}
            ),
            "money.py": MONEY,
            "znet.py": ZNET,
            "dispatch.py": readme.block("python", "# shop/dispatch.py"),
            "consumer.py": readme.block("python", "# shop/consumer.py"),
        }
        for name, text in files.items():
            (app / name).write_text(text, "utf-8")
        (folder / "project.py").write_text(SETTINGS.format(**database))

    async def start(self, code: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "error",
            "-c",
            START + code,
            cwd=self.folder,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""},
        )

    async def run(self, code: str) -> None:
        process = await self.start(code)
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()


@pytest.mark.long
async def test_the_dispatch_code_keeps_a_reference_that_the_daemon_can_use(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """The reference is there before znet is called, and is of the form that znet takes."""
    order_id = await shop.add("not_sent", sent_at=None, reference="")
    await shop.connection.execute("CREATE TABLE dispatched (id uuid, referans text)")
    project = Project(shop, tmp_path)
    await project.run(
        f"from shop.dispatch import dispatch, ProductOrder;dispatch(ProductOrder.objects.get(pk='{order_id}'))"
    )
    row = await shop.row(order_id)
    assert re.fullmatch(r"[0-9]{16}", row["provider_referans"])
    assert row["external_status"] == "sent"
    assert (
        await shop.connection.fetchval("SELECT referans FROM dispatched")
        == row["provider_referans"]
    )
    config = settings(shop.dsn, panel.server.url, schedule={"first_check": 0})
    assert (await once(tmp_path, config))[0] == 0
    assert list(panel.server.calls) == [row["provider_referans"]]
    assert (await shop.row(order_id))["pin_code"] == PIN


@pytest.mark.long
async def test_the_django_consumer_killed_at_random_moves_money_once(
    shop: Shop, tmp_path: Path
) -> None:
    await shop.connection.execute("CREATE TABLE money (what text, order_id uuid)")
    ids = [await shop.add() for _ in range(60)]
    orders = await prepared(shop)
    await orders.record([found(shop.order(i), Cancelled("x")) for i in ids[:30]])
    await orders.record([found(shop.order(i), Completed(Pin(f"{PIN}-{i}"))) for i in ids[30:]])
    for order_id in ids[:5]:
        await shop.set(order_id, external_status="sent")
    await orders.record([found(shop.order(i), Cancelled("x")) for i in ids[:5]])
    project = Project(shop, tmp_path)
    chance = random.Random(5)
    slowly = (
        "from shop.consumer import consume_one; import time\nwhile consume_one(): time.sleep(0.004)"
    )
    for _ in range(3):
        pair = [await project.start(slowly) for _ in range(2)]
        before = await shop.connection.fetchval("SELECT count(*) FROM money")
        for _ in range(1000):
            if await shop.connection.fetchval("SELECT count(*) FROM money") > before:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(chance.random() * 0.02)
        for process in pair:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.communicate()
    left = await shop.connection.fetchval(
        "SELECT count(*) FROM order_monitor_events WHERE consumed_at IS NULL"
    )
    assert 0 < left < 65, "killed in the middle"
    await project.run("from shop.consumer import consume_one\nwhile consume_one(): pass")
    rows = await shop.connection.fetch("SELECT what, order_id::text FROM money")
    assert sorted((r["what"], r["order_id"]) for r in rows) == sorted(
        [("refund", i) for i in ids[:30]] + [("approve", i) for i in ids[30:]]
    )
    assert (
        await shop.connection.fetchval(
            "SELECT count(*) FROM order_monitor_events WHERE consumed_at IS NULL"
        )
        == 0
    )


@asynccontextmanager
async def least_role(shop: Shop) -> AsyncIterator[str]:
    """The role of the book, in the shop's own spelling; gives its DSN."""
    role = f"r{uuid.uuid4().hex}"
    sql = readme.block("sql", "CREATE ROLE monitor").replace(
        "monitor LOGIN PASSWORD '…'", "monitor LOGIN PASSWORD 'pw'"
    )
    there = {
        r[0]
        for r in await shop.connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'product_orders'"
        )
    }

    def spelled(match: re.Match[str]) -> str:
        names = [LOGICAL[name.strip()][shop.spelling.index] for name in match[1].split(",")]
        listed = ", ".join(quoted(name) for name in names if name in there)
        return f"UPDATE ({listed})"

    sql = re.sub(r"UPDATE \(([a-z_, ]+)\)", spelled, sql)
    sql = re.sub(r"\b(ROLE|TO) monitor\b", rf"\1 {role}", sql)
    await shop.connection.execute(sql)
    try:
        yield f"postgresql://{role}:pw@{shop.dsn.partition('@')[2]}"
    finally:
        await shop.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.long
@pytest.mark.parametrize("source", ["config", "database"])
async def test_the_daemon_needs_no_more_than_the_role_of_the_readme(
    shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path, source: str
) -> None:
    """E13: scan, write, events, notifications and the webhook, as a process, and `check` finds
    nothing missing.
    """
    await shop.connection.execute(SHOP_TABLES if shop.spelling is SHOP else PLAIN_TABLES)
    more: dict[str, dict[str, Any]] = {
        "provider": {"source": source, "allow_private": True},
        "webhook": {"url": receiver.url, "secret": SECRET},
    }
    async with running(tmp_path, settings(shop.dsn, panel.server.url, **more), "migrate") as run:
        assert await run.end() == 0
    tenant, base_url = (
        ('"tenantId"', '"baseUrl"') if shop.spelling is SHOP else ("tenant_id", "base_url")
    )
    integration = str(uuid.uuid4())
    await shop.connection.execute(
        f"INSERT INTO integrations (id, {tenant}, name, provider, {base_url}, kod, sifre) "
        "VALUES ($1::uuid, NULL, 'main', 'znet', $2, $3, $4)",
        integration,
        panel.server.url,
        KOD,
        SIFRE,
    )
    ids = await sent(shop, 5)
    provider = '"providerId"' if shop.spelling is SHOP else "provider_id"
    await shop.connection.execute(f"UPDATE product_orders SET {provider} = $1", integration)
    async with least_role(shop) as dsn:
        config = settings(dsn, panel.server.url, **more)
        async with running(tmp_path, config, "check", "--json") as run:
            code = await run.end()
        assert (code, b'"error"' in run.out) == (0, False), run.out.decode()
        async with running(tmp_path, config) as run:
            await receiver.has_got(len(ids))
            run.process.send_signal(signal.SIGTERM)
            assert await run.end() == 0
        assert {body["data"]["order_id"] for body in receiver.got} == set(ids)
        for order_id in ids:
            row = await shop.row(order_id)
            assert (row["external_status"], row["pin_code"]) == (
                "completed",
                panel.pin_of(row["provider_referans"]),
            )
        forbids = ["UPDATE product_orders SET status = 'x'", "DELETE FROM product_orders"]
        if shop.connection.get_server_version().major > 14:
            forbids.append("CREATE TABLE public.x ()")
        for forbidden in forbids:
            connection = await asyncpg.connect(dsn)
            with pytest.raises(Exception, match="permission denied"):
                await connection.execute(forbidden)
            await connection.close()


def test_the_log_table_names_every_event_and_no_other() -> None:
    """An operator who greps for an event finds it in the book."""
    section = readme.PAGES["operating.md"].partition("## Log events")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)?)`", section)) - {"pin_not_written"}
    known = set()
    for path in (readme.ROOT / "order_monitor").rglob("*.py"):
        if "demo" not in path.parts:
            known |= set(
                re.findall(
                    r"\.(?:info|warning|error|critical|log)\((?:level, )?\s*\"([a-z_.]+)\"",
                    path.read_text(),
                )
            )
    known |= {
        "order.completed",
        "order.failed",
        "order.refused",
        "order.garbled",
        "order.busy",
        "order.blocked",
    }
    assert told == known
