"""Shared by all contestants: the provider, and a database created afresh for each run."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.compare.contestants.contestant import Contestant, Put
from benchmarks.compare.load import Load, Times, order_id
from benchmarks.compare.processes import ContestantFailedError, Running, started
from benchmarks.compare.provider import Provider
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.demo.show import SCHEMA
from order_monitor.shop.dsn import parse_dsn

SETTINGS: Final = {"shared_preload_libraries": "pg_stat_statements", "max_connections": "200"}
_NAME: Final = "run"
BARE: Final = "bare"
"""The database with only the shop's own tables."""

_TABLES: Final = f"""
{SCHEMA};
ALTER TABLE product_orders ADD COLUMN provider_referans varchar(255);
CREATE TABLE benchmark_written (order_id uuid, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION benchmark_written() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO benchmark_written (order_id) VALUES (NEW.id); RETURN NULL; END';
CREATE TRIGGER benchmark_written AFTER UPDATE OF pin_code ON product_orders FOR EACH ROW
    WHEN (OLD.pin_code IS NULL AND NEW.pin_code IS NOT NULL) EXECUTE FUNCTION benchmark_written();
"""
_OPEN_ORDERS: Final = """
INSERT INTO product_orders (id, external_status, sent_at, provider_referans, note)
SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'processing',
    now() - make_interval(secs => $2::float8 + n / 1000.0), 'R' || n, 'bekleniyor'
FROM generate_series(1, $1::int) n
"""
_STATEMENTS: Final = """
SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE datname = $1
"""
_WRITTEN: Final = (
    "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::int FROM pg_stat_user_tables"
)
_QUEUED_BYTES: Final = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'product_orders'
"""


@dataclass(slots=True)
class World:
    """The provider and the database server, both running."""

    provider: Provider
    postgres: EmbeddedPostgres
    _laid: set[str] = field(default_factory=set)

    @property
    def dsn(self) -> str:
        """The database of the next run."""
        return self.postgres.dsn(_NAME)

    @property
    def server_pid(self) -> int:
        """The database server's first process."""
        return int(
            (self.postgres.directory / "data" / "postmaster.pid").read_text().splitlines()[0]
        )

    async def lay_bare(self) -> None:
        """Recreate the database `BARE`."""
        await self._tell(f"DROP DATABASE IF EXISTS {BARE} WITH (FORCE)")
        await self._tell(f"CREATE DATABASE {BARE}")
        await self._tell(_TABLES, BARE)

    async def prepare(self, contestant: Contestant, orders: int, age: float) -> None:
        """Recreate the database with this many open orders, the youngest sent ``age`` seconds
        ago.
        """
        template = "template_" + "".join(filter(str.isalpha, contestant.name.lower()))
        if template not in self._laid:
            await self._tell(f"CREATE DATABASE {template}")
            await self._tell(_TABLES, template)
            await contestant.install(self.postgres.dsn(template))
            self._laid.add(template)
        await self._tell(f"DROP DATABASE IF EXISTS {_NAME} WITH (FORCE)")
        await self._tell(f"CREATE DATABASE {_NAME} TEMPLATE {template}")
        await self.ask(_OPEN_ORDERS, orders, age)

    async def analyse(self) -> None:
        """Analyze the tables, so that their statistics are like those of an established
        database.
        """
        await self._tell("ANALYZE", _NAME)

    async def statements(self) -> int:
        """Return how many statements the run's database has executed, including BEGIN and COMMIT
        (pg_stat_statements).
        """
        return int((await self.ask(_STATEMENTS, _NAME, database="postgres"))[0][0])

    async def rows_written(self) -> int:
        """Return how many rows of the run's tables have been inserted, updated or deleted.

        Changes of the last second may be missing.
        """
        return int((await self.ask(_WRITTEN))[0][0])

    async def queued_bytes(self) -> int:
        """Return the disk space of all tables except the shop's own."""
        return int((await self.ask(_QUEUED_BYTES))[0][0])

    async def ask(self, sql: str, *values: object, database: str = _NAME) -> list[Any]:
        """Return the rows of a query, over a separate connection."""
        connection = await asyncpg.connect(self.postgres.dsn(database))
        try:
            return list(await connection.fetch(sql, *values, timeout=120))
        finally:
            await connection.close()

    async def _tell(self, sql: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.postgres.dsn(database))
        try:
            await connection.execute(sql, timeout=120)
        finally:
            await connection.close()


def password_of(world: World) -> str:
    """Return the secrets that no output may show."""
    password = parse_dsn(world.dsn).password
    assert password is not None
    return password


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Run a provider and a database server for the duration of the block."""
    with EmbeddedPostgres(SETTINGS) as postgres:
        async with Provider() as provider:
            made = World(provider, postgres)
            await made.ask("CREATE EXTENSION pg_stat_statements", database="postgres")
            yield made


@dataclass(frozen=True, slots=True)
class Run:
    """One contestant's run in progress."""

    running: Running
    put: Put
    load: Load


@dataclass(frozen=True, slots=True)
class Plan:
    """The starting state of a run: open orders sent at least ``age`` seconds ago, known to the
    contestant or not.
    """

    orders: int = 0
    age: float = 600.0
    in_flight: int = 20
    times: Times = field(default_factory=Times)
    due_in: float = 0.0
    """Seconds until a queue's first check of each order."""


_START: Final = 30.0
_STEP: Final = 0.05


async def begun(world: World, under_way: Run, questions: int) -> None:
    """Wait until the contestant has asked this many questions.

    Raises:
        ContestantFailedError: it has not within half a minute.
    """
    end = time.monotonic() + _START
    while (asked := (await world.provider.count())["total"]) < questions:
        under_way.running.check()
        if time.monotonic() > end:
            raise ContestantFailedError(f"asked {asked} questions in {_START:g} s")
        await asyncio.sleep(_STEP)


@asynccontextmanager
async def run(world: World, contestant: Contestant, plan: Plan) -> AsyncIterator[Run]:
    """Create the database, put the orders, and run the contestant for the duration of the block."""
    await world.prepare(contestant, plan.orders, plan.age)
    with tempfile.TemporaryDirectory(prefix="order-monitor-benchmark-") as name:
        directory = Path(name)
        load = Load(world.provider.url, world.dsn, name, plan.in_flight, plan.times)
        async with (
            started(contestant.broker(load), directory) as running,
            contestant.producer(load) as put,
        ):
            await put([order_id(number) for number in range(1, plan.orders + 1)], plan.due_in)
            await world.analyse()
            for command in contestant.commands(load):
                await running.start(command, directory)
            yield Run(running, put, load)
