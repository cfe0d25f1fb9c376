"""PostgreSQL dies, refuses, is full, cuts and freezes, while orders keep coming in."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from tests.faults.database import MortalPostgres, connect
from tests.faults.stage import Shop
from tests.support.proxies import Proxy

CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
OURS = f"{CUT} AND application_name <> 'the shop'"


async def test_the_server_dies_and_comes_back(
    shop: Shop, mortal: MortalPostgres, tmp_path: Path
) -> None:
    async with shop.daemon(tmp_path) as run:
        async with shop.under_load():
            for _ in range(2):
                await asyncio.sleep(1.5)
                mortal.die()
                await asyncio.sleep(1.5)
                mortal.come_back()
            await asyncio.sleep(1)
        await shop.end("PostgreSQL stopped hard, twice", at_least=50)
    names = [event["event"] for event in run.events()]
    assert "database.lost" in names
    assert "database.back" in names


async def test_the_server_becomes_read_only_for_a_while(
    shop: Shop, mortal: MortalPostgres, tmp_path: Path
) -> None:
    async with shop.daemon(tmp_path) as run:
        async with shop.under_load():
            await asyncio.sleep(1)
            await reconfigure(mortal, "SET default_transaction_read_only = on")
            await asyncio.sleep(3)
            await reconfigure(mortal, "RESET default_transaction_read_only")
            await asyncio.sleep(1)
        await shop.end("read-only for 3 s", at_least=50)
    assert "database.lost" in [event["event"] for event in run.events()]


async def reconfigure(mortal: MortalPostgres, change: str) -> None:
    connection = await connect(mortal.dsn())
    await connection.execute(f"ALTER SYSTEM {change}")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


async def test_the_server_has_no_connection_left(
    shop: Shop, mortal: MortalPostgres, tmp_path: Path
) -> None:
    """Whoever has connections keeps them, so ours are cut.

    Then every place is taken by somebody else.
    """
    async with shop.daemon(tmp_path) as run:
        async with shop.under_load(), AsyncExitStack() as taken:
            await asyncio.sleep(1)
            await take_all(mortal, taken, shop)
            await asyncio.sleep(3)
        await shop.place(20)
        await shop.end("no connection left for 3 s", at_least=40)
    assert "database.lost" in [event["event"] for event in run.events()]


async def take_all(mortal: MortalPostgres, taken: AsyncExitStack, shop: Shop) -> None:
    async with shop.hand() as connection:
        await connection.execute(CUT)
        while True:
            await connection.execute(OURS)
            try:
                more = await asyncpg.connect(mortal.dsn())
            except asyncpg.TooManyConnectionsError:
                return
            taken.callback(more.terminate)


async def test_connections_are_cut_over_and_over(shop: Shop, tmp_path: Path) -> None:
    async with shop.daemon(tmp_path):
        cuts = 0
        async with shop.under_load(), shop.hand() as connection:
            for _ in range(60):
                cuts += len(await connection.fetch(OURS))
                await asyncio.sleep(0.05)
        await shop.end(f"{cuts} connections cut by pg_terminate_backend", at_least=50)
    assert cuts >= 5


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_network_freezes_about_a_commit(shop: Shop, tmp_path: Path, moment: str) -> None:
    """Before: the COMMIT arrives when nobody waits for it any more.

    After: it was made, and nobody heard so.
    """
    async with Proxy(shop.dsn) as proxy, shop.daemon(tmp_path, shop.config(proxy.dsn)) as run:
        proxy.only_writing = True
        async with shop.under_load():
            for _ in range(2):
                proxy.frozen.clear()
                await asyncio.sleep(0.5)
                setattr(proxy, f"freeze_{moment}", b"COMMIT")
                await asyncio.wait_for(proxy.frozen.wait(), 10)
                # Longer than a whole unit of work may take: it is given up.
                await asyncio.sleep(8)
                proxy.flowing.set()
                await asyncio.sleep(1)
        await shop.end(f"the network frozen {moment} a writing COMMIT, twice", at_least=100)
    assert "database.lost" in [event["event"] for event in run.events()]


async def test_the_commits_word_is_cut(shop: Shop, tmp_path: Path) -> None:
    """The connection is lost exactly between a commit and its word, many times."""
    async with Proxy(shop.dsn) as proxy, shop.daemon(tmp_path, shop.config(proxy.dsn)):
        proxy.only_writing = True
        async with shop.under_load():
            for _ in range(20):
                proxy.cut_after = b"COMMIT"
                await asyncio.sleep(0.2)
        await shop.end(f"{proxy.cuts} writing commits made whose word was cut", at_least=100)
        assert proxy.cuts >= 5


async def test_rows_are_locked_for_long(shop: Shop, tmp_path: Path) -> None:
    """Those that are free are written meanwhile."""
    ids = await shop.place(60)
    async with shop.daemon(tmp_path), shop.hand() as connection:
        async with connection.transaction():
            await connection.execute(
                "SELECT FROM product_orders WHERE id = ANY($1::uuid[]) FOR UPDATE", held := ids[::3]
            )
            await shop.place(60)
            await asyncio.sleep(8)
            async with shop.hand() as other:
                left = await other.fetch(
                    "SELECT id::text FROM product_orders WHERE external_status = 'sent'"
                )
            assert {row["id"] for row in left} <= set(held), "what nobody holds is written"
        await shop.end("a third of the rows locked for 8 s", at_least=120)
