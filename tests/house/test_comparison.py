"""The comparison that every real fault ends with sees each way in which a row or its events can be
wrong.
"""

import uuid

import pytest

from order_monitor.core.answer import AboutOrder, Cancelled, Completed
from order_monitor.core.pin import Pin
from tests.faults.comparison import assert_all_right, compare
from tests.support.shops import Shop

A, B, C = (str(uuid.UUID(int=n)) for n in (1, 2, 3))
TRUTHS: dict[str, AboutOrder] = {A: Completed(Pin("PIN-A")), B: Completed(None), C: Cancelled()}
MORE = "INSERT INTO order_monitor_events (order_id, to_status, has_pin, outcome, repeat) VALUES"
TOLD = "INSERT INTO order_monitor_events (order_id, to_status, has_pin, outcome, repeat) VALUES ($1, $2, false, $2, $3)"


async def right(shop: Shop) -> None:
    for order_id, status, pin in (
        (A, "completed", "PIN-A"),
        (B, "completed", None),
        (C, "failed", None),
    ):
        await shop.add(status, pin=pin, order_id=order_id)
        await shop.connection.execute(TOLD, order_id, "processing", False)
        await shop.connection.execute(TOLD, order_id, status, False)
        await shop.connection.execute(TOLD, order_id, status, True)


async def test_what_is_right_passes(plain_shop: Shop) -> None:
    await right(plain_shop)
    verdict = await compare(plain_shop.connection, TRUTHS)
    assert_all_right(verdict, at_least=3)
    assert (verdict.rows, verdict.pins, verdict.ends) == (3, 1, {"completed": 2, "failed": 1})
    with pytest.raises(AssertionError, match="only 3 rows"):
        assert_all_right(verdict, at_least=4)


@pytest.mark.parametrize(
    "harm",
    [
        f"UPDATE product_orders SET pin_code = 'PIN-A ' WHERE id = '{A}'",
        f"UPDATE product_orders SET pin_code = NULL WHERE id = '{A}'",
        f"UPDATE product_orders SET pin_code = 'PIN-A' WHERE id = '{B}'",
        f"UPDATE product_orders SET external_status = 'failed' WHERE id = '{B}'",
        f"UPDATE product_orders SET external_status = 'processing' WHERE id = '{C}'",
        f"DELETE FROM product_orders WHERE id = '{C}'",
        "INSERT INTO product_orders (id) VALUES (gen_random_uuid())",
        f"DELETE FROM order_monitor_events WHERE order_id = '{A}' AND outcome = 'completed'",
        f"UPDATE order_monitor_events SET repeat = false WHERE order_id = '{A}'",
        f"UPDATE order_monitor_events SET outcome = 'failed' WHERE order_id = '{B}'",
        f"{MORE} ('{C}', 'completed', false, 'completed', false)",
        f"{MORE} (gen_random_uuid(), 'completed', false, 'completed', false)",
    ],
)
async def test_each_harm_is_seen(plain_shop: Shop, harm: str) -> None:
    await right(plain_shop)
    await plain_shop.connection.execute(harm)
    verdict = await compare(plain_shop.connection, TRUTHS)
    with pytest.raises(AssertionError, match="differ"):
        assert_all_right(verdict, at_least=1)
