"""What a statement stored is read back before it is committed: a trigger, a rule or a view may have
made something else of it.
"""

import uuid

import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.pin import Pin
from order_monitor.shop.repository import Orders
from tests.support.orders import found, prepared
from tests.support.shops import Shop
from tests.support.writing import write_all

PIN = "PIN-CANARY-1001"
ODD = "PIN-CANARY-2002"

FUNCTION = """
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF NEW.{status} IN ('completed', 'failed') AND NEW.{referans} = 'odd' AND pg_trigger_depth() = 1 THEN
  {what};
END IF; RETURN NULL; END $$;
"""
AFTER = "CREATE TRIGGER t AFTER UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION f()"
DEFERRED = (
    "CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON product_orders DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION f()"
)


async def plant(shop: Shop, what: str, trigger: str = AFTER) -> None:
    names = {
        key: f'"{shop.spelling.name(key)}"'
        for key in ("external_status", "pin_code", "provider_referans")
    }
    words = {
        "status": names["external_status"],
        "pin": names["pin_code"],
        "referans": names["provider_referans"],
    }
    body = f"UPDATE product_orders SET {what.format(**words)} WHERE id = NEW.id"
    await shop.connection.execute(FUNCTION.format(what=body, **words) + trigger)


async def both(shop: Shop, orders: Orders) -> tuple[str, str, dict[str, WriteResult]]:
    """Two orders end in one batch, and the trigger meets one of them."""
    plain, odd = await shop.add(), await shop.add(reference="odd")
    findings = [
        found(shop.order(plain), Completed(Pin(PIN))),
        found(shop.order(odd, reference="odd"), Completed(Pin(ODD))),
    ]
    results = {r.finding.order.id: r for r in await write_all(orders, findings)}
    assert results[plain].fate is WriteStatus.WRITTEN, "its neighbour is written all the same"
    assert (await shop.row(plain))["pin_code"] == PIN
    return plain, odd, results


async def events(shop: Shop, order_id: str) -> list[tuple[str, bool]]:
    rows = await shop.connection.fetch(
        "SELECT to_status, has_pin FROM order_monitor_events WHERE order_id = $1 ORDER BY id",
        uuid.UUID(order_id),
    )
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("trigger", [AFTER, DEFERRED])
@pytest.mark.parametrize("what", ["{pin} = NULL", "{pin} = ''", "{pin} = '-'", "{status} = 'sent'"])
async def test_a_pin_that_is_gone_or_an_order_kept_open_is_rolled_back(
    shop: Shop, trigger: str, what: str
) -> None:
    await plant(shop, what, trigger)
    _, odd, results = await both(shop, await prepared(shop))
    assert (results[odd].fate, results[odd].stuck) == (
        WriteStatus.STUCK,
        StuckReason.CHANGED_BY_TRIGGER,
    )
    row = await shop.row(odd)
    assert (row["external_status"], row["pin_code"]) == ("sent", None)
    assert await events(shop, odd) == []
    claims = await shop.connection.fetchval(
        "SELECT count(*) FROM order_monitor_pins WHERE order_id = $1", uuid.UUID(odd)
    )
    assert claims == 0, "a refused write leaves no claim"
    review = await shop.connection.fetchval(
        "SELECT kind FROM order_monitor_review WHERE order_id = $1 AND closed_at IS NULL",
        uuid.UUID(odd),
    )
    assert review == StuckReason.CHANGED_BY_TRIGGER


@pytest.mark.parametrize("trigger", [AFTER, DEFERRED])
@pytest.mark.parametrize(
    ("what", "stored"),
    [
        ("{status} = 'delivered'", ("delivered", ODD)),
        ("{pin} = 'MASKED-' || {pin}", ("completed", f"MASKED-{ODD}")),
    ],
)
async def test_another_end_or_another_pin_is_committed_and_its_event_says_so(
    shop: Shop, trigger: str, what: str, stored: tuple[str, str]
) -> None:
    await plant(shop, what, trigger)
    _, odd, results = await both(shop, await prepared(shop))
    assert results[odd].fate is WriteStatus.WRITTEN
    assert results[odd].notice
    row = await shop.row(odd)
    assert (row["external_status"], row["pin_code"]) == stored
    assert await events(shop, odd) == [(stored[0], True)]


async def test_a_failure_that_a_trigger_gives_another_word_is_committed(shop: Shop) -> None:
    await plant(shop, "{status} = 'refunded'")
    odd = await shop.add(reference="odd")
    orders = await prepared(shop)
    (result,) = await write_all(
        orders, [found(shop.order(odd, reference="odd"), Cancelled("iptal"))]
    )
    assert result.fate is WriteStatus.WRITTEN
    assert await events(shop, odd) == [("refunded", False)]


@pytest.mark.parametrize(
    ("answer", "pin_too", "told"),
    [
        (Cancelled("iptal"), False, ("refunded", False)),
        (Completed(None), False, ("refunded", False)),
        (Completed(Pin(ODD)), False, ("refunded", True)),
        (Completed(Pin(ODD)), True, ("refunded", True)),
    ],
)
async def test_where_pins_go_elsewhere_an_event_tells_of_a_pin_only_where_one_was_given(
    plain_shop: Shop, answer: Answer, told: tuple[str, bool], *, pin_too: bool
) -> None:
    await plant(plain_shop, "{status} = 'refunded'" + (", {pin} = NULL" if pin_too else ""))
    odd = await plain_shop.add(reference="odd")
    orders = await prepared(plain_shop, pins_elsewhere=True)
    (result,) = await write_all(orders, [found(plain_shop.order(odd, reference="odd"), answer)])
    assert result.fate is WriteStatus.WRITTEN
    assert await events(plain_shop, odd) == [told]


async def test_a_pin_that_the_shop_moves_elsewhere_is_written(shop: Shop) -> None:
    await shop.connection.execute("CREATE TABLE vault (id uuid, pin text)")
    await plant(shop, "{pin} = NULL")
    pin = f'"{shop.spelling.name("pin_code")}"'
    await shop.connection.execute(
        f"CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.{pin} IS NOT NULL THEN "
        f"INSERT INTO vault VALUES (NEW.id, NEW.{pin}); END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER s BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION g()"
    )
    _, odd, results = await both(shop, await prepared(shop, pins_elsewhere=True))
    assert results[odd].fate is WriteStatus.WRITTEN
    assert await events(shop, odd) == [("completed", True)]
    assert (
        await shop.connection.fetchval("SELECT pin FROM vault WHERE id = $1", uuid.UUID(odd)) == ODD
    )


async def test_a_view_that_writes_no_pin_is_rolled_back(plain_shop: Shop) -> None:
    order_id = await plain_shop.add()
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders RENAME TO base; CREATE VIEW product_orders AS SELECT b.* FROM base b, (VALUES (1)) v; "
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE base SET external_status = NEW.external_status WHERE id = NEW.id; RETURN NEW; END $$; "
        "CREATE TRIGGER t INSTEAD OF UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION f()"
    )
    orders = await prepared(plain_shop)
    (result,) = await write_all(orders, [found(plain_shop.order(order_id), Completed(Pin(PIN)))])
    assert (result.fate, result.stuck) == (WriteStatus.STUCK, StuckReason.CHANGED_BY_TRIGGER)
    assert (await plain_shop.row(order_id))["external_status"] == "sent"


async def test_a_view_of_open_rows_only_is_written_and_check_warns_of_it(plain_shop: Shop) -> None:
    order_id = await plain_shop.add()
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders RENAME TO base; CREATE VIEW product_orders AS SELECT * FROM base "
        "WHERE external_status IN ('sent', 'pending', 'processing')"
    )
    orders = await prepared(plain_shop)
    (result,) = await write_all(orders, [found(plain_shop.order(order_id), Completed(Pin(PIN)))])
    assert result.fate is WriteStatus.WRITTEN
    assert "view" in result.notice
    row = await plain_shop.connection.fetchrow("SELECT external_status, pin_code FROM base")
    assert row is not None
    assert tuple(row) == ("completed", PIN)
    assert await events(plain_shop, order_id) == [("completed", True)]


@pytest.mark.parametrize(
    ("end", "is_closed"),
    [(Cancelled("iptal"), False), (Completed(None), False), (Completed(Pin("PIN-77")), True)],
)
async def test_only_an_end_with_a_pin_settles_what_is_open_about_one(
    shop: Shop, end: Cancelled | Completed, *, is_closed: bool
) -> None:
    """The PIN that did not fit was read, and would be nowhere: neither in the row nor on the list."""
    await shop.connection.execute(
        f'ALTER TABLE product_orders ALTER COLUMN "{shop.spelling.name("pin_code")}" TYPE varchar(20)'
    )
    order_id = await shop.add()
    orders = await prepared(shop)
    (wide,) = await write_all(orders, [found(shop.order(order_id), Completed(Pin("A1" * 20)))])
    assert wide.stuck is StuckReason.PIN_TOO_WIDE
    (result,) = await write_all(orders, [found(shop.order(order_id), end)])
    assert result.fate is WriteStatus.WRITTEN
    row = await shop.connection.fetchrow(
        "SELECT kind, closed_at IS NOT NULL FROM order_monitor_review"
    )
    assert row is not None
    assert tuple(row) == (StuckReason.PIN_TOO_WIDE, is_closed)
