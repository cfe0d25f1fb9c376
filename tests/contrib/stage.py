"""The shop as processes that can be killed at any moment: its database, the daemon and the
consumers.

It also places the orders.
"""

import asyncio
import os
import random
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import asyncpg

from order_monitor.core.answer import AboutOrder, Cancelled, Completed
from order_monitor.core.pin import Pin
from tests.faults.database import MortalPostgres, connect
from tests.faults.panel import FaultyPanel, Story
from tests.support import launch

ROOT = Path(__file__).parents[2]
START = 1_000_000
"""The initial balance of each wallet."""


class Kept:
    """A process that is restarted whenever it has ended."""

    def __init__(self, name: str, start: Callable[[], Awaitable[Any]]) -> None:
        self.name = name
        self.starts = 0
        self.process: Any = None
        self._start = start
        self._is_wanted = True
        self._task = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while self._is_wanted:
            self.process = await self._start()
            self.starts += 1
            await self.process.wait()

    def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()

    async def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self._is_wanted = False
        with suppress(ProcessLookupError):
            self.process.terminate()
        await asyncio.wait_for(self._task, 30)
        return int(self.process.returncode)


@dataclass
class Stage:
    """The whole shop. ``seed`` decides the sequence of events, as far as processes allow."""

    server: MortalPostgres | None
    dsn: str
    toml: Path
    panel: FaultyPanel
    seed: int
    provider: str | None = None
    users: list[str] = field(default_factory=list)
    prices: dict[str, Decimal] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._numbers = iter(range(10_000_000))

    # --- processes

    def daemon(self) -> Kept:
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ORDER_MONITOR_")
        }

        async def start() -> launch.Process:
            return await launch.start(
                "--config",
                str(self.toml),
                cwd=self.toml.parent,
                stdout=launch.DEVNULL,
                stderr=launch.DEVNULL,
                env=environ,
            )

        return Kept("daemon", start)

    def django(self, name: str, code: str, **env: str) -> Kept:
        """Return a process of the Django project; its output goes into a file next to the
        settings.
        """

        async def start() -> asyncio.subprocess.Process:
            with self.log(name) as log:
                return await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-c",
                    f"import django; django.setup(); {code}",
                    stdout=log,
                    stderr=log,
                    **self.place(**env),
                )

        return Kept(name, start)

    def consumer(self, number: int, **env: str) -> Kept:
        code = (
            "from django.core.management import call_command; call_command('consume_order_events')"
        )
        return self.django(f"consumer-{number}", code, **env)

    def place(self, **env: str) -> dict[str, Any]:
        """The directory and environment of the project's processes, for ``subprocess``."""
        own = {
            "SHOP_DSN": self.dsn,
            "SHOP_MONITOR_TOML": str(self.toml),
            "DJANGO_SETTINGS_MODULE": "tests.contrib.project",
        }
        # With coverage each would take seconds to start; other tests cover what it runs.
        none = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
        return {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": str(ROOT), **none, **own, **env}}

    def log(self, name: str) -> IO[bytes]:
        return (self.toml.parent / f"{name}.log").open("ab")

    def said(self, name: str) -> str:
        return (self.toml.parent / f"{name}.log").read_text("utf-8", "replace")

    # --- orders

    async def open_wallets(self, count: int) -> None:
        self.users = [str(uuid.uuid4()) for _ in range(count)]
        async with asyncio.timeout(30):
            connection = await connect(self.dsn)
            await connection.execute(
                "INSERT INTO users (id, balance) SELECT u, $2 FROM unnest($1::uuid[]) AS u",
                self.users,
                START,
            )
            await connection.close()

    async def order(
        self, count: int, *, within: float = 1.0, chained: float = 0.1, sent: bool = True
    ) -> list[str]:
        """Place orders, some of them for another tenant's order.

        Return the ids of those sent to the provider.
        """
        rows: list[tuple[Any, ...]] = []
        made: list[str] = []
        for _ in range(count):
            order_id, reference = (
                str(uuid.uuid4()),
                f"{1_790_000_000_000_000 + next(self._numbers)}" if sent else None,
            )
            parent = str(uuid.uuid4()) if self.chance.random() < chained else None
            for one in filter(None, (parent, order_id)):
                self.prices[one] = Decimal(self.chance.randrange(1, 10_000)) / 100
                self.owners[one] = self.chance.choice(self.users)
            if parent is not None:
                self.parents[order_id] = parent
                rows.append(
                    (
                        parent,
                        self.owners[parent],
                        self.prices[parent],
                        "forwarded",
                        None,
                        None,
                        None,
                    )
                )
            if reference is not None:
                ends_at = time.time() + self.chance.uniform(0, within)
                self.panel.stories[reference] = Story(order_id, self._end(reference), ends_at)
            word = "sent" if sent else "not_sent"
            rows.append(
                (
                    order_id,
                    self.owners[order_id],
                    self.prices[order_id],
                    word,
                    reference,
                    parent,
                    self.provider,
                )
            )
            made.append(order_id)
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            connection = await connect(self.dsn)
            try:
                # One statement inserts all of them, or none.
                await connection.execute(
                    'INSERT INTO product_orders (id, "userId", price, "externalStatus", provider_referans, root_order_id, '
                    '"providerId", "sentAt") SELECT i, u, p, w, r, a, v, CASE WHEN w = \'sent\' THEN clock_timestamp() END '
                    "FROM unnest($1::uuid[], $2::uuid[], $3::numeric[], $4::text[], $5::text[], $6::uuid[], $7::text[]) "
                    "AS x(i, u, p, w, r, a, v)",
                    *map(list, zip(*rows, strict=True)),
                )
            finally:
                connection.terminate()
        return made

    def _end(self, reference: str) -> AboutOrder:
        if self.chance.random() < 0.3:
            return Cancelled("Oyuncu bulunamadı")
        return Completed(Pin(f"AB{reference}-ğÜş") if self.chance.random() < 0.8 else None, "tamam")

    # --- in the end

    async def settled(self, seconds: float) -> None:
        """Wait until every order has its end and every event is consumed."""
        connection = await connect(self.dsn)
        end = time.monotonic() + seconds
        open_ones = (
            "SELECT (SELECT count(*) FROM product_orders WHERE status = 'pending'), "
            "(SELECT count(*) FROM order_monitor_events WHERE consumed_at IS NULL)"
        )
        left: Any = None
        while time.monotonic() < end:
            left = tuple(await connection.fetchrow(open_ones) or ())
            if left == (0, 0):
                break
            await asyncio.sleep(0.1)
        troubles = await connection.fetch(
            "SELECT event_id, attempts, error FROM order_monitor_attempts"
        )
        await connection.close()
        assert left == (0, 0), (left, [tuple(row) for row in troubles])

    async def compare(self, ends: dict[str, AboutOrder] | None = None) -> int:
        """Compare every row with the provider's decision, and every wallet to the last cent.

        Return the number of orders.
        """
        connection = await connect(self.dsn)
        ends = ends or {story.order_id: story.end for story in self.panel.stories.values()}
        ends |= {parent: ends[child] for child, parent in self.parents.items()}
        rows = await connection.fetch(
            'SELECT id::text, status, "externalStatus", "pinCode" FROM product_orders'
        )
        entries = await connection.fetch("SELECT order_id::text, kind, amount FROM wallet_entries")
        balances = {
            row[0]: row[1] for row in await connection.fetch("SELECT id::text, balance FROM users")
        }
        await connection.close()
        expected, moves = dict.fromkeys(self.users, Decimal(START)), []
        for row in rows:
            end, price = ends[row["id"]], self.prices[row["id"]]
            is_done = isinstance(end, Completed)
            pin = end.pin.reveal() if isinstance(end, Completed) and end.pin else None
            words = ("approved", "done") if is_done else ("rejected", "failed")
            assert (row["status"], row["externalStatus"], row["pinCode"]) == (*words, pin), row[
                "id"
            ]
            amount = -price if is_done else price
            moves.append((row["id"], "debit" if is_done else "refund", amount))
            expected[self.owners[row["id"]]] += amount
        assert sorted(tuple(entry) for entry in entries) == sorted(moves)
        assert balances == expected
        return len(rows)
