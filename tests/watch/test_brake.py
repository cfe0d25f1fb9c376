"""The brake in walks through a night: virtual time in the program and in the real PostgreSQL alike,
which every process goes by.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from order_monitor.core.check_result import CheckResult, WriteResult
from order_monitor.core.order import Order
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.shop.repository import Orders
from order_monitor.watch.brake_watch import BrakeWatch
from tests.support.clocks import Drive, ManualClock
from tests.support.engines import Bench, text
from tests.support.shops import NOW, Shop

HOUR = 3600.0
CANCELLED, WAITING, DONE = "OK|3| |iptal", "OK|1| |bekliyor", "OK|2| |tamam"
VIRTUAL = """
CREATE SCHEMA virtual;
CREATE TABLE virtual.clock (t float8);
INSERT INTO virtual.clock VALUES ({now});
CREATE FUNCTION virtual.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT to_timestamp(t) FROM virtual.clock';
CREATE FUNCTION virtual.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT to_timestamp(t) FROM virtual.clock';
ALTER TABLE order_monitor_events ALTER decided_at SET DEFAULT virtual.now();
ALTER TABLE order_monitor_review ALTER opened_at SET DEFAULT virtual.now();
ALTER TABLE order_monitor_dispatches ALTER found_at SET DEFAULT virtual.now();
ALTER TABLE order_monitor_settings ALTER stored_at SET DEFAULT virtual.now();
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = virtual, pg_catalog, public', current_database()); END $$;
"""


class InVirtualTime:
    """The shop's real orders in a database whose clock is the test's."""

    def __init__(self, orders: Orders, shop: Shop, clock: ManualClock) -> None:
        self.orders = orders
        self._shop = shop
        self._clock = clock

    async def tick(self) -> None:
        await self._shop.connection.execute("UPDATE virtual.clock SET t = $1", self._clock.time())

    @property
    def records_every_check(self) -> bool:
        return self.orders.records_every_check

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        await self.tick()
        return await self.orders.reread(orders)

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        await self.tick()
        return await self.orders.scan(part, take)

    async def record(
        self, findings: list[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        await self.tick()
        return await self.orders.record(findings, lock_wait)


class Night:
    """A bench whose database goes by its clock, with what watches the brake."""

    def __init__(
        self, shop: Shop, panel: Callable[[str], str], *, hold: float = HOUR, **options: Any
    ) -> None:
        self.shop = shop
        self.answers: Callable[[str], str] = panel
        table_config = {
            "rules": replace(shop.table_config.rules, brake_hold=hold),
            "await_pin": 0.0,
        }
        real = options.pop("orders", None)
        self.bench = Bench(
            shop,
            lambda r: text(self.answers(r)),
            table_config=table_config,
            wrapped=lambda orders, clock: InVirtualTime(real or orders, shop, clock),
            **options,
        )
        self.orders = self.bench.orders
        assert isinstance(self.orders, InVirtualTime)
        self.engine = self.bench.engine
        self.brake = BrakeWatch(self.orders.orders.brake, self.bench.clock)
        self.engine.context.observer = self.brake
        self.brake.watch(self.engine)

    async def go(self, seconds: float) -> None:
        """Let time go by, with a look and a step of the watch each minute."""
        async with Drive(self.engine, self.bench.clock) as drive:
            for _ in range(int(seconds / 60)):
                await drive.run(60, scan_every=60)
                await self.orders.tick()
                await self.brake.step()

    async def ends(self) -> Counter[str]:
        status = self.shop.spelling.name("external_status")
        rows = await self.shop.connection.fetch(f'SELECT "{status}" AS status FROM product_orders')
        return Counter(row["status"] for row in rows)

    async def held(self) -> int:
        return int(
            await self.shop.connection.fetchval(
                "SELECT count(*) FROM order_monitor_review WHERE closed_at IS NULL AND kind = 'held_by_brake'"
            )
        )


@pytest.fixture
async def night(plain_shop: Shop) -> Shop:
    await plain_shop.connection.execute(VIRTUAL.format(now=NOW))
    return plain_shop


async def many(
    shop: Shop, count: int, name: str, *, sent: float = NOW, status: str = "processing"
) -> None:
    """Orders whose references begin with ``name``."""
    await shop.connection.execute(
        "INSERT INTO public.product_orders (id, external_status, sent_at, provider_referans) "
        "SELECT gen_random_uuid(), $4, to_timestamp($3::float8), $2 || '-' || n FROM generate_series(1, $1::int) n",
        count,
        name,
        sent,
        status,
    )


async def history(
    shop: Shop, completed: int, failed: int, *, ago: float = 7200.0, name: str = "old"
) -> None:
    """What the account did before, with its events."""
    await shop.connection.execute(
        "WITH made AS (INSERT INTO public.product_orders (id, external_status, sent_at, provider_referans) "
        "SELECT gen_random_uuid(), "
        "CASE WHEN n <= $1::int THEN 'completed' ELSE 'failed' END, to_timestamp($3::float8 - 100), $4 || '-' || n "
        "FROM generate_series(1, $1::int + $2::int) n RETURNING *) INSERT INTO order_monitor_events (order_id, from_status, "
        "to_status, has_pin, decided_at, outcome, source, cause, account, reference) SELECT id, 'sent', external_status, false, "
        "to_timestamp($3::float8), external_status, 'program', 'answer', 'default', provider_referans FROM made",
        completed,
        failed,
        NOW - ago,
        name,
    )


@pytest.mark.long
async def test_a_provider_out_of_stock_cancels_sixty_rightly_and_all_fail_in_the_end(
    night: Shop,
) -> None:
    await history(night, 50, 5)
    await many(night, 60, "out")
    await many(night, 3, "slow")
    walk = Night(
        night,
        lambda r: CANCELLED if r.startswith("out") else DONE if r.startswith("old") else WAITING,
    )
    await walk.go(600)
    assert await walk.held() == 60
    assert (await walk.ends())["failed"] == 5
    assert walk.engine.state.stuck == {}
    assert sum(walk.engine.state.held.values()) == 60
    await walk.go(HOUR - 600)
    assert (await walk.ends())["failed"] == 5, "not before its hour"
    await walk.go(900)
    assert (await walk.held(), (await walk.ends())["failed"]) == (0, 65)
    closed = await night.connection.fetch("SELECT DISTINCT closed_by FROM order_monitor_review")
    assert [row["closed_by"] for row in closed] == ["daemon"]
    events = await night.connection.fetchval(
        "SELECT count(*) FROM order_monitor_events WHERE outcome = 'failed'"
    )
    assert events == 65
    assert walk.engine.state.held == {}


@pytest.mark.long
async def test_a_panel_that_cancels_all_by_night_has_failed_none_when_it_comes_to_its_senses(
    night: Shop,
) -> None:
    await history(night, 50, 5)
    await many(night, 200, "night")
    walk = Night(night, lambda _: CANCELLED)
    await walk.go(2 * HOUR)
    assert (await walk.ends())["failed"] == 5
    assert await walk.held() == 200
    calls = len(walk.bench.calls)
    assert calls <= 200 * (2 + 12) + 100, "every ten minutes, not more often"
    walk.answers = lambda r: DONE if r.endswith(("1", "2")) or r.startswith("old") else WAITING
    await walk.go(1200)
    ends = await walk.ends()
    assert (ends["failed"], ends["completed"]) == (5, 90)
    assert await walk.held() == 0
    assert walk.engine.state.kept == {}


@pytest.mark.long
async def test_controls_that_stand_are_not_enough_without_another_order_that_is_understood(
    night: Shop,
) -> None:
    await history(night, 50, 5)
    await many(night, 40, "out")
    walk = Night(night, lambda r: DONE if r.startswith("old") else CANCELLED)
    await walk.go(2 * HOUR)
    assert (await walk.held(), (await walk.ends())["failed"]) == (40, 5)
    assert await walk.orders.orders.brake.release("default", "somebody") == {"default": 40}
    await walk.go(120)
    assert (await walk.held(), (await walk.ends())["failed"]) == (0, 45)
    await many(night, 5, "next", sent=walk.bench.clock.time() - 100)
    await walk.go(300)
    assert (await walk.ends())["failed"] == 50, "the brake does not trip again by the same ones"


@pytest.mark.long
async def test_fewer_than_three_completed_in_the_last_day_are_no_control(night: Shop) -> None:
    await history(night, 2, 0)
    await history(night, 50, 0, ago=2 * 86_400.0, name="long-ago")
    await many(night, 40, "out")
    await many(night, 3, "slow")
    walk = Night(
        night,
        lambda r: CANCELLED if r.startswith("out") else DONE if r.startswith("old") else WAITING,
    )
    await walk.go(2 * HOUR)
    assert (await walk.held(), (await walk.ends())["failed"]) == (40, 0)


@pytest.mark.long
async def test_one_control_that_reads_cancelled_holds_all(night: Shop) -> None:
    await history(night, 3, 0)
    await many(night, 40, "out")
    await many(night, 3, "slow")
    walk = Night(
        night,
        lambda r: (
            CANCELLED
            if r.startswith("out") or r == "old-2"
            else DONE
            if r.startswith("old")
            else WAITING
        ),
    )
    await walk.go(2 * HOUR)
    assert (await walk.held(), (await walk.ends())["failed"]) == (40, 0)


@pytest.mark.long
async def test_two_hundred_past_the_limit_at_once_are_held_and_then_fail(night: Shop) -> None:
    await history(night, 50, 5)
    await many(night, 200, "late", sent=NOW - 30 * HOUR)
    walk = Night(night, lambda r: DONE if r.startswith("old") else WAITING)
    await walk.go(600)
    assert (await walk.held(), (await walk.ends())["failed"]) == (200, 5)
    await walk.go(HOUR + 600)
    assert (await walk.held(), (await walk.ends())["failed"]) == (0, 205)


async def test_nineteen_never_trip_it(night: Shop) -> None:
    await history(night, 50, 0)
    await many(night, 19, "out")
    walk = Night(night, lambda _: CANCELLED)
    await walk.go(180)
    assert (await walk.held(), (await walk.ends())["failed"]) == (0, 19)


async def test_a_usual_share_of_sixty_percent_does_not_trip_it(night: Shop) -> None:
    await history(night, 40, 60, ago=86_400.0)
    await many(night, 200, "out")
    walk = Night(night, lambda _: CANCELLED)
    await walk.go(180)
    assert (await walk.held(), (await walk.ends())["failed"]) == (0, 260)


async def test_without_a_brake_each_is_believed(night: Shop) -> None:
    await many(night, 200, "out")
    walk = Night(night, lambda _: CANCELLED, hold=0.0)
    await walk.go(180)
    assert (await walk.held(), (await walk.ends())["failed"]) == (0, 200)


async def test_what_dribbles_in_is_held_from_the_twentieth_on(night: Shop) -> None:
    await history(night, 50, 0)
    for minute in range(8):
        await many(night, 5, f"m{minute}", sent=NOW + 60 * minute - 30)
    walk = Night(night, lambda _: CANCELLED)
    await walk.go(900)
    ends = await walk.ends()
    assert ends["failed"] < 20
    assert await walk.held() == 40 - ends["failed"]


async def test_pins_go_on_while_ends_are_held(night: Shop) -> None:
    await history(night, 50, 0)
    await many(night, 40, "out")
    walk = Night(night, lambda r: CANCELLED if r.startswith("out") else "OK|2|PIN-77881|tamam")
    await walk.go(120)
    assert await walk.held() == 40
    order_id = await night.add(sent_at=walk.bench.clock.time() - 50, noted=False)
    await walk.go(120)
    row = await night.row(order_id)
    assert (row["external_status"], row["pin_code"]) == ("completed", "PIN-77881")


@pytest.mark.long
async def test_a_restart_goes_on_with_what_is_held(night: Shop) -> None:
    await history(night, 50, 0)
    await many(night, 30, "out")
    await many(night, 3, "slow")

    def panel(r: str) -> str:
        return CANCELLED if r.startswith("out") else DONE if r.startswith("old") else WAITING

    first = Night(night, panel)
    await first.go(300)
    assert await first.held() == 30
    second = Night(night, panel)
    second.bench.clock.elapsed = HOUR - 300
    await second.go(1200)
    assert (await second.held(), (await second.ends())["failed"]) == (0, 30)


async def test_what_another_process_holds_is_let_go_by_an_answer_that_says_nothing_new_here(
    night: Shop,
) -> None:
    await history(night, 50, 0)
    await many(night, 30, "out")
    here = Night(night, lambda _: WAITING)
    await here.go(120)
    there = Night(night, lambda _: CANCELLED)
    there.bench.clock.elapsed = 120
    await there.go(120)
    assert await there.held() == 30
    here.bench.clock.elapsed = 240
    await here.go(720)
    assert await here.held() == 0


async def test_an_order_that_the_shop_ends_or_deletes_or_sends_anew_is_held_no_more(
    night: Shop,
) -> None:
    await history(night, 50, 0)
    await many(night, 30, "out")
    walk = Night(night, lambda r: WAITING if r == "anew" else CANCELLED)
    await walk.go(120)
    assert await walk.held() == 30
    await night.connection.execute(
        "UPDATE product_orders SET external_status = 'failed' WHERE provider_referans = 'out-1'"
    )
    await night.connection.execute("DELETE FROM product_orders WHERE provider_referans = 'out-2'")
    await night.connection.execute(
        "UPDATE product_orders SET provider_referans = 'anew' WHERE provider_referans = 'out-3'"
    )
    await walk.go(900)
    assert await walk.held() == 27
