"""Ends by age in the running engine: a real PostgreSQL, virtual time, and clocks that somebody
sets.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from order_monitor.core.check_result import CheckResult, WriteResult
from order_monitor.core.clocks import ClockWatch
from order_monitor.shop.migration import Migration
from order_monitor.shop.presence import Ident, Presence
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.shop.repository import Orders
from order_monitor.watch.engine import Engine
from order_monitor.watch.heartbeat import Heartbeat
from order_monitor.watch.housekeeping import Housekeeping
from order_monitor.watch.system_clock import SystemClock
from tests.support.clocks import Drive, ManualClock
from tests.support.engines import DAY, AtClock, Bench, text
from tests.support.shops import NOW, Shop

WAITING = "OK|1| |bekliyor"
BOOT = "a boot of this machine"


@pytest.fixture
async def ours(plain_shop: Shop) -> Shop:
    """A shop with our own tables."""
    async for _ in Migration(plain_shop.database(), plain_shop.table_config, SystemClock()).apply():
        pass
    return plain_shop


class Ahead(AtClock):
    """The shop's orders, by a database's clock that somebody has set; what is written is seen."""

    def __init__(self, orders: Orders, clock: ManualClock) -> None:
        super().__init__(orders, clock)
        self.ahead = 0.0
        self.findings: list[CheckResult] = []

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        give = (
            None if take is None else lambda piece: take(replace(piece, now=piece.now + self.ahead))
        )
        scan = await super().scan(part, give)
        return replace(scan, now=scan.now + self.ahead)

    async def record(
        self, findings: list[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        self.findings += findings
        return await super().record(findings, lock_wait)


def bench_of(
    shop: Shop, body: str = WAITING, **options: Any
) -> tuple[Bench, Ahead, list[CheckResult]]:
    bench = Bench(shop, lambda _: text(body), **options)
    assert isinstance(bench.orders, AtClock)
    ahead = Ahead(bench.orders.orders, bench.clock)
    bench.engine = Engine(ahead, {"main": bench.account}, bench.engine.context.policy, bench.clock)
    return bench, ahead, ahead.findings


def events(logs: Sequence[Any], *names: str) -> list[str]:
    return [entry["event"] for entry in logs if entry["event"] in names]


@pytest.mark.long
async def test_a_database_a_day_ahead_fails_nothing(ours: Shop) -> None:
    """Seen in reality: 25 h ahead for six seconds, and fifty waiting orders, one minute old, were
    failed for good.
    """
    ids = [await ours.add(sent_at=NOW) for _ in range(50)]
    bench, database, findings = bench_of(ours)
    with capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(55, scan_every=5)
            database.ahead = 25 * 3600.0
            await bench.engine.scan()
            await drive.run(6)
            assert len(bench.calls) == 50, "all have come due by that clock, and were asked about"
            database.ahead = 0.0
            await bench.engine.scan()
            await drive.run(900, scan_every=10)
    assert {await bench.status(i) for i in ids} == {"processing"}
    assert bench.engine.state.ends == {}
    assert not any(finding.vouched for finding in findings)
    assert all(finding.age < 1000 for finding in findings)
    told = events(logs, "clock.leapt", "ends_by_age.stopped", "ends_by_age.resumed", "order.failed")
    assert told == ["clock.leapt", "ends_by_age.stopped", "ends_by_age.resumed"]
    assert bench.engine.context.clocks.leaps == {"machine": 0, "database": 2}
    assert len(bench.times(ids[0])) >= 4, "what was planned by that clock is planned anew"


@pytest.mark.long
async def test_a_database_far_ahead_has_nothing_pruned(ours: Shop) -> None:
    """By that clock every code is older than is kept, and another order could get it."""
    order_id = await ours.add("completed", sent_at=NOW)
    bench, database, _ = bench_of(ours)
    await ours.connection.execute(
        "UPDATE order_monitor_dispatches SET found_at = now() - interval '91 days'"
    )
    await ours.connection.execute(
        "INSERT INTO order_monitor_pins (login, digest, order_id, claimed_at) "
        "VALUES ('x', 'x', $1::text::uuid, now() - interval '91 days')",
        order_id,
    )
    housekeeping = Housekeeping(database.orders, bench.engine.context)

    async def pruned() -> int:
        task = asyncio.create_task(housekeeping.prune())
        while not task.done():
            await drive.run(1)
            await asyncio.sleep(0)
        return await task

    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(60, scan_every=10)
        database.ahead = 91 * DAY
        await bench.engine.scan()
        assert await pruned() == 0
        database.ahead = 0.0
        await drive.run(900, scan_every=10)
        assert await pruned() == 2, "once the clocks are to be believed again"


@pytest.mark.long
async def test_an_order_past_its_time_is_not_written_over_and_over(ours: Shop) -> None:
    """Its age may not end it for ten minutes: it goes on at its usual times, and one answer is
    written once.
    """
    order_id = await ours.add(sent_at=NOW - DAY - 100)
    bench, _, findings = bench_of(ours)
    bench.clock.up = 60.0
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(530, scan_every=10)
        assert {finding.vouched for finding in findings} <= {False}
        assert len(findings) <= 1
        assert await bench.status(order_id) == "processing"
        await drive.run(900, scan_every=10)
    assert await bench.status(order_id) == "failed"
    assert findings[-1].vouched


@pytest.mark.long
@pytest.mark.parametrize("body", ["3|x", "OK|7|a|b", ""], ids=["refused", "garbled", "outage"])
async def test_nothing_is_given_up_blind_while_no_age_counts(ours: Shop, body: str) -> None:
    order_id = await ours.add(sent_at=NOW - DAY - 100)
    bench, _, _ = bench_of(ours, body, give_up_blind=True, gate_after=2)
    bench.clock.up = 60.0
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(530, scan_every=10)
        assert await bench.status(order_id) == "sent"
        await drive.run(1500, scan_every=10)
    assert await bench.status(order_id) == "failed"


@pytest.mark.long
async def test_the_smaller_age_decides(ours: Shop) -> None:
    """The database is steadily half an hour ahead: its word alone ends nothing."""
    order_id = await ours.add(sent_at=NOW - 1000)
    bench, database, findings = bench_of(ours, give_up_after=1900.0)
    database.ahead = 1800.0
    with capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(800, scan_every=10)
            assert await bench.status(order_id) == "processing"
            await drive.run(900, scan_every=10)
            assert await bench.status(order_id) == "failed"
            database.ahead = 0.0
            await bench.engine.scan()
    assert findings[-1].took - findings[-1].age == pytest.approx(1800, abs=1)
    assert events(logs, "clock.differs", "clock.agrees") == ["clock.differs", "clock.agrees"]


@pytest.mark.long
async def test_a_machine_whose_clock_is_set_fails_nothing(ours: Shop) -> None:
    order_id = await ours.add(sent_at=NOW)
    bench, database, _ = bench_of(ours, give_up_after=1800.0)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(100, scan_every=10)
        bench.clock.epoch += 1801.0
        database.ahead -= 1801.0
        await drive.run(500, scan_every=10)
    assert await bench.status(order_id) == "processing"
    assert bench.engine.context.clocks.leaps == {"machine": 1, "database": 0}


# --- what is kept for the next process


class OnVirtualTime(Presence):
    """The real table, over a database whose clock shows the virtual time and is never set."""

    def __init__(self, bench: Bench, name: str) -> None:
        super().__init__(bench.shop.database(), "public", Ident(name, "h", 1, "daemon", "1"))
        self._clock = bench.clock

    async def tell(self, *given: Any, **more: Any) -> float:
        await super().tell(*given, **more)
        return NOW + self._clock.elapsed

    async def recall(self, boot_id: str) -> Any:
        return (await super().recall(boot_id))._replace(now=NOW + self._clock.elapsed)


def heartbeat(bench: Bench, name: str) -> Heartbeat:
    bench.engine.context.clocks = ClockWatch(is_recalling=True)
    return Heartbeat(bench.engine.context, OnVirtualTime(bench, name), BOOT)


async def test_a_process_knows_of_a_leap_before_it(ours: Shop) -> None:
    first, _, _ = bench_of(ours)
    one = heartbeat(first, "first")
    await one.tell()
    assert first.engine.context.clocks.vouches(first.clock.boot())
    first.clock.elapsed += 10
    await one.tell()
    await one.leave()
    second, _, _ = bench_of(ours)
    second.clock.elapsed, second.clock.epoch = 60.0, NOW + 1800
    two = heartbeat(second, "second")
    assert not second.engine.context.clocks.vouches(second.clock.boot())
    with capture_logs() as logs:
        await two.begin()
    assert {
        "event": "clock.leapt",
        "log_level": "warning",
        "clock": "machine",
        "seconds": 1800.0,
    } in logs
    assert not second.engine.context.clocks.vouches(second.clock.boot())
    await two.tell()
    third, _, _ = bench_of(ours)
    third.clock.elapsed, third.clock.epoch = 120.0, NOW + 1800
    three = heartbeat(third, "third")
    await three.begin()
    assert "before this process" in third.engine.context.clocks.why(third.clock.boot())
    third.clock.elapsed = 661.0
    assert third.engine.context.clocks.vouches(third.clock.boot())


@pytest.mark.long
async def test_without_the_table_nothing_stops_and_no_age_counts(ours: Shop) -> None:
    order_id = await ours.add(sent_at=NOW - DAY - 100)
    bench, _, _ = bench_of(ours)
    one = heartbeat(bench, "one")
    await ours.connection.execute("ALTER TABLE order_monitor_presence RENAME TO away")
    with capture_logs() as logs:
        await one.tell()
        await one.tell()
        await one.leave()
    assert events(logs, "presence.not_told") == ["presence.not_told"]
    await ours.connection.execute("ALTER TABLE away RENAME TO order_monitor_presence")
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(700, scan_every=10)
        assert await bench.status(order_id) == "processing"
        await one.tell()
        await drive.run(700, scan_every=10)
    assert await bench.status(order_id) == "failed"


async def test_the_side_task_goes_on_telling(ours: Shop) -> None:
    bench, _, _ = bench_of(ours)
    one = heartbeat(bench, "one")
    task = asyncio.create_task(one.run(), name="presence")
    seen = set()
    for _ in range(4):
        while not bench.clock.asleep.get("presence"):
            await asyncio.sleep(0.001)
        seen.add(await ours.connection.fetchval("SELECT seen_at FROM order_monitor_presence"))
        bench.clock.ring(bench.clock.elapsed + 10)
        await asyncio.sleep(0.01)
    task.cancel()
    assert len(seen) == 4
