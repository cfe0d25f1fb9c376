"""Putting an order back to open: only while nobody can have acted on its end, whoever asks and with
whatever settings.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.pin import Pin
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.repository import Orders
from order_monitor.shop.writing.reopening import Reopener, ReopenRefusedError
from tests.support.events import events, prepared
from tests.support.orders import found
from tests.support.shops import NO_FIRST_START, Shop
from tests.support.webhooks import hooked, mark

URL = "https://shop.example/hook"
DAY = 86_400.0


async def ended(shop: Shop, orders: Orders, answer: Answer | None = None) -> str:
    order_id = await shop.add(noted=False)
    await shop.note(order_id, "a1")
    await orders.record([found(shop.order(order_id), answer or Cancelled("iptal"), account="a1")])
    return order_id


async def reopen(shop: Shop, orders: Orders, order_id: str, **changes: Any) -> str:
    async with shop.database().transaction() as connection:
        reopener = Reopener(orders.table, replace(orders.row_writer.table_config, **changes))
        return await reopener.reopen(connection, order_id, "wrong", "Ayşe")


async def refused(shop: Shop, orders: Orders, order_id: str, why: str, **changes: Any) -> None:
    before = (await shop.row(order_id), [dict(e) for e in await events(shop)])
    with pytest.raises(ReopenRefusedError, match=why):
        await reopen(shop, orders, order_id, **changes)
    assert (await shop.row(order_id), [dict(e) for e in await events(shop)]) == before, (
        "and nothing of it stays"
    )


async def deliveries(shop: Shop) -> dict[int, str]:
    rows = await shop.connection.fetch("SELECT * FROM order_monitor_deliveries")
    return {
        r["event_id"]: "aside" if r["dead_at"] else "done" if r["delivered_at"] else "waits"
        for r in rows
    }


async def test_who_put_it_back_stands_in_the_event(shop: Shop) -> None:
    orders = await prepared(shop)
    order_id = await ended(shop, orders)
    assert await reopen(shop, orders, order_id) == "sent"
    end, back = await events(shop)
    assert (end["repeat"], end["consumed_at"] is not None) == (True, True)
    assert (back["source"], back["cause"], back["outcome"], back["decided_by"]) == (
        "person",
        "person",
        "reopened",
        "Ayşe",
    )
    assert (
        (back["account"], back["reference"])
        == (end["account"], end["reference"])
        == ("a1", f"r-{order_id[:8]}")
    )
    assert back["uid"] not in (None, end["uid"])
    assert (back["has_pin"], back["repeat"], back["consumed_at"]) == (False, False, None)


async def test_what_a_person_put_back_is_given_its_whole_time_again(plain_shop: Shop) -> None:
    """Its age would end it again with the next answer, before the provider has decided."""
    orders = await prepared(plain_shop)
    await plain_shop.connection.execute(NO_FIRST_START)
    orders = await prepared(plain_shop)
    sent_at = time.time() - 2 * DAY
    order_id = await plain_shop.add(sent_at=sent_at)

    async def waits() -> str:
        order = plain_shop.order(order_id, sent_at=sent_at)
        await orders.record([found(order, Waiting("bekliyor"), age=time.time() - sent_at)])
        return str((await plain_shop.row(order_id))["external_status"])

    assert await waits() == "failed"
    assert await reopen(plain_shop, orders, order_id) == "sent"
    assert [await waits() for _ in range(2)] == ["processing"] * 2
    await plain_shop.connection.execute(
        "UPDATE order_monitor_events SET decided_at = decided_at - interval '1 day' WHERE outcome = 'reopened'"
    )
    assert await waits() == "failed"
    *_, end = await events(plain_shop)
    assert (end["cause"], end["repeat"]) == ("time_limit", False)
    assert await reopen(plain_shop, orders, order_id) == "processing"
    assert await waits() == "processing", "from the last time, not from the first"


async def test_no_order_with_a_pin_is_put_back(plain_shop: Shop) -> None:
    """Whatever an author calls himself, and wherever the PIN stands."""
    orders = await prepared(plain_shop)
    one = await ended(plain_shop, orders, Completed(Pin("PIN-CANARY-1"), "tamam"))
    await refused(plain_shop, orders, one, "it has a PIN")
    await plain_shop.set(one, pin_code=None)
    await refused(plain_shop, orders, one, "it has a PIN")
    other = await ended(plain_shop, orders, Completed(None, "tamam"))
    await plain_shop.set(other, pin_code="PIN-CANARY-2")
    await refused(plain_shop, orders, other, "it has a PIN")
    await plain_shop.set(other, pin_code=" ")
    assert await reopen(plain_shop, orders, other) == "sent"


async def test_who_decided_is_read_out_of_no_name(plain_shop: Shop) -> None:
    """Linux ships a user named daemon."""
    orders = await prepared(plain_shop)
    one, other, old = [await ended(plain_shop, orders) for _ in range(3)]
    await plain_shop.connection.execute(
        "UPDATE order_monitor_events SET source = CASE id WHEN 1 THEN 'person' WHEN 2 THEN 'program' END, "
        "decided_by = CASE id WHEN 2 THEN 'Ayşe' ELSE 'daemon' END"
    )
    await refused(plain_shop, orders, one, "daemon ended it, and not the daemon")
    await refused(plain_shop, orders, old, "daemon ended it, and not the daemon")
    assert await reopen(plain_shop, orders, other) == "sent"


async def test_an_end_that_was_posted_is_not_taken_back_whoever_asks(plain_shop: Shop) -> None:
    orders = await hooked(plain_shop, URL)
    outbox = Outbox(plain_shop.database(), "public")
    mine = await mark(plain_shop, URL)
    tried, done, replayed, waiting = [await ended(plain_shop, orders) for _ in range(4)]
    assert [d.event_id for d in await outbox.claim(3, 70.0, mine)] == [1, 2, 3]
    await outbox.delivered(2)
    await outbox.replay("Ayşe", ids=[3], order_id=None, since=None, dead=False)
    for order_id in (tried, done, replayed):
        await refused(plain_shop, orders, order_id, "was posted to the shop, or tried")
    assert await reopen(plain_shop, orders, waiting) == "sent"
    assert await deliveries(plain_shop) == {
        1: "waits",
        2: "done",
        3: "waits",
        4: "aside",
        5: "waits",
    }
    assert await outbox.counts() == (3, 0), "what was withdrawn is no dead letter"
    assert await outbox.replay("Ayşe", ids=[4], order_id=waiting, since=9999, dead=True) == [
        1,
        2,
        3,
        5,
    ]


async def test_a_try_that_this_machine_could_not_make_is_one_events_matter(
    plain_shop: Shop,
) -> None:
    orders = await hooked(plain_shop, URL)
    outbox = Outbox(plain_shop.database(), "public")
    for _ in range(3):
        await ended(plain_shop, orders)
    await outbox.claim(2, 70.0, await mark(plain_shop, URL))
    rows = "SELECT event_id, attempts, next_at FROM order_monitor_deliveries ORDER BY event_id"
    before = await plain_shop.connection.fetch(rows)
    await outbox.not_tried(1, 3600.0)
    after = await plain_shop.connection.fetch(rows)
    assert after[1:] == before[1:]
    assert (after[0]["attempts"], after[0]["next_at"] > before[0]["next_at"]) == (1, True)
    await outbox.delivered(1)
    await outbox.not_tried(1, 7200.0)
    assert (await plain_shop.connection.fetch(rows))[0] == after[0], "it was made elsewhere"


async def test_a_replay_takes_what_it_was_asked_for_and_nothing_else(plain_shop: Shop) -> None:
    orders = await hooked(plain_shop, URL)
    outbox = Outbox(plain_shop.database(), "public")
    ids = [await ended(plain_shop, orders) for _ in range(6)]
    await outbox.claim(5, 70.0, await mark(plain_shop, URL))
    await outbox.delivered(1)
    await outbox.died(2, "http_500")
    await outbox.failed(3, "http_500", 3600.0)
    await outbox.delivered(5)
    await plain_shop.connection.execute(
        "UPDATE order_monitor_events SET decided_at = decided_at - interval '2 hours' WHERE id = 5; "
        "UPDATE order_monitor_events SET repeat = true WHERE id = 6"
    )
    nothing: dict[str, Any] = {"ids": [], "order_id": None, "since": None, "dead": False}
    for asked, expected in (
        ({}, []),
        ({"waiting": True}, [3]),
        ({"waiting": True}, []),
        ({"dead": True}, [2]),
        ({"dead": True}, []),
        ({"ids": [1]}, [1]),
        ({"order_id": ids[4]}, [5]),
        ({"since": 3600.0}, [1, 2, 3, 4, 6]),
    ):
        assert await outbox.replay("Ayşe", **(nothing | asked)) == expected, asked


@pytest.mark.parametrize("is_posted", [True, False])
async def test_an_end_that_nobody_has_put_up_yet_never_will_be(
    plain_shop: Shop, *, is_posted: bool
) -> None:
    """The mark may be set at this very moment, by an upgrade that begins before this event."""
    orders = await (hooked(plain_shop, URL) if is_posted else prepared(plain_shop))
    order_id = await ended(plain_shop, orders)
    await plain_shop.connection.execute("DELETE FROM order_monitor_deliveries")
    assert await reopen(plain_shop, orders, order_id) == "sent"
    assert await Outbox(plain_shop.database(), "public").sweep(1) == (0 if is_posted else 1)
    assert await deliveries(plain_shop) == {1: "aside", 2: "waits"}


async def test_a_reopening_and_the_sweep_at_the_same_time(plain_shop: Shop) -> None:
    """Whoever is first, no end is both withdrawn and posted, and neither keeps the other waiting
    for ever.
    """
    orders = await prepared(plain_shop)
    ids = [await ended(plain_shop, orders) for _ in range(20)]
    mine = await mark(plain_shop, URL)
    outbox = Outbox(plain_shop.database(), "public")

    async def post() -> set[int]:
        taken: set[int] = set()
        for _ in range(20):
            await outbox.sweep(0)
            taken |= {delivery.event_id for delivery in await outbox.claim(2, 70.0, mine)}
        return taken

    async def put_back() -> set[int]:
        back = set()
        for number, order_id in reversed(list(enumerate(ids, 1))):
            try:
                await reopen(plain_shop, orders, order_id)
            except ReopenRefusedError:
                continue
            back.add(number)
        return back

    taken, back = await asyncio.gather(post(), put_back())
    assert taken & back == set()
    assert {e["id"] for e in await events(plain_shop) if e["repeat"]} == back


async def test_where_nobody_consumes_an_event_counts_as_untouched(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop, is_consumed=True)
    one, other = [await ended(plain_shop, orders) for _ in range(2)]
    await refused(plain_shop, orders, one, "the shop has acted", is_consumed=False)
    assert await reopen(plain_shop, orders, one) == "sent"
    assert [e["consumed_at"] is not None for e in await events(plain_shop)] == [True, True, True]
    await plain_shop.connection.execute(
        "UPDATE order_monitor_events SET consumed_at = now() WHERE id = 2"
    )
    await refused(plain_shop, orders, other, "the shop has acted")


@pytest.mark.parametrize("is_consumed", [True, False])
async def test_a_repeat_is_not_taken_back_the_end_that_it_repeats_moves_the_money(
    plain_shop: Shop, *, is_consumed: bool
) -> None:
    """The shop saved an old copy over a failure, which was then found out again: the refund hangs on
    the first event. An order that is open again could still be delivered.
    """
    orders = await prepared(plain_shop)
    order_id = await ended(plain_shop, orders)
    if is_consumed:
        await plain_shop.connection.execute("UPDATE order_monitor_events SET consumed_at = now()")
    await plain_shop.set(order_id, external_status="sent")
    await orders.record([found(plain_shop.order(order_id), Cancelled("iptal"), account="a1")])
    assert [e["repeat"] for e in await events(plain_shop)] == [False, True]
    await refused(plain_shop, orders, order_id, "reported before")


async def test_what_was_consumed_stays_and_a_consumer_is_not_waited_for(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop)
    order_id = await ended(plain_shop, orders)
    async with plain_shop.connection.transaction():
        await plain_shop.connection.execute("SELECT FROM order_monitor_events FOR UPDATE")
        with pytest.raises(ReopenRefusedError, match="just now"):
            await reopen(plain_shop, orders, order_id)
    await plain_shop.connection.execute("UPDATE order_monitor_events SET consumed_at = now()")
    await refused(plain_shop, orders, order_id, "the shop has acted")


async def test_only_the_end_that_stands_is_taken_back(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop)
    never, still = await plain_shop.add(), await ended(plain_shop, orders, Waiting("x"))
    await refused(plain_shop, orders, never, "there is no event of it")
    await refused(plain_shop, orders, still, "it is open")
    since = await ended(plain_shop, orders)
    await plain_shop.set(since, external_status="refunded")
    await refused(plain_shop, orders, since, "it has changed since")
