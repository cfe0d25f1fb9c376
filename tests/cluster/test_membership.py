"""Who is a member, and who holds what, over a real PostgreSQL."""

import asyncio

import asyncpg
import pytest

from order_monitor.cluster.membership import (
    IDLE_LIMIT,
    LEADER,
    LostMembershipError,
    Membership,
    OlderVersionError,
    Session,
)
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.shop.locks import OLD_MEMBER, lock_class
from tests.support.shops import Shop

TABLE = "public.product_orders"
KEYS = ["a", "b", "ç/ğ"]


def membership(shop: Shop, name: str = "one", *, table: str = TABLE, mark: str = "m") -> Membership:
    return Membership(shop.database(), table, name, mark)


async def test_members_see_each_other_and_what_each_holds(plain_shop: Shop) -> None:
    async with (
        membership(plain_shop).joined() as one,
        membership(plain_shop, "two", mark="other").joined() as two,
    ):
        assert await one.acquire(["a", "ç/ğ", LEADER]) == {"a", "ç/ğ", LEADER}
        assert await two.acquire(KEYS) == {"b"}, "only one member holds a key"
        view = await two.see(KEYS)
        assert (view.me.name.partition("/")[0], view.me.keys, view.me.leads) == (
            "two",
            frozenset("b"),
            False,
        )
        (other,) = [member for member in view.members if member is not view.me]
        assert (other.keys, other.leads, other.mark) == (frozenset(["a", "ç/ğ"]), True, "m")
        await one.give(["a"])
        assert await two.acquire(["a"]) == {"a"}
    async with membership(plain_shop).joined() as again:
        view = await again.see(KEYS)
        assert (len(view.members), view.me.keys) == (1, frozenset()), "who leaves holds nothing"


async def test_what_a_member_does_not_know_counts_all_the_same(plain_shop: Shop) -> None:
    async with (
        membership(plain_shop).joined() as one,
        membership(plain_shop, "two").joined() as two,
    ):
        await one.acquire(["unheard of"])
        (other,) = [m for m in (await two.see([])).members if not m.name.startswith("two/")]
        assert len(other.keys) == 1


async def test_another_table_is_another_membership(plain_shop: Shop) -> None:
    async with (
        membership(plain_shop).joined() as one,
        membership(plain_shop, table="other.orders").joined() as two,
    ):
        assert await one.acquire(["a"]) == {"a"}
        assert await two.acquire(["a"]) == {"a"}
        assert len((await two.see(["a"])).members) == 1


async def test_other_advisory_locks_are_nobodys_business(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "SELECT pg_advisory_lock(5), pg_advisory_lock(5, 6), pg_advisory_lock_shared(7)"
    )
    async with membership(plain_shop).joined() as one:
        view = await one.see(["a"])
        assert (len(view.members), view.me.keys) == (1, frozenset())


async def test_who_shares_its_server_process_is_no_member(plain_shop: Shop) -> None:
    """Behind a pooler two processes' statements may reach the same one: both would hold the same
    locks.
    """
    async with membership(plain_shop).joined() as one:
        await one.see(["a"])
        intruder = Session(one.connection, one.space, one.token + 1)
        with pytest.raises(LostMembershipError):
            await intruder.see(["a"])
        await one.connection.execute(
            "SELECT pg_advisory_lock(classid::int4, 99) FROM pg_locks WHERE objsubid = 2 AND pid = pg_backend_pid()"
        )
        with pytest.raises(LostMembershipError):
            await one.see(["a"])


async def test_whose_locks_are_gone_is_no_member(plain_shop: Shop) -> None:
    async with membership(plain_shop).joined() as one:
        await one.connection.execute("SELECT pg_advisory_unlock_all()")
        with pytest.raises(LostMembershipError):
            await one.see(["a"])


async def test_beside_a_process_of_an_older_version_nobody_is_a_member(plain_shop: Shop) -> None:
    """It locks accounts by their names, so that both would ask the same ones."""
    async with membership(plain_shop).joined() as one:
        await one.see(["a"])
        await plain_shop.connection.execute(
            "SELECT pg_advisory_lock($1::int4, 7)", lock_class(TABLE, OLD_MEMBER)
        )
        with pytest.raises(OlderVersionError):
            await one.see(["a"])
        await plain_shop.connection.execute("SELECT pg_advisory_unlock_all()")
        await one.see(["a"])


async def test_who_says_nothing_for_long_is_shown_out_by_the_server(plain_shop: Shop) -> None:
    async with membership(plain_shop, "two").joined() as two:
        with pytest.raises(ShopUnavailableError):
            async with membership(plain_shop).joined() as one:
                await one.acquire(["a"])
                assert (
                    await one.connection.fetchval("SHOW idle_session_timeout") == f"{IDLE_LIMIT:g}s"
                )
                await one.connection.execute("SET idle_session_timeout = '50ms'")
                async with asyncio.timeout(30):
                    while not await two.acquire(["a"]):
                        await asyncio.sleep(0.02)
                await one.see(["a"])


async def test_a_name_is_cut_to_what_the_server_keeps(plain_shop: Shop) -> None:
    async with membership(plain_shop, "ü" * 100, mark="12345678").joined() as one:
        view = await one.see([])
        assert (len(view.me.name.partition("/")[0]), view.me.mark) == (
            63 - len("order-monitor ") - 9,
            "12345678",
        )


async def test_very_many_are_taken_as_far_as_the_server_has_room(plain_shop: Shop) -> None:
    keys = [f"account-{n}" for n in range(250)]
    async with membership(plain_shop).joined() as one:
        assert await one.acquire(keys) == set(keys)
        fetch, calls = one.connection.fetch, 0

        async def short(sql: str, *args: object) -> object:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise asyncpg.OutOfMemoryError("out of shared memory")
            return await fetch(sql, *args)

        one.connection = Wrapped(short)  # type: ignore[assignment]
        more = [f"more-{n}" for n in range(250)]
        assert len(await one.acquire(more)) == 100
        assert one.is_full


class Wrapped:
    """A connection of which only ``fetch`` is there."""

    def __init__(self, fetch: object) -> None:
        self.fetch = fetch
