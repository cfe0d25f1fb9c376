"""Cancellations that wait for a second answer, on a real PostgreSQL: the row decides, whoever asks."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed, Garbled, Refused, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.pin import Pin
from order_monitor.shop.repository import Orders
from tests.support.orders import kept
from tests.support.shops import Shop

CONFIRM = 120.0
IPTAL = Cancelled("iptal")


def confirming(shop: Shop) -> Orders:
    rules = replace(shop.table_config.rules, confirm_cancelled=CONFIRM, give_up_after=1e9)
    return shop.orders(rules=rules)


async def clock(shop: Shop) -> float:
    """The database's time, long after its orders were found."""
    return 1000.0 + float(
        await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    )


async def answered(
    orders: Orders, shop: Shop, order_id: str, answer: Answer, at: float, **more: Any
) -> WriteResult:
    (result,) = await orders.record([CheckResult(shop.order(order_id), answer, at, **more)])
    return result


def shown(rows: Sequence[tuple[str, bool, float]], began: float) -> list[tuple[bool, int]]:
    return [(is_open, round(since - began)) for _, is_open, since in rows]


async def test_a_second_answer_of_any_process_confirms_it_when_the_wait_is_over(shop: Shop) -> None:
    one, other, order_id = confirming(shop), confirming(shop), await shop.add()
    at = await clock(shop)
    first = await answered(one, shop, order_id, IPTAL, at)
    assert (first.fate, first.write, first.again_at) == (
        WriteStatus.UNCONFIRMED,
        None,
        at + CONFIRM,
    )
    early = await answered(other, shop, order_id, IPTAL, at + CONFIRM - 1)
    assert early.fate is WriteStatus.UNCONFIRMED
    assert early.again_at == pytest.approx(at + CONFIRM, abs=0.01), "it waits since the first one"
    assert shown(await kept(shop), at) == [(True, 0)]
    assert (await one.scan()).reviews == 0, "it is no matter for a person"
    assert [u.order_id for u in (await one.scan()).unconfirmed or ()] == [order_id]
    assert (await shop.row(order_id))["external_status"] == "sent"
    second = await answered(other, shop, order_id, IPTAL, at + CONFIRM + 0.01)
    assert second.fate is WriteStatus.WRITTEN
    assert (await shop.row(order_id))["external_status"] == "failed"
    assert shown(await kept(shop), at) == [(False, 0)]


@pytest.mark.parametrize(
    ("answer", "is_withdrawn"),
    [
        (Waiting("islemde"), True),
        (Completed(Pin("PIN-12345678"), "tamam"), True),
        (Garbled("unknown_state"), False),
        (Refused("-5", "hata"), False),
    ],
)
async def test_another_answer_that_is_understood_withdraws_it(
    shop: Shop, answer: Answer, *, is_withdrawn: bool
) -> None:
    one, other, order_id = confirming(shop), confirming(shop), await shop.add()
    at = await clock(shop)
    await answered(one, shop, order_id, IPTAL, at)
    await answered(other, shop, order_id, answer, at + 60)
    assert shown(await kept(shop), at) == [(not is_withdrawn, 0)]
    if isinstance(answer, Completed):
        return
    again = await answered(one, shop, order_id, IPTAL, at + CONFIRM)
    assert (again.fate is WriteStatus.UNCONFIRMED) is is_withdrawn
    if is_withdrawn:
        assert shown(await kept(shop), at) == [(False, 0), (True, CONFIRM)]
        last = await answered(other, shop, order_id, IPTAL, at + 2 * CONFIRM + 0.01)
        assert last.fate is WriteStatus.WRITTEN


async def test_what_its_own_process_was_answered_since_counts_though_it_was_not_written(
    shop: Shop,
) -> None:
    """A repeated "waiting" changes nothing in the row, so it is not written; then it is known only
    to the process that read it.
    """
    daemon, person, order_id = confirming(shop), confirming(shop), await shop.add()
    at = await clock(shop)
    await answered(person, shop, order_id, IPTAL, at)
    result = await answered(daemon, shop, order_id, IPTAL, at + CONFIRM, other_at=at + 5)
    assert result.fate is WriteStatus.UNCONFIRMED
    assert shown(await kept(shop), at) == [(False, 0), (True, CONFIRM)]
    later = at + 2 * CONFIRM + 0.01
    result = await answered(daemon, shop, order_id, IPTAL, later, other_at=at + 5)
    assert result.fate is WriteStatus.WRITTEN


async def test_one_of_the_previous_dispatch_confirms_nothing(shop: Shop) -> None:
    orders, order_id = confirming(shop), await shop.add()
    at = await clock(shop)
    await answered(orders, shop, order_id, IPTAL, at)
    await shop.set(order_id, provider_referans="r-anew")
    await shop.note(order_id)
    await shop.connection.execute(
        "UPDATE order_monitor_dispatches SET found_at = to_timestamp($1) WHERE reference = 'r-anew'",
        at + 60,
    )
    order = shop.order(order_id)._replace(reference="r-anew")
    (result,) = await orders.record([CheckResult(order, IPTAL, at + 500)])
    assert result.fate is WriteStatus.UNCONFIRMED
    assert shown(await kept(shop), at) == [(False, 0), (True, 500)]


async def test_one_from_the_future_confirms_nothing_and_waits_no_longer_than_the_wait(
    shop: Shop,
) -> None:
    """The database's clock has gone back by an hour since."""
    orders, order_id = confirming(shop), await shop.add()
    at = await clock(shop)
    await answered(orders, shop, order_id, IPTAL, at + 3600)
    result = await answered(orders, shop, order_id, IPTAL, at)
    assert (result.fate, result.again_at) == (WriteStatus.UNCONFIRMED, at + CONFIRM)
    result = await answered(orders, shop, order_id, IPTAL, at + CONFIRM + 0.01)
    assert result.fate is WriteStatus.WRITTEN


async def test_a_leap_of_the_databases_clock_confirms_nothing(shop: Shop) -> None:
    orders, order_id = confirming(shop), await shop.add()
    at = await clock(shop)
    await answered(orders, shop, order_id, IPTAL, at)
    result = await answered(orders, shop, order_id, IPTAL, at + 3600, waited=10.0)
    assert result.fate is WriteStatus.UNCONFIRMED
    assert result.again_at == pytest.approx(at + 3600 + CONFIRM - 10, abs=0.01)
    later = at + 3600 + CONFIRM
    result = await answered(orders, shop, order_id, IPTAL, later, waited=CONFIRM)
    assert result.fate is WriteStatus.WRITTEN


async def test_an_own_clock_that_is_a_little_slower_asks_no_third_time(shop: Shop) -> None:
    orders, order_id = confirming(shop), await shop.add()
    at = await clock(shop)
    await answered(orders, shop, order_id, IPTAL, at)
    result = await answered(orders, shop, order_id, IPTAL, at + CONFIRM + 0.01, waited=CONFIRM - 1)
    assert result.fate is WriteStatus.WRITTEN


@pytest.mark.parametrize("which", ["first", "second"])
async def test_one_that_was_written_late_counts_from_then(shop: Shop, which: str) -> None:
    """An outage delays the write; meanwhile another process reads and writes another answer."""
    daemon, person, order_id = confirming(shop), confirming(shop), await shop.add()
    at = await clock(shop)
    if which == "second":
        await answered(daemon, shop, order_id, IPTAL, at - CONFIRM)
    await answered(person, shop, order_id, Waiting("islemde"), at + 60)
    late = await answered(daemon, shop, order_id, IPTAL, at, since_read=lambda: 90.0)
    assert (late.fate, late.again_at) == (WriteStatus.UNCONFIRMED, at + 90 + CONFIRM)
    result = await answered(daemon, shop, order_id, IPTAL, at + CONFIRM + 0.01)
    assert result.fate is WriteStatus.UNCONFIRMED
    result = await answered(daemon, shop, order_id, IPTAL, at + 90 + CONFIRM + 0.01)
    assert result.fate is WriteStatus.WRITTEN


async def test_one_of_another_reference_confirms_nothing_when_the_first_comes_back(
    shop: Shop,
) -> None:
    orders, order_id = confirming(shop), await shop.add()
    at, before = await clock(shop), shop.order(order_id)
    await shop.set(order_id, provider_referans="r-b")
    await shop.note(order_id)
    (result,) = await orders.record([CheckResult(before._replace(reference="r-b"), IPTAL, at)])
    assert result.fate is WriteStatus.UNCONFIRMED
    await shop.set(order_id, provider_referans=before.reference)
    result = await answered(orders, shop, order_id, IPTAL, at + CONFIRM + 1)
    assert result.fate is WriteStatus.UNCONFIRMED
    assert shown(await kept(shop), at) == [(False, 0), (True, CONFIRM + 1)]


async def test_a_dispatch_found_while_the_clock_was_ahead_is_confirmed_as_any(shop: Shop) -> None:
    orders, order_id = confirming(shop), await shop.add()
    at = await clock(shop)
    await shop.set(order_id, provider_referans="r-b")
    await shop.note(order_id)
    await shop.connection.execute(
        "UPDATE order_monitor_dispatches SET found_at = to_timestamp($1) WHERE reference = 'r-b'",
        at + 7 * 86_400,
    )
    order = shop.order(order_id)._replace(reference="r-b")
    for seconds, fate in ((0.0, WriteStatus.UNCONFIRMED), (CONFIRM + 0.01, WriteStatus.WRITTEN)):
        (result,) = await orders.record([CheckResult(order, IPTAL, at + seconds)])
        assert result.fate is fate


async def test_one_before_the_order_was_sent_again_confirms_nothing(shop: Shop) -> None:
    """Under the same reference, with another time."""
    orders, order_id = confirming(shop), await shop.add()
    at = await clock(shop)
    await answered(orders, shop, order_id, IPTAL, at)
    sent_at = at + 100
    await shop.set(order_id, sent_at=datetime.fromtimestamp(sent_at, UTC))
    await shop.connection.execute("UPDATE order_monitor_dispatches SET touched = 1")
    order = shop.order(order_id)._replace(sent_at=sent_at)
    (result,) = await orders.record([CheckResult(order, IPTAL, sent_at + 500)])
    assert result.fate is WriteStatus.UNCONFIRMED


async def test_an_observed_order_that_was_sent_again_is_read_again(shop: Shop) -> None:
    order_id = await shop.add()
    shop.table_config = replace(shop.table_config, observes=True)
    at, asked = await clock(shop), shop.order(order_id)
    await shop.set(order_id, provider_referans="r-anew")
    confirm = {order_id: at + CONFIRM}
    (result,) = await shop.orders().observations.record(
        [CheckResult(asked, IPTAL, at)], {}, 1.0, confirm
    )
    assert result.fate is WriteStatus.RESENT


async def test_the_same_answer_written_twice_is_one_answer(shop: Shop) -> None:
    """As after a commit whose outcome is unknown."""
    orders, order_id = confirming(shop), await shop.add()
    at = await clock(shop)
    for _ in range(2):
        assert (await answered(orders, shop, order_id, IPTAL, at)).fate is WriteStatus.UNCONFIRMED
    assert shown(await kept(shop), at) == [(True, 0)]


async def test_many_of_one_batch_wait_and_are_confirmed_together(shop: Shop) -> None:
    orders = confirming(shop)
    ids = [await shop.add() for _ in range(60)]
    at = await clock(shop)
    for seconds, fate in ((0.0, WriteStatus.UNCONFIRMED), (CONFIRM + 0.01, WriteStatus.WRITTEN)):
        batch = [CheckResult(shop.order(i), IPTAL, at + seconds) for i in ids]
        assert {result.fate for result in await orders.record(batch)} == {fate}
    assert {is_open for _, is_open, _ in await kept(shop)} == {False}


async def test_what_would_be_stuck_is_shown_to_a_person_only_when_it_is_confirmed(
    shop: Shop,
) -> None:
    """A row that holds a PIN is never failed."""
    orders, order_id = confirming(shop), await shop.add(pin_code="PIN-12345678")
    at = await clock(shop)
    assert (await answered(orders, shop, order_id, IPTAL, at)).fate is WriteStatus.UNCONFIRMED
    assert (await orders.scan()).reviews == 0
    result = await answered(orders, shop, order_id, IPTAL, at + CONFIRM + 0.01)
    assert (result.fate, result.stuck) == (WriteStatus.STUCK, StuckReason.FAILED_WITH_PIN)
    assert shown(await kept(shop), at) == [(True, 0)], "the next answer is confirmed too"


async def test_what_a_person_decides_needs_no_second_answer(shop: Shop) -> None:
    orders, order_id = confirming(shop), await shop.add()
    at = await clock(shop)
    await answered(orders, shop, order_id, IPTAL, at)
    result = await answered(orders, shop, order_id, IPTAL, at + 1, by_person=True)
    assert result.fate is WriteStatus.WRITTEN
    assert shown(await kept(shop), at) == [(False, 0)]


async def test_without_a_wait_the_first_is_believed(shop: Shop) -> None:
    orders, order_id = shop.orders(), await shop.add()
    result = await answered(orders, shop, order_id, IPTAL, await clock(shop))
    assert result.fate is WriteStatus.WRITTEN
    assert await kept(shop) == []


async def test_the_rows_of_orders_that_others_ended_are_closed(shop: Shop) -> None:
    orders, waiting, gone = confirming(shop), await shop.add(), await shop.add()
    at = await clock(shop)
    for order_id in (waiting, gone):
        await answered(orders, shop, order_id, IPTAL, at)
    await shop.set(gone, external_status="completed")
    found = (await confirming(shop).scan()).unconfirmed or ()
    assert [(one.order_id, round(one.since - at)) for one in found] == [(waiting, 0)]
    assert sorted((i, is_open) for i, is_open, _ in await kept(shop)) == sorted(
        [(waiting, True), (gone, False)]
    )
