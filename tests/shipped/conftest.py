"""Only ``make image`` and ``make boot`` collect these: their images must be built first."""

import os
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from order_monitor.demo.postgres import EmbeddedPostgres
from tests.faults.panel import FaultyPanel
from tests.faults.stage import Shop
from tests.shipped.container import Image, Root
from tests.support.shops import PLAIN

collect_ignore_glob = [] if os.environ.get("SHIPPED") else ["test_*.py"]


class ListeningPostgres(EmbeddedPostgres):
    """Reached over loopback: its socket lies in a private directory."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        super().__init__({"listen_addresses": "127.0.0.1", "port": str(self.port)})

    def dsn(self, name: str = "postgres") -> str:
        return f"postgresql://shop:{self._password}@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="session")
def listening() -> Iterator[ListeningPostgres]:
    with ListeningPostgres() as server:
        yield server


@pytest.fixture
async def panel() -> AsyncIterator[FaultyPanel]:
    async with FaultyPanel() as made:
        yield made


@pytest.fixture
async def bare(listening: ListeningPostgres, panel: FaultyPanel) -> Shop:
    """A shop's database before `migrate`; it is removed with the server."""
    name = f"t{uuid.uuid4().hex}"
    admin = await asyncpg.connect(listening.dsn())
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    connection = await asyncpg.connect(listening.dsn(name))
    await connection.execute(PLAIN.ddl)
    await connection.close()
    return Shop(listening.dsn(name), panel)


@pytest.fixture(scope="session")
def root() -> Iterator[Root]:
    """The image's file system."""
    with Image().mounted() as made:
        yield made


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """The file system of the base image."""
    with Image().base.mounted() as made:
        yield made.path
