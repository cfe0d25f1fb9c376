"""What may be there later is waited for, with the cause in one line.

What no waiting mends is exit code 2.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.support.processes import Panel, Run, once, panel, running, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long

ROLE = "waits"


async def until(is_so: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await is_so():
            await asyncio.sleep(0.05)


async def says(run: Run, path: str) -> httpx.Response:
    port = (await run.event("health.listening"))["port"]
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


async def all_end(shop: Shop) -> None:
    async def is_so() -> bool:
        return not await shop.connection.fetchval(
            "SELECT count(*) FROM product_orders WHERE external_status <> 'completed'"
        )

    await until(is_so)


WRONG = {
    "the table is being renamed": (
        "ALTER TABLE product_orders RENAME TO later",
        "ALTER TABLE later RENAME TO product_orders",
        "there is no table public.product_orders",
    ),
    "a column comes later": (
        "ALTER TABLE product_orders RENAME pin_code TO later",
        "ALTER TABLE product_orders RENAME later TO pin_code",
        "has no column pin_code",
    ),
    "a word comes later": (
        "ALTER TABLE product_orders ALTER external_status TYPE varchar(6)",
        "ALTER TABLE product_orders ALTER external_status TYPE varchar(30)",
        "statuses.completed: product_orders.external_status cannot hold this value",
    ),
    "a right comes later": (
        f"REVOKE SELECT ON product_orders FROM {ROLE}",
        f"GRANT SELECT ON product_orders TO {ROLE}",
        "",
    ),
}


async def with_a_role(shop: Shop) -> str:
    """The address of a role that may do all that is needed."""
    connection = shop.connection
    with suppress(Exception):
        await connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'p'")
    tables = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
    await connection.execute(
        f"GRANT {tables} TO {ROLE}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}"
    )
    return str(httpx.URL(shop.dsn).copy_with(username=ROLE, password="p"))


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_not_there_yet_is_waited_for(
    plain_shop: Shop, panel: Panel, tmp_path: Path, what: str
) -> None:
    wrong, right, cause = WRONG[what]
    dsn = await with_a_role(plain_shop)
    await plain_shop.connection.execute(wrong)
    async with running(tmp_path, settings(dsn, panel.server.url)) as run:
        waiting = await run.event("scan.waiting")
        assert cause in waiting["why"]
        assert "\n" not in waiting["why"]
        assert (await says(run, "/livez")).status_code == 200
        assert (await says(run, "/readyz")).status_code == 503
        assert run.process.returncode is None
        await plain_shop.connection.execute(right)
        await sent(plain_shop, 2)
        await all_end(plain_shop)
        assert [line["event"] for line in run.events()].count("scan.waiting") <= 2


@pytest.mark.parametrize(
    "what", ["the table is being renamed", "a column comes later", "a word comes later"]
)
async def test_a_pass_does_not_wait(
    plain_shop: Shop, panel: Panel, tmp_path: Path, what: str
) -> None:
    await plain_shop.connection.execute(WRONG[what][0])
    code, _, errors = await once(tmp_path, settings(plain_shop.dsn, panel.server.url))
    assert code == 1
    assert WRONG[what][2] in errors


async def test_a_zone_that_is_missing_in_the_settings_is_exit_2(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await plain_shop.connection.execute("ALTER TABLE product_orders ALTER sent_at TYPE timestamp")
    async with running(tmp_path, settings(plain_shop.dsn, panel.server.url)) as run:
        assert await run.end() == 2
    assert "database.time_zone: missing" in run.err.decode()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ("postgresql://u:pw-CANARY@nowhere.invalid/x", "gaierror"),
        ({"username": "nobody_yet", "password": "pw-CANARY"}, "28"),
        ({"path": "/no_such_database"}, "3D000"),
        ("postgresql://u:pw-CANARY@127.0.0.1:1/x", "ConnectionRefusedError"),
    ],
)
async def test_a_database_that_cannot_be_reached_is_waited_for(
    plain_shop: Shop, panel: Panel, tmp_path: Path, change: dict[str, str] | str, cause: str
) -> None:
    """A name that is not known, a login that is not let in: the operator mends that in the
    database, and need not come here.
    """
    dsn = change if isinstance(change, str) else str(httpx.URL(plain_shop.dsn).copy_with(**change))
    async with running(tmp_path, settings(dsn, panel.server.url)) as run:
        assert cause in (await run.event("scan.waiting"))["why"]
        assert (await says(run, "/livez")).status_code == 200
        assert run.process.returncode is None
    assert "CANARY" not in run.err.decode()


async def test_too_many_connections_are_waited_for(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    dsn = await with_a_role(plain_shop)
    await plain_shop.connection.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    try:
        async with running(tmp_path, settings(dsn, panel.server.url)) as run:
            assert "[53300]" in (await run.event("scan.waiting"))["why"]
            await plain_shop.connection.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
            await sent(plain_shop, 1)
            await all_end(plain_shop)
    finally:
        await plain_shop.connection.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


async def test_a_taken_health_port_stops_nobody(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = settings(plain_shop.dsn, panel.server.url, health={"port": port})
        async with running(tmp_path, config) as run:
            why = (await run.event("health.waiting"))["why"]
            assert f"health.port: cannot listen on 127.0.0.1:{port}" in why
            await sent(plain_shop, 1)
            await all_end(plain_shop)
            taken.close()
            assert (await run.event("health.listening"))["port"] == port
            assert (await says(run, "/readyz")).status_code == 200
            assert [line["event"] for line in run.events()].count("health.waiting") == 1
            run.process.terminate()
            assert await run.end() == 0
