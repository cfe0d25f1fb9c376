"""Since when and to which address a shop's events are posted: one mark in the database, for every
process alike.
"""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from order_monitor.core.answer import Cancelled, Waiting
from order_monitor.core.errors import ShopMisfitError
from order_monitor.shop import outbox as outboxes
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.repository import Orders
from order_monitor.shop.webhook_mark import Mark, address_of, adopt, read_webhook
from order_monitor.shop.writing.reopening import Reopener
from order_monitor.tell.webhook import LOOK, OTHER_ADDRESS
from tests.support.clocks import ManualClock
from tests.support.events import prepared
from tests.support.orders import found
from tests.support.processes import Panel, once, panel, running, sent, settings
from tests.support.shops import Shop
from tests.support.webhooks import (
    SECRET,
    Receiver,
    delivery,
    hooked,
    make_due,
    mark,
    receiver,
    sender,
    uid,
)

__all__ = ["panel", "receiver"]

ELSEWHERE = "https://elsewhere.example/hook"


async def fail(orders: Orders, shop: Shop, order_id: str, **changes: Any) -> None:
    await shop.note(order_id, "a1")
    await orders.record([found(shop.order(order_id, **changes), Cancelled("iptal"), account="a1")])


async def queued(shop: Shop) -> list[int]:
    rows = await shop.connection.fetch("SELECT event_id FROM order_monitor_deliveries ORDER BY 1")
    return [row["event_id"] for row in rows]


async def marked(shop: Shop) -> Mark | None:
    async with shop.database().transaction() as connection:
        return await read_webhook(connection, "public")


async def reopened(shop: Shop, orders: Orders, order_id: str) -> None:
    async with shop.database().transaction() as connection:
        await Reopener(orders.table, orders.row_writer.table_config).reopen(
            connection, order_id, "wrong", "Ayşe"
        )


def posted(receiver: Receiver) -> list[int]:
    return [body["data"]["id"] for body in receiver.got]


def test_an_address_is_its_scheme_host_port_and_path() -> None:
    one = address_of("https://shop.example/hook")
    same = (
        "HTTPS://Shop.Example/hook",
        "https://shop.example:443/hook?key=T#x",
        "https://u:p@shop.example/hook?k=2",
    )
    assert {address_of(url) for url in same} == {one}
    other = (
        "http://shop.example/hook",
        "https://shop.example/",
        "https://shop.example:8443/hook",
        "https://a.example/hook",
    )
    assert len({one, *(address_of(url) for url in other)}) == 5
    assert address_of("https://a.example") == address_of("https://a.example/")
    assert one == hashlib.sha256(b"https://shop.example:443/hook").hexdigest()


async def test_a_first_webhook_says_nothing_of_what_was_before_it(
    plain_shop: Shop, receiver: Receiver
) -> None:
    orders = await prepared(plain_shop)
    winter, now = await plain_shop.add(), await plain_shop.add()
    await fail(orders, plain_shop, winter)
    async with sender(plain_shop, receiver.url) as posting:
        await posting.drain()
        assert receiver.got == []
        await fail(orders, plain_shop, now)
        await posting.drain()
    assert [body["data"]["order_id"] for body in receiver.got] == [now]
    assert await queued(plain_shop) == [2]


async def test_a_mark_that_a_failover_has_lost_is_set_again_as_it_was(
    plain_shop: Shop, receiver: Receiver
) -> None:
    """The commit of the mark may be among the last ones, which the standby never saw."""
    clock = ManualClock()
    orders = await prepared(plain_shop)
    await fail(orders, plain_shop, await plain_shop.add())
    order_id = await plain_shop.add()
    async with sender(plain_shop, receiver.url, clock=clock) as posting:
        await posting.drain()
        first = await marked(plain_shop)
        await plain_shop.connection.execute(
            "DELETE FROM order_monitor_settings WHERE name = 'webhook'"
        )
        await fail(orders, plain_shop, order_id)
        clock.ring(clock.elapsed + LOOK + 1)
        await posting.drain()
    assert await marked(plain_shop) == first
    assert [body["data"]["order_id"] for body in receiver.got] == [order_id]


async def test_an_upgrade_goes_on_from_the_oldest_event_that_waits(
    plain_shop: Shop, receiver: Receiver
) -> None:
    """Also with those that a person's settings file without a webhook kept from being put up."""
    orders = await prepared(plain_shop)
    for _ in range(6):
        await fail(orders, plain_shop, await plain_shop.add())
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_deliveries (event_id, order_id, attempts, delivered_at, dead_at) SELECT id, order_id, 1, "
        "CASE WHEN id = 1 THEN now() END, CASE WHEN id = 2 THEN now() END FROM order_monitor_events WHERE id IN (1, 2, 4);"
        "UPDATE order_monitor_events SET uid = NULL WHERE id < 6"
    )
    async with sender(plain_shop, receiver.url) as posting:
        await posting.drain()
    assert sorted(posted(receiver)) == [4, 5, 6]
    by_event = dict(zip(posted(receiver), receiver.ids, strict=True))
    assert (by_event[4], by_event[5]) == ("4", "5"), (
        "as an older version called them: a retry is no new event"
    )
    assert by_event[6] == await uid(plain_shop, 6)


async def test_two_first_daemons_agree(plain_shop: Shop, receiver: Receiver) -> None:
    """Whoever is first, one alone posts, and the other knows that it may not."""
    orders = await prepared(plain_shop)
    async with (
        sender(plain_shop, receiver.url) as a,
        sender(plain_shop, f"{receiver.url}/other") as b,
    ):
        assert sum(await asyncio.gather(a.post_due(), b.post_due())) == 0
        assert sorted([a.problem, b.problem]) == ["", OTHER_ADDRESS]
        for _ in range(20):
            await fail(orders, plain_shop, await plain_shop.add())
        await asyncio.gather(a.drain(), b.drain())
    first = await marked(plain_shop)
    assert first is not None
    assert first.since == 1
    if a.problem == "":
        assert sorted(posted(receiver)) == list(range(1, 21))


async def test_two_senders_of_one_address_begin_at_once_and_post_each_event_once(
    plain_shop: Shop, receiver: Receiver
) -> None:
    orders = await prepared(plain_shop)
    await mark(plain_shop, receiver.url)
    for _ in range(20):
        await fail(orders, plain_shop, await plain_shop.add())
    await plain_shop.connection.execute("DELETE FROM order_monitor_deliveries")
    async with sender(plain_shop, receiver.url) as a, sender(plain_shop, receiver.url) as b:
        await asyncio.gather(a.drain(), b.drain())
    assert sorted(posted(receiver)) == list(range(1, 21))


async def test_the_sweep_puts_up_what_nobody_has(
    plain_shop: Shop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that began before the mark, in a transaction that ends after it, does not see the
    mark.
    """
    monkeypatch.setattr(outboxes, "SLICE", 3)
    orders = await prepared(plain_shop)
    (old, late), clock = [await plain_shop.add() for _ in range(2)], ManualClock()
    await fail(orders, plain_shop, old)
    async with sender(plain_shop, receiver.url, clock=clock) as posting:
        async with plain_shop.database().transaction() as connection:
            await orders.row_writer.write(
                connection, [found(plain_shop.order(late), Cancelled("x"))], with_notes=True
            )
            await posting.drain()
        for _ in range(9):
            await fail(orders, plain_shop, await plain_shop.add())
        await plain_shop.connection.execute(
            "DELETE FROM order_monitor_deliveries WHERE event_id IN (5, 8)"
        )
        await posting.drain()
        assert sorted(posted(receiver)) == [3, 4, 6, 7, 9, 10, 11], "until it looks again"
        clock.ring(clock.elapsed + LOOK)
        await posting.drain()
        assert sorted(posted(receiver)) == list(range(2, 12))
    assert await Outbox(plain_shop.database(), "public").sweep(1) == 1, (
        "and from the very first only where told to"
    )
    await plain_shop.connection.execute("DELETE FROM order_monitor_deliveries")
    monkeypatch.setattr(outboxes, "OVERLAP", 2)
    assert await Outbox(plain_shop.database(), "public").sweep(1) == 3, (
        "what was looked through is not again, by nobody"
    )


async def test_the_sweep_puts_up_nothing_that_was_withdrawn(
    plain_shop: Shop, receiver: Receiver
) -> None:
    """Not even where an older version has withdrawn it, and left no trace of that beside the event."""
    orders = await hooked(plain_shop, receiver.url)
    order_id = await plain_shop.add()
    await fail(orders, plain_shop, order_id)
    await reopened(plain_shop, orders, order_id)
    await fail(orders, plain_shop, order_id)
    rows = await plain_shop.connection.fetch(
        "SELECT event_id, dead_at FROM order_monitor_deliveries ORDER BY 1"
    )
    assert [(row["event_id"], row["dead_at"] is not None) for row in rows] == [
        (1, True),
        (2, False),
        (3, False),
    ]
    await plain_shop.connection.execute("DELETE FROM order_monitor_deliveries")
    async with sender(plain_shop, receiver.url) as posting:
        await posting.drain()
    assert posted(receiver) == [2, 3]
    assert [body["data"]["repeat"] for body in receiver.got] == [False, False]


async def test_another_address_posts_nothing_until_it_is_adopted(
    plain_shop: Shop, receiver: Receiver
) -> None:
    orders, clock = await hooked(plain_shop, ELSEWHERE), ManualClock()
    await fail(orders, plain_shop, await plain_shop.add())
    async with sender(plain_shop, receiver.url, clock=clock) as posting:
        await posting.drain()
        assert (receiver.got, posting.problem) == ([], OTHER_ADDRESS)
        async with plain_shop.database().transaction() as connection:
            assert (await adopt(connection, "public", address_of(receiver.url), "Ayşe")).since == 1
        await posting.drain()
        assert receiver.got == []
        clock.ring(clock.elapsed + LOOK)
        await posting.drain()
        assert (posted(receiver), posting.problem) == ([1], "")
        async with plain_shop.database().transaction() as connection:
            await adopt(connection, "public", address_of(ELSEWHERE), "Ayşe")
        await fail(orders, plain_shop, await plain_shop.add())
        await posting.drain()
        assert posted(receiver) == [1], "from the very moment on, not from its next look"
        clock.ring(clock.elapsed + LOOK)
        await posting.drain()
        assert posting.problem == OTHER_ADDRESS


async def test_who_posts_for_nobody_sets_no_mark_and_knows_of_another_address(
    plain_shop: Shop, receiver: Receiver
) -> None:
    await prepared(plain_shop)
    clock = ManualClock()
    async with sender(plain_shop, receiver.url, clock=clock, is_ours=lambda: False) as posting:
        task = asyncio.create_task(posting.run())
        while clock.next_alarm() is None:
            await asyncio.sleep(0.001)
        assert await marked(plain_shop) is None
        await mark(plain_shop, ELSEWHERE)
        async with asyncio.timeout(30):
            while not posting.problem:
                clock.ring(clock.elapsed + LOOK)
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_mark_that_is_none_is_said_so(plain_shop: Shop, receiver: Receiver) -> None:
    await prepared(plain_shop)
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_settings (name, value) VALUES ('webhook', '[1]')"
    )
    async with sender(plain_shop, receiver.url) as posting:
        with pytest.raises(ShopMisfitError, match="mark 'webhook'"):
            await posting.drain()


async def test_a_dispatch_is_the_same_after_a_restore_from_a_backup(
    plain_shop: Shop, receiver: Receiver
) -> None:
    """The newest events are gone with the disk, and are found out and written again."""
    orders = await hooked(plain_shop, receiver.url)
    a, b = await plain_shop.add(), await plain_shop.add()
    async with sender(plain_shop, receiver.url) as posting:
        for order_id in (a, b):
            await fail(orders, plain_shop, order_id)
        await posting.drain()
        await plain_shop.connection.execute(
            "DELETE FROM order_monitor_events; ALTER TABLE order_monitor_events ALTER id RESTART;"
            "UPDATE product_orders SET external_status = 'sent'"
        )
        for order_id in (b, a):
            await fail(orders, plain_shop, order_id)
        await posting.drain()
    first, second = (
        {body["data"]["order_id"]: body["data"] for body in part}
        for part in (receiver.got[:2], receiver.got[2:])
    )
    assert {i: data["dispatch"] for i, data in first.items()} == {
        i: data["dispatch"] for i, data in second.items()
    }
    assert len({data["dispatch"] for data in first.values()}) == 2
    assert len(set(receiver.ids)) == 4, "the posts are others"
    text = "\x1f".join((a, "a1", f"r-{a[:8]}", "failed", "0"))
    assert first[a]["dispatch"] == hashlib.sha256(text.encode()).hexdigest()


async def test_a_reopened_orders_next_end_is_another_dispatch(
    plain_shop: Shop, receiver: Receiver
) -> None:
    orders = await hooked(plain_shop, receiver.url)
    order_id = await plain_shop.add()
    await fail(orders, plain_shop, order_id)
    await reopened(plain_shop, orders, order_id)
    await fail(orders, plain_shop, order_id)
    await plain_shop.set(order_id, external_status="sent")
    await fail(orders, plain_shop, order_id)
    async with sender(plain_shop, receiver.url) as posting:
        await posting.drain()
    back, end, again = (body["data"] for body in receiver.got)
    assert (back["outcome"], back["source"], back["cause"], back["account"]) == (
        "reopened",
        "person",
        "person",
        "a1",
    )
    assert end["dispatch"] == again["dispatch"], "an end told twice"
    assert (end["repeat"], again["repeat"]) == (False, True)
    text = "\x1f".join((order_id, "a1", f"r-{order_id[:8]}", "failed", "1"))
    assert end["dispatch"] == hashlib.sha256(text.encode()).hexdigest()


async def test_what_an_older_event_lacks_counts_as_empty(
    plain_shop: Shop, receiver: Receiver
) -> None:
    orders = await hooked(plain_shop, receiver.url)
    order_id = await plain_shop.add()
    await fail(orders, plain_shop, order_id)
    await plain_shop.connection.execute(
        "UPDATE order_monitor_events SET account = NULL, reference = NULL"
    )
    async with sender(plain_shop, receiver.url) as posting:
        await posting.drain()
    text = f"{order_id}\x1f\x1f\x1ffailed\x1f0"
    assert receiver.got[0]["data"]["dispatch"] == hashlib.sha256(text.encode()).hexdigest()


# --- after an outage


async def test_after_an_outage_the_rest_goes_at_once_in_order_and_at_a_pace(
    plain_shop: Shop, receiver: Receiver
) -> None:
    orders, clock = await hooked(plain_shop, receiver.url), ManualClock()
    for _ in range(6):
        await fail(orders, plain_shop, await plain_shop.add())
    async with sender(plain_shop, receiver.url, clock=clock) as posting:
        receiver.answers = [503] * 42
        for _ in range(6):
            assert await posting.post_due() == 6
            clock.ring(clock.elapsed + 60)
            await make_due(plain_shop)
        await posting.post_due()
        assert [await waits(plain_shop, n) > 300 for n in range(1, 7)] == [True] * 6
        assert receiver.answers == []
        await plain_shop.connection.execute(
            "UPDATE order_monitor_deliveries SET next_at = clock_timestamp() WHERE event_id = 3"
        )
        before = len(receiver.got)
        clock.ring(clock.elapsed + 60)
        assert await posting.post_due() == 1
        pauses = [await waits(plain_shop, n) for n in (1, 2, 4, 5, 6)]
        assert pauses == sorted(pauses)
        assert [0 <= pause < 1 for pause in pauses] == [True] * 5
        async with asyncio.timeout(30):
            while len(receiver.got) < before + 6:
                await posting.drain()
                await asyncio.sleep(0.02)
    assert sorted(posted(receiver)[before:]) == [1, 2, 3, 4, 5, 6]


async def test_after_an_outage_an_orders_events_go_in_order(
    plain_shop: Shop, receiver: Receiver
) -> None:
    """What was never tried since it waited for the one before it goes right after it, and no
    sooner.
    """
    orders, clock = await hooked(plain_shop, receiver.url), ManualClock()
    ids = [await plain_shop.add() for _ in range(3)]
    for answer in (Waiting("x"), Cancelled("y")):
        await orders.record([found(plain_shop.order(order_id), answer) for order_id in ids])
    async with sender(plain_shop, receiver.url, clock=clock) as posting:
        receiver.answers = [503] * 18
        for _ in range(6):
            assert await posting.post_due() == 3
            clock.ring(clock.elapsed + 60)
            await make_due(plain_shop)
        before = len(receiver.got)
        async with asyncio.timeout(30):
            while len(receiver.got) < before + 6:
                await posting.drain()
                await asyncio.sleep(0.02)
    told = [(body["data"]["order_id"], body["type"]) for body in receiver.got[before:]]
    assert len(told) == len(set(told)) == 6
    for order_id in ids:
        assert [kind for order, kind in told if order == order_id] == [
            "order.processing",
            "order.failed",
        ]


@pytest.mark.parametrize(("status", "is_let_go"), [(503, True), (429, False)])
async def test_a_wish_for_a_pause_ends_with_the_outage(
    plain_shop: Shop, receiver: Receiver, status: int, *, is_let_go: bool
) -> None:
    """A receiver that was down for a minute and spoke of an hour.

    Not where it wants to be called less often.
    """
    orders, clock = await hooked(plain_shop, receiver.url), ManualClock()
    async with sender(plain_shop, receiver.url, clock=clock) as posting:
        await fail(orders, plain_shop, await plain_shop.add())
        assert await posting.post_due() == 1
        for _ in range(2):
            await fail(orders, plain_shop, await plain_shop.add())
        receiver.answers, receiver.headers = [status] * 2, {"Retry-After": "3600"}
        assert await posting.post_due() == 2
        assert await waits(plain_shop, 2) > 3500
        clock.ring(clock.elapsed + 60)
        await fail(orders, plain_shop, await plain_shop.add())
        assert await posting.post_due() == 1
        assert (await waits(plain_shop, 2) < 1) is is_let_go


async def waits(shop: Shop, event_id: int) -> float:
    return float((await delivery(shop, event_id))["again_in"])


async def test_what_fails_by_itself_keeps_its_pauses(plain_shop: Shop, receiver: Receiver) -> None:
    """One event that its receiver cannot take is not hurried to its end by the others' successes."""
    orders, clock = await hooked(plain_shop, receiver.url), ManualClock()
    async with sender(plain_shop, receiver.url, clock=clock) as posting:
        await fail(orders, plain_shop, await plain_shop.add())
        await posting.drain()
        await fail(orders, plain_shop, await plain_shop.add())
        for _ in range(7):
            receiver.answers = [500]
            await make_due(plain_shop)
            await posting.post_due()
            clock.ring(clock.elapsed + 20)
            await fail(orders, plain_shop, await plain_shop.add())
            assert await posting.post_due() == 1
        assert await waits(plain_shop, 2) > 200


async def test_what_another_is_posting_is_not_let_go(plain_shop: Shop, receiver: Receiver) -> None:
    orders = await hooked(plain_shop, receiver.url)
    for _ in range(2):
        await fail(orders, plain_shop, await plain_shop.add())
    receiver.answers = [500, 500]
    async with sender(plain_shop, receiver.url) as posting:
        await posting.post_due()
        await make_due(plain_shop)
        others, own = (Outbox(plain_shop.database(), "public") for _ in range(2))
        (_, taken) = await others.claim(2, 70.0, await mark(plain_shop, receiver.url))
        assert taken.event_id == 2
        assert await own.let_go(1e9, 20.0, 5.0) == 0
        assert await waits(plain_shop, 2) > 60


async def test_a_sender_that_starts_lets_go_what_failed_before_it(
    plain_shop: Shop, receiver: Receiver
) -> None:
    orders = await hooked(plain_shop, receiver.url)
    await fail(orders, plain_shop, await plain_shop.add())
    receiver.answers = [503] * 5
    async with sender(plain_shop, receiver.url) as posting:
        for _ in range(5):
            await make_due(plain_shop)
            await posting.post_due()
    assert await waits(plain_shop, 1) > 70
    await fail(orders, plain_shop, await plain_shop.add())
    async with sender(plain_shop, receiver.url) as posting:
        await posting.drain()
    assert await waits(plain_shop, 1) < 1


# --- as processes


@pytest.mark.long
async def test_once_without_a_webhook_puts_up_and_with_it_posts_before_it_ends(
    plain_shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    plain = settings(plain_shop.dsn, panel.server.url)
    hook = {"url": receiver.url, "secret": SECRET}
    posting = settings(plain_shop.dsn, panel.server.url, webhook=hook)
    async with running(tmp_path, posting, "migrate") as run:
        assert await run.end() == 0
    assert b"events are posted to the webhook from number 1 on" in run.out
    async with running(tmp_path, posting, "migrate") as run:
        assert await run.end() == 0
    assert b"nothing to do" in run.out
    await sent(plain_shop, 2)
    assert (await once(tmp_path, plain))[0] == 0
    assert (await queued(plain_shop), receiver.got) == ([1, 2], [])
    (third,) = await sent(plain_shop, 1)
    async with running(tmp_path, plain, "ask", third) as run:
        assert await run.end() == 0
    assert receiver.got == []
    (fourth,) = await sent(plain_shop, 1)
    async with running(tmp_path, posting, "ask", fourth) as run:
        assert await run.end() == 0
    assert sorted(posted(receiver)) == [1, 2, 3, 4], "what others had put up, too"
    await sent(plain_shop, 1)
    assert (await once(tmp_path, posting))[0] == 0
    assert len(receiver.got) == 5


@pytest.mark.long
async def test_adopt_says_since_when_and_a_daemon_of_another_address_says_so(
    plain_bare_shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    hook = {"url": f"{receiver.url}?key=URL-CANARY", "secret": SECRET}
    config = settings(plain_bare_shop.dsn, panel.server.url, webhook=hook)
    async with running(
        tmp_path, settings(plain_bare_shop.dsn, panel.server.url), "webhook", "adopt"
    ) as run:
        assert await run.end() == 2
    assert b"webhook.url: is missing" in run.err
    async with running(tmp_path, config, "webhook", "adopt") as run:
        assert await run.end() == 1
    assert b"run order-monitor migrate" in run.err
    await hooked(plain_bare_shop, ELSEWHERE)
    await sent(plain_bare_shop, 1)
    code, _, errors = await once(tmp_path, config)
    assert code == 0
    assert "webhook.other_address" in errors
    assert receiver.got == []
    async with running(tmp_path, config, "check", "--json") as run:
        assert await run.end() == 0
    (line,) = [line for line in json.loads(run.out) if line["subject"] == "webhook.url"]
    assert (line["level"], line["do"]) == (
        "warning",
        "order-monitor webhook adopt, if this is the right one",
    )
    async with running(tmp_path, config) as run:
        await run.event("webhook.other_address")
        where = await run.event("health.listening")
        async with httpx.AsyncClient(
            trust_env=False, base_url=f"http://127.0.0.1:{where['port']}"
        ) as client:
            ready, status = await client.get("/readyz"), (await client.get("/api/status")).json()
        assert (ready.status_code, f"webhook: {OTHER_ADDRESS}" in status["reasons"]) == (503, True)
        assert status["webhook"]["problem"] == OTHER_ADDRESS
        run.process.terminate()
        assert await run.end() == 0
    async with running(tmp_path, config, "webhook", "adopt", "--by", "Ayşe") as run:
        assert await run.end() == 0
    assert b"posted to this address, from number 1 on (of 20" in run.out
    assert b"CANARY" not in run.out + run.err
    assert (
        await plain_bare_shop.connection.fetchval(
            "SELECT stored_by FROM order_monitor_settings WHERE name = 'webhook'"
        )
        == "Ayşe"
    )
    async with running(tmp_path, config) as run:
        await receiver.has_got(1)
        run.process.terminate()
        assert await run.end() == 0
    async with running(tmp_path, config, "check", "--json") as run:
        assert await run.end() == 0
    (line,) = [line for line in json.loads(run.out) if line["subject"] == "webhook.url"]
    assert (line["level"], line["text"]) == ("ok", "events are posted from number 1 on")
