"""An answer holds for the dispatch it was asked for: the locked row, ids and shared tables decide,
on a real PostgreSQL.
"""

import asyncio
import secrets
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from order_monitor.core.answer import (
    Answer,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Unreachable,
    Waiting,
)
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.decision import Rules, StuckReason
from order_monitor.core.login import Credentials
from order_monitor.core.order import Order, Route
from order_monitor.core.pin import Pin
from order_monitor.shop.repository import Orders
from order_monitor.shop.writing.dispatches import TOUCHED
from tests.support.engines import text
from tests.support.market import Market, Panels, market, new_id, running
from tests.support.orders import found, reviews
from tests.support.shops import NOW, SHOP, Shop

__all__ = ["market"]

PIN = Pin("AB12-CD34-EF56")
DAY = 86_400.0
LOGIN = Credentials("znet", "https://bayi.example.com", "dealer")


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


async def prepared(shop: Shop, **changes: Any) -> Orders:
    orders = shop.orders(credentials=LOGIN, **changes)
    await orders.prepare()
    return orders


async def known(orders: Orders, order_id: str) -> Order:
    """Return an order as it is read again, and noted, before it is asked about."""
    scan = await orders.scan()
    (order,) = await orders.reread([order for order in scan.orders if order.id == order_id])
    return order


async def events(shop: Shop) -> list[dict[str, Any]]:
    return [
        dict(row)
        for row in await shop.connection.fetch("SELECT * FROM order_monitor_events ORDER BY id")
    ]


async def answered(
    orders: Orders, order: Order, answer: Answer, *, age: float = 130.0, **more: Any
) -> WriteResult:
    (result,) = await orders.record([replace(found(order, answer, age=age), **more)])
    return result


# --- noted before its first question


async def test_a_dispatch_is_noted_once_with_its_login(shop: Shop) -> None:
    order_id = await shop.add(noted=False)
    one, other = await prepared(shop), await prepared(shop)
    order, again = await known(one, order_id), await known(other, order_id)
    assert order.registered
    assert again == order
    (row,) = await shop.connection.fetch("SELECT * FROM order_monitor_dispatches")
    assert (str(row["order_id"]), row["account"], row["reference"]) == (
        order_id,
        "default",
        f"r-{order_id[:8]}",
    )
    assert row["sent_at"] == at(NOW - 100)
    assert row["login"].startswith("znet bayi.example.com ")
    assert "dealer" not in row["login"]
    assert row["found_at"] is not None
    (order,) = (await one.scan()).orders
    assert order.registered, "so that nothing is noted a second time"


async def test_nothing_ends_that_is_not_noted(shop: Shop) -> None:
    """After a restore of last night's backup, say: what is asked about is read, and noted, again."""
    order_id = await shop.add(noted=False)
    orders = await prepared(shop)
    assert (await answered(orders, shop.order(order_id), Completed(PIN))).fate is WriteStatus.RESENT
    assert (await answered(orders, shop.order(order_id), Cancelled("x"))).fate is WriteStatus.RESENT
    assert (await shop.row(order_id))["external_status"] == "sent"
    assert (
        await answered(orders, await known(orders, order_id), Completed(PIN))
    ).fate is WriteStatus.WRITTEN


async def test_an_event_says_who_ended_it_why_at_which_account_and_by_which_reference(
    shop: Shop,
) -> None:
    orders = await prepared(shop)
    told: dict[str, tuple[Answer, float, bool]] = {
        "answer": (Cancelled("x"), 130.0, False),
        "time_limit": (Waiting("x"), DAY + 1, False),
        "person": (Cancelled("x"), 130.0, True),
    }
    for cause, (answer, age, by_person) in told.items():
        order_id = await shop.add()
        result = await answered(orders, shop.order(order_id), answer, age=age, by_person=by_person)
        assert result.fate is WriteStatus.WRITTEN
        event = (await events(shop))[-1]
        source = "person" if by_person else "program"
        assert (event["source"], event["cause"]) == (source, cause)
        assert (event["account"], event["reference"]) == ("default", f"r-{order_id[:8]}")
        assert event["uid"] is not None


# --- sent anew


@pytest.mark.parametrize(
    "answer", [Completed(PIN), Cancelled("x"), Waiting("x")], ids=lambda a: a.outcome
)
async def test_under_another_reference_nothing_is_written(shop: Shop, answer: Answer) -> None:
    order_id = await shop.add()
    orders = await prepared(shop)
    await shop.set(order_id, provider_referans="another")
    result = await answered(orders, shop.order(order_id), answer, age=DAY + 1)
    assert result.fate is WriteStatus.RESENT
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"]) == ("sent", None)
    expected = {(order_id, "pin_for_other_dispatch")} if isinstance(answer, Completed) else set()
    assert await reviews(shop) == expected


@pytest.mark.parametrize("same", [True, False])
async def test_a_pin_for_the_dispatch_before_waits_for_a_person_until_this_one_brings_the_same(
    shop: Shop,
    same: bool,  # noqa: FBT001 - a parameter
) -> None:
    order_id = await shop.add(noted=False)
    orders = await prepared(shop)
    before = await known(orders, order_id)
    await shop.set(order_id, provider_referans="another")
    assert (
        await answered(orders, before, Completed(PIN))
    ).review is StuckReason.PIN_FOR_OTHER_DISPATCH
    now = await known(orders, order_id)
    assert (
        await answered(orders, now, Completed(PIN if same else Pin("ZZ99-YY88-XX77")))
    ).fate is WriteStatus.WRITTEN
    assert await reviews(shop) == (set() if same else {(order_id, "pin_for_other_dispatch")})


async def test_a_text_of_the_dispatch_before_is_not_the_code_that_this_one_brings(
    shop: Shop,
) -> None:
    """A text is no one's, so all that the order has is the code it was given just now."""
    other, order_id = await shop.add(noted=False), await shop.add(noted=False)
    orders = await prepared(shop)
    await answered(orders, await known(orders, other), Completed(Pin("ZZ99-YY88-XX77")))
    before = await known(orders, order_id)
    await shop.set(order_id, provider_referans="another")
    await answered(orders, before, Completed(Pin("yüklendi")))
    assert await reviews(shop) == {(order_id, "pin_for_other_dispatch")}
    result = await answered(orders, await known(orders, order_id), Completed(PIN))
    assert result.fate is WriteStatus.WRITTEN
    assert await reviews(shop) == {(order_id, "pin_for_other_dispatch")}


async def test_an_order_that_was_ever_given_a_pin_is_failed_by_a_person_alone(shop: Shop) -> None:
    order_id = await shop.add(noted=False)
    orders = await prepared(shop)
    before = await known(orders, order_id)
    await shop.set(order_id, provider_referans="another")
    await answered(orders, before, Completed(PIN))
    now = await known(orders, order_id)
    for answer, age in ((Cancelled("x"), 130.0), (Waiting("x"), DAY + 1)):
        result = await answered(orders, now, answer, age=age)
        assert result.stuck is StuckReason.FAILED_WITH_PIN
    assert (await answered(orders, now, Cancelled("x"), by_person=True)).fate is WriteStatus.WRITTEN


@pytest.mark.parametrize("pin", [PIN, Pin("yüklendi")], ids=["code", "text"])
async def test_a_stale_save_after_a_pin_is_not_failed_by_what_the_provider_says_later(
    shop: Shop, pin: Pin
) -> None:
    """No order claims a text, but the order's event says that it was given."""
    order_id = await shop.add()
    orders = await prepared(shop)
    await answered(orders, shop.order(order_id), Completed(pin))
    await shop.set(order_id, external_status="sent", pin_code=None)
    assert (
        await answered(orders, shop.order(order_id), Cancelled("x"))
    ).stuck is StuckReason.FAILED_WITH_PIN
    result = await answered(orders, shop.order(order_id), Completed(pin))
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, True)


async def test_sent_anew_while_the_question_is_under_way_an_age_ends_nothing(shop: Shop) -> None:
    """The same reference, another time: "No response after 24h" three seconds after it was sent."""
    order_id = await shop.add(sent_at=NOW - DAY - 10)
    orders = await prepared(shop)
    asked = shop.order(order_id, sent_at=NOW - DAY - 10)
    await shop.set(order_id, sent_at=at(NOW - 3))
    result = await answered(orders, asked, Waiting("x"), age=DAY + 10)
    assert (await shop.row(order_id))["external_status"] in ("sent", "processing")
    assert not (result.write is not None and result.write.final)


async def test_a_reference_too_long_for_an_index_keeps_no_other_order_from_being_noted(
    shop: Shop,
) -> None:
    """It can be there where the shop's table has no index on references."""
    named = "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%(provider_referans%'"
    for row in await shop.connection.fetch(named):
        await shop.connection.execute(f'DROP INDEX "{row[0]}"')
    await shop.connection.execute("ALTER TABLE product_orders ALTER provider_referans TYPE text")
    longest = "".join(chr(0x10000 + ord(one)) for one in secrets.token_hex(250))
    ids = [
        await shop.add(noted=False, reference=reference)
        for reference in (secrets.token_hex(4000), longest, "1")
    ]
    orders = await prepared(shop)
    scanned = (await orders.scan()).orders
    again = {order.id: order.registered for order in await orders.reread(scanned)}
    assert again == dict(zip(ids, (False, True, True), strict=True))


async def test_while_its_time_is_taken_away_a_cancellation_ends_nothing(shop: Shop) -> None:
    """As a shop does that is about to send it anew."""
    orders = await prepared(shop)
    order = await known(orders, await shop.add(noted=False))
    await shop.set(order.id, sent_at=None)
    result = await answered(orders, order, Cancelled("x"))
    assert (result.fate, result.wait) == (WriteStatus.RESENT, True)
    assert (await answered(orders, order, Completed(PIN))).fate is WriteStatus.WRITTEN


async def test_sent_anew_a_completion_stands_and_a_cancellation_is_asked_once_more(
    shop: Shop,
) -> None:
    orders = await prepared(shop)
    done, gone = await shop.add(noted=False), await shop.add(noted=False)
    first = {order_id: await known(orders, order_id) for order_id in (done, gone)}
    for order_id in (done, gone):
        await shop.set(order_id, sent_at=at(NOW + 20))
    assert (await answered(orders, first[done], Completed(PIN))).fate is WriteStatus.WRITTEN
    result = await answered(orders, first[gone], Cancelled("x"))
    assert (result.fate, result.wait) == (WriteStatus.RESENT, True)
    again = await known(orders, gone)
    assert again.sent_at == NOW + 20
    early = await answered(orders, again, Cancelled("x"), age=30.0)
    assert (early.fate, early.wait) == (WriteStatus.RESENT, True), (
        "it may still be about the attempt before"
    )
    assert (await answered(orders, again, Cancelled("x"), age=61.0)).fate is WriteStatus.WRITTEN, (
        "and then it stands"
    )


async def test_a_cancellation_within_the_first_minute_stands_where_it_was_sent_once(
    plain_shop: Shop,
) -> None:
    """As when a person asks at once."""
    orders = await prepared(plain_shop)
    order = await known(orders, await plain_shop.add(noted=False))
    assert (await answered(orders, order, Cancelled("x"), age=3.0)).fate is WriteStatus.WRITTEN


async def test_a_shop_that_touches_the_time_at_each_save_delays_nothing_for_ever(
    shop: Shop,
) -> None:
    """From the fifth time on its age counts from when it was found, and its cancellations stand."""
    orders = await prepared(shop)
    order_id = await shop.add(noted=False)
    order = await known(orders, order_id)
    for n in range(TOUCHED):
        await shop.set(order_id, sent_at=at(NOW + 100 * (n + 1)))
        order = await known(orders, order_id)
    found_at = await shop.connection.fetchval("SELECT found_at FROM order_monitor_dispatches")
    (order,) = (await orders.scan()).orders
    assert order.sent_at == pytest.approx(found_at.timestamp(), abs=0.001)
    await shop.set(order_id, sent_at=at(found_at.timestamp() + DAY))
    order = await known(orders, order_id)
    assert order.sent_at == pytest.approx(found_at.timestamp(), abs=0.001)
    assert (await answered(orders, order, Waiting("x"), age=DAY - 1)).write is None or (
        await shop.row(order_id)
    )["external_status"] == "processing"
    result = await answered(orders, order, Waiting("x"), age=DAY + 1)
    assert result.write is not None
    assert result.write.final


@pytest.mark.parametrize(
    "silent",
    [Waiting("x"), Unreachable("timeout"), Garbled("cut_short"), Garbled("unreadable_pin")],
)
@pytest.mark.parametrize("sent", [Completed(Pin("A1" * 200)), Garbled("unreadable_pin")])
async def test_no_order_whose_pin_could_not_be_stored_is_failed_by_its_age(
    plain_shop: Shop, sent: Answer, silent: Answer
) -> None:
    """The provider has delivered it. Its own word fails it all the same."""
    orders = await prepared(plain_shop, rules=Rules(give_up_blind=True))
    order_id = await plain_shop.add()
    order = plain_shop.order(order_id)
    assert (await answered(orders, order, sent)).fate is WriteStatus.STUCK
    assert (await answered(orders, order, silent, age=DAY + 1)).fate is WriteStatus.STUCK
    assert (await plain_shop.row(order_id))["external_status"] == "sent"
    result = await answered(orders, order, Cancelled("x"))
    assert (result.fate, (await plain_shop.row(order_id))["external_status"]) == (
        WriteStatus.WRITTEN,
        "failed",
    )


# --- told before


async def test_failed_sent_anew_under_a_new_reference_and_failed_again_is_a_second_refund(
    shop: Shop,
) -> None:
    orders = await prepared(shop)
    order_id = await shop.add(noted=False)
    assert not (await answered(orders, await known(orders, order_id), Cancelled("x"))).repeat
    await shop.set(order_id, external_status="sent", provider_referans="new", sent_at=at(NOW))
    result = await answered(orders, await known(orders, order_id), Cancelled("x"))
    assert (result.fate, result.repeat, result.review) == (WriteStatus.WRITTEN, False, None)
    assert [event["repeat"] for event in await events(shop)] == [False, False]


@pytest.mark.parametrize("later", [0.0, 50.0], ids=["a stale save", "sent again"])
async def test_the_same_reference_and_outcome_is_a_repeat_and_sent_anew_a_persons_too(
    shop: Shop, later: float
) -> None:
    orders = await prepared(shop)
    order_id = await shop.add(noted=False)
    await answered(orders, await known(orders, order_id), Cancelled("x"))
    await shop.set(order_id, external_status="sent", sent_at=at(NOW - 100 + later))
    result = await answered(orders, await known(orders, order_id), Cancelled("x"))
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, True)
    assert await reviews(shop) == ({(order_id, "repeat_sent_anew")} if later else set())


async def test_repeated_by_a_person_without_a_time_it_was_not_sent_anew(shop: Shop) -> None:
    orders = await prepared(shop)
    order_id = await shop.add(noted=False)
    await answered(orders, await known(orders, order_id), Cancelled("x"))
    await shop.set(order_id, external_status="sent", sent_at=None)
    undated = shop.order(order_id, sent_at=None)
    result = await answered(orders, undated, Cancelled("x"), by_person=True)
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, True)
    assert not await reviews(shop)


async def test_sent_for_the_first_time_after_a_person_had_failed_it_is_a_persons_too(
    shop: Shop,
) -> None:
    """A dispatch that broke off left the reference and no time; its customer has paid again since."""
    orders = await prepared(shop)
    order_id = await shop.add(sent_at=None)
    await answered(orders, shop.order(order_id, sent_at=None), Cancelled("x"), by_person=True)
    await shop.set(order_id, external_status="sent", sent_at=at(NOW - 100))
    result = await answered(orders, await known(orders, order_id), Cancelled("x"))
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, True)
    assert await reviews(shop) == {(order_id, "repeat_sent_anew")}


@pytest.mark.parametrize("later", [0.0, 50.0], ids=["a stale save", "sent again"])
@pytest.mark.parametrize("first", ["by the settings", "by a person"])
async def test_an_end_told_before_the_account_was_known_is_told_once(
    market: Market, first: str, later: float
) -> None:
    """By a process whose account is in its settings; or by a person, of one of several routes."""
    account, package = await market.integration(None), new_id()
    for target in (account, await market.integration(None)):
        await market.route(None, package, target)
    shop = market.shop
    order_id = await shop.add(package_id=package)
    is_first = first == "by the settings"
    one, other = await prepared(shop) if is_first else market.orders(), market.orders()
    order = await known(one, order_id)
    told = await answered(one, order, Cancelled("x"), by_person=not is_first)
    assert (told.fate, told.repeat) == (WriteStatus.WRITTEN, False)
    moved = {"external_status": "sent", "sent_at": at(NOW - 100 + later)}
    await shop.set(order_id, provider_id=account, **moved)
    result = await answered(
        other, await known(other, order_id), Cancelled("x"), age=130.0 + later, account=account
    )
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, True)
    assert await reviews(shop) == ({(order_id, "repeat_sent_anew")} if later else set())


async def test_an_older_event_that_does_not_say_its_reference_makes_a_repeat(shop: Shop) -> None:
    orders = await prepared(shop)
    order_id = await shop.add()
    await shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome) "
        "VALUES ($1::uuid, 'sent', 'failed', false, 'failed')",
        order_id,
    )
    assert (await answered(orders, shop.order(order_id), Cancelled("x"))).repeat


# --- one reference, two orders


async def pair(
    shop: Shop, orders: Orders, *, first: str = "sent", **more: Any
) -> tuple[Order | None, Order]:
    """Two orders with one reference, the second sent later.

    Return them as they are before their questions.
    """
    a = await shop.add(first, reference="7", noted=False, sent_at=NOW - 5000, **more)
    one = await known(orders, a) if first == "sent" else None
    b = await shop.add(reference="7", noted=False, sent_at=NOW - 100)
    return one, await known(orders, b)


async def test_two_open_orders_with_one_reference_are_believed_for_neither(shop: Shop) -> None:
    orders = await prepared(shop)
    one, two = await pair(shop, orders)
    assert one is not None
    for answer in (Completed(PIN), Cancelled("x")):
        for order in (one, two):
            assert (await answered(orders, order, answer)).stuck is StuckReason.REFERENCE_TWICE
    assert await reviews(shop) == {(two.id, "reference_twice")}, "one for both"
    assert {(await shop.row(o.id))["pin_code"] for o in (one, two)} == {None}
    assert (await answered(orders, two, Waiting("x"))).fate is WriteStatus.WRITTEN, (
        "what ends nothing is written"
    )


async def test_a_person_says_which_is_meant(shop: Shop) -> None:
    orders = await prepared(shop)
    one, two = await pair(shop, orders)
    assert one is not None
    async with shop.database().transaction() as connection:
        assert await orders.row_writer.dispatches.mean(connection, one.id, "Ayşe")
    assert (await answered(orders, two, Completed(PIN))).stuck is StuckReason.REFERENCE_TWICE
    assert (await answered(orders, one, Completed(PIN))).fate is WriteStatus.WRITTEN


async def test_one_that_was_sent_since_and_not_asked_about_yet_is_seen_too(shop: Shop) -> None:
    orders = await prepared(shop)
    one = await known(orders, await shop.add(reference="7", noted=False, sent_at=NOW - 5000))
    await shop.add(reference="7", noted=False, sent_at=NOW - 100)
    for answer in (Completed(PIN), Cancelled("x")):
        assert (await answered(orders, one, answer)).stuck is StuckReason.REFERENCE_TWICE


@pytest.mark.parametrize(
    ("old", "new"), [("7", " 7\n"), ("7 ", "7"), (" 7", "7"), ("7\r\n", "7\t")]
)
async def test_blanks_about_a_reference_make_no_other_of_it(shop: Shop, old: str, new: str) -> None:
    orders = await prepared(shop)
    await shop.add(
        "completed", reference=old, noted=False, sent_at=NOW - 5000, pin="OLD1-OLD2-OLD3"
    )
    order = await known(orders, await shop.add(reference=new, noted=False))
    assert (await answered(orders, order, Completed(PIN))).stuck is StuckReason.REFERENCE_TWICE


async def test_an_ended_order_of_last_year_has_it(shop: Shop) -> None:
    """Found in the shop's own table, by its index: it has no dispatch of its own."""
    orders = await prepared(shop)
    _, two = await pair(shop, orders, first="completed", pin="OLD1-OLD2-OLD3")
    result = await answered(orders, two, Completed(Pin("OLD1-OLD2-OLD3")))
    assert result.stuck is StuckReason.REFERENCE_TWICE
    assert await reviews(shop) == {(two.id, "reference_twice")}


async def test_an_ended_order_that_was_asked_by_its_external_id_has_it_too(shop: Shop) -> None:
    column = shop.spelling.name("external_order_id")
    await shop.connection.execute(
        f'ALTER TABLE product_orders ADD COLUMN IF NOT EXISTS "{column}" text; '
        f'CREATE INDEX ON product_orders ("{column}")'
    )
    orders = await prepared(shop)
    done = await shop.add("completed", reference="", noted=False, pin="OLD1-OLD2-OLD3")
    await shop.set(done, external_order_id="7")
    order = await known(orders, await shop.add(reference="7", noted=False))
    assert (await answered(orders, order, Completed(PIN))).stuck is StuckReason.REFERENCE_TWICE
    assert await reviews(shop) == {(order.id, "reference_twice")}


async def test_a_twin_that_appears_after_the_end_is_held_itself(shop: Shop) -> None:
    orders = await prepared(shop)
    a = await shop.add(reference="7", noted=False)
    assert (
        await answered(orders, await known(orders, a), Completed(PIN))
    ).fate is WriteStatus.WRITTEN
    b = await shop.add(reference="7", noted=False)
    assert (
        await answered(orders, await known(orders, b), Completed(PIN))
    ).stuck is StuckReason.REFERENCE_TWICE
    assert (await shop.row(a))["pin_code"] == PIN.reveal()


@pytest.mark.parametrize(
    ("first", "older", "believed"),
    [
        ("completed", 5000, True),
        ("failed", 5000, True),
        ("sent", 5000, False),
        ("sent", 3 * DAY, True),
    ],
)
async def test_panels_that_number_anew(
    shop: Shop, first: str, older: float, *, believed: bool
) -> None:
    await shop.connection.execute(
        "UPDATE order_monitor_settings SET value = '-inf' WHERE name = 'first_migrate'"
    )
    orders = await prepared(shop, reference_reuse="newest")
    a = await shop.add(first, reference="7", noted=False, sent_at=NOW - 100 - older)
    if first == "sent":
        await known(orders, a)
    b = await shop.add(reference="7", noted=False, sent_at=NOW - 100)
    result = await answered(orders, await known(orders, b), Completed(PIN))
    assert (result.fate is WriteStatus.WRITTEN) is believed
    if first == "sent":
        held = await answered(orders, await known(orders, a), Completed(Pin("A1A1A1-B2B2")))
        assert held.stuck is StuckReason.REFERENCE_TWICE, "the older one is never believed"


@pytest.mark.parametrize(
    ("began", "believed"), [(NOW - 4000, True), (NOW - 5000, False), (NOW - 6000, False)]
)
async def test_where_panels_number_anew_an_order_of_before_the_first_migration_is_long_ago(
    plain_shop: Shop, began: float, *, believed: bool
) -> None:
    await plain_shop.connection.execute(
        "UPDATE order_monitor_settings SET value = $1 WHERE name = 'first_migrate'", repr(began)
    )
    orders = await prepared(plain_shop, reference_reuse="newest")
    _, two = await pair(plain_shop, orders)
    result = await answered(orders, two, Completed(PIN))
    assert (result.fate is WriteStatus.WRITTEN) is believed


async def test_where_panels_number_anew_a_person_may_still_say_that_the_older_one_is_meant(
    plain_shop: Shop,
) -> None:
    await plain_shop.connection.execute(
        "UPDATE order_monitor_settings SET value = '-inf' WHERE name = 'first_migrate'"
    )
    orders = await prepared(plain_shop, reference_reuse="newest")
    one = await known(orders, await plain_shop.add(reference="7", noted=False, sent_at=NOW - 5000))
    async with plain_shop.database().transaction() as connection:
        assert await orders.row_writer.dispatches.mean(connection, one.id, "Ayşe")
    await plain_shop.set(one.id, external_status="completed")
    two = await known(orders, await plain_shop.add(reference="7", noted=False, sent_at=NOW - 100))
    assert (await answered(orders, two, Completed(PIN))).stuck is StuckReason.REFERENCE_TWICE


async def test_another_login_may_give_the_same_reference(market: Market) -> None:
    accounts = [await market.integration(None, kod=kod) for kod in ("A", "B")]
    ids = [await market.shop.add(provider_id=a, reference="7") for a in accounts]
    orders = market.orders()
    for order_id, account in zip(ids, accounts, strict=True):
        order = await known(orders, order_id)
        result = await answered(
            orders, order, Completed(Pin(f"PIN-{account[:8]}-1")), account=account
        )
        assert result.fate is WriteStatus.WRITTEN


@pytest.mark.parametrize(
    "base", ["https://x.example", "https://X.EXAMPLE:443/", "https://x.example/panel"]
)
async def test_two_integrations_that_hold_one_login_are_one(market: Market, base: str) -> None:
    """Two tenants, one dealer: one reference and one PIN are not two orders'."""
    one = await market.integration(new_id(), kod="dealer")
    two = await market.integration(new_id(), kod="dealer", base=base)
    ids = [await market.shop.add(provider_id=a, reference="7") for a in (one, two)]
    others = [await market.shop.add(provider_id=a) for a in (one, two)]
    orders = market.orders()
    read = {order_id: await known(orders, order_id) for order_id in (*ids, *others)}
    for order_id, account in zip(ids, (one, two), strict=True):
        result = await answered(orders, read[order_id], Completed(PIN), account=account)
        assert result.stuck is StuckReason.REFERENCE_TWICE
    fates = [
        (
            await answered(
                orders, read[order_id], Completed(Pin("SAME-CODE-123456")), account=account
            )
        ).stuck
        for order_id, account in zip(others, (one, two), strict=True)
    ]
    assert fates == [None, StuckReason.PIN_DUPLICATE]


@pytest.mark.parametrize("is_moved_away", [False, True], ids=["in its row", "moved away"])
async def test_a_former_login_guards_on(market: Market, *, is_moved_away: bool) -> None:
    """The panel moves to another address: its codes and references are the same.

    A code that stands in its row is claimed for the new login as well; of one that the shop has
    moved away only the claim at the former login tells.
    """
    account = await market.integration(None, kod="dealer")
    first = await market.shop.add(provider_id=account)
    orders = market.orders()
    assert (
        await answered(orders, await known(orders, first), Completed(PIN), account=account)
    ).fate is WriteStatus.WRITTEN
    if is_moved_away:
        await market.shop.set(first, pin_code=None)
    column = '"baseUrl"' if market.shop.spelling is SHOP else "base_url"
    await market.shop.connection.execute(
        f"UPDATE integrations SET {column} = 'https://new.example'"
    )
    second = await market.shop.add(provider_id=account)
    fresh = market.orders()
    result = await answered(fresh, await known(fresh, second), Completed(PIN), account=account)
    assert result.stuck is StuckReason.PIN_DUPLICATE


# --- what is noted of one dispatch is no other's


async def test_back_at_its_first_account_an_order_is_asked_there(market: Market) -> None:
    """Sent to A, moved to B, and back to A under the same reference."""
    a, b = await market.integration(None, kod="A"), await market.integration(None, kod="B")
    order_id = await market.shop.add(provider_id=a)
    orders, column = market.orders(), "providerId" if market.is_shop else "provider_id"
    for account in (a, b, a):
        await market.shop.connection.execute(
            f'UPDATE product_orders SET "{column}" = $1 WHERE id = $2::uuid', account, order_id
        )
        assert (await known(orders, order_id)).integration == account
    (order,) = (await market.orders().scan()).orders
    assert (order.integration, order.registered) == (a, True)


async def marks(shop: Shop, order_id: str) -> dict[tuple[str, str], tuple[bool, bool]]:
    """Return, of each dispatch of an order, whether it was understood, and whether it is odd."""
    rows = await shop.connection.fetch(
        "SELECT account, reference, first_understood_at IS NOT NULL AS known, "
        "first_odd_at IS NOT NULL AS odd FROM order_monitor_dispatches WHERE order_id = $1::uuid",
        order_id,
    )
    return {(row["account"], row["reference"]): (row["known"], row["odd"]) for row in rows}


ODD = Garbled("unknown_state", "?")
NOT_KNOWN = Refused("3", "no such order")


async def test_what_is_odd_at_one_account_is_not_so_at_the_next(market: Market) -> None:
    a, b = await market.integration(None, kod="A"), await market.integration(None, kod="B")
    order_id = await market.shop.add(provider_id=a)
    orders = market.orders()
    first = await known(orders, order_id)
    await answered(orders, first, ODD, account=a, odd_since=NOW)
    column = "providerId" if market.is_shop else "provider_id"
    await market.shop.connection.execute(f'UPDATE product_orders SET "{column}" = $1', b)
    second = await known(orders, order_id)
    reference = first.reference
    assert await marks(market.shop, order_id) == {
        (a, reference): (False, True),
        (b, reference): (False, False),
    }
    async with orders.schema_cache.transaction() as connection:
        dispatches = orders.row_writer.dispatches
        standing = [
            (await dispatches.standing(connection, [(order_id, account, reference)]))[order_id]
            for account in (a, b)
        ]
    assert [one.odd_at is None for one in standing] == [False, True]
    await answered(orders, second, Waiting("x"), account=b)
    assert await marks(market.shop, order_id) == {
        (a, reference): (False, True),
        (b, reference): (True, False),
    }


async def test_what_is_odd_under_one_reference_is_not_so_under_the_next(shop: Shop) -> None:
    order_id = await shop.add(noted=False)
    orders = await prepared(shop)
    first = await known(orders, order_id)
    await answered(orders, first, Waiting("x"))
    await shop.set(order_id, provider_referans="another")
    second = await known(orders, order_id)
    await answered(orders, second, ODD, odd_since=NOW)
    assert await marks(shop, order_id) == {
        ("default", first.reference): (True, False),
        ("default", "another"): (False, True),
    }


async def test_an_answer_that_is_understood_clears_what_was_odd_since_the_last(shop: Shop) -> None:
    """Understood, odd for an hour, and understood again: the next odd one begins a new time."""
    order_id = await shop.add(noted=False)
    orders = await prepared(shop)
    order = await known(orders, order_id)
    await answered(orders, order, Waiting("x"))
    order = await known(orders, order_id)
    assert order.understood
    await answered(orders, order, ODD, odd_since=NOW)
    assert set((await marks(shop, order_id)).values()) == {(True, True)}
    await answered(orders, order, Waiting("y"), is_odd_noted=True)
    assert set((await marks(shop, order_id)).values()) == {(True, False)}


async def test_sent_again_under_its_reference_an_order_is_not_known_from_then_on_alone(
    shop: Shop,
) -> None:
    order_id = await shop.add(noted=False, sent_at=NOW - 3 * DAY)
    orders = await prepared(shop, rules=replace(shop.table_config.rules, give_up_unknown=True))
    odd = {"odd_since": NOW - 3 * DAY, "others_understood": True}
    await answered(orders, await known(orders, order_id), NOT_KNOWN, **odd)
    await shop.set(order_id, sent_at=at(NOW - 1000))
    again = await known(orders, order_id)
    await answered(orders, again, NOT_KNOWN, age=900, **odd)
    assert (await shop.row(order_id))["external_status"] == "sent"
    result = await answered(orders, again, NOT_KNOWN, age=DAY + 900, **odd)
    assert result.write is not None
    assert result.write.final


# --- one code, one order, for any number of processes


async def test_two_processes_at_once_give_one_pin_to_one_order(shop: Shop) -> None:
    one, other = await prepared(shop), await prepared(shop)
    pairs = [(await shop.add(), await shop.add()) for _ in range(20)]
    pins = [Pin(f"CODE-{n:04}-ABCD") for n in range(20)]
    left = [found(shop.order(a), Completed(p)) for (a, _), p in zip(pairs, pins, strict=True)]
    right = [
        found(shop.order(b), Completed(p)) for (_, b), p in zip(pairs, reversed(pins), strict=True)
    ]
    left = [*left[:10], *left[10:][::-1]]
    results = [
        r for batch in await asyncio.gather(one.record(left), other.record(right)) for r in batch
    ]
    by_pin = Counter(r.finding.pin for r in results if r.fate is WriteStatus.WRITTEN)
    assert set(by_pin.values()) == {1}
    assert len(by_pin) == 20
    assert sum(r.stuck is StuckReason.PIN_DUPLICATE for r in results) == 20
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_pins") == 20


async def test_a_code_that_stands_in_its_row_already_is_given_to_no_other_order(
    shop: Shop,
) -> None:
    """The shop has stored what the panel said when it took the order."""
    orders = await prepared(shop)
    one, other = await shop.add(pin=PIN.reveal()), await shop.add()
    assert (await answered(orders, shop.order(one), Completed(PIN))).fate is WriteStatus.WRITTEN
    result = await answered(orders, shop.order(other), Completed(PIN))
    assert (result.stuck, result.detail) == (StuckReason.PIN_DUPLICATE, f"order {one} has the same")


async def test_two_rows_with_one_code_are_a_persons(shop: Shop) -> None:
    orders = await prepared(shop)
    ids = [await shop.add(pin=PIN.reveal()) for _ in range(2)]
    results = [await answered(orders, shop.order(i), Completed(PIN)) for i in ids]
    assert [r.stuck for r in results] == [None, StuckReason.PIN_DUPLICATE]
    result = await answered(
        orders, shop.order(ids[1]), Completed(PIN), by_person=True, same_as=ids[0]
    )
    assert result.fate is WriteStatus.WRITTEN


async def test_orders_whose_root_is_an_empty_text_are_no_chain(plain_shop: Shop) -> None:
    """A column that may not be NULL."""
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders ADD COLUMN root_order_id varchar(64) NOT NULL DEFAULT ''"
    )
    orders = await prepared(plain_shop)
    ids = [await plain_shop.add() for _ in range(2)]
    results = [await answered(orders, plain_shop.order(i), Completed(PIN)) for i in ids]
    assert [r.stuck for r in results] == [None, StuckReason.PIN_DUPLICATE]


@pytest.mark.parametrize(
    "text_", ["Yüklendi", "100 TL yüklenmiştir", "İşlem 29.11.2026 12:30 tamam", "660 UC"]
)
async def test_a_text_in_the_pins_place_is_no_code(shop: Shop, text_: str) -> None:
    """A direct top-up's confirmation: a whole shop must not stand still for it."""
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(4)]
    results = await orders.record([found(shop.order(i), Completed(Pin(text_))) for i in ids])
    assert {r.fate for r in results} == {WriteStatus.WRITTEN}


async def test_words_with_one_code_that_three_orders_have_brought_are_a_text(shop: Shop) -> None:
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(4)]
    told = Pin("KAMPANYA2026 ile yüklendi")
    fates = [(await answered(orders, shop.order(i), Completed(told))).fate for i in ids]
    assert fates == [
        WriteStatus.WRITTEN,
        WriteStatus.STUCK,
        WriteStatus.WRITTEN,
        WriteStatus.WRITTEN,
    ]
    assert (await answered(orders, shop.order(ids[1]), Completed(told))).fate is WriteStatus.WRITTEN
    assert await reviews(shop) == set()


async def test_what_makes_one_code_a_text_says_nothing_of_another(shop: Shop) -> None:
    orders = await prepared(shop)
    told, other = Pin("KAMPANYA2026 ile yüklendi"), Pin("GARANTI2026 ile yüklendi")
    ids = [await shop.add() for _ in range(5)]
    await answered(orders, shop.order(ids[0]), Completed(other))
    for order_id in ids[1:4]:
        await answered(orders, shop.order(order_id), Completed(told))
    result = await answered(orders, shop.order(ids[4]), Completed(other))
    assert result.stuck is StuckReason.PIN_DUPLICATE


@pytest.mark.parametrize("held", ["+90 555 123 45 67", "5551234567", "0555 123 4567"])
async def test_what_the_row_itself_holds_is_no_code(shop: Shop, held: str) -> None:
    """The player's number, told back by the panel."""
    column = '"userIdentifier"' if shop.spelling is SHOP else "user_identifier"
    await shop.connection.execute(f"ALTER TABLE product_orders ADD COLUMN {column} varchar")
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(2)]
    await shop.connection.execute(f"UPDATE product_orders SET {column} = '{held}'")
    for order_id in ids:
        assert (
            await answered(orders, shop.order(order_id), Completed(Pin("905551234567")))
        ).fate is WriteStatus.WRITTEN


async def test_a_code_given_by_a_person_where_the_account_is_not_known_is_any_logins(
    market: Market,
) -> None:
    a, b = await market.integration(None, kod="A"), await market.integration(None, kod="B")
    package = new_id()
    for account in (a, b):
        await market.route(None, package, account)
    unknown = await market.shop.add(package_id=package)
    orders = market.orders()
    (order,) = (await orders.scan()).orders
    assert (order.id, order.integration) == (unknown, None)
    assert (
        await answered(orders, order, Completed(PIN), by_person=True)
    ).fate is WriteStatus.WRITTEN
    for account in (a, b):
        other = await known(orders, await market.shop.add(provider_id=account))
        assert (
            await answered(orders, other, Completed(PIN), account=account)
        ).stuck is StuckReason.PIN_DUPLICATE


async def test_codes_of_older_versions_are_claimed_at_the_start(shop: Shop) -> None:
    old = await shop.add("completed", pin=PIN.reveal(), noted=False)
    await shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome) "
        "VALUES ($1::uuid, 'sent', 'completed', true, 'completed')",
        old,
    )
    orders = await prepared(shop)
    order = await known(orders, await shop.add(noted=False))
    result = await answered(orders, order, Completed(PIN))
    assert (result.stuck, result.detail) == (StuckReason.PIN_DUPLICATE, f"order {old} has the same")


async def test_the_code_itself_is_nowhere_in_our_tables(shop: Shop) -> None:
    orders = await prepared(shop)
    for _ in range(2):
        await answered(
            orders, shop.order(await shop.add()), Completed(PIN, f"kod {PIN.reveal().lower()}")
        )
    for row in await shop.connection.fetch(
        "SELECT tablename FROM pg_tables WHERE tablename LIKE 'order_monitor%'"
    ):
        rows = await shop.connection.fetch(f"SELECT t::text FROM {row['tablename']} t")
        assert not any("ab12" in str(line[0]).lower() for line in rows), row["tablename"]


# --- which account


async def test_routing_that_changes_later_moves_nothing(market: Market) -> None:
    a, b = await market.integration(None, kod="A"), await market.integration(None, kod="B")
    package = new_id()
    await market.route(None, package, a)
    order_id = await market.shop.add(package_id=package)
    orders = market.orders()
    assert (await known(orders, order_id)).integration == a
    column = '"primaryProviderId"' if market.is_shop else "primary_provider_id"
    await market.shop.connection.execute(f"UPDATE package_routing SET {column} = $1", b)
    assert (await known(orders, order_id)).integration == a
    assert (await known(market.orders(), order_id)).integration == a, "nor after a restart"


async def test_what_was_asked_by_the_account_in_the_settings_is_asked_by_the_shops_own(
    market: Market,
) -> None:
    """The settings have changed to the shop's accounts, or another process still has the old ones."""
    account, package = await market.integration(None), new_id()
    await market.route(None, package, account)
    order_id = await market.shop.add(package_id=package)
    before, after = market.shop.orders(), market.orders()
    for _ in range(2):
        assert (await known(before, order_id)).registered
        found = await known(after, order_id)
        assert (found.integration, found.registered) == (account, True)
    (order,) = (await before.scan()).orders
    assert order.registered, "each process has a dispatch of its own"


async def test_routing_that_changed_since_it_was_sent_is_a_persons(market: Market) -> None:
    """Edited at noon: who was sent to before is known, and after.

    One sent in between may have gone either way.
    """
    a, b = await market.integration(None, kod="A"), await market.integration(None, kod="B")
    package = new_id()
    await market.route(None, package, a)
    orders = market.orders()
    now = (await orders.scan()).now
    between = await market.shop.add(package_id=package, sent_at=now - 1)
    column = '"primaryProviderId"' if market.is_shop else "primary_provider_id"
    await market.shop.connection.execute(f"UPDATE package_routing SET {column} = $1", b)
    (order,) = (await market.orders().scan()).orders
    assert (order.id, order.integration, order.route) == (between, None, Route.SEVERAL)
    after = await market.shop.add(package_id=package, sent_at=now + 60)
    assert {o.id: o.integration for o in (await orders.scan()).orders} == {between: None, after: b}


async def test_a_clock_that_goes_back_leaves_no_later_order_to_a_person(market: Market) -> None:
    """The routing changed before that, at a time that is yet to come."""
    a = await market.integration(None, kod="A")
    package = new_id()
    await market.route(None, package, a)
    orders = market.orders()
    now = (await orders.scan()).now
    before = await market.shop.add(package_id=package, sent_at=now - 60)
    await market.shop.connection.execute(
        "UPDATE order_monitor_settings SET stored_at = clock_timestamp() + interval '10 h' "
        "WHERE name LIKE 'route %'"
    )
    assert [o.route for o in (await orders.scan()).orders] == [Route.SEVERAL]
    after = await market.shop.add(package_id=package, sent_at=now + 60)
    found = {o.id: o.integration for o in (await orders.scan()).orders}
    assert found == {before: None, after: a}, "which of two it was sent to is not known"


async def test_a_fallback_is_never_a_candidate_and_codes_come_after_accounts_outside(
    market: Market,
) -> None:
    a, b = await market.integration(None, kod="A"), await market.integration(None, kod="B")
    package = new_id()
    names = (
        ('"primaryProviderId"', '"fallbackProviderId"', '"providerType"')
        if market.is_shop
        else (
            "primary_provider_id",
            "fallback_provider_id",
            "provider_type",
        )
    )
    for primary, fallback, kind in (
        (a, b, "external"),
        ("__codes__", None, "codes"),
        (None, None, "manual"),
    ):
        await market.shop.connection.execute(
            f"INSERT INTO package_routing (package_id, {', '.join(names)}) VALUES ($1::uuid, $2, $3, $4)",
            *(package, primary, fallback, kind),
        )
    await market.shop.add(package_id=package)
    (order,) = (await market.orders().scan()).orders
    assert (order.integration, order.route) == (a, Route.ONE)


async def test_an_account_named_in_capitals_is_the_same(market: Market) -> None:
    a = await market.integration(None, kod="A")
    order_id = await market.shop.add(provider_id=a.upper())
    orders = market.orders()
    order = await known(orders, order_id)
    assert order.integration == a
    assert (await answered(orders, order, Completed(PIN), account=a)).fate is WriteStatus.WRITTEN


# --- through the running engine


@pytest.mark.parametrize("how", ["cancelled", "pin"])
async def test_an_order_moved_to_another_account_while_it_is_asked_about(
    market: Market, how: str
) -> None:
    """The shop fails over under the same reference: the old account's answer ends nothing."""
    a, b = await market.integration(None, kod="A"), await market.integration(None, kod="B")
    ids = [await market.shop.add(provider_id=a, sent_at=NOW - 1000) for _ in range(5)]
    column = '"providerId"' if market.is_shop else "provider_id"
    moving: asyncio.Task[Any] | None = None

    async def from_a() -> Any:
        nonlocal moving
        if moving is None:
            move = market.shop.connection.execute(f"UPDATE product_orders SET {column} = $1", b)
            moving = asyncio.create_task(move)
        # No answer comes before it: one could be written first.
        await moving
        return text("OK|3| |iptal" if how == "cancelled" else f"OK|2|AAAA-{uuid.uuid4().hex[:8]}|x")

    panels = Panels(
        market,
        lambda kod: from_a() if kod == "A" else text(f"OK|2|BBBB-{uuid.uuid4().hex[:8]}|tamam"),
    )
    await panels.engine.scan()
    async with running(panels) as drive:
        await drive.run(120, scan_every=10)
    rows = [await market.shop.row(i) for i in ids]
    assert {row["external_status"] for row in rows} == {"completed"}
    assert {str(row["pin_code"])[:4] for row in rows} == {"BBBB"}
    told = await events(market.shop)
    assert {(e["account"], e["outcome"]) for e in told if e["outcome"] != "processing"} == {
        (b, "completed")
    }
    kinds = {kind for _, kind in await reviews(market.shop)}
    assert kinds == ({"pin_for_other_dispatch"} if how == "pin" else set())
