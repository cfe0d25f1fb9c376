"""PINs that were read while their orders' ends were held, on a real PostgreSQL."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.pin import Pin
from order_monitor.shop.accounts.pauses import EVERY_ACCOUNT, Pauses, ends_of
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import Reviews
from tests.support.events import prepared
from tests.support.orders import found
from tests.support.shops import NOW, Shop

PIN, OTHER, TEXT = Pin("AAAA-1111-BBBB"), Pin("CCCC-2222-DDDD"), Pin("yüklendi")
LOST = [("pin_for_ended", "the provider has sent a PIN for it, which was not written")]


async def pause(shop: Shop) -> None:
    async with shop.database().transaction() as connection:
        await Pauses("public").pause(connection, ends_of(EVERY_ACCOUNT), "x", "Ay", None)


async def resume(shop: Shop) -> None:
    async with shop.database().transaction() as connection:
        await Pauses("public").resume(connection, [ends_of(EVERY_ACCOUNT)])


async def answered(shop: Shop, orders: Orders, order_id: str, answer: Answer) -> WriteResult:
    (result,) = await orders.record([found(shop.order(order_id), answer)])
    return result


async def held(shop: Shop, orders: Orders, *pins: Pin, **values: Any) -> str:
    """Return an order for which these PINs were read while ends are held."""
    await pause(shop)
    order_id = await shop.add(**values)
    for pin in pins:
        result = await answered(shop, orders, order_id, Completed(pin, "tamam"))
        assert result.fate is WriteStatus.HELD
    return order_id


async def settle(shop: Shop, orders: Orders) -> None:
    """Do what a scan does from time to time, at once."""
    async with orders.schema_cache.transaction() as connection:
        await orders.row_writer.held_pins.settle_all(connection)


async def reviews(shop: Shop, order_id: str) -> list[tuple[str, str]]:
    """Return what a person is shown about an order."""
    listed = await shop.connection.fetch(
        "SELECT kind, detail FROM order_monitor_review WHERE order_id = $1::uuid AND closed_at IS NULL "
        "AND kind <> 'pin_held'",
        order_id,
    )
    return [tuple(row) for row in listed]


async def is_kept(shop: Shop) -> bool:
    sql = "SELECT count(*) FROM order_monitor_review WHERE kind = 'pin_held' AND closed_at IS NULL"
    return bool(await shop.connection.fetchval(sql))


async def by_person(shop: Shop, orders: Orders, order_id: str, answer: Answer) -> None:
    (result,) = await orders.record([replace(found(shop.order(order_id), answer), by_person=True)])
    assert result.fate is WriteStatus.WRITTEN


async def test_what_is_held_is_no_matter_for_a_person_and_shows_no_code(shop: Shop) -> None:
    orders = await prepared(shop)
    order_id = await held(shop, orders, PIN, PIN)
    await settle(shop, orders)
    scan = await orders.scan()
    assert (scan.reviews, list(scan.oldest_reviews)) == (0, [])
    rows = await shop.connection.fetch("SELECT * FROM order_monitor_review")
    assert [(row["kind"], str(row["order_id"]), row["closed_at"]) for row in rows] == [
        ("pin_held", order_id, None)
    ]
    assert "AAAA" not in str(rows)


async def test_once_it_is_written_nothing_is_kept(shop: Shop) -> None:
    orders = await prepared(shop)
    order_id = await held(shop, orders, PIN)
    await resume(shop)
    assert (await answered(shop, orders, order_id, Completed(PIN))).fate is WriteStatus.WRITTEN
    await settle(shop, orders)
    assert (await is_kept(shop), await reviews(shop, order_id)) == (False, [])


@pytest.mark.parametrize("read", [PIN, TEXT], ids=["code", "text"])
async def test_an_end_without_it_makes_it_a_matter_for_a_person(shop: Shop, read: Pin) -> None:
    orders = await prepared(shop)
    failed, deleted, by_shop = [await held(shop, orders, read) for _ in range(3)]
    await by_person(shop, orders, failed, Cancelled("iade"))
    await shop.connection.execute("DELETE FROM product_orders WHERE id = $1::uuid", deleted)
    await shop.set(by_shop, external_status="failed")
    await orders.scan()
    for order_id in (failed, deleted, by_shop):
        assert await reviews(shop, order_id) == LOST
    await settle(shop, orders)
    assert not await is_kept(shop)
    assert await reviews(shop, failed) == LOST, "once"


async def test_a_person_closes_what_is_for_a_person_and_not_a_pin_that_is_kept(
    shop: Shop,
) -> None:
    orders = await prepared(shop)
    order_id = await held(shop, orders, PIN)
    matters, table = Reviews("public"), orders.row_writer.table
    async with orders.schema_cache.transaction() as connection:
        await matters.note(connection, table, order_id, "order_late", "default")
        closed = await matters.close(connection, table, [order_id], "Ay", "looked")
    assert (closed, await is_kept(shop), await reviews(shop, order_id)) == (1, True, [])


async def test_so_does_the_shops_own_word_that_an_order_is_over(shop: Shop) -> None:
    """It is open by its other status, but is not asked about any more."""
    orders = await prepared(shop, settled=("rejected", "approved"))
    refunded, given = await held(shop, orders, PIN), await held(shop, orders, OTHER)
    await shop.connection.execute(
        "UPDATE product_orders SET status = 'Rejected' WHERE id = $1::uuid", refunded
    )
    await shop.connection.execute(
        "UPDATE product_orders SET status = 'approved' WHERE id = $1::uuid", given
    )
    await shop.set(given, pin_code=OTHER.reveal())
    await orders.scan()
    assert await reviews(shop, refunded) == LOST
    assert (await reviews(shop, given), await is_kept(shop)) == ([], False)


@pytest.mark.parametrize("read", [PIN, TEXT], ids=["code", "text"])
async def test_a_person_or_the_shop_may_have_given_it(shop: Shop, read: Pin) -> None:
    orders = await prepared(shop)
    by_hand, by_shop = await held(shop, orders, read), await held(shop, orders, OTHER)
    await by_person(shop, orders, by_hand, Completed(read, "tamam"))
    await shop.set(by_shop, external_status="completed", pin_code=OTHER.reveal())
    await settle(shop, orders)
    assert (await reviews(shop, by_hand), await reviews(shop, by_shop)) == ([], [])
    assert not await is_kept(shop)


async def test_a_shop_that_moves_pins_away_has_given_it_too(shop: Shop) -> None:
    orders = await prepared(shop)
    order_id = await held(shop, orders, PIN)
    await by_person(shop, orders, order_id, Completed(PIN, "tamam"))
    await shop.set(order_id, pin_code=None)
    await settle(shop, orders)
    assert await reviews(shop, order_id) == []


@pytest.mark.parametrize("given", [PIN, OTHER], ids=["first", "second"])
async def test_each_of_several_pins_counts(shop: Shop, given: Pin) -> None:
    orders = await prepared(shop)
    order_id = await held(shop, orders, PIN, OTHER)
    await by_person(shop, orders, order_id, Completed(given, "tamam"))
    await settle(shop, orders)
    assert await reviews(shop, order_id) == LOST


async def test_all_are_settled_however_many_there_are(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("order_monitor.shop.writing.held_pins.AT_A_TIME", 2)
    orders = await prepared(shop)
    ids = [await held(shop, orders, PIN) for _ in range(5)]
    await by_person(shop, orders, ids[-1], Cancelled("iade"))
    await settle(shop, orders)
    assert await reviews(shop, ids[-1]) == LOST


async def test_one_sent_again_has_the_pin_of_another_dispatch(shop: Shop) -> None:
    """At the next scan, or before the next PIN is kept."""
    orders = await prepared(shop)
    order_id, other = await held(shop, orders, PIN), await held(shop, orders, PIN)
    for one in (order_id, other):
        await shop.set(one, provider_referans=f"again-{one}")
    again = shop.order(other, reference=f"again-{other}")
    await orders.reread([again])
    await orders.record([found(again, Completed(OTHER))])
    kind = str(StuckReason.PIN_FOR_OTHER_DISPATCH)
    assert [k for k, _ in await reviews(shop, other)] == [kind]
    await settle(shop, orders)
    assert [k for k, _ in await reviews(shop, order_id)] == [kind]
    assert await is_kept(shop), "that of the new dispatch"


async def test_age_fails_no_order_whose_pin_was_read(shop: Shop) -> None:
    orders = await prepared(shop, rules=replace(shop.table_config.rules, give_up_after=60.0))
    order_id = await held(shop, orders, PIN)
    await resume(shop)
    finding = CheckResult(shop.order(order_id), Waiting("bekliyor"), NOW + 10_000)
    (result,) = await orders.record([finding])
    assert (result.fate, result.stuck) == (WriteStatus.STUCK, StuckReason.FAILED_WITH_PIN)


REFUSES = """
    CREATE FUNCTION shop_refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$;
    CREATE TRIGGER shop_refuses BEFORE UPDATE ON product_orders FOR EACH ROW
    WHEN (NEW.{} IS NOT NULL) EXECUTE FUNCTION shop_refuses()
"""


@pytest.mark.parametrize(
    ("does", "kind"),
    [
        ("RAISE EXCEPTION 'no PIN here';", "rejected_by_database"),
        ("NEW.{} := NULL; RETURN NEW;", "changed_by_trigger"),
    ],
)
async def test_nor_one_whose_pin_the_database_refuses(shop: Shop, does: str, kind: str) -> None:
    orders = await prepared(shop, rules=replace(shop.table_config.rules, give_up_after=60.0))
    pin = f'"{shop.spelling.name("pin_code")}"'
    await shop.connection.execute(REFUSES.format(does.format(pin), pin))
    aged, failed, written, given = [await shop.add() for _ in range(4)]
    for order_id in (aged, failed, written, given):
        result = await answered(shop, orders, order_id, Completed(PIN, "tamam"))
        assert (result.fate, result.stuck) == (WriteStatus.STUCK, kind)
    (result,) = await orders.record([CheckResult(shop.order(aged), Waiting("x"), NOW + 10_000)])
    assert (result.fate, result.stuck) == (WriteStatus.STUCK, StuckReason.FAILED_WITH_PIN)
    await by_person(shop, orders, failed, Cancelled("iade"))
    await shop.connection.execute("DROP TRIGGER shop_refuses ON product_orders")
    await by_person(shop, orders, given, Completed(OTHER))
    assert (await answered(shop, orders, written, Completed(PIN))).fate is WriteStatus.WRITTEN
    await settle(shop, orders)
    assert set(await reviews(shop, failed)) > set(LOST), "however its review is closed"
    assert set(LOST) <= set(await reviews(shop, given)), "another PIN is not the one that was read"
    assert await reviews(shop, written) == []


async def twins(shop: Shop, orders: Orders) -> list[str]:
    """Return two orders that were sent under one reference, for which a PIN was read."""
    ids = [await shop.add(reference="one", noted=False) for _ in range(2)]
    await orders.reread([shop.order(order_id, reference="one") for order_id in ids])
    finding = found(shop.order(ids[0], reference="one"), Completed(PIN))
    (result,) = await orders.record([finding])
    assert (result.fate, result.stuck) == (WriteStatus.STUCK, StuckReason.REFERENCE_TWICE)
    return ids


async def test_nor_is_one_lost_that_may_be_of_either_of_two_orders(shop: Shop) -> None:
    orders = await prepared(shop)
    for order_id in (ids := await twins(shop, orders)):
        finding = found(shop.order(order_id, reference="one"), Cancelled("iade"))
        await orders.record([replace(finding, by_person=True)])
    await settle(shop, orders)
    assert await reviews(shop, ids[0]) == LOST


async def test_it_is_not_if_the_other_has_it(shop: Shop) -> None:
    orders = await prepared(shop)
    first, second = await twins(shop, orders)
    for order_id, answer in ((second, Completed(PIN)), (first, Cancelled("iade"))):
        finding = found(shop.order(order_id, reference="one"), answer)
        await orders.record([replace(finding, by_person=True)])
    await settle(shop, orders)
    assert (await reviews(shop, first), await is_kept(shop)) == ([], False)


async def test_so_does_one_that_was_read_before_its_dispatch_was_recorded(shop: Shop) -> None:
    orders = await prepared(shop)
    order_id = await shop.add()
    await shop.connection.execute("DELETE FROM order_monitor_dispatches")
    result = await answered(shop, orders, order_id, Completed(PIN))
    assert (result.fate, result.review) == (WriteStatus.RESENT, None)
    await by_person(shop, orders, order_id, Cancelled("iade"))
    await settle(shop, orders)
    assert await reviews(shop, order_id) == LOST


async def test_a_code_is_an_order_s_by_its_row_or_by_a_claim(shop: Shop) -> None:
    orders = await prepared(shop)
    claimed, typed, none = [await shop.add() for _ in range(3)]
    await answered(shop, orders, claimed, Completed(PIN))
    await shop.set(claimed, pin_code=None)
    await shop.set(typed, external_status="completed", pin_code=f"  {OTHER.reveal()}")
    for order_id, pin, is_its in (
        (claimed, PIN, True),
        (claimed, OTHER, False),
        (typed, OTHER, True),
        (typed, PIN, False),
        (none, PIN, False),
        (none, TEXT, True),
        (str(uuid.uuid4()), PIN, False),
    ):
        assert await orders.has_code(order_id, pin) is is_its
