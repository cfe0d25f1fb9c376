"""The gain from further processes: ``python -m benchmarks.several``.

The same orders of 40 accounts, all of which have ended: the time from their insertion until the
last PIN is in the database, with one process, two and four, over one PostgreSQL and one provider.
Also: how many questions were duplicates.

``python -m benchmarks.several memory 300000``: so many open orders, and processes that start at
once; the memory of each, beyond what it needs without orders.
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
from benchmarks.compare.processes import Command, Running, started
from benchmarks.compare.provider import Provider
from benchmarks.compare.usage import resident_bytes
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.demo.show import SCHEMA
from tests.support.market import PLAIN_TABLES

ACCOUNTS: Final = 40
ORDERS: Final = 8000
LATENCIES: Final = (0.05, 0.2)
IN_FLIGHT: Final = 20
"""Concurrent calls of one process."""

_ORDERS: Final = """
INSERT INTO product_orders (id, external_status, sent_at, provider_referans, provider_id)
SELECT gen_random_uuid(), 'sent', now() - interval '10 minutes', 'R' || n, ($2::text[])[1 + n % $3::int]
FROM generate_series(1, $1::int) n
"""
_OPEN: Final = """
INSERT INTO product_orders (id, external_status, sent_at, provider_referans, provider_id)
SELECT gen_random_uuid(), 'sent', now() - random() * interval '20 hours', 'R' || n, ($2::text[])[1 + n % $3::int]
FROM generate_series(1, $1::int) n
"""
_STEADY_FOR: Final = 12.0
"""Seconds without a change of more than a fiftieth after which memory counts as steady."""

_HELD: Final = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database =
(SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY pid ORDER BY 1
"""


async def laid(server: EmbeddedPostgres, name: str, url: str) -> asyncpg.Connection[Any]:
    """Create a shop with its accounts and no orders."""
    root = await asyncpg.connect(server.dsn())
    await root.execute(f'CREATE DATABASE "{name}"')
    await root.close()
    connection = await asyncpg.connect(server.dsn(name))
    await connection.execute(SCHEMA + ";" + PLAIN_TABLES)
    await connection.execute(
        "ALTER TABLE product_orders ADD COLUMN IF NOT EXISTS provider_referans varchar(255)"
    )
    await connection.execute("ALTER TABLE product_orders ADD COLUMN IF NOT EXISTS provider_id text")
    await install(server.dsn(name))
    for n in range(ACCOUNTS):
        await connection.execute(
            "INSERT INTO integrations (id, name, provider, base_url, kod, sifre) VALUES ($1::uuid, $2, 'znet', $3, $4, $5)",
            *(str(uuid.uuid4()), f"shop{n}", url, f"{KOD}{n}", SIFRE),
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


async def measure(
    server: EmbeddedPostgres, provider: Provider, processes: int, latency: float
) -> tuple[float, int]:
    """Return the seconds until all orders had their PIN, and the number of duplicate questions."""
    await provider.reset(latency=latency, all_end=True)
    name = f"several_{processes}_{int(latency * 1000)}"
    connection = await laid(server, name, provider.url)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="order-monitor-benchmark-"))
        settings = environment(Load(provider.url, server.dsn(name), folder, IN_FLIGHT))
        running = await stack.enter_async_context(started([], Path(folder)))
        for _ in range(processes):
            await running.start(
                Command("own", (sys.executable, "-m", "order_monitor"), settings), Path(folder)
            )
        await shared(connection, processes)
        accounts = [row[0] for row in await connection.fetch("SELECT id::text FROM integrations")]
        began = time.perf_counter()
        await connection.execute(_ORDERS, ORDERS, accounts, ACCOUNTS)
        while await connection.fetchval(
            "SELECT count(*) FROM product_orders WHERE pin_code IS NULL"
        ):
            running.check()
            await asyncio.sleep(0.05)
        took = time.perf_counter() - began
    await connection.close()
    return took, (await provider.count())["repeated"]


def environment(load: Load) -> dict[str, str]:
    """Return the environment of one of several processes, with accounts from the database."""
    more = {
        "PROVIDER__SOURCE": "database",
        "PROVIDER__ALLOW_PRIVATE": "true",
        "CLUSTER__ENABLED": "true",
        "SCHEDULE__SCAN_INTERVAL": "1",
    }
    settings = environ(load) | {f"ORDER_MONITOR_{name}": value for name, value in more.items()}
    for key in ("BASE_URL", "KOD", "SIFRE"):
        settings.pop(f"ORDER_MONITOR_PROVIDER__{key}")
    return settings


async def steady(running: Running) -> list[int]:
    """Return the resident bytes of each process once they change no more."""
    loop = asyncio.get_running_loop()
    since, before = loop.time(), 0
    while True:
        await asyncio.sleep(1)
        running.check()
        found = [resident_bytes([pid]) for pid in running.pids("own")]
        if abs(sum(found) - before) > before / 50:
            since, before = loop.time(), sum(found)
        elif loop.time() - since >= _STEADY_FOR:
            return found


async def remember(server: EmbeddedPostgres, provider: Provider, processes: int, count: int) -> int:
    """Return the most memory of a process, in bytes, with ``count`` orders open at its start."""
    await provider.reset()
    name = f"memory_{processes}_{count}"
    connection = await laid(server, name, provider.url)
    accounts = [row[0] for row in await connection.fetch("SELECT id::text FROM integrations")]
    await connection.execute(_OPEN, count, accounts, ACCOUNTS)
    await connection.execute("ANALYZE product_orders")
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="order-monitor-benchmark-"))
        running = await stack.enter_async_context(started([], Path(folder)))
        settings = environment(Load(provider.url, server.dsn(name), folder, IN_FLIGHT))
        settings["ORDER_MONITOR_LIMITS__CALLS_PER_SECOND"] = "0.1"
        for _ in range(processes):
            await running.start(
                Command("own", (sys.executable, "-m", "order_monitor"), settings), Path(folder)
            )
        await shared(connection, processes)
        found = await steady(running)
    await connection.close()
    return max(found)


async def memory(count: int) -> None:
    """Measure what each process remembers, and print the table."""
    print(f"| {count:,} open orders | memory of a process for them | to one process |")
    print("|---|---|---|")
    with EmbeddedPostgres({"max_connections": "200"}) as server:
        async with Provider() as provider:
            bare = await remember(server, provider, 1, 0)
            alone = 0
            for processes in (1, 2, 3):
                used = await remember(server, provider, processes, count) - bare
                alone = alone or used
                print(
                    f"| {processes} processes | {used / 1e6:.0f} MB | {used / alone:.2f} |",
                    flush=True,
                )


async def main() -> None:
    """Measure, and print the table."""
    print(
        f"| {ORDERS:,} orders of {ACCOUNTS} accounts | processes | checks a second, to one process | asked twice |"
    )
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
    asyncio.run(memory(int(sys.argv[2])) if sys.argv[1:2] == ["memory"] else main())
