"""Several processes over one shop, of which some stand still, are cut off, or are killed without
end.
"""

import asyncio
import os
import random
import signal

from order_monitor.cluster.membership import IDLE_LIMIT
from tests.conftest import plain_shop, server, templates
from tests.faults.stage import note
from tests.support.proxies import Proxy
from tests.support.theatre import Theatre, theatre

__all__ = ["plain_shop", "server", "templates", "theatre"]

SEED = int(os.environ.get("FAULTS_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


async def test_who_stands_still_is_replaced_and_asks_nothing_when_it_comes_to(
    theatre: Theatre,
) -> None:
    await theatre.open(accounts=6, orders=4)
    first = await theatre.start("first")
    await theatre.start("second")
    await theatre.shared([3, 3])
    first.process.send_signal(signal.SIGSTOP)
    after = await theatre.shared([6], IDLE_LIMIT + 15)
    assert {"second"} == set.union(*after.values())
    first.process.send_signal(signal.SIGCONT)
    await first.event("cluster.lost")
    await theatre.shared([3, 3])
    await theatre.finish()
    assert theatre.panel.overlaps == []
    note("SIGSTOP: its accounts were asked by the other; nothing was asked by two at once")


async def test_who_is_cut_off_stops_asking_before_another_begins(theatre: Theatre) -> None:
    await theatre.open(accounts=6, orders=4)
    async with Proxy(theatre.shop.dsn) as proxy:
        first = await theatre.start("first", database={"dsn": proxy.dsn})
        await theatre.start("second")
        await theatre.shared([3, 3])
        proxy.flowing.clear()
        await first.event("cluster.lost")
        theatre.panel.forget()
        after = await theatre.shared([6], IDLE_LIMIT + 15)
        assert {"second"} == set.union(*after.values())
        proxy.flowing.set()
        await theatre.shared([3, 3])
        await theatre.finish()
    assert theatre.panel.overlaps == []
    note(
        "a frozen wire to the database: its accounts were asked by the other; nothing was asked by two at once"
    )


async def test_eight_that_come_and_are_killed_at_any_moment(theatre: Theatre) -> None:
    chance = random.Random(SEED)
    await theatre.open(accounts=20, orders=3)
    for n in range(8):
        await theatre.start(f"m{n}")
    await theatre.shared([2] * 4 + [3] * 4)
    for n in range(8, 20):
        name = chance.choice(
            [name for name, run in theatre.runs.items() if run.process.returncode is None]
        )
        theatre.runs[name].process.kill()
        await asyncio.sleep(chance.uniform(0, 2))
        await theatre.start(f"m{n}")
    await theatre.shared([2] * 4 + [3] * 4)
    await theatre.finish()
    # A call that a killed process had under way may still be answered when the next one asks.
    assert len(theatre.panel.overlaps) <= 12 * 3, theatre.panel.overlaps
    note(
        f"8 processes, 12 killed (FAULTS_SEED={SEED}): {len(theatre.panel.overlaps)} calls beside one of a dead process"
    )
