"""What a second process brings: ``python -m benchmarks.several``.

The same orders of 40 accounts, all of which have ended: how soon after they are there the last PIN is in the database, with one
process, with two and with four, over one PostgreSQL and one provider. Beside it how many questions came twice.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.compare.contestants.monitor import environ, install
from benchmarks.compare.load import KOD, SIFRE, Load
from benchmarks.compare.processes import Command, started
from benchmarks.compare.provider import Provider
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.demo.show import SCHEMA
from tests.shop.test_accounts import PLAIN_TABLES

ACCOUNTS: Final = 40
ORDERS: Final = 8000
LATENCIES: Final = (0.05, 0.2)
IN_FLIGHT: Final = 20
"""Calls at once of one process."""

_ORDERS: Final = """
INSERT INTO product_orders (id, external_status, sent_at, provider_referans, provider_id)
SELECT gen_random_uuid(), 'sent', now() - interval '10 minutes', 'R' || n, ($2::text[])[1 + n % $3::int]
FROM generate_series(1, $1::int) n
"""
_HELD: Final = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database =
(SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY pid ORDER BY 1
"""


async def laid(server: EmbeddedPostgres, name: str, url: str) -> asyncpg.Connection[Any]:
    """Lay a shop with its accounts, and no order."""
    root = await asyncpg.connect(server.dsn())
    await root.execute(f'CREATE DATABASE "{name}"')
    await root.close()
    connection = await asyncpg.connect(server.dsn(name))
    await connection.execute(SCHEMA + ";" + PLAIN_TABLES)
    await connection.execute("ALTER TABLE product_orders ADD COLUMN IF NOT EXISTS provider_referans varchar(255)")
    await connection.execute("ALTER TABLE product_orders ADD COLUMN IF NOT EXISTS provider_id text")
    await install(server.dsn(name))
    for n in range(ACCOUNTS):
        await connection.execute(
            "INSERT INTO integrations (id, name, provider, base_url, kod, sifre) VALUES ($1::uuid, $2, 'znet', $3, $4, $5)",
            *(str(uuid.uuid4()), f"shop{n}", url, KOD, SIFRE),
        )
    return connection


async def shared(connection: asyncpg.Connection[Any], processes: int) -> None:
    """Wait until each process holds its share."""
    async with asyncio.timeout(120):
        while True:
            held = [row[0] for row in await connection.fetch(_HELD)]
            if len(held) == processes and min(held) >= ACCOUNTS // processes:
                return
            await asyncio.sleep(0.1)


async def measure(server: EmbeddedPostgres, provider: Provider, processes: int, latency: float) -> tuple[float, int]:
    """Return in how many seconds all orders had their PIN, and how many questions came twice."""
    await provider.reset(latency=latency, all_end=True)
    name = f"several_{processes}_{int(latency * 1000)}"
    connection = await laid(server, name, provider.url)
    more = {"ORDER_MONITOR_PROVIDER__SOURCE": "database", "ORDER_MONITOR_PROVIDER__ALLOW_PRIVATE": "true"}
    more |= {"ORDER_MONITOR_CLUSTER__ENABLED": "true", "ORDER_MONITOR_SCHEDULE__SCAN_INTERVAL": "1"}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="order-monitor-benchmark-"))
        settings = environ(Load(provider.url, server.dsn(name), folder, IN_FLIGHT)) | more
        for key in ("BASE_URL", "KOD", "SIFRE"):
            settings.pop(f"ORDER_MONITOR_PROVIDER__{key}")
        running = await stack.enter_async_context(started([], Path(folder)))
        for _ in range(processes):
            await running.start(Command("own", (sys.executable, "-m", "order_monitor"), settings), Path(folder))
        await shared(connection, processes)
        accounts = [row[0] for row in await connection.fetch("SELECT id::text FROM integrations")]
        began = time.perf_counter()
        await connection.execute(_ORDERS, ORDERS, accounts, ACCOUNTS)
        while await connection.fetchval("SELECT count(*) FROM product_orders WHERE pin_code IS NULL"):
            running.check()
            await asyncio.sleep(0.05)
        took = time.perf_counter() - began
    await connection.close()
    return took, (await provider.count())["repeated"]


async def main() -> None:
    """Print the table."""
    print(f"| {ORDERS:,} orders of {ACCOUNTS} accounts | processes | checks a second, to one process | asked twice |")
    print("|---|---|---|---|")
    with EmbeddedPostgres({"max_connections": "200"}) as server:
        async with Provider() as provider:
            for latency in LATENCIES:
                alone = 0.0
                for processes in (1, 2, 4):
                    took, repeated = await measure(server, provider, processes, latency)
                    alone = alone or took
                    print(
                        f"| {latency * 1000:.0f} ms an answer | {processes} | {alone / took:.2f} | {repeated} |",
                        flush=True,
                    )


if __name__ == "__main__":
    asyncio.run(main())
