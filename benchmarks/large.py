"""The cost of a very large number of open orders: ``python -m benchmarks.large 1000000``.

Measured in one run over a real PostgreSQL: the first scan and a full re-scan, compared with a bare
fetch of the same rows; the first one's CPU; an incremental scan, compared with the first; the
memory per order; and how long the event loop is blocked during the first scan, and while the page
and the metrics are served.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import asyncpg
import structlog

from benchmarks.throughput import LAYOUT
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.demo.show import SCHEMA
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.migration import Migration
from order_monitor.shop.repository import Orders
from order_monitor.tell.document import document_of
from order_monitor.tell.metrics import Metrics
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.status_view import StatusView
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.lifecycle import Lifecycle, Stop
from order_monitor.watch.policy import Policy, Reading
from order_monitor.watch.system_clock import SystemClock
from tests.support.stages import NeverAsked

FILL = """
INSERT INTO product_orders (id, external_status, sent_at, provider_referans)
SELECT gen_random_uuid(), 'processing', now() - random() * interval '20 hours', (1000000000000000 + n)::text
FROM generate_series(1, $1::int) n
"""
TICK = 0.01
SERVED_FOR = 30.0


class Ticker:
    """Measures the delay of the event loop: it wakes every ten milliseconds."""

    def __init__(self) -> None:
        """Start with no delays."""
        self.late: list[float] = []

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK)
            self.late.append(time.perf_counter() - began - TICK)

    def told(self) -> str:
        """Return the delay of the loop since the last call, in milliseconds: the 99.9th percentile,
        and the worst.
        """
        late, self.late = sorted(self.late), []
        return (
            f"99.9 % {late[int(len(late) * 0.999)] * 1000:.0f} ms, worst {late[-1] * 1000:.0f} ms"
            if late
            else "-"
        )


def resident() -> int:
    """Return this process's resident memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Return how many seconds ``work`` takes."""
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def serve(view: StatusView, metrics: Metrics) -> None:
    """Render the page's document and the metrics every two seconds."""
    end = time.perf_counter() + SERVED_FOR
    while time.perf_counter() < end:
        document_of(view)
        metrics.text()
        await asyncio.sleep(2)


async def measure(dsn: str, count: int) -> None:
    """Measure, and print the table."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(SCHEMA)
    database = Database(parse_dsn(dsn), statement_timeout=120.0)
    clock = SystemClock()
    _ = [line async for line in Migration(database, LAYOUT, clock).apply()]
    await connection.execute(FILL, count)
    await connection.execute("ANALYZE product_orders")
    orders = Orders(database, LAYOUT)
    await orders.prepare()
    before = resident()
    policy = Policy(Continuous(Schedule()))
    at_once = replace(policy, reading=Reading(share=0.0))
    engine = Engine(orders, {"default": Account("default", NeverAsked())}, at_once, clock)
    life, ticker, view = Lifecycle(engine, clock, Stop()), Ticker(), StatusView(clock)
    view.watch(engine, Readiness(engine, clock, 10.0), policy.give_up_after)
    beside = [asyncio.create_task(ticker.run()), asyncio.create_task(view.queue_summary.run())]
    taking = asyncio.create_task(timed(life.first_scan))
    began, used = time.perf_counter(), time.process_time()
    while engine.state.taking_at is None:
        await asyncio.sleep(0.001)
    ready = time.perf_counter() - began
    whole = await taking
    used = (time.process_time() - used) / count
    memory, late_reading = (resident() - before) / count, ticker.told()
    engine.reconfigure(policy)
    again = await timed(engine.scan)
    quick = await timed(engine.scan)
    ticker.told()
    await serve(view, Metrics(view))
    late_serving = ticker.told()
    sql = orders.reader.queries.scan_sql()
    bare = statistics.median([await timed(lambda: connection.fetch(sql)) for _ in range(3)])
    print(f"| {count:,} open orders | |\n|---|---|")
    print(f"| taking all in, to a bare fetch of their rows | {whole / bare:.1f} |")
    print(f"| CPU of taking an order in | {used * 1e6:.0f} µs |")
    print(f"| reading all again, to the same | {again / bare:.1f} |")
    print(f"| ready, the first orders taken in, to a bare fetch of all rows | {ready / bare:.3f} |")
    print(f"| a quick look, to taking all in | {quick / whole:.5f} |")
    print(f"| memory of an order, all of them due | {memory:.0f} bytes |")
    print(f"| the loop late while all are taken in | {late_reading} |")
    print(f"| the loop late while page and metrics are served | {late_serving} |")
    for task in beside:
        task.cancel()
    await database.close()
    await connection.close()


def main() -> None:
    """Measure with the number of orders from the command line, by default 100,000."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with EmbeddedPostgres() as server:
        asyncio.run(measure(server.dsn(), int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))


if __name__ == "__main__":
    main()
