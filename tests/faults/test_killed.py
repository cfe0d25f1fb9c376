"""``kill -9`` at moments that nobody chose, while orders keep coming in."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.faults.stage import Shop
from tests.support.processes import running

KILLS = int(os.environ.get("FAULTS_KILLS", "10"))
SEED = int(os.environ.get("FAULTS_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_killed_at_any_moment(shop: Shop, tmp_path: Path) -> None:
    """No PIN is lost and none goes wrong, no end is told twice."""
    chance = random.Random(SEED)
    asked = 0
    async with shop.under_load(batch=20):
        for _ in range(KILLS):
            async with running(tmp_path, shop.config()) as run:
                if chance.random() < 0.8:
                    await run.event("order.asked")
                await asyncio.sleep(chance.uniform(0, 1.5))
                run.process.kill()
                assert await run.end() == -9
            asked += sum(event["event"] == "order.asked" for event in run.events())
    async with shop.daemon(tmp_path):
        await shop.end(
            f"kill -9, {KILLS} times (FAULTS_SEED={SEED}), {asked} calls before",
            at_least=20 * KILLS,
        )
