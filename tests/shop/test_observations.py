"""The table of observations, on a real PostgreSQL, in both spellings of the shop's table."""

from typing import Any

import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed, Garbled, Waiting
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.pin import Pin
from order_monitor.shop.reading.comparison import Compared, Verdict, read_comparison
from order_monitor.shop.repository import Orders
from tests.support.market import Market, market
from tests.support.observing import counts, end, stands
from tests.support.orders import found
from tests.support.processes import Panel, once, panel, sent, settings
from tests.support.roles import role_of
from tests.support.shops import NOW, SHOP, Shop, least_rights

__all__ = ["market", "panel"]

DAY = 86_400.0


@pytest.fixture
async def observing(shop: Shop) -> Orders:
    orders = shop.orders(observes=True)
    await orders.prepare()
    return orders


async def record(
    shop: Shop, orders: Orders, order_id: str, answer: Answer, age: float = 130.5, **changes: Any
) -> WriteStatus:
    order = shop.order(order_id, **changes)
    (result,) = await orders.observations.record([found(order, answer, age=age)], {})
    return result.fate


async def row(shop: Shop) -> dict[str, Any]:
    (found,) = await shop.connection.fetch("SELECT * FROM order_monitor_observed")
    return dict(found)


async def compare(shop: Shop, orders: Orders) -> Compared:
    (one,) = await read_comparison(shop.database(), orders, 1e9)
    return one


async def test_one_row_a_dispatch_and_what_is_over_stays(shop: Shop, observing: Orders) -> None:
    order_id = await shop.add()
    table = await stands(shop)
    assert await record(shop, observing, order_id, Waiting("x"), 10.0) is WriteStatus.UNCHANGED
    kept = await row(shop)
    assert (kept["answer"], kept["status"], kept["outcome"]) == ("waiting", "processing", None)
    assert (kept["done_at"], kept["checks"]) == (None, 1)
    assert await record(shop, observing, order_id, Completed(Pin("P1-2"))) is WriteStatus.OBSERVED
    assert await record(shop, observing, order_id, Cancelled("x"), 500.0) is WriteStatus.OBSERVED
    kept = await row(shop)
    assert (kept["answer"], kept["status"], kept["cause"]) == ("completed", "completed", "answer")
    assert (kept["account"], kept["reference"]) == ("default", f"r-{order_id[:8]}")
    assert (kept["checks"], kept["has_pin"], len(kept["digest"])) == (2, True, 16)
    times = [kept[name].timestamp() - NOW for name in ("sent_at", "first_asked_at", "done_at")]
    assert times == pytest.approx([-100, -90, 30.5])
    assert await stands(shop) == table
    assert not any((await counts(shop)).values())


async def test_an_order_past_its_limit_would_be_failed_by_it(shop: Shop, observing: Orders) -> None:
    order_id = await shop.add(sent_at=NOW - 100)
    fate = await record(shop, observing, order_id, Waiting("x"), DAY + 1)
    kept = await row(shop)
    assert (fate, kept["outcome"], kept["cause"]) == (WriteStatus.OBSERVED, "failed", "time_limit")


async def test_what_a_person_would_have_to_decide_is_no_end(shop: Shop, observing: Orders) -> None:
    order_id = await shop.add(pin="OLD-1")
    assert await record(shop, observing, order_id, Cancelled("x")) is WriteStatus.STUCK
    assert await record(shop, observing, order_id, Garbled("two_answers")) is WriteStatus.STUCK
    kept = await row(shop)
    assert (kept["why"], kept["outcome"], kept["done_at"]) == ("two_answers", None, None)
    assert not any((await counts(shop)).values())


async def test_an_answer_holds_for_its_own_dispatch(shop: Shop, observing: Orders) -> None:
    order_id = await shop.add()
    fate = await record(shop, observing, order_id, Cancelled("x"), reference="another")
    assert fate is WriteStatus.RESENT
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_observed") == 0
    await shop.connection.execute("DELETE FROM product_orders")
    assert await record(shop, observing, order_id, Cancelled("x")) is WriteStatus.GONE


async def test_what_ends_between_the_question_and_the_writing(
    shop: Shop, observing: Orders
) -> None:
    order_id = await shop.add()
    await end(shop, order_id, "completed", 20.0, "P1-2")
    table = await stands(shop)
    assert await record(shop, observing, order_id, Completed(Pin("P1-2"))) is WriteStatus.OBSERVED
    one = await compare(shop, observing)
    assert (one.verdict, one.were_they_first) == (Verdict.SAME, shop.spelling is SHOP)
    assert one.lead == pytest.approx(-10.5 if shop.spelling is SHOP else 0.0)
    assert await stands(shop) == table


@pytest.mark.parametrize(
    ("answer", "status", "pin", "verdict", "why"),
    [
        (Completed(Pin("P-1")), "done", " P-1\r\n", Verdict.SAME, ""),
        (Completed(Pin("P-1")), "completed", "P-2", Verdict.DIFFERENT, "pin"),
        (Completed(Pin("P-1")), "completed", "yok", Verdict.DIFFERENT, "pin_only_ours"),
        (Completed(None), "completed", "P-2", Verdict.DIFFERENT, "pin_only_theirs"),
        (Completed(None), "delivered", None, Verdict.SAME, ""),
        (Completed(None), "failed", None, Verdict.DIFFERENT, "outcome"),
        (Cancelled("x"), "rejected", None, Verdict.SAME, ""),
        (Cancelled("x"), "completed", "P-2", Verdict.DIFFERENT, "outcome"),
        (Cancelled("x"), "sent", None, Verdict.NOT_COMPARABLE, "not_ended_by_them"),
        (Cancelled("x"), "forwarded", None, Verdict.NOT_COMPARABLE, "not_ended_by_them"),
        (Waiting("x"), "sent", None, Verdict.NOT_COMPARABLE, "open_for_both"),
        (Waiting("x"), "failed", None, Verdict.NOT_COMPARABLE, "not_asked_again_yet"),
    ],
)
async def test_verdicts(
    plain_shop: Shop, answer: Answer, status: str, pin: str | None, verdict: Verdict, why: str
) -> None:
    orders = plain_shop.orders(observes=True)
    await orders.prepare()
    order_id = await plain_shop.add()
    await record(plain_shop, orders, order_id, answer)
    await plain_shop.set(order_id, external_status=status, pin_code=pin)
    one = await compare(plain_shop, orders)
    assert (one.verdict, one.why) == (verdict, why)


async def test_sent_anew_or_deleted_is_not_compared(plain_shop: Shop) -> None:
    orders = plain_shop.orders(observes=True)
    await orders.prepare()
    order_id = await plain_shop.add()
    await record(plain_shop, orders, order_id, Cancelled("x"))
    await plain_shop.set(order_id, external_status="failed", provider_referans="another")
    assert (await compare(plain_shop, orders)).why == "sent_anew"
    await plain_shop.connection.execute("DELETE FROM product_orders")
    assert (await compare(plain_shop, orders)).why == "deleted"


async def test_what_ended_within_a_day_is_asked_about_once(shop: Shop, observing: Orders) -> None:
    new = await shop.add("completed", sent_at=NOW - 3600, noted=False)
    old = await shop.add("completed", sent_at=NOW - 3 * DAY, noted=False)
    others = [
        await shop.add("completed", sent_at=NOW - 60, reference=" ", noted=False),
        await shop.add("not_sent", sent_at=NOW - 60, noted=False),
        await shop.add("forwarded", sent_at=NOW - 60, noted=False),
        await shop.add("sent", sent_at=NOW - 60, noted=False),
    ]
    table = await stands(shop)
    (one,) = await observing.observations.ended_elsewhere(NOW)
    assert (one.order.id, one.order.registered, one.was_asked) == (new, True, False)
    assert await stands(shop) == table
    await record(shop, observing, new, Completed(None), status="completed", sent_at=NOW - 3600)
    assert await observing.observations.ended_elsewhere(NOW) == []
    if shop.spelling is SHOP:
        await end(shop, old, "completed", -3600.0)
        (one,) = await observing.observations.ended_elsewhere(NOW)
        assert (one.order.id, one.ended_at) == (old, NOW - 3600), "by when it ended, where that is"
    assert others


async def test_an_order_failed_by_age_is_found_by_its_observation(
    plain_shop: Shop,
) -> None:
    """Its own row does not say when: it was sent longer ago than that."""
    orders = plain_shop.orders(observes=True)
    await orders.prepare()
    order_id = await plain_shop.add(sent_at=NOW - DAY - 600)
    await record(plain_shop, orders, order_id, Waiting("x"), DAY - 600, sent_at=NOW - DAY - 600)
    await plain_shop.set(order_id, external_status="failed")
    (one,) = await orders.observations.ended_elsewhere(NOW)
    assert (one.order.id, one.was_asked) == (order_id, True)


async def test_another_tenants_account_is_part_of_the_dispatch(market: Market) -> None:
    shop = market.shop
    account = await market.integration(None)
    orders = shop.orders(accounts_from_shop=True, observes=True)
    order_id = await shop.add("completed", sent_at=NOW - 60, provider_id=account, noted=False)
    await orders.complete()
    (one,) = await orders.observations.ended_elsewhere(NOW)
    assert (one.order.id, one.order.integration) == (order_id, account)
    (result,) = await orders.observations.record(
        [found(one.order, Completed(None), account=account)], {order_id: None}
    )
    assert result.fate is WriteStatus.OBSERVED
    assert (await row(shop))["account"] == account
    await shop.set(order_id, external_status="sent")
    reference = f"r-{order_id[:8]}"
    assert await orders.observations.done() == {(order_id, reference, account)}


async def test_no_right_to_write_the_orders_is_needed(
    shop: Shop, panel: Panel, tmp_path: Any
) -> None:
    """A trial may be run by a role that cannot write them at all."""
    await sent(shop, 3, noted=False)
    rights = f"GRANT SELECT ON product_orders TO {{role}}; {least_rights('{role}')};"
    async with role_of(shop, rights) as (_, dsn):
        for observe in (True, False):
            config = settings(dsn, panel.server.url, schedule={"observe": observe})
            code, summary, err = await once(tmp_path, config)
            assert (code, summary.get("observed")) == ((0, 3) if observe else (1, None)), err


async def test_they_are_pruned_like_the_others(plain_shop: Shop) -> None:
    orders = plain_shop.orders(observes=True)
    await orders.prepare()
    kept, gone = await plain_shop.add(), await plain_shop.add("completed")
    for order_id in (kept, gone):
        await record(plain_shop, orders, order_id, Cancelled("x"))
    assert await orders.prune() == 0
    await plain_shop.connection.execute(
        "UPDATE order_monitor_observed SET noted_at = now() - interval '91 days'"
    )
    assert await orders.prune() == 1
    assert str((await row(plain_shop))["order_id"]) == kept
