"""The primary dies for good, and its standby becomes the primary: the address names both."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults.conftest import migrated
from tests.faults.database import MortalPostgres, Standby
from tests.faults.panel import FaultyPanel
from tests.faults.stage import Shop


@contextmanager
def pair() -> Iterator[tuple[MortalPostgres, Standby]]:
    with MortalPostgres() as primary, Standby(primary) as standby:
        primary.reconfigure("synchronous_standby_names = '*'")
        yield primary, standby


@pytest.mark.timeout(180)
async def test_the_primary_dies_and_its_standby_takes_over(panel: FaultyPanel, tmp_path: Path) -> None:
    """A commit that was told is on both (synchronous_standby_names), so nothing is lost."""
    with pair() as (primary, standby):
        name = await migrated(primary)
        shop = Shop(primary.dsn(name), panel)
        both = f"{primary.dsn(name)},{quote(str(standby.directory))}"
        async with shop.daemon(tmp_path, shop.config(both)) as run:
            async with shop.under_load():
                await asyncio.sleep(2)
                primary.die()
                shop.dsn = standby.dsn(name)
                await asyncio.sleep(1)
                standby.promote()
                await asyncio.sleep(2)
            await shop.end("the primary died, its standby took over", at_least=50)
        names = [event["event"] for event in run.events()]
        assert "database.lost" in names
        assert "database.back" in names
