"""Several processes over one shop: real ones, that come, go, are killed and lose their locks."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest

from order_monitor.core.answer import Cancelled
from tests.support.processes import Run, running
from tests.support.theatre import ANSWER_TIME, Theatre, theatre

__all__ = ["theatre"]

pytestmark = pytest.mark.long

SLOW_RATE = {"calls_per_second": 5}
ONCE_A_MINUTE = {"first_check": 4, "base": 60, "cap": 60}


@asynccontextmanager
async def status_of(run: Run) -> AsyncIterator[Callable[[], Any]]:
    where = await run.event("health.listening")
    async with httpx.AsyncClient(
        trust_env=False, base_url=f"http://127.0.0.1:{where['port']}"
    ) as client:

        async def ask() -> dict[str, Any]:
            return dict((await client.get("/api/status")).json())

        yield ask


@pytest.mark.timeout(300)
async def test_each_account_is_asked_by_one_whoever_comes_dies_or_leaves(theatre: Theatre) -> None:
    await theatre.open(accounts=6, orders=4)
    first = await theatre.start("first")
    await theatre.shared([6])
    await theatre.start("second")
    await theatre.shared([3, 3])
    await theatre.start("third")
    before = await theatre.shared([2, 2, 2])
    await theatre.kill("second")
    after = await theatre.shared([3, 3])
    kept = [a for a in before if before[a] != {"second"}]
    assert all(after[account] == before[account] for account in kept), "what nobody lost was moved"
    first.process.terminate()
    assert await first.end() == 0
    await theatre.shared([6])
    await theatre.finish()
    assert theatre.panel.overlaps == []


async def test_exchanged_one_after_the_other_they_ask_nothing_twice_and_lose_nothing(
    theatre: Theatre,
) -> None:
    """As a new version is rolled out from 0.2 on: each new process before the old one goes, under
    load, with a migrate before.
    """
    await theatre.open(accounts=4, orders=60)
    for script in theatre.panel.scripts.values():
        script.ends_at = 0.0

    async def all_ask(*names: str) -> None:
        async with asyncio.timeout(30):
            while not {
                member for members in theatre.panel.asked.values() for member in members
            } >= set(names):
                await asyncio.sleep(0.05)

    old = [
        await theatre.start(f"old{n}", limits=SLOW_RATE, schedule=ONCE_A_MINUTE) for n in range(2)
    ]
    async with running(theatre.path, theatre.config("migrate"), "migrate") as run:
        assert await run.end() == 0
    assert run.out.decode() == "nothing to do: everything is there\n"
    await all_ask("old0", "old1")
    for n, leaving in enumerate(old):
        await theatre.start(f"new{n}", limits=SLOW_RATE, schedule=ONCE_A_MINUTE)
        leaving.process.terminate()
        assert await leaving.end() == 0
    await all_ask("new0", "new1")
    await theatre.finish()
    assert sum(map(len, theatre.panel.asked.values())) == len(theatre.panel.scripts), "each once"
    assert theatre.panel.overlaps == []


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
async def test_who_takes_an_account_makes_the_rechecks_that_its_holder_owed(
    theatre: Theatre, way: signal.Signals
) -> None:
    schedule = {"recheck_after": 8}
    await theatre.open(accounts=1, orders=3)
    first = await theatre.start("first", schedule=schedule)
    await theatre.shared([1])
    second = await theatre.start("second", schedule=schedule)
    await theatre.finish()
    for script in theatre.panel.scripts.values():
        script.end = Cancelled("iptal")
    first.process.send_signal(way)
    await first.end()
    async with asyncio.timeout(40):
        while sum(line["event"] == "order.contradicted" for line in second.events()) < 3:
            await asyncio.sleep(0.1)


async def test_an_account_moves_to_the_process_that_can_reach_its_provider(
    theatre: Theatre,
) -> None:
    """To the first process nothing answers in time."""
    await theatre.open(accounts=1, orders=3)
    first = await theatre.start("first", provider={"timeout": ANSWER_TIME / 2})
    await first.event("account.closed")
    await theatre.start("second")
    await first.event("cluster.unreached")
    await theatre.shared([1])
    await theatre.finish()
    assert theatre.panel.owners() == {"shop0": {"second"}}


async def test_clocks_that_are_hours_apart_change_nothing(theatre: Theatre) -> None:
    """Leases go by each process's own steady clock, and what is due by the database's."""
    await theatre.open(accounts=4, orders=3)
    first = await theatre.start("first", ahead=3 * 3600.0)
    async with status_of(first) as ask:
        shown = datetime.fromisoformat((await ask())["now"])
        assert abs(shown.timestamp() - time.time() - 3 * 3600) < 60, "its clock is wrong indeed"
    await theatre.start("second", ahead=-5 * 3600.0)
    before = await theatre.shared([2, 2])
    theatre.runs["second"].process.kill()
    after = await theatre.shared([4])
    assert all(after[account] == {"first"} for account in before)
    await theatre.start("third", ahead=86_400.0)
    await theatre.shared([2, 2])
    await theatre.finish()
    assert theatre.panel.overlaps == []
    decided = await theatre.shop.connection.fetchval(
        "SELECT max(abs(extract(epoch FROM now() - decided_at))) FROM order_monitor_events"
    )
    assert decided < 600, "nor is it written by them"


async def test_with_one_account_the_second_is_a_hot_standby(theatre: Theatre) -> None:
    await theatre.open(accounts=1, orders=8)
    first = await theatre.start("first")
    await theatre.shared([1])
    second = await theatre.start("second")
    async with status_of(second) as ask:
        async with asyncio.timeout(20):
            while not ((found := await ask())["ready"] and found["accounts"][0]["owner"]):
                await asyncio.sleep(0.1)
        assert found["accounts"][0]["owner"] == (await first.event("cluster.joined"))["member"]
        assert (found["orders"]["open"], found["orders"]["due"]) == (8, 0)
        assert {"first"} == (await theatre.shared([1]))["shop0"]
        await theatre.kill("first")
        assert {"second"} == (await theatre.shared([1]))["shop0"]
        (member,) = (await ask())["cluster"]["members"]
        assert (member["accounts"], member["leads"]) == ([found["accounts"][0]["name"]], True)
    await theatre.finish()
    assert theatre.panel.overlaps == []


async def test_who_loses_the_locks_stops_asking_at_once_and_says_so(theatre: Theatre) -> None:
    await theatre.open(accounts=2, orders=4)
    first = await theatre.start("first")
    await theatre.start("second")
    await theatre.shared([1, 1])
    await theatre.shop.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'order-monitor %'"
    )
    assert (await first.event("cluster.lost"))["why"]
    await theatre.shared([1, 1])
    await theatre.finish()
    assert theatre.panel.overlaps == []


async def test_a_member_with_another_schedule_is_named(theatre: Theatre) -> None:
    await theatre.open(accounts=2, orders=1)
    first = await theatre.start("first")
    second = await theatre.start("second", schedule={"cap": 0.4})
    told = await first.event("cluster.schedules_differ")
    assert told["members"] == [(await second.event("cluster.joined"))["member"]]
    await theatre.shared([1, 1])


async def test_one_whose_schedule_was_reloaded_shows_the_new_one(theatre: Theatre) -> None:
    await theatre.open(accounts=2, orders=1)
    first, second = await theatre.start("first"), await theatre.start("second")
    await theatre.shared([1, 1])
    (theatre.path / "second" / "monitor.toml").write_text(
        theatre.config("second", schedule={"cap": 0.4})
    )
    second.process.send_signal(signal.SIGHUP)
    told = await first.event("cluster.schedules_differ")
    assert told["members"] == [(await second.event("cluster.joined"))["member"]]
