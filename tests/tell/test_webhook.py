"""The webhook over a real database and a real server: signed, at least once, in order, and put
aside in the end.
"""

import asyncio
import gc
import json
import ssl
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from order_monitor.app import client_of
from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.easing import FIRST_PAUSE
from order_monitor.core.errors import ShopError, ShopUnavailableError
from order_monitor.core.pin import Pin
from order_monitor.providers.http.transport import FreshConnections
from order_monitor.shop.outbox import Outbox
from order_monitor.tell.webhook import Receiver as Posting
from order_monitor.tell.webhook import Sender, looks_like_page
from order_monitor.watch.system_clock import SystemClock
from tests.support.clocks import ManualClock
from tests.support.engines import Bench
from tests.support.events import prepared
from tests.support.limits import no_files_left
from tests.support.orders import found
from tests.support.processes import Panel, once, panel, running, sent, settings
from tests.support.proxies import Proxy
from tests.support.servers import RawServer, answer
from tests.support.shops import NOW, Shop
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

PIN = Pin("PIN-CANARY-77")


async def test_each_event_is_posted_signed_and_without_its_pin(
    shop: Shop, receiver: Receiver
) -> None:
    order_id = await shop.add()
    orders = await hooked(shop, receiver.url)
    await orders.record([found(shop.order(order_id), Waiting("bekleniyor"))])
    await orders.record([found(shop.order(order_id), Completed(PIN, f"PIN {PIN.reveal()}"))])
    async with sender(shop, receiver.url) as posting:
        await posting.drain()
        assert await posting.post_due() == 0, "and once only"
    assert [body["type"] for body in receiver.got] == ["order.processing", "order.completed"]
    events = await shop.connection.fetch("SELECT * FROM order_monitor_events ORDER BY id")
    assert receiver.ids == [str(event["uid"]) for event in events]
    assert "CANARY" not in json.dumps(receiver.got)
    last = receiver.got[-1]
    assert last["data"].keys() == {*dict(events[-1]), "dispatch"}
    assert (last["data"]["order_id"], last["data"]["has_pin"]) == (order_id, True)
    assert datetime.fromisoformat(last["timestamp"]) == events[-1]["decided_at"]
    assert (await delivery(shop, events[-1]["id"]))["delivered_at"] is not None
    assert events[-1]["consumed_at"] is None, "a delivery is not the shop's own consumption"


async def test_a_failing_receiver_is_tried_again_later_and_ever_later(
    plain_shop: Shop, receiver: Receiver
) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    receiver.answers = [500, 302, 404]
    pauses = []
    async with sender(plain_shop, receiver.url) as posting:
        for _ in range(3):
            assert await posting.post_due() == 1
            assert await posting.post_due() == 0, "not before its time"
            pauses.append((await delivery(plain_shop, 1))["again_in"])
            await make_due(plain_shop)
        await posting.drain()
    assert [5 <= p / 2**n <= 5.5 for n, p in enumerate(pauses)] == [True] * 3
    assert [t["outcome"] for t in (await delivery(plain_shop, 1))["tries"]] == [
        "http_500",
        "http_302",
        "http_404",
        "delivered",
    ]
    assert len(receiver.ids) == 4
    assert set(receiver.ids) == {await uid(plain_shop, 1)}, "one and the same, however often"


async def test_a_clock_that_goes_back_holds_up_no_event_until_it_is_there_again(
    plain_shop: Shop, receiver: Receiver
) -> None:
    """As after a fail-over: neither one that was not tried yet, nor one that pauses."""
    orders = await hooked(plain_shop, receiver.url)
    receiver.answers = [500]
    async with sender(plain_shop, receiver.url) as posting:
        failed, untried = await plain_shop.add(), await plain_shop.add()
        await orders.record([found(plain_shop.order(failed), Cancelled("x"))])
        assert await posting.post_due() == 1
        await orders.record([found(plain_shop.order(untried), Cancelled("x"))])
        for hours, due in ((1, [untried]), (9, [failed])):
            await plain_shop.connection.execute(
                "UPDATE order_monitor_deliveries SET next_at = next_at + make_interval(hours => $1)",
                hours,
            )
            receiver.got.clear()
            await posting.drain()
            assert [body["data"]["order_id"] for body in receiver.got] == due


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("<!DOCTYPE html><title>Login</title>", "html_answer"),
        ("\ufeff \n<HTML><body>Bakım</body>", "html_answer"),
        ("<html>" + "x" * 3_000_000, "html_answer"),
        ("ok", "delivered"),
        ("<p>thanks</p>", "delivered"),
        ("", "delivered"),
    ],
)
async def test_a_page_in_place_of_the_receiver_has_taken_nothing(
    plain_shop: Shop, receiver: Receiver, body: str, outcome: str
) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    receiver.answers, receiver.body = [200], body
    async with sender(plain_shop, receiver.url) as posting:
        assert await posting.post_due() == 1
    assert [t["outcome"] for t in (await delivery(plain_shop, 1))["tries"]] == [outcome]


@pytest.mark.parametrize(
    ("body", "content_type", "is_page"),
    [
        ("<!-- login --><!DOCTYPE html><title>x</title>", "", True),
        ("\r\n\r\n  <!-- a -->\n<!-- b -->\n<html lang=tr>", "text/plain", True),
        (
            '<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN"><html>',
            "text/xml",
            True,
        ),
        ('<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">', "", True),
        ("\ufeff<!--x--><head><title>Giriş</title>", "", True),
        ("<body>Bakım", "", True),
        ("<META http-equiv=refresh content='0;url=/login'>", "", True),
        ("<script>location='/login'</script>", "", True),
        ("<br />\n<b>Warning</b>: x on line <b>3</b><br />\n<!doctype HTML>", "", True),
        ("Warning: x in y.php on line 3\n<html>", "", True),
        (
            "<!--[if lt IE 7]> <html class=ie6> <![endif]--><!--[if gt IE 8]><!--> <html> <!--<![endif]-->",
            "",
            True,
        ),
        ("<div>Please log in</div>", "text/html; charset=utf-8", True),
        ("  <!-- x --> <p>Please log in", "Text/HTML", True),
        ("<p>thanks</p>", "text/plain", False),
        ("<ok/>", "application/xml", False),
        ("<ok/>", "", False),
        ('<?xml version="1.0"?><!-- fine --><ok><body>x</body></ok>', "text/xml", False),
        ("<headers/>", "", False),
        ("<htmlish/>", "", False),
        ("ok", "text/html", False),
        ("", "text/html", False),
        ("<!-- ok -->", "text/html", False),
        ('{"said": "<html>"}', "application/json", False),
        ('\n["<!doctype html>"]', "text/html", False),
        ("1 < 2", "text/html", False),
        ("<", "text/html", False),
    ],
)
def test_what_looks_like_a_page(body: str, content_type: str, *, is_page: bool) -> None:
    assert looks_like_page(body.encode(), content_type) is is_page
    assert looks_like_page(body.lstrip("\ufeff").encode("utf-16"), content_type) is is_page


@pytest.mark.parametrize(
    "body", ["<!--" * 1024, "<?" * 2048, "<!" * 2048, " " * 4096, "<!---->" * 585, "<!-- -" * 682]
)
def test_no_body_takes_long_to_judge(body: str) -> None:
    began = time.monotonic()
    looks_like_page(body.encode(), "text/html")
    assert time.monotonic() - began < 0.2


async def test_a_login_page_behind_a_comment_has_taken_nothing(
    plain_shop: Shop, receiver: Receiver
) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    receiver.answers, receiver.headers = [200, 200], {"Content-Type": "text/html"}
    async with sender(plain_shop, receiver.url) as posting:
        for body in ("<!-- " + "x" * 1000 + " -->\n<!DOCTYPE html>", "<form>Parola"):
            receiver.body = body
            await posting.post_due()
            await make_due(plain_shop)
        await posting.post_due()
    outcomes = [t["outcome"] for t in (await delivery(plain_shop, 1))["tries"]]
    assert outcomes == ["html_answer", "html_answer", "delivered"]


async def test_no_cookie_is_ever_sent_back() -> None:
    """Neither by the webhook nor by the ping.

    Addressed by name, since jars treat numbers otherwise.
    """

    async def biscuit(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"ok", headers="Set-Cookie: session=abc; Path=/\r\n"))

    async with RawServer(biscuit) as server, client_of(5.0) as client:
        for _ in range(2):
            assert (
                await client.post(f"http://localhost:{server.port}/hook", content=b"{}")
            ).status_code == 200
        assert len(server.requests) == 2
        assert not any(b"cookie" in request.lower() for request in server.requests)
        assert not client.cookies


async def test_retry_after_is_obeyed_within_reason(plain_shop: Shop, receiver: Receiver) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    async with sender(plain_shop, receiver.url) as posting:
        for wish, least, most in (("120", 115, 120), ("999999", 3590, 3600), ("0", 15, 25)):
            receiver.answers, receiver.headers = [429], {"Retry-After": wish}
            await posting.post_due()
            assert least <= (await delivery(plain_shop, 1))["again_in"] <= most
            await make_due(plain_shop)


async def test_of_one_order_nothing_overtakes(plain_shop: Shop, receiver: Receiver) -> None:
    """Other orders' events go past one that waits."""
    a, b = await plain_shop.add(), await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(a), Waiting("x"))])
    await orders.record(
        [found(plain_shop.order(a), Cancelled("x")), found(plain_shop.order(b), Cancelled("x"))]
    )
    receiver.answers = [500]
    async with sender(plain_shop, receiver.url) as posting:
        assert await posting.post_due() == 2
        assert await posting.post_due() == 0
        assert {body["data"]["order_id"] for body in receiver.got} == {a, b}
        await make_due(plain_shop)
        await posting.drain()
    assert [body["type"] for body in receiver.got if body["data"]["order_id"] == a] == [
        "order.processing",
        "order.processing",
        "order.failed",
    ]


@pytest.mark.parametrize(("status", "attempts"), [(500, 3), (410, 1)])
async def test_what_cannot_be_delivered_is_put_aside_and_holds_up_nobody(
    plain_shop: Shop, receiver: Receiver, status: int, attempts: int
) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(order_id), Waiting("x"))])
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    receiver.answers = [status] * attempts
    async with sender(plain_shop, receiver.url, max_attempts=3) as posting:
        for _ in range(attempts):
            await posting.post_due()
            await plain_shop.connection.execute(
                "UPDATE order_monitor_deliveries SET next_at = now() WHERE event_id = 1"
            )
        dead = await delivery(plain_shop, 1)
        assert dead["dead_at"] is not None
        assert (dead["attempts"], dead["delivered_at"], len(dead["tries"])) == (
            attempts,
            None,
            attempts,
        )
        await posting.drain()
        assert await Outbox(plain_shop.database(), "public").counts() == (0, 1)
    assert receiver.got[-1]["type"] == "order.failed"


async def stall(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def cut(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def lie(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SMTP says hello\r\n\r\n")


async def flood(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000)
    await writer.drain()


async def endless(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"x" * 1_000_000, headers="x: y\r\n"))


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [(stall, "timeout"), (cut, "Error"), (lie, "Error"), (flood, "Error"), (endless, "delivered")],
)
async def test_whatever_a_receiver_does_ends_in_time(
    plain_shop: Shop, behaviour: Any, outcome: str
) -> None:
    order_id = await plain_shop.add()
    orders = await prepared(plain_shop)
    async with (
        RawServer(behaviour) as server,
        # What is delivered must not be cut short where the machine is busy.
        sender(
            plain_shop,
            f"http://127.0.0.1:{server.port}/",
            timeout=30.0 if outcome == "delivered" else 0.5,
        ) as posting,
    ):
        assert await posting.post_due() == 0
        await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
        await posting.post_due()
    tries = (await delivery(plain_shop, 1))["tries"]
    assert outcome in tries[0]["outcome"]


async def test_nobody_there(plain_shop: Shop) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, "http://127.0.0.1:1/TOKEN-CANARY")
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    async with sender(plain_shop, "http://127.0.0.1:1/TOKEN-CANARY") as posting:
        await posting.post_due()
    assert [t["outcome"] for t in (await delivery(plain_shop, 1))["tries"]] == ["ConnectError"]


async def test_two_senders_share_the_work(plain_shop: Shop, receiver: Receiver) -> None:
    orders = await hooked(plain_shop, receiver.url)
    ids = [await plain_shop.add() for _ in range(30)]
    await orders.record([found(plain_shop.order(i), Cancelled("x")) for i in ids])
    async with sender(plain_shop, receiver.url) as a, sender(plain_shop, receiver.url) as b:
        await asyncio.gather(a.drain(), b.drain())
    assert sorted(body["data"]["order_id"] for body in receiver.got) == sorted(ids)


async def test_a_sender_killed_in_mid_post_posts_again_and_counts_the_try(
    plain_shop: Shop, receiver: Receiver
) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    async with sender(plain_shop, receiver.url) as posting:
        dying = Outbox(plain_shop.database(), "public")
        await dying.claim(8, 70.0, await mark(plain_shop, receiver.url))  # and died
        assert await posting.post_due() == 0
        assert (await delivery(plain_shop, 1))["attempts"] == 1
        await make_due(plain_shop)
        await posting.drain()
    assert receiver.ids == [await uid(plain_shop, 1)]
    assert (await delivery(plain_shop, 1))["attempts"] == 2


async def test_the_word_of_a_delivery_is_lost_and_it_is_posted_again(
    plain_shop: Shop, receiver: Receiver
) -> None:
    """At least once: the receiver knows it by its id."""
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    receiver.hold.clear()
    async with (
        Proxy(plain_shop.dsn) as proxy,
        sender(plain_shop, receiver.url, proxy.dsn) as posting,
    ):
        task = asyncio.create_task(posting.post_due())
        while not await plain_shop.connection.fetchval(
            "SELECT attempts FROM order_monitor_deliveries"
        ):
            await asyncio.sleep(0.01)
        port = proxy.port
        await proxy.stop()
        receiver.hold.set()
        with pytest.raises(ShopUnavailableError):
            await task
        await proxy.start_again(port)
        await make_due(plain_shop)
        await posting.drain()
    assert receiver.ids == [await uid(plain_shop, 1)] * 2


async def test_it_runs_on_while_the_database_is_away(plain_shop: Shop, receiver: Receiver) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    clock = ManualClock()
    async with (
        Proxy(plain_shop.dsn) as proxy,
        sender(plain_shop, receiver.url, proxy.dsn, clock=clock) as posting,
    ):
        port = proxy.port
        await proxy.stop()
        task = asyncio.create_task(posting.run())
        while clock.next_alarm() is None:
            await asyncio.sleep(0.001)
        await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
        await proxy.start_again(port)
        while not receiver.got:
            clock.ring(clock.elapsed + 1)
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert receiver.signed_at[0] >= NOW


async def test_where_another_posts_for_all_nothing_is_posted(
    plain_shop: Shop, receiver: Receiver
) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    clock, leads = ManualClock(), asyncio.Event()
    async with sender(plain_shop, receiver.url, clock=clock, is_ours=leads.is_set) as posting:
        task = asyncio.create_task(posting.run())
        while clock.next_alarm() is None:
            await asyncio.sleep(0.001)
        assert (receiver.got, posting.waiting) == ([], 1), "but what waits is known"
        leads.set()
        while not receiver.got:
            clock.ring(clock.elapsed + 5)
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_dead_letters_are_shown(
    plain_shop: Shop, receiver: Receiver, panel: Panel, tmp_path: Path
) -> None:
    order_id = await plain_shop.add()
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(order_id), Cancelled("x"))])
    receiver.answers = [410]
    async with sender(plain_shop, receiver.url) as posting:
        await posting.drain()
    config = settings(
        plain_shop.dsn, panel.server.url, webhook={"url": receiver.url, "secret": SECRET}
    )
    async with running(tmp_path, config, "check", "--json") as run:
        assert await run.end() == 0
    (line,) = [line for line in json.loads(run.out) if line["subject"] == "webhook"]
    assert (line["level"], line["text"]) == (
        "warning",
        "0 events wait for delivery, 1 is a dead letter",
    )
    async with running(tmp_path, config, "explain", order_id, "--json") as run:
        assert await run.end() == 0
    (event,) = json.loads(run.out)["events"]
    assert event["delivery"] == "dead after 1: http_410"


async def test_while_this_machine_is_short_of_something_it_goes_slower_and_no_event_pays_for_it(
    plain_shop: Shop, receiver: Receiver
) -> None:
    """Really without files: no try is used up, none is posted while all calls pause, and then they
    come one by one.
    """
    orders = await hooked(plain_shop, receiver.url)
    for _ in range(3):
        await orders.record([found(plain_shop.order(await plain_shop.add()), Cancelled("x"))])
    bench = Bench(plain_shop, lambda _: httpx.Response(200))
    client = httpx.AsyncClient(transport=FreshConnections(ssl.create_default_context()))
    outbox = Outbox(plain_shop.database(), "public")
    more: dict[str, Any] = {
        "outbox": outbox,
        "clock": bench.clock,
        "context": bench.engine.context,
        "client": client,
        "max_attempts": 1,
    }
    with capture_logs() as logs:
        async with sender(plain_shop, receiver.url, **more) as posting:
            await outbox.counts()
            with no_files_left():
                assert await posting.post_due() == 3
            assert {(await delivery(plain_shop, n))["attempts"] for n in (1, 2, 3)} == {1}
            assert (await delivery(plain_shop, 1))["again_in"] <= 5.5
            await make_due(plain_shop)
            assert await posting.post_due() == 0, "all calls pause"
            bench.clock.elapsed += FIRST_PAUSE
            assert await posting.post_due() == 1
            await posting.drain()
    assert len(receiver.got) == 3
    assert (
        await plain_shop.connection.fetchval("SELECT count(dead_at) FROM order_monitor_deliveries")
        == 0
    )
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["machine.exhausted"]


async def test_without_a_webhook_nothing_is_put_up(plain_shop: Shop) -> None:
    order_id = await plain_shop.add()
    orders = await prepared(plain_shop)
    assert (await orders.record([found(plain_shop.order(order_id), Cancelled("x"))]))[
        0
    ].fate is WriteStatus.WRITTEN
    assert (
        await plain_shop.connection.fetchval("SELECT count(*) FROM order_monitor_deliveries") == 0
    )


def test_a_status_that_is_none_of_ours_is_a_reopened_order() -> None:
    nobody: Any = None
    made = Sender(nobody, nobody, Posting("", SECRET), SystemClock())
    assert (
        json.loads(made.body({"to_status": "sent", "decided_at": "x"}))["type"] == "order.reopened"
    )


@pytest.mark.long
async def test_the_program_posts_what_it_wrote(
    bare_shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    shop = bare_shop
    ids = await sent(shop, 12)
    config = settings(
        shop.dsn,
        panel.server.url,
        webhook={"url": f"{receiver.url}?key=URL-CANARY", "secret": SECRET},
    )
    code, _, errors = await once(tmp_path, config)
    assert code
    assert "order-monitor migrate" in errors
    async with running(tmp_path, config, "migrate") as run:
        assert await run.end() == 0
    assert (await once(tmp_path, config))[0] == 0
    assert sorted(body["data"]["order_id"] for body in receiver.got) == sorted(ids)
    more = await sent(shop, 3)
    async with running(tmp_path, config) as run:
        await receiver.has_got(15)
        run.process.terminate()
        assert await run.end() == 0
    assert {body["data"]["order_id"] for body in receiver.got[12:]} == set(more)
    assert b"URL-CANARY" not in run.err
    assert SECRET.encode() not in run.err


async def test_when_several_posts_cannot_be_noted_each_is_heard_of(
    plain_shop: Shop, receiver: Receiver
) -> None:
    """Found by simulation (seeds 200 to 400): all but the first failure ended as "exception was
    never retrieved".
    """
    ids = [await plain_shop.add() for _ in range(4)]
    orders = await hooked(plain_shop, receiver.url)
    await orders.record([found(plain_shop.order(i), Cancelled("x")) for i in ids])
    unheard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    receiver.hold.clear()
    async with sender(plain_shop, receiver.url) as posting:
        due = asyncio.create_task(posting.post_due())
        while (
            await plain_shop.connection.fetchval(
                "SELECT sum(attempts) FROM order_monitor_deliveries"
            )
            != 4
        ):
            await asyncio.sleep(0.01)
        await plain_shop.connection.execute("DROP TABLE order_monitor_deliveries")
        receiver.hold.set()
        with pytest.raises(ShopError):
            await due
    del due
    gc.collect()
    await asyncio.sleep(0)
    assert unheard == []
