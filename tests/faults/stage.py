"""A shop under load: orders keep coming in during a fault, and at the end all of them are
compared.
"""

import asyncio
import os
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from order_monitor.core.answer import AboutOrder, Cancelled, Completed
from order_monitor.core.pin import Pin
from tests.faults.comparison import Verdict, assert_all_right, compare
from tests.faults.database import connect
from tests.faults.panel import FaultyPanel, Story
from tests.support.processes import PIN, Run, running, settings

INSERT = """
INSERT INTO product_orders (id, external_status, sent_at, provider_referans)
SELECT i, 'sent', clock_timestamp() - make_interval(secs => 100), r FROM unnest($1::uuid[], $2::text[]) AS u(i, r)
"""
WRITES_ALWAYS = "SET default_transaction_read_only = off"
FOLDER = Path(os.environ.get("FAULTS_REPORT", "build/faults"))


def note(line: str) -> None:
    """Put a line into the report."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "report.txt").open("a") as report:
        report.write(f"{line}\n")
    sys.stdout.write(f"{line}\n")


class Shop:
    """The shop's database as these tests see it: through connections that may be cut at any time."""

    def __init__(self, dsn: str, panel: FaultyPanel) -> None:
        self.dsn = dsn
        self.panel = panel
        self.chance = random.Random(panel.server.port)
        self._numbers = iter(range(1_000_000))
        self._doubtful: set[str] = set()
        """Orders whose insertion is uncertain."""

    @asynccontextmanager
    async def hand(self) -> AsyncIterator[asyncpg.Connection]:
        """A separate connection of the shop."""
        connection = await connect(self.dsn)
        try:
            await connection.execute(WRITES_ALWAYS)
            yield connection
        finally:
            connection.terminate()

    async def place(self, count: int, *, within: float = 0.0) -> list[str]:
        """Add orders that end at the provider within this many seconds; return their ids."""
        made = {f"r-{next(self._numbers)}": str(uuid.uuid4()) for _ in range(count)}
        for reference, order_id in made.items():
            ends_at = time.time() + self.chance.uniform(0, within)
            self.panel.stories[reference] = Story(order_id, self._end(reference), ends_at)
        async with self.hand() as connection:
            await connection.execute(INSERT, list(made.values()), list(made))
        return list(made.values())

    def _end(self, reference: str) -> AboutOrder:
        """Return an end; each PIN is unique, with letters that must survive unchanged."""
        kind = self.chance.choices(("pin", "direct", "cancelled"), (6, 2, 2))[0]
        if kind == "cancelled":
            return Cancelled("Oyuncu bulunamadı")
        return Completed(Pin(f"{PIN}-{reference}-ğÜş") if kind == "pin" else None, "tamam")

    @asynccontextmanager
    async def under_load(self, *, batch: int = 10, every: float = 0.2) -> AsyncIterator[None]:
        """Orders keep coming in during the block, as far as the database accepts them."""

        async def feed() -> None:
            while True:
                await self._place_if_possible(batch)
                await asyncio.sleep(every)

        feeding = asyncio.create_task(feed())
        try:
            yield
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})

    async def _place_if_possible(self, count: int) -> None:
        known = set(self.panel.stories)
        try:
            await self.place(count, within=2)
        except (
            OSError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            TimeoutError,
            asyncio.CancelledError,
        ) as error:
            # The commit may have succeeded: the table is checked at the end.
            self._doubtful |= self.panel.stories.keys() - known
            if isinstance(error, asyncio.CancelledError):
                raise

    async def settle(self, seconds: float = 60.0) -> None:
        """Wait until nothing is open any more, or for this many seconds: the comparison then
        reports what is left.
        """
        end = time.monotonic() + seconds
        async with self.hand() as connection:
            await self._forget_unplaced(connection)
            while time.monotonic() < end:
                if not await connection.fetchval(
                    "SELECT count(*) FROM product_orders WHERE external_status NOT IN ('completed', 'failed')"
                ):
                    return
                await asyncio.sleep(0.1)

    async def _forget_unplaced(self, connection: asyncpg.Connection) -> None:
        there = {
            row[0] for row in await connection.fetch("SELECT provider_referans FROM product_orders")
        }
        for reference in self._doubtful - there:
            del self.panel.stories[reference]

    async def verdict(self) -> Verdict:
        """Compare all rows."""
        async with self.hand() as connection:
            return await compare(connection, self.panel.truths())

    async def end(self, name: str, *, at_least: int) -> None:
        """Wait until all has settled, compare row by row, and report the result."""
        await self.settle()
        verdict = await self.verdict()
        note(f"{name}: {verdict}")
        assert_all_right(verdict, at_least=at_least)

    def config(self, dsn: str | None = None, **more: dict[str, Any]) -> str:
        """Settings for speed: short timeouts, short pauses."""
        changes: dict[str, dict[str, Any]] = {
            "database": {"statement_timeout": 2},
            "provider": {"timeout": 1.5, "connect_timeout": 1, "balance_interval": 0},
            "schedule": {"cap": 2},
            **more,
        }
        return settings(dsn or self.dsn, self.panel.url, **changes)

    @asynccontextmanager
    async def daemon(self, folder: Path, config: str | None = None) -> AsyncIterator[Run]:
        """The program, started and stopped: exit code 0, whatever the fault in between."""
        async with running(folder, config or self.config()) as run:
            await run.event("started")
            yield run
            assert run.process.returncode is None, run.err.decode()[-3000:]
            run.process.terminate()
            assert await run.end() == 0
