"""The queue in front of the database."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.errors import RowRejectedError, ShopUnavailableError
from order_monitor.core.order import Order
from order_monitor.core.pin import Pin
from order_monitor.core.throttle import (
    BATCH,
    HURRIED_LOCK_WAIT,
    LOCK_WAIT,
    Throttle,
)
from order_monitor.watch.write_queue import LOGGED_EVERY, WriteQueue
from tests.support.clocks import ManualClock
from tests.support.shops import NOW
from tests.support.writing import Results


class Recorder:
    """Records in memory, and fails as told."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.fate: Callable[[CheckResult], WriteStatus] = lambda _: WriteStatus.WRITTEN
        self.failures = 0

    async def record(
        self, findings: list[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise ShopUnavailableError("away")
        self.batches.append([f.order.id for f in findings])
        return [WriteResult(f, self.fate(f)) for f in findings]


def finding(order_id: str) -> CheckResult:
    return CheckResult(Order(order_id, "sent", NOW, "1"), Completed(Pin("P")), NOW)


class Bench:
    def __init__(self, patience: float | None = None) -> None:
        self.clock = ManualClock()
        self.recorder = Recorder()
        self.results = Results()
        self.writer = WriteQueue(self.recorder, self.clock, self.results, patience=patience)

    async def run(self, *, ticks: int = 400, step: float = 0.01) -> None:
        for _ in range(ticks):
            for _ in range(8):
                await asyncio.sleep(0)
            self.clock.ring(self.clock.elapsed + step)


async def test_findings_that_come_together_are_written_together() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.writer.run())
    for n in range(BATCH + 50):
        bench.writer.submit(finding(str(n)))
    await bench.run(ticks=20)
    assert [len(b) for b in bench.recorder.batches] == [BATCH, 50]
    assert len(bench.results) == BATCH + 50
    assert len(bench.writer) == 0
    bench.writer.close()
    await task


def waits(order_id: str) -> CheckResult:
    return CheckResult(Order(order_id, "sent", NOW, "1"), Waiting("x"), NOW)


async def test_what_ends_nothing_waits_longer_for_company_and_an_end_takes_it_along() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.writer.run())
    for name in "ab":
        bench.writer.submit(waits(name))
        await bench.run(ticks=20)
    assert bench.recorder.batches == [], "two fifths of a second"
    bench.writer.submit(finding("end"))
    await bench.run(ticks=7)
    assert bench.recorder.batches == [["a", "b", "end"]]
    bench.writer.submit(waits("alone"))
    await bench.run(ticks=60)
    assert bench.recorder.batches[1:] == [["alone"]]
    for n in range(BATCH):
        bench.writer.submit(waits(str(n)))
    await bench.run(ticks=2)
    assert [len(batch) for batch in bench.recorder.batches[2:]] == [BATCH], "company enough"
    bench.writer.submit(waits("last"))
    await bench.run(ticks=2)
    bench.writer.close()
    await bench.run(ticks=1)
    assert bench.recorder.batches[3:] == [["last"]], "nothing more is to come"
    await task


async def test_few_ends_are_written_at_once_and_many_together() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.writer.run())
    for n in range(40):
        bench.writer.submit(finding(f"slow {n}"))
        await bench.run(ticks=5)  # twenty a second
        assert len(bench.recorder.batches) == n + 1
    for n in range(100):
        bench.writer.submit(finding(f"fast {n}"))
        await bench.run(ticks=1)  # a hundred a second
    batches = bench.recorder.batches[40:]
    assert len(batches) < 50
    assert len(batches[-1]) > 3
    bench.writer.close()
    await task


async def test_nothing_is_forgotten_while_the_database_is_away() -> None:
    bench = Bench()
    bench.recorder.failures = 30
    task = asyncio.create_task(bench.writer.run())
    bench.writer.submit(finding("a"))
    await bench.run(ticks=50)
    assert len(bench.writer) == 1
    bench.writer.submit(finding("b"))
    await bench.run(ticks=1000, step=1)
    assert {r.finding.order.id for r in bench.results} == {"a", "b"}
    bench.writer.close()
    await task


async def test_a_locked_row_is_tried_again_behind_the_others() -> None:
    bench = Bench()
    bench.recorder.fate = lambda f: WriteStatus.LOCKED if f.order.id == "a" else WriteStatus.WRITTEN
    task = asyncio.create_task(bench.writer.run())
    bench.writer.submit(finding("a"))
    bench.writer.submit(finding("b"))
    await bench.run(ticks=10)
    assert [r.finding.order.id for r in bench.results] == ["b"]
    bench.recorder.fate = lambda _: WriteStatus.WRITTEN
    await bench.run()
    assert [r.finding.order.id for r in bench.results] == ["b", "a"]
    bench.writer.close()
    await task


async def test_locked_rows_are_tried_again_together() -> None:
    bench = Bench()
    bench.recorder.fate = lambda _: WriteStatus.LOCKED
    task = asyncio.create_task(bench.writer.run())
    for name in "ab":
        bench.writer.submit(finding(name))
    await bench.run(ticks=60)
    assert bench.recorder.batches == [["a", "b"], ["a", "b"]]
    bench.recorder.fate = lambda _: WriteStatus.WRITTEN
    bench.writer.close()
    await bench.run(ticks=2)
    await task
    assert len(bench.results) == 2


async def test_a_second_answer_about_an_order_under_way_is_refused() -> None:
    """A5."""
    bench = Bench()
    first = finding("a")
    bench.writer.submit(first)
    bench.writer.submit(finding("a"))
    task = asyncio.create_task(bench.writer.run())
    bench.writer.close()
    await bench.run(ticks=20)
    await task
    assert [r.finding for r in bench.results] == [first]


@pytest.mark.parametrize("trouble", ["away", "locked"])
async def test_patience_ends_where_it_is_given(trouble: str) -> None:
    bench = Bench(patience=60)
    if trouble == "away":
        bench.recorder.failures = 10**6
    else:
        bench.recorder.fate = lambda _: WriteStatus.LOCKED
    task = asyncio.create_task(bench.writer.run())
    bench.writer.submit(finding("a"))
    await bench.run(ticks=50, step=1)
    assert not task.done()
    await bench.run(ticks=100, step=1)
    with pytest.raises(ShopUnavailableError) as caught:
        await task
    told = {"away": "away", "locked": "the rows are locked by another session"}
    assert str(caught.value) == told[trouble]
    assert len(bench.writer) == 1


def test_an_answer_knows_how_long_ago_it_was_read() -> None:
    """By that a cancellation that had to wait for the database is dated."""
    bench = Bench()
    bench.clock.ring(100.0)
    late = finding("1")
    bench.writer.submit(late)
    bench.clock.ring(130.0)
    assert late.since_read() == 30.0


async def test_closing_an_empty_writer_ends_it() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.writer.run())
    await bench.run(ticks=2)
    bench.writer.close()
    await bench.run(ticks=2)
    assert task.done()


async def test_writing_that_stands_still_is_told_and_what_is_merely_locked_is_not() -> None:
    """Readiness, the page and "last success" go by it."""
    bench = Bench()
    bench.recorder.fate = lambda f: (
        WriteStatus.LOCKED if f.order.id == "held" else WriteStatus.WRITTEN
    )
    task = asyncio.create_task(bench.writer.run())
    bench.writer.submit(finding("held"))
    await bench.run(ticks=200, step=1)
    assert not bench.writer.stands_still()
    assert bench.writer.oldest_seconds() == pytest.approx(200)
    bench.recorder.failures = 10**6
    bench.writer.submit(finding("fresh"))
    await bench.run(ticks=50, step=1)
    assert not bench.writer.stands_still()
    await bench.run(ticks=20, step=1)
    assert bench.writer.stands_still()
    assert list(bench.writer.backlog) == ["held", "fresh"]
    bench.recorder.failures = 0
    bench.recorder.fate = lambda _: WriteStatus.WRITTEN
    await bench.run(ticks=60, step=1)
    assert (len(bench.writer), bench.writer.oldest_seconds(), bench.writer.stands_still()) == (
        0,
        0.0,
        False,
    )
    bench.writer.close()
    await task


async def test_what_may_pass_is_tried_alone_ever_more_seldom_and_all_at_once_when_it_has_passed() -> (
    None
):
    bench = Bench()
    held = {"a", "b", "c"}
    tries: list[list[str]] = []

    async def record(findings: list[CheckResult], lock_wait: float = 1.0) -> list[WriteResult]:
        tries.append([f.order.id for f in findings])
        if held & {f.order.id for f in findings}:
            raise RowRejectedError("LockNotAvailableError [55P03]", "55P03", is_passing=True)
        return [WriteResult(f, WriteStatus.WRITTEN) for f in findings]

    bench.recorder.record = record  # type: ignore[method-assign]
    task = asyncio.create_task(bench.writer.run())
    for name in "abcdefgh":
        bench.writer.submit(finding(name))
    await bench.run(ticks=30)
    assert {r.finding.order.id for r in bench.results} == set("defgh")
    assert len(bench.writer) == 3
    await bench.run(ticks=300, step=1)
    assert 3 <= len(tries) < 60, "ever more seldom"
    held.clear()
    await bench.run(ticks=40, step=1)
    assert len(bench.writer) == 0
    bench.writer.close()
    await task


async def test_what_was_held_up_does_not_wait_for_the_company_of_what_ends_nothing() -> None:
    """Each is tried alone: with a pause before each, forty PINs would take half a minute."""
    bench = Bench()
    held = {str(n) for n in range(40)}

    async def record(findings: list[CheckResult], lock_wait: float = 1.0) -> list[WriteResult]:
        await bench.clock.sleep(0.01)
        if held & {f.order.id for f in findings}:
            raise RowRejectedError("LockNotAvailableError [55P03]", "55P03", is_passing=True)
        return [WriteResult(f, WriteStatus.WRITTEN) for f in findings]

    bench.recorder.record = record  # type: ignore[method-assign]
    task = asyncio.create_task(bench.writer.run())
    for name in sorted(held):
        bench.writer.submit(finding(name))
    await bench.run(ticks=200, step=0.1)
    assert len(bench.writer) == 40
    names = sorted(held)
    held.clear()

    def left() -> int:
        return sum(name in bench.writer.backlog for name in names)

    began = float("inf")
    while left():
        began = min(began, bench.clock.elapsed) if left() < 40 else began
        bench.writer.submit(waits(f"waits {bench.clock.elapsed}"))
        await bench.run(ticks=1)
    assert bench.clock.elapsed - began < 5, "after the first all others at once, whoever else comes"
    bench.writer.close()
    await bench.run(ticks=20)
    await task


@pytest.mark.parametrize(
    ("is_locked", "pauses"),
    [(True, [0.5, 1, 2, 4, 8, 10, 10]), (False, [0.5, 1, 2, 4, 8, 16, 30, 30])],
)
async def test_a_write_that_is_held_up_is_tried_again_after_growing_pauses(
    pauses: list[float], *, is_locked: bool
) -> None:
    bench = Bench()
    times: list[float] = []

    async def record(findings: list[CheckResult], lock_wait: float = 1.0) -> list[WriteResult]:
        times.append(bench.clock.elapsed)
        if is_locked:
            return [WriteResult(f, WriteStatus.LOCKED) for f in findings]
        raise RowRejectedError("LockNotAvailableError [55P03]", "55P03", is_passing=True)

    bench.recorder.record = record  # type: ignore[method-assign]
    task = asyncio.create_task(bench.writer.run())
    bench.writer.submit(finding("a"))
    with capture_logs() as logs:
        await bench.run(ticks=int(sum(pauses) / 0.25) + 2, step=0.25)
    assert [later - at for at, later in pairwise(times)] == pauses
    told = [line for line in logs if line["event"] == "writes.held_up"]
    assert (told[0]["order_id"], told[0]["pending"], told[0]["log_level"]) == ("a", 1, "warning")
    why = "another session holds the row" if is_locked else "LockNotAvailableError [55P03]"
    assert told[0]["why"] == why
    assert len(told) == 1 + int((times[-1] - times[0]) // LOGGED_EVERY), "once in a while"
    bench.writer.close()
    await bench.run(ticks=2)
    await task
    assert len(bench.writer) == 1


@pytest.mark.parametrize("failures", [1, 5])
async def test_what_waits_for_the_database_is_told_once(failures: int) -> None:
    bench = Bench()
    bench.recorder.failures = failures
    for name in "ab":
        bench.writer.submit(finding(name))
    task = asyncio.create_task(bench.writer.run())
    with capture_logs() as logs:
        await bench.run(ticks=200, step=1)
        bench.writer.submit(finding("c"))
        bench.writer.submit(finding("c"))
        bench.writer.close()
        await bench.run(ticks=2)
    assert logs == [
        {"event": "writes.waiting", "log_level": "warning", "pending": 2, "why": "away"},
        {"event": "order.answered_twice", "log_level": "error", "order_id": "c"},
    ]
    await task
    assert sorted(r.finding.order.id for r in bench.results) == ["a", "b", "c"]


async def test_writes_that_are_refused_one_after_another_are_a_problem() -> None:
    bench = Bench()

    async def record(findings: list[CheckResult], lock_wait: float = 1.0) -> list[WriteResult]:
        return [
            WriteResult(f, WriteStatus.STUCK, detail="no [P0001]", is_refused=True)
            for f in findings
        ]

    bench.recorder.record, known = record, bench.recorder.record  # type: ignore[method-assign]
    task = asyncio.create_task(bench.writer.run())
    for name in "abc":
        bench.writer.submit(finding(name))
    await bench.run(ticks=59, step=1)
    assert not bench.writer.stands_still()
    await bench.run(ticks=2, step=1)
    assert bench.writer.problem() == "nothing written for 60 s: orders refused: 3 (no [P0001])"
    bench.recorder.record = known  # type: ignore[method-assign]
    bench.writer.submit(finding("d"))
    await bench.run(ticks=2)
    assert bench.writer.problem() == ""
    bench.writer.close()
    await bench.run(ticks=2)
    await task


async def test_answers_that_cannot_be_written_for_a_minute_are_counted() -> None:
    bench = Bench()
    await bench.run(ticks=100, step=1)
    bench.recorder.failures = 10**6
    task = asyncio.create_task(bench.writer.run())
    for name in "ab":
        bench.writer.submit(finding(name))
    await bench.run(ticks=60, step=1)
    assert bench.writer.problem() == "", "a minute from the first, however long none came"
    await bench.run(ticks=1, step=1)
    assert bench.writer.problem() == "nothing written for 60 s: 2 answers wait"
    assert bench.writer.oldest_seconds() == 61
    task.cancel()
    await asyncio.wait([task])


async def test_after_a_lock_the_next_writes_wait_less_for_one() -> None:
    bench = Bench()
    waited: list[float] = []

    async def record(findings: list[CheckResult], lock_wait: float) -> list[WriteResult]:
        waited.append(lock_wait)
        if findings[0].order.id == "held" and len(waited) < 3:
            raise RowRejectedError("LockNotAvailableError [55P03]", "55P03", is_passing=True)
        return [WriteResult(f, WriteStatus.WRITTEN) for f in findings]

    bench.recorder.record = record  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(bench.writer.run())
    for name in ("first", "held"):
        bench.writer.submit(finding(name))
        await bench.run(ticks=2)
    await bench.run(ticks=100)
    bench.writer.submit(finding("later"))
    await bench.run(ticks=2)
    await bench.run(ticks=70, step=1)
    bench.writer.submit(finding("calm"))
    await bench.run(ticks=2)
    assert waited == [LOCK_WAIT, LOCK_WAIT, HURRIED_LOCK_WAIT, HURRIED_LOCK_WAIT, LOCK_WAIT]
    bench.writer.close()
    await bench.run(ticks=2)
    await task


async def test_writes_tried_alone_take_a_sixth_of_the_time_until_the_last_round() -> None:
    bench = Bench()
    tries: list[tuple[float, str]] = []

    async def record(findings: list[CheckResult], lock_wait: float = 1.0) -> list[WriteResult]:
        tries.append((bench.clock.elapsed, "".join(f.order.id for f in findings)))
        await bench.clock.sleep(1.0)
        raise RowRejectedError("LockNotAvailableError [55P03]", "55P03", is_passing=True)

    bench.recorder.record = record  # type: ignore[method-assign]
    task = asyncio.create_task(bench.writer.run())
    for name in "ab":
        bench.writer.submit(finding(name))
    await bench.run(ticks=62, step=0.25)
    assert tries == [(0, "ab"), (1, "a"), (2, "b"), (8, "a"), (14, "b")]
    bench.writer.close()
    await bench.run(ticks=12, step=0.25)
    assert [name for _, name in tries[5:]] == ["a", "b"], "once more each, without a rest"
    assert tries[6][0] - tries[5][0] == 1
    await task
    assert len(bench.writer) == 2


async def test_where_nothing_more_is_to_come_nothing_waits_for_company() -> None:
    bench = Bench()
    bench.writer.submit(waits("a"))
    bench.writer.close()
    task = asyncio.create_task(bench.writer.run())
    await bench.run(ticks=1)
    assert bench.recorder.batches == [["a"]]
    assert task.done()
    await task


async def test_each_batch_is_reported_with_how_long_it_took() -> None:
    bench = Bench()
    wrote: list[tuple[int, float]] = []
    bench.results.wrote = lambda count, seconds: wrote.append((count, seconds))  # type: ignore[method-assign]

    async def record(findings: list[CheckResult], lock_wait: float = 1.0) -> list[WriteResult]:
        await bench.clock.sleep(0.5)
        return [WriteResult(f, WriteStatus.WRITTEN) for f in findings]

    bench.recorder.record = record  # type: ignore[method-assign]
    await bench.run(ticks=8, step=1)
    task = asyncio.create_task(bench.writer.run())
    for name in "ab":
        bench.writer.submit(finding(name))
    bench.writer.close()
    await bench.run(ticks=8, step=0.25)
    assert wrote == [(2, 0.5)]
    await task


def slow(limit: int) -> RowRejectedError:
    return RowRejectedError(f"more than {limit}", "57014", is_passing=True)


def test_batches_that_are_too_slow_are_halved_and_grow_again_slowly() -> None:
    throttle = Throttle()
    throttle.refused(200, slow(80), 0.0)
    throttle.refused(100, slow(80), 4.0)
    assert throttle.limit == 50
    for n in range(20):
        throttle.passed(throttle.limit, 5.0 + n)
    assert throttle.limit == 75, "below what was too slow a moment ago"
    throttle.passed(10, 70.0)
    assert throttle.limit == 75, "a small batch shows nothing"
    for n in range(20):
        throttle.passed(throttle.limit, 70.0 + n)
    assert throttle.limit == BATCH


def test_what_is_refused_for_good_makes_no_batch_smaller() -> None:
    throttle = Throttle()
    throttle.refused(200, RowRejectedError("no", "P0001"), 0.0)
    assert (throttle.limit, throttle.lock_wait(1.0)) == (BATCH, 1.0)
    throttle.refused(1, RowRejectedError("held", "55P03", is_passing=True), 0.0)
    assert (throttle.limit, throttle.lock_wait(1.0), throttle.lock_wait(61.0)) == (BATCH, 0.2, 1.0)
