"""The basis of the tests: a real PostgreSQL for each worker, and one database per test, in either
spelling of the shop's table.
"""

import gc
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog
from coverage import Coverage
from hypothesis import HealthCheck, Phase, settings

from order_monitor.demo.postgres import EmbeddedPostgres
from tests.support import databases
from tests.support.shops import PLAIN, SHOP, Shop, Spelling, migrate

# F8: a deadline makes flaky failures, and CI must explore like anybody else.
settings.register_profile(
    "all",
    deadline=None,
    derandomize=False,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],
)
# Each of thousands of mutants meets the same few examples, and their explanations are never read.
settings.register_profile(
    "mutation",
    settings.get_profile("all"),
    derandomize=True,
    max_examples=20,
    phases=[Phase.explicit, Phase.generate],
)
# `make long` explores more, and CI runs it too.
settings.register_profile("test", settings.get_profile("all"), max_examples=100)
settings.register_profile("quick", settings.get_profile("all"), max_examples=20)
settings.load_profile("all")

DATABASE_FIXTURES = {
    "server",
    "templates",
    "database_dsn",
    "shop",
    "plain_shop",
    "bare_shop",
    "plain_bare_shop",
}
OUTSIDE_FIXTURES = {*DATABASE_FIXTURES, "browser", "panel", "receiver"}


def pytest_configure() -> None:
    """Draw one random seed for all workers."""
    os.environ.setdefault("SIMULATION_SEED", str(random.SystemRandom().randrange(1, 1 << 40)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the seed, whether or not a test failed."""
    terminalreporter.write_line(
        f"the simulation's fresh seeds began with SIMULATION_SEED={os.environ['SIMULATION_SEED']}"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need more than the code itself, or much time.

    Give the browser to one worker, and tests that look at the whole machine to one worker.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & OUTSIDE_FIXTURES:
            item.add_marker("outside")
        if fixtures & DATABASE_FIXTURES and "browser" not in fixtures:
            item.add_marker("database")
        if "browser" in fixtures or item.get_closest_marker("simulated"):
            item.add_marker("long")
        if "browser" in fixtures:
            # The browser lives in the session's event loop: so must the tests that use it.
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.xdist_group("browser"))


def pytest_collection_finish() -> None:
    """Exclude three thousand tests and their imports from all later garbage collections."""
    gc.collect()
    gc.freeze()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """In CI a skipped test is a failure: its requirements are installable."""
    strict = os.environ.get("TESTS_SKIP_NOTHING")
    if strict and call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception):
        call.excinfo = pytest.ExceptionInfo.from_exception(
            AssertionError(f"skipped: {call.excinfo.value}")
        )


CITUS = os.environ.get("CITUS_DSN")
"""A superuser's DSN of a PostgreSQL with Citus: each test's orders table is then distributed."""


_DISTRIBUTED = """
CREATE EXTENSION citus;
SELECT citus_set_coordinator_host('localhost', inet_server_port());
SELECT citus_set_node_property('localhost', inet_server_port(), 'shouldhaveshards', true);
SELECT create_distributed_table('product_orders', 'id', shard_count => 4);
"""


class Citus:
    """An existing server, in place of our own."""

    def dsn(self, name: str = "postgres") -> str:
        """Return the DSN of a database on it."""
        assert CITUS is not None
        return urlsplit(CITUS)._replace(path=f"/{name}").geturl()


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres | Citus]:
    """One for each worker: no worker waits for another's locks, and a test that stops its server
    affects no other.
    """
    if CITUS is not None:
        yield Citus()
        return
    with EmbeddedPostgres(
        {"max_prepared_transactions": "5", "deadlock_timeout": "100ms"}, _memory()
    ) as running:
        yield running


def _memory() -> Path | None:
    """A file system in memory with room for two servers and their processes, None if there is none.

    A clone has three hundred files, and creating them on a disk takes longer than most tests.
    """
    memory = Path("/dev/shm")
    if not memory.is_dir():
        return None
    found = os.statvfs(memory)
    is_large = found.f_bavail * found.f_frsize > 4 << 30
    return memory if is_large and not found.f_flag & os.ST_NOEXEC else None


@pytest.fixture(scope="session")
def templates(server: EmbeddedPostgres) -> dict[str, str]:
    """The databases that already contain a spelling's table, by its DDL; created on first use."""
    return {}


@pytest.fixture
async def database_dsn(server: EmbeddedPostgres) -> AsyncIterator[str]:
    name = databases.create(server)
    try:
        yield server.dsn(name)
    finally:
        databases.drop(server, name)


async def with_table(
    server: EmbeddedPostgres,
    templates: dict[str, str],
    spelling: Spelling,
    *,
    migrated: bool = True,
) -> str:
    """Return the name of a new database with the table in this spelling, with or without
    order-monitor's additions.
    """
    if CITUS is not None:
        # A distributed table's background workers are connected to its database, so it cannot be a
        # template.
        name = await _laid(server, f"{spelling.ddl};{_DISTRIBUTED}")
        return await _migrated(server, name) if migrated else name
    key = f"{spelling.ddl} {migrated}"
    if key not in templates:
        name = await _laid(server, spelling.ddl)
        templates[key] = await _migrated(server, name) if migrated else name
    return databases.create(server, templates[key])


async def _migrated(server: EmbeddedPostgres, name: str) -> str:
    await migrate(server.dsn(name))
    return name


async def _laid(server: EmbeddedPostgres, ddl: str) -> str:
    name = databases.create(server)
    connection = await asyncpg.connect(server.dsn(name))
    await connection.execute(ddl)
    await connection.close()
    return name


SPELLINGS = [pytest.param(PLAIN, id="plain", marks=pytest.mark.long), pytest.param(SHOP, id="shop")]
"""The running shop's own decides."""


@pytest.fixture(params=SPELLINGS)
async def shop(
    request: pytest.FixtureRequest, server: EmbeddedPostgres, templates: dict[str, str]
) -> AsyncIterator[Shop]:
    """The shop's database; the test runs once for each spelling."""
    async for made in _shop(server, templates, request.param):
        yield made


@pytest.fixture(params=SPELLINGS)
async def bare_shop(
    request: pytest.FixtureRequest, server: EmbeddedPostgres, templates: dict[str, str]
) -> AsyncIterator[Shop]:
    """The shop's database before order-monitor's additions."""
    async for made in _shop(server, templates, request.param, migrated=False):
        yield made


@pytest.fixture
async def plain_bare_shop(
    server: EmbeddedPostgres, templates: dict[str, str]
) -> AsyncIterator[Shop]:
    """The same in the plain spelling only."""
    async for made in _shop(server, templates, PLAIN, migrated=False):
        yield made


@pytest.fixture
async def plain_shop(server: EmbeddedPostgres, templates: dict[str, str]) -> AsyncIterator[Shop]:
    """The same in the plain spelling only, for tests that do not depend on it."""
    async for made in _shop(server, templates, PLAIN):
        yield made


async def _shop(
    server: EmbeddedPostgres,
    templates: dict[str, str],
    spelling: Spelling,
    *,
    migrated: bool = True,
) -> AsyncIterator[Shop]:
    name = await with_table(server, templates, spelling, migrated=migrated)
    try:
        async with Shop.opened(server.dsn(name), spelling) as made:
            yield made
    finally:
        databases.drop(server, name)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _untraced(request: pytest.FixtureRequest) -> Iterator[None]:
    """Do not trace long tests: tracing makes them three times as long, and other tests cover each
    of their lines.
    """
    is_long = any(request.node.get_closest_marker(name) for name in ("simulated", "untraced"))
    tracing = Coverage.current() if is_long else None
    if tracing is None:
        yield
        return
    tracing.stop()
    yield
    tracing.start()
