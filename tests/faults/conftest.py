"""Only ``make faults`` collects these: they take minutes of real time, and need the machine for
themselves.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.database import MortalPostgres, connect
from tests.faults.panel import FaultyPanel
from tests.faults.stage import Shop
from tests.support import databases
from tests.support.processes import running, settings
from tests.support.shops import PLAIN

collect_ignore_glob = [] if os.environ.get("FAULTS") else ["test_*.py"]


@pytest.fixture(scope="session")
def mortal() -> Iterator[MortalPostgres]:
    with MortalPostgres() as server:
        yield server


@pytest.fixture(scope="session")
def template(mortal: MortalPostgres) -> dict[str, str]:
    """The name of a database after `order-monitor migrate`; created on first use."""
    return {}


@pytest.fixture
async def panel() -> AsyncIterator[FaultyPanel]:
    async with FaultyPanel() as made:
        yield made


@pytest.fixture
async def shop(
    mortal: MortalPostgres, template: dict[str, str], panel: FaultyPanel
) -> AsyncIterator[Shop]:
    if not template:
        template["name"] = await migrated(mortal)
    name = databases.create(mortal, template["name"])
    try:
        yield Shop(mortal.dsn(name), panel)
    finally:
        databases.drop(mortal, name)


async def migrated(server: MortalPostgres) -> str:
    name = databases.create(server)
    connection = await connect(server.dsn(name))
    await connection.execute(PLAIN.ddl)
    await connection.close()
    with tempfile.TemporaryDirectory() as folder:
        async with running(
            Path(folder), settings(server.dsn(name), "http://127.0.0.1:1"), "migrate"
        ) as run:
            assert await run.end() == 0, run.err.decode()
    return name
