"""The metrics as a scraper reads them, over the whole edge; names and labels are a contract."""

from order_monitor.core.answer import OUTCOMES
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.clocks import WhichClock
from order_monitor.core.decision import StuckReason
from order_monitor.core.order import SkipReason
from order_monitor.tell.attention import REMEDIES
from order_monitor.tell.document import document_of
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.metrics import scrape
from tests.support.stages import HOSTILE


async def test_what_is_open_and_late_and_stuck() -> None:
    found = await scrape(await stages.on_fire())
    assert found["order_monitor_orders_open", ()] == 97
    assert found["order_monitor_orders_overdue", ()] == 30
    assert found["order_monitor_oldest_open_seconds", ()] > 86_400
    assert found["order_monitor_orders_stuck", ()] == 4
    assert found["order_monitor_orders_skipped", (("reason", "no_reference"),)] == 7
    assert found["order_monitor_oldest_due_seconds", ()] > 600
    assert found["order_monitor_ready", ()] == 0
    assert found["order_monitor_database_up", ()] == 0
    assert found["order_monitor_account_open", (("account", HOSTILE),)] == 0
    assert found["order_monitor_account_orders", (("account", "default"),)] == 30
    assert found["order_monitor_events_waiting", ()] == 4210
    assert found["order_monitor_writes_total", (("result", "stuck"),)] == 4
    assert (
        found["order_monitor_checks_total", (("account", "default"), ("outcome", "blocked"))] == 5
    )


async def test_what_was_done_and_how_fast() -> None:
    clock = ManualClock()
    stage = await stages.busy(clock)
    stage.observer.wrote(12, 0.02)
    found = await scrape(stage)
    assert (
        found["order_monitor_checks_total", (("account", "default"), ("outcome", "completed"))] == 9
    )
    assert found["order_monitor_writes_total", (("result", "written"),)] == 12
    assert found["order_monitor_detection_seconds_count", ()] == 12
    assert found["order_monitor_check_seconds_count", ()] == 12
    assert found["order_monitor_write_seconds_count", ()] == 1
    assert found["order_monitor_scan_seconds_count", ()] == 1
    assert found["order_monitor_inflight", ()] == 0
    assert found["order_monitor_ready", ()] == 1
    assert found["order_monitor_log_lines_dropped_total", ()] == 0
    assert found["order_monitor_last_success_timestamp_seconds", ()] == 0, (
        "nothing was answered, and something is due"
    )


async def test_where_nothing_is_due_a_scan_is_a_success() -> None:
    clock = ManualClock()
    found = await scrape(await stages.quiet(clock))
    assert found["order_monitor_last_success_timestamp_seconds", ()] == clock.time()


async def test_orders_held_back_by_an_outage_are_no_success() -> None:
    """While its account fails an open order waits for another try: nothing is due, and yet not all
    is well.
    """
    clock = ManualClock()
    stage = await stages.quiet(clock)
    stage.shelf.orders = [stage.order(0.0)]
    await stage.begin()
    stage.shut("default", "timeout")
    clock.elapsed += 30
    await stage.begin()
    found = await scrape(stage)
    assert found["order_monitor_orders_due", ()] == 0
    assert found["order_monitor_last_success_timestamp_seconds", ()] == clock.time() - 30


async def test_whether_ages_end_orders_and_how_often_a_clock_has_leapt() -> None:
    clock = ManualClock()
    stage = await stages.busy(clock)
    found = await scrape(stage)
    assert found["order_monitor_ends_by_age", ()] == 1
    assert {
        name: found["order_monitor_clock_leaps_total", (("clock", name),)]
        for name in ("machine", "database")
    } == {
        "machine": 0,
        "database": 0,
    }
    told = document_of(stage.view)["clocks"]
    assert told == {
        "ends_by_age": True,
        "why": "",
        "differ": False,
        "difference_seconds": 0.0,
        "leaps": {"machine": 0, "database": 0},
    }
    clock.epoch += 40
    stage.engine.context.read_clock()
    found = await scrape(stage)
    assert found["order_monitor_ends_by_age", ()] == 0
    assert found["order_monitor_clock_leaps_total", (("clock", "machine"),)] == 1
    assert found["order_monitor_ready", ()] == 1, "it is of use all the same"
    told = document_of(stage.view)["clocks"]
    assert (told["ends_by_age"], told["why"]) == (
        False,
        "the machine's clock leapt by +40 s, less than ten minutes ago",
    )
    assert (told["differ"], told["difference_seconds"]) == (True, -40.0)


async def test_labels_come_from_closed_sets() -> None:
    """However many orders there are, there are no more series."""
    few, many = await scrape(await stages.busy()), await scrape(await stages.crowded(count=3000))
    closed = {
        "outcome": set(OUTCOMES),
        "reason": {str(r) for r in (*SkipReason, *StuckReason)},
        "result": {str(f) for f in WriteStatus},
        "clock": {str(face) for face in WhichClock},
        "kind": set(REMEDIES),
    }
    accounts = {"account": {"default", *(await stages.crowded(count=3)).accounts}}
    for found in (few, many):
        for _, labels in found:
            for name, value in labels:
                assert name in ("le", "version") or value in {**closed, **accounts}[name], (
                    name,
                    value,
                )
    assert len(many) - len(few) < 20


async def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = ManualClock()
    stage = await stages.busy(clock)
    rate = document_of(stage.view)["accounts"][0]["calls_per_second"]
    assert rate == 0.2
    clock.elapsed += 70
    assert document_of(stage.view)["accounts"][0]["calls_per_second"] == 0


async def test_a_large_book_is_not_counted_all_the_time() -> None:
    """What a census costs decides how often it is made."""

    class Slow(ManualClock):
        cost = 0.0

        def monotonic(self) -> float:
            self.elapsed += self.cost
            return self.elapsed

    clock = Slow()
    stage = await stages.busy(clock)
    clock.cost = 0.1
    first = stage.view.count()
    assert stage.view.count() is first
    clock.elapsed += 1
    assert stage.view.count() is first, (
        "the clock was read some times, 0.1 s each: once in many seconds is enough"
    )
    clock.elapsed += 40
    assert stage.view.count() is not first


async def test_of_several_processes_each_number_is_told_by_one() -> None:
    """Summed up over all of them, an order counts once and an account is one series."""
    stage = await stages.shared()
    found = await scrape(stage)
    assert [labels for name, labels in found if name == "order_monitor_account_open"] == [
        (("account", "İstanbul-7f3a91c2"),)
    ]
    assert (
        found["order_monitor_cluster_members", ()],
        found["order_monitor_cluster_leader", ()],
    ) == (2, 0)
    names = {name for name, _ in found}
    of_the_table = {"orders_open", "orders_overdue", "orders_skipped", "reviews", "events_waiting"}
    assert not names & {f"order_monitor_{name}" for name in of_the_table}
    assert found["order_monitor_orders_due", ()] == 10, "only of the account that is asked here"
    assert stage.view.cluster is not None
    stage.view.cluster.leads_until = float("inf")
    names = {name for name, _ in await scrape(stage)}
    assert names >= {f"order_monitor_{name}" for name in of_the_table}
