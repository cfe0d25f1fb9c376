"""The queue in front of the database."""

import asyncio
from collections.abc import Callable

import pytest

from order_monitor.answer import Completed
from order_monitor.errors import ShopUnavailableError
from order_monitor.finding import Fate, Finding, Result
from order_monitor.order import Order, Pin
from order_monitor.writer import BATCH, Writer
from tests.clocks import ManualClock
from tests.shops import NOW


class Recorder:
    """Records in memory, and fails as told."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.fate: Callable[[Finding], Fate] = lambda _: Fate.WRITTEN
        self.failures = 0

    async def record(self, findings: list[Finding]) -> list[Result]:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise ShopUnavailableError("away")
        self.batches.append([f.order.id for f in findings])
        return [Result(f, self.fate(f)) for f in findings]


def finding(order_id: str) -> Finding:
    return Finding(Order(order_id, "sent", NOW, "1"), Completed(Pin("P")), NOW)


class Bench:
    def __init__(self, patience: float | None = None) -> None:
        self.clock = ManualClock()
        self.recorder = Recorder()
        self.results: list[Result] = []
        self.writer = Writer(self.recorder, self.clock, self.results.append, patience=patience)

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
    bench.recorder.fate = lambda f: Fate.LOCKED if f.order.id == "a" else Fate.WRITTEN
    task = asyncio.create_task(bench.writer.run())
    bench.writer.submit(finding("a"))
    bench.writer.submit(finding("b"))
    await bench.run(ticks=10)
    assert [r.finding.order.id for r in bench.results] == ["b"]
    bench.recorder.fate = lambda _: Fate.WRITTEN
    await bench.run()
    assert [r.finding.order.id for r in bench.results] == ["b", "a"]
    bench.writer.close()
    await task


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
        bench.recorder.fate = lambda _: Fate.LOCKED
    task = asyncio.create_task(bench.writer.run())
    bench.writer.submit(finding("a"))
    await bench.run(ticks=50, step=1)
    assert not task.done()
    await bench.run(ticks=100, step=1)
    with pytest.raises(ShopUnavailableError):
        await task
    assert len(bench.writer) == 1


async def test_closing_an_empty_writer_ends_it() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.writer.run())
    await bench.run(ticks=2)
    bench.writer.close()
    await bench.run(ticks=2)
    assert task.done()
