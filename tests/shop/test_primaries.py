"""Several hosts of which more than one accepts writes: each row lock holds on one server alone."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from order_monitor.core.errors import ShopUnavailableError
from order_monitor.shop import database as module
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import Address, parse_dsn
from order_monitor.shop.primaries import Lineage, Server, two_primaries
from tests.faults.database import MortalPostgres, Standby


@contextmanager
def pair() -> Iterator[tuple[MortalPostgres, Standby, Address]]:
    """A primary and its standby, and the address that names both."""
    with MortalPostgres() as old, Standby(old) as new:
        one, other = parse_dsn(old.dsn()), parse_dsn(new.dsn())
        hosts, ports = (*one.hosts, *other.hosts), (*one.ports, *other.ports)
        yield old, new, replace(one, hosts=hosts, ports=ports)


async def asked(database: Database) -> object:
    async with database.transaction() as connection:
        return await connection.fetchval("SELECT 1")


async def until(database: Database, wanted: str) -> None:
    """Wait until a transaction ends so: with this error, or without one where none is wanted."""
    async with asyncio.timeout(60):
        while True:
            try:
                await asked(database)
            except ShopUnavailableError as error:
                if wanted and wanted in str(error):
                    return
            else:
                if not wanted:
                    return
            await asyncio.sleep(0.01)


@pytest.mark.long
async def test_two_that_accept_writes_stop_everything_until_one_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "COMPARE_EVERY", 0.05)
    with pair() as (old, new, address):
        async with Database(address) as database:
            assert await asked(database) == 1
            new.promote()
            await until(database, "accept writes")
            assert database.problem is not None
            assert "(timeline 1)" in database.problem
            assert "(timeline 2)" in database.problem
            with pytest.raises(ShopUnavailableError, match="accept writes"):
                async with database.plain():
                    pass
            async with Database(address) as started_now:
                with pytest.raises(ShopUnavailableError, match="accept writes"):
                    await asked(started_now)
            old.die()
            await until(database, "")


@pytest.mark.long
async def test_an_old_primary_that_returns_alone_is_not_used() -> None:
    with pair() as (old, new, address):
        async with Database(address) as database:
            assert await asked(database) == 1
            old.die()
            new.promote()
            await until(database, "")
            new.die()
            old.come_back()
            await until(database, "an old primary")


@pytest.mark.long
async def test_an_old_primary_is_not_used_while_the_new_one_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once both were seen, what decides is which is newer, not which answers just then."""
    monkeypatch.setattr(module, "COMPARE_EVERY", 0.05)
    with pair() as (_, new, address):
        async with Database(address) as database:
            assert await asked(database) == 1
            new.promote()
            await until(database, "accept writes")
            new.die()
            await until(database, "an old primary")


async def test_two_names_of_one_server_are_one(database_dsn: str) -> None:
    one = parse_dsn(database_dsn)
    address = replace(one, hosts=one.hosts * 2, ports=one.ports * 2)
    async with Database(address) as database:
        assert await asked(database) == 1


def test_where_little_may_be_read_two_servers_are_two_all_the_same() -> None:
    found = {"a": Server(1.0), "b": Server(2.0)}
    assert two_primaries(found).startswith("several hosts of database.dsn accept writes: a and b;")
    assert two_primaries({"a": Server(1.0), "b": Server(1.0)}) == ""
    assert two_primaries({"a": Server(1.0, 7, 1)}) == ""


def test_the_newest_timeline_is_remembered() -> None:
    lineage = Lineage()
    assert lineage.refuses(Server(1.0)) == ""
    assert lineage.refuses(Server(1.0, 7, 2)) == ""
    assert lineage.refuses(Server(2.0, 7, 3)) == ""
    assert "old primary (timeline 2" in lineage.refuses(Server(1.0, 7, 2))
    assert "another database cluster" in lineage.refuses(Server(1.0, 8, 9))
    assert lineage.refuses(Server(3.0)) == ""
    assert "old primary" in lineage.refuses(Server(1.0, 7, 2))
