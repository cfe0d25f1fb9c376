"""Behind a real pgbouncer in transaction mode, where every statement may run on another server
connection.
"""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from order_monitor.cluster.membership import Membership
from order_monitor.core.answer import Completed
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.errors import SettingsError
from order_monitor.core.pin import Pin
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.shop.migration import Migration
from order_monitor.watch.system_clock import SystemClock
from tests.support.orders import found
from tests.support.pgbouncer import CONFIG, PGBOUNCER
from tests.support.prepared import are_kept
from tests.support.processes import running, settings
from tests.support.shops import LAYOUT, Shop


@pytest.fixture
async def pooled(
    plain_shop: Shop, server: EmbeddedPostgres, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    """The address of the shop's database through the pooler, in transaction mode if nothing else is
    asked for.
    """
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    url = urlsplit(plain_shop.dsn)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = Path(tempfile.mkdtemp(prefix="pooler-"))
    (directory / "users").write_text(f'"{url.username}" "{unquote(url.password or "")}"\n')
    mode = getattr(request, "param", "transaction")
    size = 8 if mode == "session" else 2
    config = CONFIG.format(
        mode=mode, size=size, host=server.directory, port=port, directory=directory
    )
    (directory / "ini").write_text(config)
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if user is not None:
        for path in (directory, *directory.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    process = subprocess.Popen([PGBOUNCER, "-q", str(directory / "ini")], **identity)  # type: ignore[call-overload]
    dsn = f"postgresql://{url.username}:{url.password}@127.0.0.1:{port}{url.path}"
    try:
        await _answers(dsn)
        yield dsn
        for database in plain_shop.databases:
            await database.close()
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(directory)


async def _answers(dsn: str) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(OSError, asyncpg.PostgresError):
                await (await asyncpg.connect(dsn, statement_cache_size=0)).close()
                return
            await asyncio.sleep(0.05)


async def test_no_foreign_statement_answers_for_ours(plain_shop: Shop, pooled: str) -> None:
    """A8: names of prepared statements are per-process counters.

    Through a pooler another client's may be run.
    """
    foreign = await asyncpg.connect(pooled, statement_cache_size=100)
    ids = [await plain_shop.add() for _ in range(60)]
    orders = plain_shop.orders(plain_shop.database(pooled, keeps_statements=True))
    await orders.prepare()

    async def disturb() -> None:
        for n in range(60):
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                await foreign.fetchval(f"SELECT 'other app {n % 7}'::text")

    async def work() -> None:
        for n in range(0, 60, 5):
            results = await orders.record(
                [found(plain_shop.order(i), Completed(Pin(f"P-{i}"))) for i in ids[n : n + 5]]
            )
            assert {r.fate for r in results} == {WriteStatus.WRITTEN}
            scan = await orders.scan()
            assert {o.id for o in scan.orders} == set(ids[n + 5 :])

    await asyncio.gather(disturb(), work())
    foreign.terminate()
    for order_id in ids:
        assert (await plain_shop.row(order_id))["pin_code"] == f"P-{order_id}"


@pytest.mark.parametrize("pooled", ["transaction", "session"], indirect=True)
async def test_no_statement_stays_prepared(plain_shop: Shop, pooled: str) -> None:
    database = plain_shop.database(pooled, keeps_statements=True)
    assert not await are_kept(database)
    await database.close()


@pytest.mark.wall_clock
async def test_nor_where_the_pooler_is_busy_at_first(
    plain_shop: Shop, pooled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lets the question wait that shows what is in between: that is an answer too."""
    monkeypatch.setattr("order_monitor.shop.database.HOST_TIMEOUT", 0.2)
    busy = [await asyncpg.connect(pooled, statement_cache_size=0) for _ in range(2)]
    for connection in busy:
        await connection.execute("BEGIN; SELECT 1")
    database = plain_shop.database(pooled, keeps_statements=True)
    kept = asyncio.create_task(are_kept(database))
    await asyncio.sleep(0.5)
    assert not kept.done()
    for connection in busy:
        await connection.execute("ROLLBACK")
        await connection.close()
    assert not await kept
    await database.close()


async def test_two_daemons_end_each_order_once(plain_shop: Shop, pooled: str) -> None:
    """E1."""
    ids = [await plain_shop.add() for _ in range(60)]
    writers = [plain_shop.orders(plain_shop.database(pooled)) for _ in range(2)]
    for writer in writers:
        await writer.prepare()
    batches = [
        w.record([found(plain_shop.order(i), Completed(Pin(f"P-{n}"))) for i in ids])
        for n, w in enumerate(writers)
    ]
    results = [r for batch in await asyncio.gather(*batches) for r in batch]
    for order_id in ids:
        written = [
            r for r in results if r.finding.order.id == order_id and r.fate is WriteStatus.WRITTEN
        ]
        assert len(written) <= 1
        assert (await plain_shop.row(order_id))["pin_code"] in (None, "P-0", "P-1")


async def test_nothing_set_here_is_felt_by_another_client(plain_shop: Shop, pooled: str) -> None:
    """E2."""
    await plain_shop.add()
    orders = plain_shop.orders(plain_shop.database(pooled))
    for _ in range(10):
        await orders.scan()
    for _ in range(6):
        other = await asyncpg.connect(pooled, statement_cache_size=0)
        assert await other.fetchval("SHOW row_security") == "on"
        assert await other.fetchval("SHOW statement_timeout") == "0"
        await other.close()


async def test_migrate_works_through_it(plain_shop: Shop, pooled: str) -> None:
    """CREATE INDEX CONCURRENTLY is a statement of its own, which the pooler passes on."""
    await plain_shop.connection.execute(
        "DROP TABLE order_monitor_timing; ALTER TABLE product_orders DROP provider_referans"
    )
    migration = Migration(plain_shop.database(pooled), LAYOUT, SystemClock())
    assert [line async for line in migration.apply()]
    assert await migration.missing(await migration.table()) == []


@pytest.mark.long
async def test_locks_that_are_worth_nothing_are_refused(
    plain_shop: Shop, pooled: str, tmp_path: Path
) -> None:
    """Two processes would both believe that they hold an account, or none could."""
    await plain_shop.add()
    config = settings(pooled, "http://127.0.0.1:9", cluster={"enabled": True})
    async with running(tmp_path, config) as run:
        assert await run.end() == 2
        assert "cluster.enabled: the database is reached through a pooler" in run.err.decode()
    async with running(tmp_path, config, "check") as run:
        assert await run.end() == 1
        assert "cluster.enabled: the database is reached through a pooler" in run.out.decode()
    other = await asyncpg.connect(pooled, statement_cache_size=0)
    assert await other.fetchval("SHOW idle_session_timeout") == "0"
    await other.close()


async def is_refused(shop: Shop, pooled: str) -> None:
    with pytest.raises(SettingsError, match="transaction mode"):
        async with Membership(shop.database(pooled), "public.product_orders", "x", "m").joined():
            pass


async def test_busy_or_not_the_pooler_is_seen(plain_shop: Shop, pooled: str) -> None:
    """Whichever server connection is given to whom just now."""
    noisy = [await asyncpg.connect(pooled, statement_cache_size=0) for _ in range(4)]

    async def disturb(connection: asyncpg.Connection) -> None:
        while True:
            await connection.execute("SELECT pg_sleep(0.001)")

    tasks = [asyncio.create_task(disturb(connection)) for connection in noisy]
    try:
        for _ in range(10):
            await is_refused(plain_shop, pooled)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for connection in noisy:
            connection.terminate()


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.003])
async def test_a_refusal_leaves_nothing_set_on_the_shops_own_connections(
    plain_shop: Shop, pooled: str, pause: float
) -> None:
    """Whatever the program's own looks do at that moment: a limit set by us would be the shop's
    from then on.
    """
    looker = await asyncpg.connect(pooled, statement_cache_size=0)

    async def look() -> None:
        while True:
            async with looker.transaction():
                await looker.fetchval("SELECT 1")
                await asyncio.sleep(pause)
            await asyncio.sleep(pause)

    task = asyncio.create_task(look())
    try:
        for _ in range(20):
            await is_refused(plain_shop, pooled)
    finally:
        task.cancel()
        await asyncio.wait({task})
        looker.terminate()  # or the transaction it was in would keep one of the pooler's two
    first, second = [await asyncpg.connect(pooled, statement_cache_size=0) for _ in range(2)]
    async with first.transaction(), second.transaction():
        assert [await one.fetchval("SHOW idle_session_timeout") for one in (first, second)] == [
            "0",
            "0",
        ]
    for one in (first, second):
        await one.close()


@pytest.mark.parametrize("pooled", ["session"], indirect=True)
async def test_a_pooler_in_session_mode_will_do(
    plain_shop: Shop, pooled: str, tmp_path: Path
) -> None:
    await plain_shop.add()
    config = settings(pooled, "http://127.0.0.1:9", cluster={"enabled": True})
    async with running(tmp_path, config) as run:
        assert (await run.event("cluster.joined"))["members"] == 1
        assert (await run.event("cluster.taken"))["accounts"] == ["default"]
        run.process.terminate()
        assert await run.end() == 0
