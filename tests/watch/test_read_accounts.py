"""The orders of an account that is taken over are read while other scans run and answers come."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from order_monitor.core.order import Route
from order_monitor.core.queue import READ_AGAIN
from order_monitor.shop.reading.orders import ALL, Part, Scan, Slice, Take
from order_monitor.watch.account import Account
from tests.support import stages
from tests.support.clocks import ManualClock


def staged() -> tuple[stages.Stage, ManualClock]:
    clock = ManualClock()
    return stages.Stage(("a", "b"), clock), clock


def reading(stage: stages.Stage, meanwhile: Callable[[Part], Awaitable[None]]) -> None:
    """Let something happen between the read and its end."""
    scan = stage.shelf.scan

    async def scans(part: Part = ALL, take: Take | None = None) -> Scan:
        assert take is not None
        found = await scan(part)
        take(Slice(found.now, found.orders))
        await meanwhile(part)
        return replace(found, orders=[])

    stage.shelf.scan = scans  # type: ignore[method-assign]


async def test_quick_scans_and_reads_of_accounts_keep_what_waits_for_its_pin() -> None:
    stage, clock = staged()
    waiting = stage.order(7000.0, "a", ended_at=clock.time() - 60)
    stage.shelf.orders = [stage.order(5000.0, "a")]
    stage.shelf.more = {"awaiting": [waiting]}
    await stage.begin()
    stage.engine.discovery.full_scan_at = float("inf")
    for _ in range(3):
        clock.elapsed += 10
        await stage.engine.scan()
        assert stage.engine.queue.get(waiting.id)
    await stage.engine.discovery.read_accounts({"b"})
    assert stage.engine.queue.get(waiting.id)
    assert stage.engine.state.open == 1
    stage.shelf.more = {}
    await stage.engine.scan()
    assert stage.engine.queue.get(waiting.id) is None


async def test_an_order_that_was_in_hand_when_it_was_read_is_kept() -> None:
    for read_at in (None, READ_AGAIN):
        stage, clock = staged()
        stage.shelf.orders = [stage.order(500, "a")]
        await stage.begin()
        entry = stage.engine.queue.take("a")
        assert entry is not None
        clock.elapsed += 1

        async def answered(_: Part, entry: Any = entry, at: Any = read_at) -> None:
            stage.engine.queue.schedule(entry, stage.engine.now() + 10)  # noqa: B023 - called in this turn
            entry.read_at = entry.read_at if at is None else at

        reading(stage, answered)
        await stage.engine.discovery.read_accounts({"a"})
        assert stage.engine.queue.get(entry.id) is entry


async def test_an_order_that_a_scan_finds_meanwhile_is_kept() -> None:
    """It was sent after the read of the account began, and the scan had begun before."""
    stage, clock = staged()
    fresh = stage.order(1, "a")
    began = clock.monotonic()
    clock.elapsed += 1

    async def found(_: Part) -> None:
        stage.engine.discovery.intake.take_in(fresh, stage.engine.now(), began)

    reading(stage, found)
    await stage.engine.discovery.read_accounts({"a"})
    assert stage.engine.queue.get(fresh.id)


async def test_an_account_that_is_found_by_it_has_all_orders_read_again() -> None:
    """Orders that were skipped may have an account now."""
    stage, _ = staged()
    await stage.begin()
    stage.engine.discovery.full_scan_at = float("inf")
    sinces: list[float | None] = []

    async def found(part: Part) -> None:
        sinces.append(part.since)
        stage.accounts["c"] = Account("c", stages.NeverAsked())

    reading(stage, found)
    await stage.engine.discovery.read_accounts({"a"})
    await stage.engine.scan()
    assert sinces == [None, None]


async def test_an_order_that_is_skipped_no_more_during_a_scan_does_no_harm() -> None:
    stage, clock = staged()
    lost = stage.order(500, "a", reference="")
    stage.shelf.orders = [lost]
    await stage.begin()
    go_on, has_read = asyncio.Event(), asyncio.Event()

    async def waits(part: Part) -> None:
        if part.of is None:
            has_read.set()
            await go_on.wait()

    reading(stage, waits)
    clock.elapsed += 1
    scan = asyncio.create_task(stage.engine.scan())
    await has_read.wait()
    stage.shelf.orders = [lost._replace(reference="17")]
    clock.elapsed += 1
    await stage.engine.discovery.read_accounts({"a"})
    go_on.set()
    await scan
    assert stage.engine.queue.get(lost.id)


async def test_a_skipped_order_behind_very_many_that_nobody_asks_does_no_harm() -> None:
    stage, _ = staged()
    by_hand = [stage.order(600 + n, route=Route.NOBODYS) for n in range(150)]
    stage.shelf.orders = [*by_hand, stage.order(500, "a", reference="")]
    await stage.begin()
    assert len(stage.engine.skips) == 151
