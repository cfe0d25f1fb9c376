"""Which processes work on a shop and how their clocks stood, in a real table."""

from typing import Any

import pytest

from order_monitor.core.clocks import ClockMemory
from order_monitor.core.errors import ShopError
from order_monitor.shop.migration import Migration
from order_monitor.shop.presence import GONE, Ident, Presence
from order_monitor.watch.system_clock import SystemClock, boot_id
from tests.support.shops import Shop

BOOT = "5f6a2c1e-0000-4000-8000-000000000001"
STEADY = ClockMemory(1_000.0, 1_001.0, 0.0)


@pytest.fixture
async def ours(plain_shop: Shop) -> Shop:
    """A shop with our own tables."""
    async for _ in Migration(plain_shop.database(), plain_shop.table_config, SystemClock()).apply():
        pass
    return plain_shop


def process(shop: Shop, name: str, kind: str = "daemon", host: str = "h") -> Presence:
    return Presence(shop.database(), "public", Ident(name, host, 4711, kind, "1.0"))


async def rows(shop: Shop) -> dict[str, dict[str, Any]]:
    found = await shop.connection.fetch("SELECT * FROM order_monitor_presence")
    return {row["id"]: dict(row) for row in found}


async def now(shop: Shop) -> float:
    return float(
        await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    )


async def test_a_row_is_told_again_and_again(ours: Shop) -> None:
    one = process(ours, "a")
    first = await one.tell(BOOT, ClockMemory(None, None, 0.0))
    assert abs(first - await now(ours)) < 5
    began = (await rows(ours))["a"]
    again = await one.tell(BOOT, ClockMemory(1.5, 2.5, 77.0), "digest")
    assert again > first
    row = (await rows(ours))["a"]
    assert (row["host"], row["pid"], row["kind"], row["version"]) == ("h", 4711, "daemon", "1.0")
    assert (row["utc_offset"], row["database_offset"], row["unsteady_until"]) == (1.5, 2.5, 77.0)
    assert (row["settings"], row["boot_id"]) == ("digest", BOOT)
    assert row["started_at"] == began["started_at"] < row["seen_at"]


async def test_what_is_recalled_is_this_boots_and_the_newest(ours: Shop) -> None:
    me = process(ours, "me")
    assert (await me.recall(BOOT)).memory is None
    await process(ours, "other", host="another container").tell(BOOT, ClockMemory(1.0, 2.0, 900.0))
    await process(ours, "elsewhere").tell("another boot", ClockMemory(9.0, 9.0, 9e9))
    await me.tell(BOOT, ClockMemory(5.0, 5.0, 5e5))
    seen = (await rows(ours))["other"]["seen_at"].timestamp()
    memory, shown = await me.recall(BOOT)
    assert memory is not None
    assert (memory.machine, memory.database, memory.unsteady_until) == (1.0, 2.0, 900.0)
    assert memory.at == pytest.approx(seen - 2.0, abs=1e-3)
    assert abs(shown - await now(ours)) < 5
    await process(ours, "newer", "once").tell(BOOT, ClockMemory(3.0, 2.0, 100.0))
    memory, _ = await me.recall(BOOT)
    assert memory is not None
    assert (memory.machine, memory.database, memory.unsteady_until) == (3.0, 2.0, 900.0), (
        "the longest of all"
    )
    for nothing in ("", "a third boot"):
        assert (await me.recall(nothing)).memory is None


async def test_a_row_told_while_the_database_was_ahead_is_not_newer_for_that(ours: Shop) -> None:
    """Its own offset says when it was written, whatever the database's clock showed."""
    await process(ours, "leapt").tell(BOOT, ClockMemory(1.0, 90_002.0, 700.0))
    await ours.connection.execute(
        "UPDATE order_monitor_presence SET seen_at = seen_at + interval '25 h'"
    )
    await process(ours, "after").tell(BOOT, ClockMemory(1.0, 2.0, 706.0))
    memory, _ = await process(ours, "me").recall(BOOT)
    assert memory is not None
    assert (memory.database, memory.unsteady_until) == (2.0, 706.0)


async def test_a_row_without_offsets_is_not_the_newest(ours: Shop) -> None:
    await process(ours, "a").tell(BOOT, STEADY)
    await process(ours, "b").tell(BOOT, ClockMemory(7.0, None, 0.0))
    memory, _ = await process(ours, "me").recall(BOOT)
    assert memory is not None
    assert memory.machine == 1_000.0


async def test_who_else_lives(ours: Shop) -> None:
    me = process(ours, "me")
    await me.tell(BOOT, STEADY, "x")
    for name, kind in (
        ("b", "daemon"),
        ("c", "daemon"),
        ("once", "once"),
        ("ask", "ask"),
        ("old", "daemon"),
    ):
        await process(ours, name, kind).tell(BOOT, STEADY, "y" if name == "c" else "x")
    ahead = process(ours, "ahead")
    await ahead.tell(BOOT, STEADY, "x")
    await ours.connection.execute(
        "UPDATE order_monitor_presence SET seen_at = seen_at - interval '61 s' WHERE id = 'old';"
        "UPDATE order_monitor_presence SET seen_at = seen_at + interval '25 h' WHERE id = 'ahead'"
    )
    seen = await me.seen(60.0)
    assert [peer[:3] for peer in seen] == [(name, "h", 4711) for name in ("b", "c", "ahead")]
    assert 0 <= await now(ours) - seen[0].seen_at < 60
    assert [peer.id for peer in await me.seen(120.0)] == ["b", "c", "old", "ahead"]


async def test_who_leaves_lives_no_more_and_is_remembered(ours: Shop) -> None:
    one, me = process(ours, "one"), process(ours, "me")
    await one.tell(BOOT, STEADY)
    await one.leave(BOOT, ClockMemory(1.0, 2.0, 55.0))
    assert (await rows(ours))["one"]["kind"] == GONE
    assert await me.seen(60.0) == []
    memory, _ = await me.recall(BOOT)
    assert memory is not None
    assert memory.unsteady_until == 55.0


async def test_rows_of_the_day_before_are_dropped_where_the_clocks_are_believed(ours: Shop) -> None:
    me = process(ours, "me")
    await process(ours, "old").tell(BOOT, STEADY)
    await process(ours, "young").tell(BOOT, STEADY)
    await ours.connection.execute(
        "UPDATE order_monitor_presence SET seen_at = seen_at - interval '25 h' WHERE id = 'old'"
    )
    await me.tell(BOOT, STEADY)
    assert (await rows(ours)).keys() == {"old", "young", "me"}
    await me.tell(BOOT, STEADY, prunes=True)
    assert (await rows(ours)).keys() == {"young", "me"}


async def test_without_the_table_each_says_so(plain_shop: Shop) -> None:
    await plain_shop.connection.execute("DROP TABLE order_monitor_presence")
    one = process(plain_shop, "a")
    for call in (one.tell(BOOT, STEADY), one.recall(BOOT), one.seen(60.0), one.leave(BOOT, STEADY)):
        with pytest.raises(ShopError):
            await call


def test_the_boot_has_an_id() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) in (0, 36)
    assert SystemClock().boot() > 0
