"""Statements that stay prepared, but only where no other client's could be run in their place."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from order_monitor.core.answer import Completed
from order_monitor.core.check_result import CheckResult, WriteStatus
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.core.pin import Pin
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from tests.support.prepared import are_kept
from tests.support.proxies import Proxy
from tests.support.shops import NOW, Shop


class Listening(EmbeddedPostgres):
    """A server that is reached over loopback too."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        super().__init__({"listen_addresses": "127.0.0.1", "port": str(self.port)})


@asynccontextmanager
async def connected(dsn: str, **more: Any) -> AsyncIterator[Database]:
    database = Database(parse_dsn(dsn), keeps_statements=True, **more)
    try:
        yield database
    finally:
        await database.close()


async def test_they_stay_where_the_connection_leads_to_the_server(plain_shop: Shop) -> None:
    async with connected(plain_shop.dsn) as database:
        assert await are_kept(database)
    assert not await are_kept(plain_shop.database()), "only if asked for"


async def test_so_they_do_by_tcp() -> None:
    with Listening() as server:
        login = urlsplit(server.dsn()).netloc.rpartition("@")[0]
        async with connected(f"postgresql://{login}@127.0.0.1:{server.port}/postgres") as database:
            assert await are_kept(database)


async def test_none_stays_where_the_port_is_another(plain_shop: Shop) -> None:
    """Something forwards that passes on the number of the server's process."""
    async with Proxy(plain_shop.dsn) as proxy, connected(proxy.dsn) as database:
        assert not await are_kept(database)


async def test_none_stays_once_a_pooler_takes_the_server_s_place(
    plain_shop: Shop, tmp_path: Path
) -> None:
    url = urlsplit(plain_shop.dsn)
    real = Path(parse_qs(url.query)["host"][0]) / ".s.PGSQL.5432"
    place = tmp_path / ".s.PGSQL.5432"
    place.symlink_to(real)
    dsn = f"postgresql://{url.netloc}{url.path}?host={quote(str(tmp_path))}"

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(str(real))
        with suppress(ConnectionError):
            await asyncio.gather(_copy(reader, to_server), _copy(from_server, writer))

    async with connected(dsn) as database:
        assert await are_kept(database)
        place.unlink()
        async with await asyncio.start_unix_server(forward, place):
            async with plain_shop.database().transaction() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            with suppress(ShopUnavailableError):
                await are_kept(database)
            assert not await are_kept(database)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def test_one_that_no_longer_fits_is_prepared_again(plain_shop: Shop) -> None:
    """A column got another type: nothing is refused, the same batch is written again."""
    async with connected(plain_shop.dsn, pool_size=1) as database:
        orders = plain_shop.orders(database)
        await orders.prepare()
        ids = [await plain_shop.add() for _ in range(3)]
        findings = [CheckResult(plain_shop.order(i), Completed(Pin(f"PIN-{i}")), NOW) for i in ids]
        await orders.record(findings[:1])
        await plain_shop.connection.execute(
            "ALTER TABLE order_monitor_settings ALTER value TYPE varchar"
        )
        with pytest.raises(ShopUnavailableError, match="prepared again"):
            await orders.record(findings[1:])
        results = await orders.record(findings[1:])
        assert {r.fate for r in results} == {WriteStatus.WRITTEN}
        assert await are_kept(database)


async def test_none_stays_after_one_was_not_there(plain_shop: Shop) -> None:
    """Whatever dropped it, or ran it on another connection: nothing can be relied on."""
    async with connected(plain_shop.dsn, pool_size=1) as database:
        assert await are_kept(database)
        async with database.transaction() as connection:
            await connection.execute("DEALLOCATE ALL")
        with pytest.raises(ShopUnavailableError, match="prepared again"):
            await are_kept(database)
        assert not await are_kept(database)


async def test_a_trigger_s_own_error_is_not_taken_for_that(plain_shop: Shop) -> None:
    """A trigger can raise any code: then the row is refused, and not written again for ever."""
    async with connected(plain_shop.dsn, pool_size=1) as database:
        orders = plain_shop.orders(database)
        await orders.prepare()
        finding = CheckResult(plain_shop.order(await plain_shop.add()), Completed(Pin("P-1")), NOW)
        await plain_shop.connection.execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '26000'; END$$; "
            "CREATE TRIGGER no BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION no()"
        )
        (result,) = await orders.record([finding])
        assert result.fate is WriteStatus.STUCK
        assert await are_kept(database)
