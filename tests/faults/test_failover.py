"""The primary dies for good, and its standby becomes the primary: the address names both."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults.conftest import migrated
from tests.faults.database import MortalPostgres, Standby, connect
from tests.faults.panel import FaultyPanel
from tests.faults.stage import Shop, note

TRIES = int(os.environ.get("FAULTS_FAILOVERS", "1"))
"""How often each way to lose the primary is tried."""


@contextmanager
def pair() -> Iterator[tuple[MortalPostgres, Standby]]:
    with MortalPostgres() as primary, Standby(primary) as standby:
        primary.reconfigure("synchronous_standby_names = '*'")
        yield primary, standby


@pytest.mark.timeout(180)
async def test_the_primary_dies_and_its_standby_takes_over(
    panel: FaultyPanel, tmp_path: Path
) -> None:
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


async def first_write(standby: Standby, name: str) -> float:
    """Return when the daemon has written a row on the new primary (monotonic seconds)."""
    connection = await connect(standby.dsn(name))
    ended = "SELECT count(*) FROM product_orders WHERE external_status IN ('completed', 'failed')"
    before = await connection.fetchval(ended)
    while await connection.fetchval(ended) == before:
        await asyncio.sleep(0.02)
    connection.terminate()
    return time.monotonic()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", ["died", "stood still"])
@pytest.mark.parametrize("n", range(TRIES))
async def test_it_writes_again_soon_after_the_promotion(
    panel: FaultyPanel, tmp_path: Path, way: str, n: int
) -> None:
    """However the primary goes: every row is right, and the report says how long it took."""
    with pair() as (primary, standby):
        name = await migrated(primary)
        shop = Shop(primary.dsn(name), panel)
        both = f"{primary.dsn(name)},{quote(str(standby.directory))}"
        async with shop.daemon(tmp_path, shop.config(both)):
            async with shop.under_load():
                await asyncio.sleep(2)
                if way == "died":
                    primary.die()
                else:
                    primary.freeze()
                silent = time.monotonic()
                shop.dsn = standby.dsn(name)
                await asyncio.to_thread(standby.promote)
                promoted = time.monotonic()
                written = await first_write(standby, name)
                note(
                    f"primary {way}, try {n + 1}: first row {written - silent:.1f} s after its last answer, "
                    f"{written - promoted:.1f} s after the promotion"
                )
                await asyncio.sleep(1)
            if way == "stood still":
                primary.vanish()
            await shop.end(f"the primary {way}", at_least=30)
