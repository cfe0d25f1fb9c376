"""What the tests stand on: a real PostgreSQL, one database a test, in either spelling of the shop's table."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import structlog
from hypothesis import HealthCheck, settings

from order_monitor.demo.postgres import EmbeddedPostgres
from tests.shops import PLAIN, SHOP, Shop

# F8: a deadline makes flaky failures, and CI must explore like anybody else.
settings.register_profile(
    "all", deadline=None, derandomize=False, max_examples=300, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("all")


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """In CI a skipped test is a failure: what it misses is installable."""
    strict = os.environ.get("TESTS_SKIP_NOTHING")
    if strict and call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception):
        call.excinfo = pytest.ExceptionInfo.from_exception(AssertionError(f"skipped: {call.excinfo.value}"))


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres({"max_prepared_transactions": "5", "deadlock_timeout": "100ms"}) as running:
        yield running


@pytest.fixture
async def database_dsn(server: EmbeddedPostgres) -> AsyncIterator[str]:
    name = f"t{uuid.uuid4().hex}"
    admin = await asyncpg.connect(server.dsn())
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        yield server.dsn(name)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture(params=[PLAIN, SHOP], ids=["plain", "shop"])
async def shop(request: pytest.FixtureRequest, database_dsn: str) -> AsyncIterator[Shop]:
    """The shop's database; the test runs once for each spelling."""
    async with Shop.create(database_dsn, request.param) as made:
        yield made


@pytest.fixture
async def plain_shop(database_dsn: str) -> AsyncIterator[Shop]:
    """The same in the plain spelling only, where the spelling has no say."""
    async with Shop.create(database_dsn, PLAIN) as made:
        yield made


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()
