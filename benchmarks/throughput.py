"""The program's overhead over its bare HTTP client, measured in the same run.

``python -m benchmarks.throughput client``: the client's own overhead instead, over asyncio's streams
that hold the same exchange.

Several rounds in turn, with medians printed as ratios:

- the whole program (open orders in a real PostgreSQL, schedule, gate, pace, decisions, writes)
  against a bare loop with the same number of tasks and the same client, over a server in another
  process that answers immediately; once with orders that stay open, once with orders that all end
  with a PIN;
- httpx's own connection pool, and the aiohttp engine if ``httpx-aiohttp`` is installed, against the
  connections used here;
- a healthy account next to nine that never answer, against the same account alone.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from multiprocessing import Process, Queue
from urllib.parse import urlsplit

import asyncpg
import httpx
import structlog
from aiohttp import web

from benchmarks.compare.contestants.client import client as contestant
from benchmarks.compare.contestants.streams_loop import ask as ask_by_streams
from benchmarks.compare.load import referans
from benchmarks.compare.provider import Provider
from order_monitor.core.answer import Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import Rules
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.order import Order
from order_monitor.core.schedule import OnePass, Schedule
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.demo.show import SCHEMA
from order_monitor.providers.http.resolver import Resolver
from order_monitor.providers.http.transport import FreshConnections
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.settings.sections import FINAL_STATUSES
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.table_config import TableConfig
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import ShopAccounts
from order_monitor.watch.system_clock import SystemClock

ORDERS = 3000
TASKS = 20
ROUNDS = 3
FAST = 1_000_000.0
OPEN = ("sent", "pending", "processing", "queued")
LAYOUT = TableConfig(
    "public",
    "product_orders",
    {},
    None,
    OPEN,
    (*FINAL_STATUSES, "not_sent"),
    Rules(),
    record_sync=False,
)
Transport = Callable[[], httpx.AsyncBaseTransport]


def serve(port: Queue[int]) -> None:
    """Answer immediately, in a separate process; never answer a login of ``sick``."""

    async def answer(request: web.Request) -> web.Response:
        kod = request.query["kod"]
        if kod == "sick":
            await asyncio.sleep(3600)
        pin = f"PIN-{request.query['tahsilat_api_islem_id']}"
        return web.Response(text=f"OK|2|{pin}|tamam" if kod == "pin" else "OK|1| |bekleniyor")

    async def run() -> None:
        application = web.Application()
        application.router.add_get("/servis/pin_kontrol.php", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


def connections() -> httpx.AsyncBaseTransport:
    return FreshConnections(httpx.create_ssl_context(), Resolver())


def client(url: str, kod: str, make: Transport = connections, timeout: float = 20.0) -> Znet:
    return Znet(ZnetAccount(url, kod, "s", timeout=timeout), make(), SystemClock())


async def bare(url: str, make: Transport = connections) -> float:
    """Return calls/s of a loop over only the client."""
    znet, left = client(url, "open", make), ORDERS

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await znet.ask("1760885915220128")

    began = time.perf_counter()
    await asyncio.gather(*[work() for _ in range(TASKS)])
    seconds = time.perf_counter() - began
    await znet.aclose()
    return ORDERS / seconds


async def whole(url: str, dsn: str, kod: str) -> float:
    """Return orders/s of one pass of the program over this many open orders."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("TRUNCATE product_orders")
    await connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) SELECT gen_random_uuid(), 'processing', "
        "now() - interval '10 minutes', n::text FROM generate_series(1, $1::int) n",
        ORDERS,
    )
    await connection.close()
    database = Database(parse_dsn(dsn))
    account = Account("main", client(url, kod), Gate(), Pace(FAST))
    engine = Engine(
        Orders(database, LAYOUT),
        {"main": account},
        Policy(OnePass(Schedule()), concurrency=TASKS, one_pass=True),
        SystemClock(),
    )
    began = time.perf_counter()
    await engine.scan()
    writing = asyncio.create_task(engine.writer.run())
    await engine.run()
    engine.writer.close()
    await writing
    seconds = time.perf_counter() - began
    assert engine.state.asked == ORDERS
    await account.provider.aclose()
    await database.close()
    return ORDERS / seconds


class InMemory:
    """Open orders of several accounts, to measure only the engine's fairness."""

    records_every_check = False

    def __init__(self, integrations: Mapping[str, Integration], well: int) -> None:
        self._integrations = integrations
        now = time.time()
        self._orders = [
            Order(str(uuid.uuid4()), "processing", now - 600 - n, str(n), integration=i)
            for i in integrations
            for n in range(well if i == "well" else 50)
        ]

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        return []

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        return Scan(time.time(), self._orders, [], list(self._integrations.values()))

    async def record(self, findings: list[CheckResult], lock_wait: float) -> list[WriteResult]:
        return [WriteResult(f, WriteStatus.UNCHANGED) for f in findings]


async def healthy(url: str, sick: int) -> float:
    """Return the healthy account's calls/s at its usual ceiling, once the others have proved
    unresponsive.
    """
    names = ["well", *(f"sick-{n}" for n in range(sick))]
    integrations = {
        n: Integration(
            n, None, n, "znet", enabled=True, base_url=url, user=n.partition("-")[0], password="s"
        )
        for n in names
    }

    def open_account(made: Integration) -> Account:
        return Account(
            made.id,
            client(url, made.user, timeout=20.0),
            Gate(),
            Pace(200.0 if made.id == "well" else FAST),
        )

    shop = InMemory(integrations, 2000)
    engine = Engine(
        shop,
        ShopAccounts(open_account),
        Policy(OnePass(Schedule()), concurrency=TASKS, one_pass=True),
        SystemClock(),
    )
    await engine.scan()
    tasks = [asyncio.create_task(engine.writer.run()), asyncio.create_task(engine.run())]
    await asyncio.sleep(2.5)
    before, began = engine.state.asked, time.perf_counter()
    await asyncio.sleep(4)
    rate = (engine.state.asked - before) / (time.perf_counter() - began)
    engine.dispatcher.stop()
    await engine.dispatcher.calls.finish(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for account in engine.accounts.values():
        await account.provider.aclose()
    return rate


def pool() -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(
        limits=httpx.Limits(max_connections=TASKS, max_keepalive_connections=TASKS)
    )


async def measure(url: str, dsn: str) -> None:
    transports: dict[str, Transport] = {"httpx's own pool": pool}
    try:
        from httpx_aiohttp import AiohttpTransport  # noqa: PLC0415

        transports["the aiohttp engine"] = AiohttpTransport
    except ImportError:
        print("(httpx-aiohttp is not installed: that engine is not measured)")
    connection = await asyncpg.connect(dsn)
    await connection.execute(SCHEMA)
    await connection.execute("ALTER TABLE product_orders ADD COLUMN provider_referans varchar(255)")
    await connection.close()
    ratios: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        base = await bare(url)
        rounds = {
            "the whole program to the bare client, orders stay open": await whole(url, dsn, "open")
            / base,
            "the whole program to the bare client, every order ends with a PIN": await whole(
                url, dsn, "pin"
            )
            / base,
            **{
                f"{name} to the connections used here": await bare(url, make) / base
                for name, make in transports.items()
            },
            "a healthy account among nine that never answer, to the same alone": await healthy(
                url, 9
            )
            / await healthy(url, 0),
        }
        for name, ratio in rounds.items():
            ratios.setdefault(name, []).append(ratio)
    for name, values in ratios.items():
        print(
            f"ratio {name}: {statistics.median(values):.2f}  (rounds: {', '.join(f'{v:.2f}' for v in values)})"
        )
    print(f"{ORDERS} orders, {TASKS} connections, {ROUNDS} rounds, Python {sys.version.split()[0]}")


async def driven(ask: Callable[[str], Awaitable[object]], tasks: int) -> tuple[float, float]:
    """Return the seconds of CPU, and of time, that a question took with so many in flight."""
    numbers = iter(range(ORDERS))

    async def work() -> None:
        for number in numbers:
            await ask(referans(number))

    used, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*[work() for _ in range(tasks)])
    return (time.process_time() - used) / ORDERS, (time.perf_counter() - began) / ORDERS


async def compare_client() -> None:
    """Measure the client against streams, in turn, and print the table."""
    print("| in flight | CPU a question | of bare streams | CPU, streams to client | rate |")
    print("|---|---|---|---|---|")
    async with Provider() as provider:
        await provider.reset()
        znet, address = contestant(provider.url), urlsplit(provider.url)

        async def by_client(reference: str) -> None:
            answer = (await znet.ask(reference)).answer
            assert isinstance(answer, Waiting), answer

        async def by_streams(reference: str) -> None:
            await ask_by_streams(str(address.hostname), address.port or 0, reference)

        for tasks in (20, 100, 500):
            rounds = [
                (await driven(by_client, tasks), await driven(by_streams, tasks))
                for _ in range(2 * ROUNDS)
            ]
            ours, theirs = (statistics.median(one[who][0] for one in rounds[1:]) for who in (0, 1))
            cpu, rate = (
                statistics.median(streams[n] / own[n] for own, streams in rounds[1:])
                for n in (0, 1)
            )
            print(
                f"| {tasks} | {ours * 1e6:.0f} µs | {theirs * 1e6:.0f} µs | {cpu:.2f} | {rate:.2f} |",
                flush=True,
            )
        await znet.aclose()


def main() -> None:
    # As the daemon's default: otherwise a printed line for each check would be measured too.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    if sys.argv[1:] == ["client"]:
        asyncio.run(compare_client())
        return
    port: Queue[int] = Queue()
    server = Process(target=serve, args=(port,), daemon=True)
    server.start()
    try:
        with EmbeddedPostgres() as postgres:
            asyncio.run(measure(f"http://127.0.0.1:{port.get(timeout=30)}", postgres.dsn()))
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
