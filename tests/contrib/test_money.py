"""Money moves once: every order has one end, one movement and its PIN, whatever is killed and
when.
"""

import asyncio
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command

from tests.contrib import project
from tests.contrib.conftest import MONITOR_TOML, SCHEMA, point_to
from tests.contrib.stage import Kept, Stage
from tests.faults.database import MortalPostgres
from tests.faults.panel import FaultyPanel
from tests.support import databases

pytestmark = pytest.mark.long

ORDERS = int(os.environ.get("MONEY_ORDERS", "300"))
"""``make money`` takes 10,000."""

SEED = int(os.environ.get("MONEY_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
BATCH = 25


@pytest.fixture(scope="module")
def mortal() -> Iterator[tuple[MortalPostgres, str]]:
    """A server that can be killed, and the name of a database after Django's migrations."""
    with MortalPostgres() as server:
        name = databases.create(server)
        with psycopg.connect(server.dsn(name), autocommit=True) as own:
            own.execute(SCHEMA)
        toml = server.directory / "monitor.toml"
        toml.write_text(MONITOR_TOML.format(dsn=server.dsn(name), url="http://127.0.0.1:1"))
        before = project.ORDER_MONITOR["CONFIG"]
        project.ORDER_MONITOR["CONFIG"] = str(toml)
        point_to(server.dsn(name))
        call_command("migrate", verbosity=0)
        call_command("consume_order_events", "--once", "--from=all")
        project.ORDER_MONITOR["CONFIG"] = before
        point_to("postgresql://nobody@nowhere/none")
        yield server, name


@pytest.mark.outside
@pytest.mark.untraced
@pytest.mark.timeout(120 + ORDERS // 10)
async def test_money_moves_once_whatever_is_killed(
    mortal: tuple[MortalPostgres, str], tmp_path: Path
) -> None:
    server, name = mortal
    dsn, toml = server.dsn(name), tmp_path / "monitor.toml"
    async with FaultyPanel(latency=0.01) as panel:
        toml.write_text(MONITOR_TOML.format(dsn=dsn, url=panel.url))
        stage = Stage(server, dsn, toml, panel, SEED)
        await stage.open_wallets(20)
        kept = [stage.daemon(), stage.consumer(1), stage.consumer(2)]
        killing = asyncio.create_task(_kill(stage, kept))
        try:
            for _ in range(0, ORDERS, BATCH):
                await stage.order(BATCH)
                await asyncio.sleep(0.1)
            if ORDERS <= 1000:
                await asyncio.wait({killing}, timeout=20)
            killing.cancel()
            await asyncio.wait({killing})
            await stage.settled(60 + ORDERS / 20)
            count = await stage.compare()
        finally:
            killing.cancel()
            await asyncio.wait({killing})
            codes = [await one.stop() for one in kept]
    assert codes == [0, 0, 0], stage.said("consumer-1")[-3000:]
    assert count >= ORDERS / 2, "orders whose commit was cut off are not there"
    starts = {one.name: one.starts for one in kept}
    sys.stdout.write(f"{count} orders (MONEY_SEED={SEED}), started: {starts}\n")
    assert all(one.starts > 1 for one in kept)


async def _kill(stage: Stage, kept: list[Kept]) -> None:
    """Kill the processes and the database in turn, at random moments."""
    victims = [*kept[1:], kept[0], None, *kept[1:]]
    rounds = 0
    while rounds < len(victims) or ORDERS > 1000:
        await asyncio.sleep(stage.chance.uniform(0.3, 1.5))
        victim = (
            victims[rounds]
            if rounds < len(victims)
            else stage.chance.choice([*kept, *kept, *kept, None])
        )
        if victim is not None:
            victim.kill()
        else:
            await asyncio.shield(asyncio.to_thread(_cut, stage))
        rounds += 1


def _cut(stage: Stage) -> None:
    assert stage.server is not None
    stage.server.die()
    stage.server.come_back()
