"""The benchmark's arithmetic: schedules, duplicates, medians, ratios, and a table that says where
order-monitor is worse.
"""

import math
from typing import Any

import pytest

pytest.importorskip("benchmarks", reason="needs the repository: this is a built package")

from benchmarks.batches import MANY, ONE, PLAN, Found
from benchmarks.compare.batches import batches
from benchmarks.compare.day import Day
from benchmarks.compare.delay import Delay, ideal, placed
from benchmarks.compare.discovery import Discovery
from benchmarks.compare.load import Load, Times, excess, slots_by
from benchmarks.compare.memory import Memory
from benchmarks.compare.processes import ContestantFailedError
from benchmarks.compare.provider import Books, Panel
from benchmarks.compare.results import (
    Compared,
    Results,
    grouped,
    median_of,
    percentile,
    ratio,
    shares,
    worse,
)
from benchmarks.compare.shop_writes import ShopWrites, tps
from benchmarks.compare.speed import Speed, is_enough
from benchmarks.compare.table import markdown, number, rows_of
from benchmarks.compare.usage import cpu_seconds, resident_bytes, tree

OVERLOAD = "500 open orders, one order a call, one call a second"
WHOLE = {"order-monitor": True, "queue": True, "limit": False}


def speed_of(name: str, per_second: float, own: float = 0.001, **more: Any) -> Speed:
    values: dict[str, Any] = {
        "broker": 0.0,
        "database": 0.0,
        "provider_busy": 0.1,
        "statements": 80.0,
        "written": 0.0,
        **more,
    }
    return Speed(name, 0.2, 100, 1000, per_second, own, **values, repeated=0, peak=100)


def delay_of(name: str, decided: list[float], told: list[float], **more: int) -> Delay:
    return Delay(name, len(decided), 0, decided, told, **{"checks": 10, "excess": 0, **more})


def found() -> Results:
    return Results(
        {"faster": "60"},
        {"Python": "3"},
        dict.fromkeys(WHOLE, "how"),
        ["another: it is not installed"],
        [
            speed_of("order-monitor", 500.0),
            speed_of("queue", 250.0, 0.002),
            speed_of("limit", 900.0),
        ],
        [Memory("order-monitor", 1000, 2 << 20, 0, 0), Memory("queue", 1000, -4096, 0, 1 << 20)],
        [
            delay_of("order-monitor", [1.0, 2.0], [0.02, 0.02]),
            delay_of("queue", [1.0, 2.0], [0.002, 0.002], excess=1),
        ],
        [
            ShopWrites("order-monitor", 0.9, 0.98, 0.9, 80.0),
            ShopWrites("queue", 0.8, None, 1.0, 80.0),
        ],
        [
            Discovery(name, way, rows, 0.004, 0.02)
            for rows in (1000, 50_000)
            for name, way in (("order-monitor", "what was sent lately"), ("queue", "its batch"))
        ],
        [Day("order-monitor", 40, 6000, 6040, 0), Day("queue", 40, 6600, 6040, 560)],
        [
            Found(500, MANY, 800, 800, 5.0, 10.0),
            Found(500, ONE, 800, 400, 1200.0, 2400.0),
            Found(500, PLAN, 800, 800, 300.0, 900.0),
        ],
    )


def test_the_times_are_made_shorter_alike() -> None:
    times = Times().faster(60)
    assert (times.first, times.base, times.cap, times.batch, times.jitter) == (
        1.0,
        0.5,
        10.0,
        5.0,
        0.0,
    )
    assert [times.pause(k) for k in (0, 1, 2, 9, 5000)] == [0.5, 1.0, 2.0, 10.0, 10.0]


def test_the_load_travels_whole_and_shows_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(
        "http://127.0.0.1:1", "postgresql://shop:secret@/x", "/nowhere", 20, Times().faster(3)
    )
    for name, value in load.environ().items():
        monkeypatch.setenv(name, value)
    assert Load.told() == load
    assert "secret" not in repr(load)


@pytest.mark.parametrize(
    ("ages", "extra"),
    [
        ([], 0),
        ([60], 0),
        ([59], 1),
        ([60, 61], 1),
        ([60, 90, 150], 0),
        ([65, 99, 170], 0),
        ([150], 0),
        ([60, 60, 60], 2),
    ],
)
def test_checks_beyond_the_schedule_are_counted(ages: list[float], extra: int) -> None:
    schedule = Times(jitter=0.0).schedule()
    assert excess([1000.0 + age for age in ages], 1000.0, schedule) == extra
    assert [slots_by(schedule, age) for age in (59, 60, 90, 149, 150)] == [0, 1, 2, 2, 3]


def test_each_contestant_gets_the_same_orders_and_no_machinery_is_as_good_as_the_schedule() -> None:
    assert placed(10, 60, 5.0) == placed(10, 60, 5.0)
    assert all(one.sent < one.ends for one in placed(10, 60, 5.0))
    best = ideal(20, 60)
    assert best.orders == 20
    assert best.excess == best.missing == 0
    assert all(0 < delay <= 2.0 for delay in best.from_decided)


def test_medians_are_taken_number_by_number_of_what_agrees() -> None:
    rows = [speed_of("a", n) for n in (3.0, 1.0, 2.0)]
    assert median_of(rows).per_second == 2.0
    assert {
        key: row.per_second
        for key, row in grouped([*rows, speed_of("b", 7.0)], "contestant").items()
    } == {
        ("a",): 2.0,
        ("b",): 7.0,
    }


def test_percentiles_and_ratios() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, part) for part in (0.5, 0.95, 0.99, 0.0, 1.0)] == [
        50.0,
        95.0,
        99.0,
        1.0,
        100.0,
    ]
    assert math.isnan(percentile([], 0.5))
    assert ratio(1.0, 4.0) == 0.25
    assert math.isnan(ratio(1.0, 0.0))


def test_order_monitors_weak_sides_are_found_whichever_way_is_better() -> None:
    named = {(one.contestant, one.what): one.share for one in shares(found(), WHOLE)}
    assert {contestant for contestant, _ in named} == {"queue", PLAN}, (
        "a limit does less: no comparison"
    )
    assert named[PLAN, f"ends found ({OVERLOAD})"] == 0.5
    assert named[PLAN, f"delay from decided to written, p50 ({OVERLOAD})"] == 0.25
    assert named["queue", "checks a second (200 ms latency, 100 in flight)"] == 2.0
    assert named["queue", "CPU a check, own (200 ms latency, 100 in flight)"] == 2.0
    assert named["queue", "delay from told to written, p50"] == pytest.approx(0.1)
    assert named["queue", "the shop's own writes meanwhile"] == pytest.approx(1.125)
    assert named["queue", "a scan among 50,000 rows that ended (its batch)"] == 1.0
    weak = worse(shares(found(), WHOLE))
    assert [one.share for one in weak] == sorted(one.share for one in weak)
    assert {one.what.split(",")[0] for one in weak} == {
        "memory of 1",
        "delay from told to written",
        "the shop's own writes on its tables",
        "ends found (500 open orders",
        "delay from decided to written",
    }
    assert worse([Compared("a", "b", 0.96)]) == []


def test_the_table_says_all_of_it() -> None:
    text = markdown(found(), WHOLE)
    assert "- delay from told to written, p50: 0.1 of queue's" in text
    assert "- another: it is not installed" in text
    assert "| 200 ms latency, 100 in flight | queue | 250 | 0.5 | 2 |" in text
    assert text.index("is worse") < text.index("Checks a second")
    heads = [len(line.split(" | ")) for line in text.splitlines() if line.startswith("|")]
    assert "| queue | 165 | 151 | 85 |" in text
    assert "| queue | 0.80 | – | 1.00 | 80 |" in text
    assert f"| 500 | {ONE} | 400 of 800 | 1,200 | 2,400 |" in text
    assert f"- ends found ({OVERLOAD}): 0.5 of {PLAN}'s" in text
    assert len(set(heads)) == 5, "every row has its table's columns"


@pytest.mark.long
async def test_many_orders_a_call_are_measured_in_a_process_of_their_own() -> None:
    """With few orders: each way finds them all, and batches find them soonest."""
    many, one, plan = await batches(20)
    assert [row.who for row in (many, one, plan)] == [MANY, ONE, PLAN]
    assert many.ended == one.ended == plan.ended > 20
    assert many.found == one.found == many.ended
    assert many.p50 <= one.p50 < plan.p50
    with pytest.raises(ContestantFailedError, match="ended with"):
        await batches(0)


def test_a_part_that_was_not_measured_is_not_in_the_table() -> None:
    text = markdown(Results({"faster": "1"}, {}, {}), WHOLE)
    assert "Nowhere in this run" in text
    assert "Checks a second" not in text


def test_numbers_are_short() -> None:
    assert [number(n) for n in (math.nan, 1234.5, 100, 99.94, 0.01234)] == [
        "–",
        "1,234",
        "100",
        "99.9",
        "0.0123",
    ]
    assert rows_of(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


def test_pgbench_is_understood() -> None:
    assert tps("scaling factor: 1\ntps = 4432.25 (without initial connection time)\n") == 4432.25
    with pytest.raises(ContestantFailedError, match="no server"):
        tps("connection failed: no server")


def test_the_provider_keeps_a_runs_books_apart_from_the_last_ones() -> None:
    panel = Panel()
    old = panel.books
    old.begin("R1")
    panel.obey({"do": "reset", "latency": 0.5, "ends": {"R1": 1.0}})
    old.end("R1")
    panel.books.begin("R1")
    panel.books.begin("R1")
    assert panel.obey({"do": "count"}) == {"total": 2, "repeated": 1, "peak": 2}
    assert panel.books.end("R1") == "OK|2|PIN-R1|tamam"
    assert panel.books.end("R2") == "OK|1| |bekleniyor"
    assert Books(all_end=True).end("R3").startswith("OK|2|")
    assert panel.obey({"do": "report"})["told"].keys() == {"R1"}


def test_a_process_that_is_gone_has_used_nothing_more() -> None:
    gone = 2**22 + 1
    assert tree([gone]) == {gone}
    assert (cpu_seconds([gone]), resident_bytes([gone])) == (0.0, 0)


@pytest.mark.parametrize(
    ("seconds", "checks", "enough"),
    [(1.0, 900, False), (2.0, 400, False), (2.0, 500, True), (8.0, 201, True), (0.1, 1900, True)],
)
def test_a_window_ends_when_it_has_seen_enough(
    seconds: float, checks: int, *, enough: bool
) -> None:
    assert is_enough(seconds, checks, 200, 2000, 2.0) == enough
    assert is_enough(9.0, 5000, 0, 0, 2.0), "a loop that asks for ever too"
