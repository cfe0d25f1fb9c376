"""Learning when orders end, in the running engine: on the shop's real tables, in virtual time."""

import asyncio
import json
import uuid
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.order import Order
from order_monitor.core.pin import Pin
from order_monitor.core.queue import OrderQueue
from order_monitor.core.schedule import Continuous, Now, Schedule
from order_monitor.core.tracked_order import Stage, TrackedOrder
from order_monitor.shop.migration import Migration
from order_monitor.timing.learning import Learning
from order_monitor.timing.memory import ALL, Key
from order_monitor.timing.plan import Learned, PastEnd, key_of, slot_before
from order_monitor.timing.planner import Terms, Timing
from order_monitor.timing.sketch import Sketch
from order_monitor.timing.store import Timings
from order_monitor.watch.system_clock import SystemClock
from tests.support.clocks import Drive, ManualClock
from tests.support.engines import Bench, text
from tests.support.events import prepared
from tests.support.orders import found
from tests.support.shops import LAYOUT, NOW, Shop

HALF_LIFE = 604_800.0
PACKAGE = str(uuid.uuid4())
SCHEDULE = Schedule(jitter=0)


def timings(shop: Shop, packages: int = 1000) -> Timings:
    return Timings(shop.database(), shop.orders(), "public", HALF_LIFE, packages)


def learning_of(shop: Shop, **terms: Any) -> Learning:
    return Learning(Timing(SCHEDULE, Terms(**terms)), timings(shop), ManualClock(), SCHEDULE)


def taught(*ages: float, key: Key = ("default", PACKAGE)) -> dict[Key, Sketch]:
    timing = Timing(SCHEDULE, Terms())
    for age in ages:
        timing.ended(key, age / 2, age, NOW)
    return timing.drain()


def total(kept: Any, key: Key = ALL) -> float:
    sketch = Sketch.load(kept[key], HALF_LIFE, NOW)
    assert sketch is not None
    return sketch.total


async def test_what_was_learned_is_kept_and_adds_up(plain_shop: Shop) -> None:
    """Two processes that write add up, and nothing is lost between them."""
    await prepared(plain_shop)
    one, other = timings(plain_shop), timings(plain_shop)
    await one.save(taught(30, 40, 50))
    await other.save(taught(60, 70))
    kept = await one.read()
    assert kept is not None
    assert {key: total(kept, key) for key in kept} == {
        ALL: 5,
        ("default", ""): 5,
        ("default", PACKAGE): 5,
    }


async def test_without_the_table_it_is_memory_alone_and_says_so_once(plain_shop: Shop) -> None:
    await plain_shop.connection.execute("DROP TABLE order_monitor_timing")
    learning = learning_of(plain_shop)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await learning.begin()
            learning.timing.ended(("default", ""), 10, 20, NOW)
            await learning.save()
    assert [line["event"] for line in logs] == ["timing.not_kept"]
    assert learning.timing.orders() == {"default": 3}


async def test_the_table_is_bounded(plain_shop: Shop) -> None:
    await prepared(plain_shop)
    kept = timings(plain_shop, packages=10)
    for n in range(30):
        await kept.save(taught(30, key=("default", f"p{n}")))
    assert await plain_shop.connection.fetchval("SELECT count(*) FROM order_monitor_timing") == 10


@pytest.mark.parametrize(
    "sketch", ["", "x", "{}", '{"v": 99, "grid": 1, "at": 0, "w": []}', "[" * 2000]
)
async def test_a_sketch_that_cannot_be_read_is_begun_anew(plain_shop: Shop, sketch: str) -> None:
    await prepared(plain_shop)
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_timing (account, package, sketch) VALUES ('', '', $1)", sketch
    )
    learning = learning_of(plain_shop)
    await learning.begin()
    await timings(plain_shop).save(taught(30))
    kept = await timings(plain_shop).read()
    assert kept is not None
    assert total(kept) == 1


@pytest.mark.long
async def test_a_first_start_learns_from_the_events(shop: Shop) -> None:
    orders = await prepared(shop)
    now = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    for n in range(20):
        order_id = await shop.add(sent_at=now - 300 - n, package_id=PACKAGE)
        answer = Cancelled("x") if n % 3 else Completed(Pin(f"P{n}"))
        await orders.record([found(shop.order(order_id, sent_at=now - 300 - n), answer)])
    learning = learning_of(shop)
    await learning.begin()
    assert learning.timing.orders() == {"default": 20}
    await learning.save()
    again = learning_of(shop)
    await again.begin()
    assert again.timing.orders() == {"default": 20}, "and once only"


async def test_what_a_person_or_the_time_limit_ended_is_no_end(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop)
    a, b = await plain_shop.add(sent_at=NOW - 90_000), await plain_shop.add()
    order = plain_shop.order(a, sent_at=NOW - 90_000)
    await orders.record([CheckResult(order, Waiting("x"), NOW)])
    person = plain_shop.orders(author="Ayşe")
    await person.record([replace(found(plain_shop.order(b), Completed(None)), by_person=True)])
    past = await timings(plain_shop).history()
    assert [(end.order_id, end.is_end) for end in past] == [(a, False)]


class TestPlan:
    """When the daemon asks."""

    def order(self, **more: Any) -> Order:
        return Order("id-1", "sent", NOW, "1", package=PACKAGE)._replace(**more)

    def learned(self) -> tuple[Learned, Timing]:
        timing = Timing(SCHEDULE, Terms())
        for n in range(200):
            timing.ended(("default", PACKAGE), 25 + n % 3, 30 + n % 3, NOW)
        while timing.refresh():
            pass
        return Learned(SCHEDULE, timing), timing

    def test_with_nothing_learned_it_is_the_schedule(self) -> None:
        plan = Learned(SCHEDULE, Timing(SCHEDULE, Terms()))
        assert plan.first(self.order(), NOW) == NOW + 60
        for age in (60, 90, 5000):
            assert plan.again(self.order(), NOW + age) == Continuous(SCHEDULE).again(
                self.order(), NOW + age
            )

    def test_what_ends_early_is_asked_about_early(self) -> None:
        plan, _ = self.learned()
        first = plan.first(self.order(), NOW)
        assert first is not None
        assert NOW + 20 < first < NOW + 45

    def test_what_was_asked_about_before_a_restart_goes_on_from_there(self) -> None:
        plan, _ = self.learned()
        first = plan.first(self.order(last_sync_at=NOW + 100), NOW + 110)
        assert first is not None
        assert first > NOW + 100

    @pytest.mark.slow
    def test_what_awaits_its_pin_keeps_to_the_schedule(self) -> None:
        plan, _ = self.learned()
        waiting = self.order(ended_at=NOW + 30)
        assert plan.first(waiting, NOW + 40) == Continuous(SCHEDULE).first(waiting, NOW + 40)
        assert plan.again(waiting, NOW + 40) == Continuous(SCHEDULE).again(waiting, NOW + 40)

    def test_the_key_is_account_and_package(self) -> None:
        assert key_of(self.order(integration="x")) == ("x", PACKAGE)
        assert key_of(self.order(package=None)) == ("default", "")

    @pytest.mark.parametrize(
        ("age", "before"), [(10, 0), (60, 0), (95, 60), (149, 60), (150, 90), (160, 90)]
    )
    def test_the_slot_before(self, age: float, before: float) -> None:
        assert slot_before(SCHEDULE, "id-1", age) == before


class Engine:
    """What `Learning` asks of an engine."""

    def __init__(self, open_ids: set[str]) -> None:
        self.open_ids = open_ids
        self.queue: Any = self
        self.ready: Any = self
        self.dispatcher: Any = self
        self.filler: Any = self
        self.rank: Any = None
        self.chance: Any = None

    def get(self, order_id: str) -> object:
        return order_id if order_id in self.open_ids else None

    def now(self) -> float:
        return NOW + 100


@pytest.mark.long
async def test_the_engine_teaches_it(plain_shop: Shop) -> None:
    """Orders of one package take 45 s: after a few hundred, asking every order costs one call, and
    is late by seconds.
    """
    await prepared(plain_shop)
    timing = Timing(SCHEDULE, Terms())

    def panel(reference: str) -> Any:
        return text(
            f"OK|2|P-{reference}|x" if sent[reference] + 45 <= bench.clock.elapsed else "OK|1| |x"
        )

    sent: dict[str, float] = {}
    bench = Bench(plain_shop, panel)
    learning = Learning(timing, timings(plain_shop), bench.clock, SCHEDULE)
    bench.engine.context.observer = learning  # the bench makes its engine without one
    bench.engine.context.policy = replace(
        bench.engine.context.policy, plan=Learned(SCHEDULE, timing)
    )
    learning.watch(bench.engine)
    async with Drive(bench.engine, bench.clock) as drive:
        for _ in range(60):
            order_id = await plain_shop.add(sent_at=NOW + bench.clock.elapsed, package_id=PACKAGE)
            sent[f"r-{order_id[:8]}"] = bench.clock.elapsed
            await drive.run(20, scan_every=10)
            while timing.refresh():
                pass
        await drive.run(600, scan_every=10)
    assert bench.engine.state.ends["completed"] == 60
    first = {
        reference: min(at - sent[reference] for at, r in bench.calls if r == reference)
        for reference in sent
    }
    late = list(first.values())[-10:]
    assert all(40 <= at <= 62 for at in late)
    assert timing.orders() == {"default": 60}


class Empty:
    """A store in which nothing is."""

    async def read(self) -> dict[Key, str]:
        return {}

    async def history(self) -> list[PastEnd]:
        return []

    async def save(self, learned: object) -> None:
        pass


@pytest.mark.slow
async def test_what_somebody_else_ended_is_forgotten_as_unknown() -> None:
    """Within minutes, of itself; its last check tells that it had waited, and tells it once."""
    clock = ManualClock()
    learning = Learning(Timing(SCHEDULE, Terms()), Empty(), clock, SCHEDULE)
    engine: Any = Engine({"open"})
    learning.watch(engine)
    order = Order("a", "sent", NOW, "1", package=PACKAGE)
    running = asyncio.create_task(learning.run())
    for order_id in ("a", "open"):
        learning.timing.found(order_id, 0.0, 100.0, 200.0)
    assert learning.timing.late() == ["a", "open"]
    await minutes(clock, 6)
    assert learning.timing.late() == ["open"]
    learning.checked("default", order, Waiting("x"), 0.1)
    assert learning.timing.orders() == {"default": 0}
    await minutes(clock, 6)
    assert learning.timing.orders() == {"default": 1}
    learning.checked("default", order, Waiting("x"), 0.1)
    learning.settled(
        "default", WriteResult(CheckResult(order, Cancelled("x"), NOW + 100), WriteStatus.GONE), 0.0
    )
    assert learning.timing.orders() == {"default": 2}
    await minutes(clock, 12)
    assert learning.timing.orders() == {"default": 2}, "each once"
    running.cancel()


async def minutes(clock: ManualClock, count: int) -> None:
    """Let virtual minutes pass."""
    end = clock.elapsed + 60 * count
    while clock.elapsed < end:
        for _ in range(200):
            await asyncio.sleep(0)
        clock.ring(clock.next_alarm() or end)
    for _ in range(200):
        await asyncio.sleep(0)


def test_a_plan_for_people_is_untouched() -> None:
    assert Now().first(Order("a", "sent", NOW, "1"), NOW) == NOW


async def test_migrate_makes_its_table(bare_shop: Shop) -> None:
    shop = bare_shop
    lines = [line async for line in Migration(shop.database(), LAYOUT, SystemClock()).apply()]
    assert "added table order_monitor_timing" in lines
    await timings(shop).save(taught(30))
    (row,) = await shop.connection.fetch("SELECT * FROM order_monitor_timing WHERE package <> ''")
    assert (row["account"], row["package"], json.loads(row["sketch"])["v"]) == (
        "default",
        PACKAGE,
        1,
    )


class Planned:
    """An engine with a queue of its own, for what `Learning` plans again."""

    def __init__(self) -> None:
        self.queue = OrderQueue()
        self.dispatcher: Any = SimpleNamespace(filler=SimpleNamespace(chance=None))
        self.context: Any = SimpleNamespace(wake=asyncio.Event())

    def now(self) -> float:
        return NOW + 100

    def schedule(self, order: Order, age: float) -> TrackedOrder:
        entry = self.queue.add(order, "default")
        self.queue.schedule(entry, NOW + age)
        return entry


@pytest.mark.slow
async def test_waiting_orders_of_a_product_that_surprises_are_planned_again() -> None:
    """Orders of an hour, planned for later; one has ended within a minute."""
    timing = Timing(SCHEDULE, Terms())
    for n in range(200):
        timing.ended(("default", PACKAGE), 3500, 3600, NOW - 200 + n)
    timing.refresh(9)
    learning = Learning(timing, Nowhere(), ManualClock(), SCHEDULE)
    await learning.plan_again()
    engine: Any = Planned()
    learning.watch(engine)
    sent = Order("", "sent", NOW, "1", package=PACKAGE)
    overdue = [engine.schedule(sent._replace(id=f"overdue {n}"), 600) for n in range(30)]
    later = engine.schedule(sent._replace(id="later", sent_at=NOW + 90), 600)
    soon = engine.schedule(sent._replace(id="soon"), 101)
    other = engine.schedule(sent._replace(id="other", package="x"), 600)
    unsent = engine.schedule(sent._replace(id="unsent", sent_at=None), 600)
    held = engine.schedule(sent._replace(id="held"), 600)
    held.note(failures=1)
    await learning.plan_again()
    assert later.due == NOW + 600, "nothing has surprised yet"
    timing.ended(("default", PACKAGE), 0, 60, NOW + 100)
    await learning.plan_again()
    assert {(entry.due, entry.stage) for entry in overdue} == {(NOW + 100, Stage.READY)}
    assert later.due == NOW + 150, "backoff's first slot"
    assert soon.due == NOW + 100
    assert {other.due, unsent.due, held.due} == {NOW + 600}
    assert engine.context.wake.is_set()


async def test_after_one_rare_early_end_only_the_orders_sent_since_are_planned_again() -> None:
    """One in fifty was always fast: it may have been one of those."""
    timing, key = Timing(SCHEDULE, Terms()), ("default", PACKAGE)
    for n in range(200):
        is_fast = n % 50 == 0
        timing.ended(key, 0 if is_fast else 3500, 60 if is_fast else 3600, NOW - 20_000 + 100 * n)
    timing.refresh(9)
    timing.surprised()
    learning = Learning(timing, Nowhere(), ManualClock(), SCHEDULE)
    engine: Any = Planned()
    learning.watch(engine)
    sent = Order("", "sent", NOW, "1", package=PACKAGE)
    before = engine.schedule(sent._replace(id="before", sent_at=NOW - 40), 600)
    since = engine.schedule(sent._replace(id="since", sent_at=NOW + 50), 600)
    timing.ended(key, 0, 60, NOW + 100)
    await learning.plan_again()
    assert before.due == NOW + 600
    assert since.due <= NOW + 110, "backoff's first slot, or sooner"
    timing.ended(key, 0, 60, NOW + 101)
    await learning.plan_again()
    assert before.due == NOW + 100, "by now it is likely"


class Nowhere:
    """A store that keeps nothing."""

    async def read(self) -> None:
        """Return nothing."""

    async def history(self) -> list[Any]:
        """Return nothing."""
        return []

    async def save(self, learned: Any) -> None:
        """Keep nothing."""
