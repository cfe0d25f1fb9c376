"""PINs that come late, PINs that came before for somebody else, and PINs of two lines: on the
shop's real tables.
"""

import uuid
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import structlog

from order_monitor.core.answer import Cancelled, Completed, Garbled, Waiting
from order_monitor.core.check_result import CheckResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.errors import ShopMisfitError
from order_monitor.core.pin import Pin
from order_monitor.shop.accounts.pauses import EVERY_ACCOUNT, Pauses, ends_of
from order_monitor.shop.reading.history import read_order_history
from order_monitor.shop.repository import Orders
from tests.support.clocks import Drive
from tests.support.engines import Bench, text
from tests.support.events import events, prepared
from tests.support.orders import found, reviews
from tests.support.shops import NOW, Shop

PACKAGE = str(uuid.uuid4())
PIN = Pin("AAAA-1111-BBBB")
AWAITING: dict[str, Any] = {"await_pin": 900.0}


async def carrying(shop: Shop, orders: Orders, package: str | None = PACKAGE) -> str:
    """Let an order of the package end with a PIN, so that the next ones are expected to have one."""
    order_id = await shop.add(package_id=package)
    await orders.record([found(shop.order(order_id), Completed(Pin(uuid.uuid4().hex), "tamam"))])
    return order_id


async def ended_without(
    shop: Shop, orders: Orders, package: str | None = PACKAGE, *, pin: str | None = None
) -> str:
    order_id = await shop.add(package_id=package, pin=pin)
    await orders.record([found(shop.order(order_id), Completed(None, "onaylandı"))])
    return order_id


async def age(shop: Shop, order_id: str, seconds: float) -> None:
    await shop.connection.execute(
        "UPDATE order_monitor_events SET decided_at = decided_at - make_interval(secs => $2) WHERE order_id = $1::uuid",
        order_id,
        seconds,
    )


async def late(shop: Shop, orders: Orders, order_id: str, pin: str = "LATE-1") -> CheckResult:
    (order,) = [o for o in (await orders.scan()).awaiting if o.id == order_id]
    return CheckResult(order, Completed(Pin(pin), f"yüklendi {pin}"), NOW, NOW, 4)


async def test_a_pin_of_two_lines_is_stored_as_two_lines(shop: Shop) -> None:
    order_id = await shop.add()
    orders = await prepared(shop)
    pin = Pin("AAA-111\nBBB-222")
    await orders.record([found(shop.order(order_id), Completed(pin, "AAA-111 BBB-222 yüklendi"))])
    assert (await shop.row(order_id))["pin_code"] == "AAA-111\nBBB-222"
    (event,) = await events(shop)
    assert (event["has_pin"], event["message"]) == (True, "**** yüklendi")


async def test_what_ended_without_its_pin_is_asked_on_for_it(shop: Shop) -> None:
    orders = await prepared(shop, **AWAITING)
    await carrying(shop, orders)
    order_id = await ended_without(shop, orders)
    direct = await ended_without(shop, orders, str(uuid.uuid4()))
    scan = await orders.scan()
    assert [o.id for o in scan.awaiting] == [order_id], (
        f"{direct} is of a package that never had one"
    )
    assert scan.orders == []
    (order,) = scan.awaiting
    assert order.status == "completed"
    assert order.ended_at is not None
    assert abs(order.ended_at - scan.now) < 60


async def test_without_packages_it_goes_by_the_account(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop, **AWAITING)
    await carrying(plain_shop, orders, None)
    order_id = await ended_without(plain_shop, orders, None)
    assert [o.id for o in (await orders.scan()).awaiting] == [order_id]


@pytest.mark.parametrize(
    "change", ["off", "refunded", "pin", "deleted", "by a person", "failed", "too old"]
)
async def test_nothing_else_is_asked_on_for(plain_shop: Shop, change: str) -> None:
    shop = plain_shop
    orders = await prepared(shop, await_pin=0.0 if change == "off" else 900.0)
    await carrying(shop, orders)
    order_id = await ended_without(shop, orders)
    match change:
        case "refunded":
            await shop.set(order_id, external_status="refunded")
        case "pin":
            await shop.set(order_id, pin_code="by hand")
        case "deleted":
            await shop.connection.execute(
                "DELETE FROM product_orders WHERE id = $1::uuid", order_id
            )
        case "by a person":
            await shop.connection.execute("UPDATE order_monitor_events SET source = 'person'")
        case "failed":
            await shop.connection.execute(
                "UPDATE order_monitor_events SET outcome = 'failed' WHERE order_id = $1::uuid",
                order_id,
            )
        case "too old":
            await age(shop, order_id, 2 * 86_400)
    assert (await orders.scan()).awaiting == []


async def test_a_late_pin_goes_in_with_an_event_that_moves_no_money(shop: Shop) -> None:
    orders = await prepared(shop, **AWAITING)
    await carrying(shop, orders)
    order_id = await ended_without(shop, orders)
    before = await shop.row(order_id)
    (result,) = await orders.record([await late(shop, orders, order_id)])
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, True)
    after = await shop.row(order_id)
    assert after == {**before, "pin_code": "LATE-1"}, "nothing but the PIN"
    *_, event = await events(shop)
    told = {
        name: event[name]
        for name in (
            "from_status",
            "to_status",
            "outcome",
            "has_pin",
            "repeat",
            "checks",
            "message",
        )
    }
    assert told == {
        "from_status": "completed",
        "to_status": "completed",
        "outcome": "completed",
        "has_pin": True,
        "repeat": True,
        "checks": 4,
        "message": "yüklendi ****",
    }
    assert (await orders.scan()).awaiting == []


async def test_what_an_older_version_ended_without_its_pin_gets_it_too(shop: Shop) -> None:
    """Nothing is noted of how it was sent, or not any more."""
    orders = await prepared(shop, **AWAITING)
    await carrying(shop, orders)
    order_id = await ended_without(shop, orders)
    await shop.connection.execute("DELETE FROM order_monitor_dispatches")
    (result,) = await orders.record([await late(shop, orders, order_id)])
    assert (result.fate, (await shop.row(order_id))["pin_code"]) == (WriteStatus.WRITTEN, "LATE-1")


async def test_a_pin_for_what_somebody_ended_and_nothing_is_noted_of_is_a_persons(
    shop: Shop,
) -> None:
    orders = await prepared(shop)
    order_id = await shop.add("completed", noted=False)
    (result,) = await orders.record([found(shop.order(order_id), Completed(PIN))])
    assert (result.fate, result.review) == (WriteStatus.RESENT, StuckReason.PIN_FOR_ENDED)


@pytest.mark.parametrize(
    "mark", ["-", "Yok.", "&nbsp;", "<br>", "PİN  YOK", "(yok)", "—", "\u00a0", "\u200b"]
)
async def test_a_pin_goes_in_where_any_mark_of_nothing_stands(plain_shop: Shop, mark: str) -> None:
    """In the database's eyes they are not all the same, in those of the program they are."""
    shop, orders = plain_shop, await prepared(plain_shop, **AWAITING)
    await carrying(shop, orders)
    late_one, by_shop = await ended_without(shop, orders, pin=mark), await shop.add(pin=mark)
    (event,) = await shop.connection.fetch(
        "SELECT has_pin FROM order_monitor_events WHERE order_id = $1::uuid", late_one
    )
    assert not event["has_pin"]
    await shop.set(by_shop, external_status="completed")
    finding = found(shop.order(by_shop), Completed(Pin("CODE-77")))
    results = await orders.record([await late(shop, orders, late_one), finding])
    assert [result.fate for result in results] == [WriteStatus.WRITTEN] * 2
    assert [(await shop.row(i))["pin_code"] for i in (late_one, by_shop)] == ["LATE-1", "CODE-77"]


@pytest.mark.parametrize("status", ["completed", "delivered"])
async def test_a_pin_for_an_order_that_somebody_else_ended_moves_no_money(
    shop: Shop, status: str
) -> None:
    """The shop has moved it by its own end, of which there is no event: none tells that this one
    repeats it.
    """
    order_id = await shop.add()
    orders = await prepared(shop)
    order = shop.order(order_id)
    await shop.set(order_id, external_status=status)
    (result,) = await orders.record([found(order, Completed(PIN, "tamam"))])
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, True)
    (event,) = await events(shop)
    assert (event["outcome"], event["has_pin"], event["repeat"]) == ("completed", True, True)
    assert (await shop.row(order_id))["pin_code"] == PIN.reveal()


async def test_a_pin_for_what_a_person_ended_without_one_is_for_people(plain_shop: Shop) -> None:
    """That person may have given the customer the code by telephone."""
    shop, orders = plain_shop, await prepared(plain_shop)
    order_id = await shop.add()
    asked = found(shop.order(order_id), Completed(PIN))
    by_hand = replace(found(shop.order(order_id), Completed(None)), by_person=True)
    assert (await orders.record([by_hand]))[0].fate is WriteStatus.WRITTEN
    (result,) = await orders.record([asked])
    assert (result.fate, result.review) == (WriteStatus.GONE, StuckReason.PIN_FOR_ENDED)
    assert (await shop.row(order_id))["pin_code"] is None


async def test_a_pin_for_what_has_ended_goes_in_though_a_person_holds_the_ends(
    plain_shop: Shop,
) -> None:
    """It is no end; a person's own word is not held either."""
    shop, orders = plain_shop, await prepared(plain_shop, **AWAITING)
    await carrying(shop, orders)
    late_one, by_shop, by_person = (
        await ended_without(shop, orders),
        await shop.add(),
        await shop.add(),
    )
    findings = [
        await late(shop, orders, late_one),
        found(shop.order(by_shop), Completed(Pin("CODE-77"))),
        replace(found(shop.order(by_person), Cancelled("iptal")), by_person=True),
        found(shop.order(await shop.add()), Completed(Pin("CODE-88"))),
    ]
    await shop.set(by_shop, external_status="completed")
    async with shop.database().transaction() as connection:
        await Pauses("public").pause(connection, ends_of(EVERY_ACCOUNT), "x", "Ay", None)
    fates = {r.finding.order.id: r.fate for r in await orders.record(findings)}
    assert [fates[f.order.id] for f in findings] == [WriteStatus.WRITTEN] * 3 + [WriteStatus.HELD]


async def test_a_late_pin_moves_no_money_though_the_event_of_its_end_is_gone(shop: Shop) -> None:
    """Events are removed in time, and by restores.

    An end of another dispatch tells nothing either.
    """
    orders = await prepared(shop, **AWAITING)
    await carrying(shop, orders)
    order_id = await ended_without(shop, orders)
    finding = await late(shop, orders, order_id)
    await shop.connection.execute(
        "DELETE FROM order_monitor_events WHERE order_id = $1::uuid", order_id
    )
    (result,) = await orders.record([finding])
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, True)
    event = (await events(shop))[-1]
    assert (str(event["order_id"]), event["has_pin"], event["repeat"]) == (order_id, True, True)


async def test_a_late_pin_goes_in_only_where_the_order_stands_as_it_ended(plain_shop: Shop) -> None:
    """Two that wait at different statuses are locked together: each goes by its own."""
    a, b = await plain_shop.add("completed"), await plain_shop.add("delivered")
    orders = await prepared(plain_shop)
    findings = [
        found(plain_shop.order(i, status=status, ended_at=NOW), Completed(Pin(f"LATE-{i}")))
        for i, status in ((a, "delivered"), (b, "delivered"))
    ]
    assert {r.finding.order.id: r.fate for r in await orders.record(findings)} == {
        a: WriteStatus.GONE,
        b: WriteStatus.WRITTEN,
    }
    assert [(await plain_shop.row(i))["pin_code"] for i in (a, b)] == [None, f"LATE-{b}"]


async def test_a_late_pin_never_replaces_one(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop, **AWAITING)
    await carrying(plain_shop, orders)
    order_id = await ended_without(plain_shop, orders)
    finding = await late(plain_shop, orders, order_id)
    await plain_shop.set(order_id, pin_code="by hand")
    (result,) = await orders.record([finding])
    assert result.fate is WriteStatus.GONE
    assert (await plain_shop.row(order_id))["pin_code"] == "by hand"


@pytest.mark.parametrize(
    "answer",
    [Cancelled("iptal"), Waiting("bekliyor"), Completed(None, "x"), Garbled("unknown_state")],
)
async def test_no_other_answer_changes_what_has_ended(plain_shop: Shop, answer: Any) -> None:
    orders = await prepared(plain_shop, **AWAITING)
    await carrying(plain_shop, orders)
    order_id = await ended_without(plain_shop, orders)
    before = await plain_shop.row(order_id)
    finding = replace(
        await late(plain_shop, orders, order_id), answer=answer, seen_at=NOW + 10 * 86_400
    )
    (result,) = await orders.record([finding])
    assert result.fate is WriteStatus.UNCHANGED
    assert await plain_shop.row(order_id) == before
    assert len(await events(plain_shop)) == 2


async def test_a_late_pin_that_does_not_fit_is_for_a_person(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop, **AWAITING)
    await carrying(plain_shop, orders)
    order_id = await ended_without(plain_shop, orders)
    (result,) = await orders.record([await late(plain_shop, orders, order_id, "X" * 121)])
    assert result.stuck is StuckReason.PIN_TOO_WIDE


async def test_a_late_pin_whose_commit_was_not_heard_of_is_known_as_ours(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop, **AWAITING)
    await carrying(plain_shop, orders)
    order_id = await ended_without(plain_shop, orders)
    finding = await late(plain_shop, orders, order_id)
    await orders.record([finding])
    (result,) = await orders.record([finding])
    assert result.fate is WriteStatus.WRITTEN
    assert len(await events(plain_shop)) == 3


async def moved_to_a_vault(shop: Shop) -> None:
    """Let the shop move each PIN out of its column at once (``database.pins = "elsewhere"``)."""
    pin = f'"{shop.spelling.name("pin_code")}"'
    await shop.connection.execute(
        "CREATE TABLE vault (id uuid, pin text); "
        f"CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.{pin} IS NOT NULL THEN "
        f"INSERT INTO vault VALUES (NEW.id, NEW.{pin}); NEW.{pin} = NULL; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER move BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION move()"
    )


async def vault(shop: Shop, order_id: str) -> list[str]:
    rows = await shop.connection.fetch("SELECT pin FROM vault WHERE id = $1::uuid", order_id)
    return [row["pin"] for row in rows]


@pytest.mark.parametrize("wait", [0, 901], ids=["in time", "overdue"])
async def test_a_pin_is_awaited_where_the_shop_moves_pins_away(shop: Shop, wait: float) -> None:
    """By the rows, no package ever had one; and once it came, its row still has none."""
    await moved_to_a_vault(shop)
    orders = await prepared(shop, pins_elsewhere=True, **AWAITING)
    await carrying(shop, orders)
    order_id = await ended_without(shop, orders)
    await age(shop, order_id, wait)
    assert [o.id for o in (await orders.scan()).awaiting] == ([] if wait else [order_id])
    assert await reviews(shop) == ({(order_id, "pin_missing")} if wait else set())


async def test_a_late_pin_that_the_shop_moved_away_is_not_asked_for_again(shop: Shop) -> None:
    await moved_to_a_vault(shop)
    orders = await prepared(shop, pins_elsewhere=True, **AWAITING)
    await carrying(shop, orders)
    order_id = await ended_without(shop, orders)
    finding = await late(shop, orders, order_id)
    other = replace(finding, answer=Completed(Pin("LATE-1")))
    assert [(await orders.record([f]))[0].fate for f in (finding, finding, other)] == [
        WriteStatus.WRITTEN,
        WriteStatus.WRITTEN,
        WriteStatus.GONE,
    ]
    assert await vault(shop, order_id) == ["LATE-1"]
    assert (await orders.scan()).awaiting == []
    await age(shop, order_id, 901)
    await orders.scan()
    assert await reviews(shop) == set()


@pytest.mark.parametrize(
    ("pin", "fate"),
    [("CODE-7777", None), ("CODE-8888", "pin_for_ended")],
    ids=["the same", "another"],
)
async def test_an_end_whose_pin_the_shop_moved_away_is_written_once(
    shop: Shop, pin: str, fate: str | None
) -> None:
    """Its commit was not heard of; and another process had asked at the same time."""
    await moved_to_a_vault(shop)
    orders = await prepared(shop, pins_elsewhere=True)
    order_id = await shop.add()
    ours = found(shop.order(order_id), Completed(Pin("CODE-7777")))
    theirs = found(shop.order(order_id), Completed(Pin(pin)))
    assert [(await orders.record([f]))[0].fate for f in (ours, ours, theirs)] == [
        WriteStatus.WRITTEN,
        WriteStatus.WRITTEN,
        WriteStatus.GONE,
    ]
    assert await vault(shop, order_id) == ["CODE-7777"]
    assert len(await events(shop)) == 1
    history = await read_order_history(shop.database(), orders, order_id)
    assert history is not None
    assert history.has_pin, "so that a person does not give it another by mistake"
    assert await reviews(shop) == ({(order_id, fate)} if fate else set())


async def test_a_row_that_somebody_holds_is_tried_again(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop, **AWAITING)
    await carrying(plain_shop, orders)
    order_id = await ended_without(plain_shop, orders)
    finding = await late(plain_shop, orders, order_id)
    async with plain_shop.connection.transaction():
        await plain_shop.connection.execute(
            "SELECT 1 FROM product_orders WHERE id = $1::uuid FOR UPDATE", order_id
        )
        (result,) = await orders.record([finding])
    assert result.fate is WriteStatus.LOCKED
    (result,) = await orders.record([finding])
    assert result.fate is WriteStatus.WRITTEN


async def test_a_pin_that_does_not_come_is_put_up_for_review_once(shop: Shop) -> None:
    orders = await prepared(shop, **AWAITING)
    await carrying(shop, orders)
    order_id = await ended_without(shop, orders)
    await age(shop, order_id, 901)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert (await orders.scan()).awaiting == []
        fresh = await prepared(shop, **AWAITING)
        await fresh.scan()
    assert [line["order_id"] for line in logs if line["event"] == "order.pin_missing"] == [order_id]
    reviews = await shop.connection.fetch(
        "SELECT order_id::text AS id, kind FROM order_monitor_review"
    )
    assert [(r["id"], r["kind"]) for r in reviews] == [(order_id, "pin_missing")]


async def test_after_a_restart_it_is_waited_for_all_the_same(plain_shop: Shop) -> None:
    first = await prepared(plain_shop, **AWAITING)
    await carrying(plain_shop, first)
    order_id = await ended_without(plain_shop, first)
    again = plain_shop.orders(**AWAITING)
    assert [o.id for o in (await again.scan()).awaiting] == [order_id]


async def test_the_way_of_an_order_whose_pin_comes_late(plain_shop: Shop) -> None:
    """Through the running engine: the end at once, the PIN when it is there, and no call after
    that.
    """
    shop = plain_shop
    await carrying(shop, await prepared(shop))
    order_id = await shop.add(package_id=PACKAGE, sent_at=NOW - 100)
    arrives = 240.0
    bench = Bench(
        shop,
        lambda _: text(
            "OK|2|LATE-1|yüklendi" if bench.clock.elapsed >= arrives else "OK|2| |onaylandı"
        ),
        table_config=AWAITING,
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(20, scan_every=10)
        assert await bench.status(order_id) == "completed"
        assert (await shop.row(order_id))["pin_code"] is None
        await drive.run(1500, scan_every=10)
    assert (await shop.row(order_id))["pin_code"] == "LATE-1"
    assert len(bench.calls) <= 4
    assert bench.engine.state.ends == Counter(completed=1)
    assert len(bench.engine.queue) == 0


async def test_what_awaits_its_pin_under_another_reference_by_now_is_not_asked_without_end(
    plain_shop: Shop,
) -> None:
    """The shop has given it another reference; the next scan reads which."""
    shop = plain_shop
    await carrying(shop, await prepared(shop))
    order_id = await shop.add(package_id=PACKAGE, sent_at=NOW - 100)
    panel: list[str] = ["OK|2| |onaylandı"]
    bench = Bench(shop, lambda _: text(panel[0]), table_config=AWAITING, calls_per_second=10.0)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(20, scan_every=10)
        assert await bench.status(order_id) == "completed"
        bench.calls.clear()
        panel[0] = "OK|2|LATE-1|yüklendi"
        (entry,) = bench.engine.queue
        await drive.run(entry.due - bench.engine.now() - 1)
        await shop.set(order_id, provider_referans="4711")
        await drive.run(5)
        assert len(bench.calls) == 1
        await drive.run(1500, scan_every=10)
    assert (await shop.row(order_id))["pin_code"] == "LATE-1"


async def test_what_awaits_its_pin_is_neither_overdue_nor_failed(plain_shop: Shop) -> None:
    shop = plain_shop
    orders = await prepared(shop)
    await carrying(shop, orders)
    order_id = await shop.add(package_id=PACKAGE, sent_at=NOW - 90_000)
    await orders.record([found(shop.order(order_id, sent_at=NOW - 90_000), Completed(None, "x"))])
    bench = Bench(
        shop, lambda _: text("OK|1| |bekliyor"), table_config=AWAITING, give_up_blind=True
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(1500, scan_every=10)
        assert not any(bench.engine.context.is_past_deadline(entry) for entry in bench.engine.queue)
    assert await bench.status(order_id) == "completed"
    assert len(await events(shop)) == 2


class TestOnePinTwoOrders:
    """A cached or crossed answer gives order B the PIN of order A."""

    async def test_the_second_order_is_kept_open(self, shop: Shop) -> None:
        a, b = await shop.add(), await shop.add()
        orders = await prepared(shop)
        first, second = [
            (await orders.record([found(shop.order(i), Completed(PIN))]))[0] for i in (a, b)
        ]
        assert (first.fate, second.fate) == (WriteStatus.WRITTEN, WriteStatus.STUCK)
        assert second.stuck is StuckReason.PIN_DUPLICATE
        assert second.detail == f"order {a} has the same"
        assert (await shop.row(b))["external_status"] == "sent"
        assert (await shop.row(b))["pin_code"] is None
        kinds = await shop.connection.fetch(
            "SELECT order_id::text AS id, kind FROM order_monitor_review"
        )
        assert [(r["id"], r["kind"]) for r in kinds] == [(b, "pin_duplicate")]

    async def test_within_one_batch_too(self, plain_shop: Shop) -> None:
        ids = [await plain_shop.add() for _ in range(5)]
        orders = await prepared(plain_shop)
        results = await orders.record([found(plain_shop.order(i), Completed(PIN)) for i in ids])
        assert Counter(r.fate for r in results) == Counter(
            {WriteStatus.WRITTEN: 1, WriteStatus.STUCK: 4}
        )

    async def test_after_a_restart_too(self, plain_shop: Shop) -> None:
        a, b = await plain_shop.add(), await plain_shop.add()
        await (await prepared(plain_shop)).record([found(plain_shop.order(a), Completed(PIN))])
        fresh = plain_shop.orders()
        await fresh.scan()
        (result,) = await fresh.record([found(plain_shop.order(b), Completed(PIN))])
        assert result.stuck is StuckReason.PIN_DUPLICATE

    async def test_another_process_gave_it_out(self, plain_shop: Shop) -> None:
        a, b = await plain_shop.add(), await plain_shop.add()
        one, other = await prepared(plain_shop), plain_shop.orders()
        await other.scan()
        await one.record([found(plain_shop.order(a), Completed(PIN))])
        await other.scan()
        (result,) = await other.record([found(plain_shop.order(b), Completed(PIN))])
        assert result.stuck is StuckReason.PIN_DUPLICATE

    async def test_ones_own_repeat_is_none(self, plain_shop: Shop) -> None:
        order_id = await plain_shop.add()
        orders = await prepared(plain_shop)
        await orders.record([found(plain_shop.order(order_id), Completed(PIN))])
        await plain_shop.set(order_id, external_status="sent", pin_code=None)
        (result,) = await orders.record([found(plain_shop.order(order_id), Completed(PIN))])
        assert result.fate is WriteStatus.WRITTEN

    async def test_another_account_may_sell_the_same(self, plain_shop: Shop) -> None:
        ids = [await plain_shop.add() for _ in range(2)]
        orders = await prepared(plain_shop)
        for order_id, account in zip(ids, ("x", "y"), strict=True):
            order = plain_shop.order(order_id, integration=account)
            await plain_shop.note(order_id, account)
            assert (await orders.record([found(order, Completed(PIN), account=account)]))[
                0
            ].fate is WriteStatus.WRITTEN

    async def test_a_refused_write_leaves_no_claim(self, plain_shop: Shop) -> None:
        """A's row is refused, so A has not got the PIN; B, whose it is, gets it."""
        a, b = await plain_shop.add(), await plain_shop.add()
        orders = await prepared(plain_shop)
        await plain_shop.connection.execute(
            f"ALTER TABLE product_orders ADD CHECK (id <> '{a}' OR external_status <> 'completed')"
        )
        (first,) = await orders.record([found(plain_shop.order(a), Completed(PIN))])
        (second,) = await orders.record([found(plain_shop.order(b), Completed(PIN))])
        assert (first.stuck, second.fate) == (StuckReason.REJECTED_BY_DATABASE, WriteStatus.WRITTEN)

    async def test_a_shop_that_sells_one_code_many_times_says_so(self, plain_shop: Shop) -> None:
        ids = [await plain_shop.add() for _ in range(3)]
        orders = await prepared(plain_shop, unique_pins=False)
        results = await orders.record([found(plain_shop.order(i), Completed(PIN)) for i in ids])
        assert {r.fate for r in results} == {WriteStatus.WRITTEN}

    async def test_a_late_pin_of_somebody_else_does_not_go_in(self, plain_shop: Shop) -> None:
        orders = await prepared(plain_shop, **AWAITING)
        a = await plain_shop.add(package_id=PACKAGE)
        await orders.record([found(plain_shop.order(a), Completed(Pin("LATE-1")))])
        order_id = await ended_without(plain_shop, orders)
        (result,) = await orders.record([await late(plain_shop, orders, order_id)])
        assert result.stuck is StuckReason.PIN_DUPLICATE

    async def test_it_ends_by_itself_when_the_right_one_comes(self, plain_shop: Shop) -> None:
        a, b = await plain_shop.add(sent_at=NOW - 100), await plain_shop.add(sent_at=NOW - 101)
        await prepared(plain_shop)
        bench = Bench(
            plain_shop,
            lambda r: text(
                "OK|2|RIGHT-1|x"
                if r == f"r-{b[:8]}" and bench.clock.elapsed > 100
                else "OK|2|CACHED-1|x"
            ),
        )
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(60, scan_every=10)
            assert list(bench.engine.state.stuck.values()) == ["pin_duplicate"]
            await drive.run(1200, scan_every=10)
        pins = {(await plain_shop.row(i))["pin_code"] for i in (a, b)}
        assert pins in ({"CACHED-1", "RIGHT-1"}, {"CACHED-1", None}), "never one code twice"


class TestOutcome:
    """An event says what happened, not only the shop's word for it."""

    @pytest.mark.parametrize("trigger", [False, True])
    async def test_it_is_ours_whatever_the_shop_calls_it(self, shop: Shop, trigger: bool) -> None:  # noqa: FBT001
        status = f'"{shop.spelling.name("external_status")}"'
        if trigger:
            await shop.connection.execute(
                f"CREATE FUNCTION reword() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.{status} = 'completed' THEN "
                f"NEW.{status} := 'delivered'; END IF; RETURN NEW; END $$; CREATE TRIGGER reword BEFORE UPDATE ON product_orders "
                "FOR EACH ROW EXECUTE FUNCTION reword()"
            )
        rules = (
            shop.table_config.rules
            if trigger
            else replace(shop.table_config.rules, completed="done", failed="rejected")
        )
        orders = await prepared(shop, rules=rules)
        a, b, c = [await shop.add() for _ in range(3)]
        await orders.record(
            [found(shop.order(a), Completed(PIN)), found(shop.order(b), Cancelled("iptal"))]
        )
        await orders.record([found(shop.order(c), Waiting("x"))])
        told = {str(r["order_id"]): (r["to_status"], r["outcome"]) for r in await events(shop)}
        assert told == {
            a: ("delivered" if trigger else "done", "completed"),
            b: ("failed" if trigger else "rejected", "failed"),
            c: ("processing", "processing"),
        }

    async def test_a_repeat_goes_by_it(self, plain_shop: Shop) -> None:
        """The first end was stored as 'delivered', the second as 'completed': one end all the same."""
        order_id = await plain_shop.add()
        orders = await prepared(plain_shop)
        await orders.record([found(plain_shop.order(order_id), Completed(PIN))])
        await plain_shop.connection.execute(
            "UPDATE order_monitor_events SET to_status = 'delivered'"
        )
        await plain_shop.set(order_id, external_status="sent")
        (result,) = await orders.record([found(plain_shop.order(order_id), Completed(PIN))])
        assert result.repeat

    @pytest.mark.parametrize(
        ("to_status", "has_pin", "outcome"),
        [
            ("completed", True, "completed"),
            ("delivered", False, "completed"),
            ("failed", False, "failed"),
            ("cancelled", False, "failed"),
            ("processing", False, "processing"),
            ("sent", False, "reopened"),
            ("verildi", True, "completed"),
            ("verildi", False, None),
        ],
    )
    async def test_events_of_older_versions_are_filled_in(
        self,
        plain_shop: Shop,
        to_status: str,
        has_pin: bool,  # noqa: FBT001 - a parameter of the table above
        outcome: str | None,
    ) -> None:
        await prepared(plain_shop)
        await plain_shop.connection.execute("ALTER TABLE order_monitor_events DROP COLUMN outcome")
        await plain_shop.connection.execute(
            "INSERT INTO order_monitor_events (order_id, to_status, has_pin) VALUES ($1, $2, $3)",
            uuid.uuid4(),
            to_status,
            has_pin,
        )
        await prepared(plain_shop)
        (event,) = await events(plain_shop)
        assert event["outcome"] == outcome

    async def test_an_older_event_with_a_word_that_nothing_means_is_no_end(
        self, plain_shop: Shop
    ) -> None:
        orders = await prepared(plain_shop)
        order_id = await plain_shop.add()
        await plain_shop.connection.execute(
            "INSERT INTO order_monitor_events (order_id, to_status, has_pin) VALUES ($1, 'verildi', false)",
            uuid.UUID(order_id),
        )
        (result,) = await orders.record([found(plain_shop.order(order_id), Completed(PIN))])
        assert not result.repeat

    async def test_what_older_versions_gave_out_within_the_time_claims_are_kept_is_claimed(
        self, plain_shop: Shop
    ) -> None:
        orders = await prepared(plain_shop)
        told = {"given lately": (True, 89), "given long ago": (True, 91), "not given": (False, 1)}
        ids = {}
        for what, (has_pin, days) in told.items():
            ids[what] = await plain_shop.add("completed", pin=f"PIN-{days}")
            await plain_shop.connection.execute(
                "INSERT INTO order_monitor_events (order_id, to_status, has_pin, decided_at) "
                "VALUES ($1, 'completed', $2, now() - make_interval(days => $3))",
                uuid.UUID(ids[what]),
                has_pin,
                days,
            )
        assert await orders.reader.claims.fill() == 1
        claimed = "SELECT order_id::text FROM order_monitor_pins"
        assert await plain_shop.connection.fetchval(claimed) == ids["given lately"]

    async def test_before_migrate_adds_it_nothing_is_read_and_nothing_ends(
        self, shop: Shop
    ) -> None:
        orders = await prepared(shop)
        order_id = await shop.add()
        await shop.connection.execute("ALTER TABLE order_monitor_events DROP COLUMN uid")
        orders = shop.orders(**AWAITING)
        with pytest.raises(ShopMisfitError, match="run: order-monitor migrate"):
            await orders.scan()
        with pytest.raises(ShopMisfitError, match="run: order-monitor migrate"):
            await orders.record([found(shop.order(order_id), Completed(PIN))])
        assert (await shop.row(order_id))["external_status"] == "sent"
        await prepared(shop)
        assert [o.id for o in (await orders.scan()).orders] == [order_id], (
            "it goes on where it is there"
        )
