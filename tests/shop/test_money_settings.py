"""What is in force, in a real table: compared, stored, and never by two at once."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from order_monitor.shop.database import Database
from order_monitor.shop.migration import Migration
from order_monitor.shop.money_settings import (
    Agreement,
    MoneySettings,
    digest_of,
    is_digest_of,
)
from order_monitor.shop.presence import DAEMON, Ident
from order_monitor.watch.system_clock import SystemClock
from tests.support.shops import Shop

OLD, NEW = {"a": "1", "b": "2"}, {"a": "1", "b": "3"}
ME = Ident("me", "host", 7, DAEMON, "1")
MONEY = MoneySettings("public")


@pytest.fixture
async def database(plain_shop: Shop) -> Database:
    database = plain_shop.database()
    async for _ in Migration(database, plain_shop.table_config, SystemClock()).apply():
        pass
    return database


async def reconcile(database: Database, own: dict[str, str], **more: Any) -> Agreement:
    async with database.transaction() as connection:
        return await MONEY.reconcile(connection, own, **{"by": "x", **more})


async def lives(shop: Shop, digest: str | None, *, ago: float = 0.0, kind: str = "daemon") -> None:
    await shop.connection.execute(
        "INSERT INTO order_monitor_presence (id, host, pid, kind, version, settings, seen_at) "
        "VALUES (gen_random_uuid()::text, 'h', 1, $1, '0', $2, clock_timestamp() - make_interval(secs => $3))",
        kind,
        digest,
        ago,
    )


async def test_the_first_stores_all_and_a_new_key_is_no_difference(database: Database) -> None:
    assert (await reconcile(database, OLD)).added == ("a", "b")
    assert await reconcile(database, OLD) == Agreement(OLD)
    more = {**OLD, "c": "4"}
    assert await reconcile(database, more) == Agreement(more, added=("c",))
    assert (await reconcile(database, OLD)).differing == (), "an older version knows less"


async def test_what_differs_is_told_and_replaced_by_whoever_may(database: Database) -> None:
    await reconcile(database, OLD)
    found = await reconcile(database, NEW)
    assert [str(one) for one in found.differing] == ["b is 3, in force 2"]
    assert found.in_force == OLD
    found = await reconcile(database, NEW, may_replace=True, by="Ayşe")
    assert ([one.key for one in found.replaced], found.differing, found.in_force) == (
        ["b"],
        (),
        NEW,
    )
    async with database.transaction() as connection:
        assert {key: kept.stored_by for key, kept in (await MONEY.kept(connection)).items()} == {
            "a": "x",
            "b": "Ayşe",
        }


@pytest.mark.parametrize(
    ("shown", "ago", "kind", "is_free"),
    [
        (digest_of(OLD), 0, "daemon", False),
        (digest_of(OLD), 55, "daemon", False),
        (digest_of(OLD), 61, "daemon", True),
        (digest_of(OLD), 0, "once", True),
        (digest_of(NEW), 0, "daemon", True),
        (digest_of({"a": "1"}), 0, "daemon", False),
        (digest_of({"a": "9"}), 0, "daemon", True),
        (digest_of({**NEW, "c": "4"}), 0, "daemon", False),
        ("something else", 0, "daemon", False),
        (None, 0, "daemon", True),
    ],
    ids=[
        "lives",
        "still",
        "gone",
        "a pass",
        "waits too",
        "older",
        "older, waits",
        "newer",
        "unheard of",
        "says nothing",
    ],
)
async def test_a_daemon_replaces_where_no_other_lives_with_what_is_stored(
    plain_shop: Shop, database: Database, shown: str | None, ago: float, kind: str, *, is_free: bool
) -> None:
    await reconcile(database, OLD)
    await lives(plain_shop, shown, ago=ago, kind=kind)
    found = await reconcile(database, NEW, may_replace=True, me=ME)
    assert (bool(found.replaced), bool(found.differing)) == (is_free, not is_free)
    assert found.in_force == (NEW if is_free else OLD)


async def test_a_daemon_is_seen_as_soon_as_it_agrees_and_no_more_when_it_leaves(
    plain_shop: Shop, database: Database
) -> None:
    await reconcile(database, OLD)
    for _ in range(2):
        await reconcile(database, OLD, me=ME)
        row = await plain_shop.connection.fetchrow(
            "SELECT id, host, pid, kind, version, settings FROM order_monitor_presence"
        )
        assert row is not None
        assert tuple(row) == ("me", "host", 7, "daemon", "1", digest_of(OLD))
    await reconcile(database, NEW, me=ME)
    assert await plain_shop.connection.fetchval(
        "SELECT settings FROM order_monitor_presence"
    ) == digest_of(OLD)
    async with database.transaction() as connection:
        await MONEY.leave(connection, ME)
    assert (
        await plain_shop.connection.fetchval("SELECT settings FROM order_monitor_presence") is None
    )


@pytest.mark.parametrize("is_empty", [True, False])
async def test_of_many_that_start_at_once_all_that_agree_go_by_the_same(
    plain_shop: Shop, database: Database, *, is_empty: bool
) -> None:
    """All are let go at the same moment, each with a connection of its own.

    One set is in force, and the others know it.
    """
    if not is_empty:
        await reconcile(database, {"a": "0", "b": "0"})
    everyone = [
        ({"a": str(n % 3), "b": "x"}, replace(ME, id=f"d{n}"), plain_shop.database())
        for n in range(9)
    ]
    for _, _, own in everyone:
        async with own.transaction() as connection:
            await connection.execute("SELECT 1")
    barrier = asyncio.Barrier(len(everyone))

    async def start(own: dict[str, str], me: Ident, database: Database) -> Agreement:
        await barrier.wait()
        return await reconcile(database, own, may_replace=True, me=me, by=me.id)

    found = await asyncio.gather(*(start(*one) for one in everyone))
    async with database.transaction() as connection:
        in_force = await MONEY.read(connection)
    agree = [
        own
        for (own, _, _), agreement in zip(everyone, found, strict=True)
        if not agreement.differing
    ]
    assert len(agree) == 3
    assert {tuple(own.items()) for own in agree} == {tuple(in_force.items())}
    assert sum(bool(agreement.replaced) for agreement in found) == (0 if is_empty else 1)
    assert sum(bool(agreement.added) for agreement in found) == (1 if is_empty else 0)


def test_the_digest_is_short_and_goes_by_every_value() -> None:
    assert len(digest_of(OLD)) == 14
    assert int(digest_of(OLD), 16) >= 0
    assert (
        len(
            {
                digest_of(OLD),
                digest_of(NEW),
                digest_of({"a": "1"}),
                digest_of({"a": "2"}),
                digest_of({}),
            }
        )
        == 5
    )
    assert is_digest_of(digest_of({"a": "1"}), OLD, NEW)
    assert not is_digest_of(digest_of(OLD), {"a": "1"}, OLD), "what is not stored is nobody's"
