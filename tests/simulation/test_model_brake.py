"""The model's brake matches PostgreSQL: both hold and release the same floods alike."""

import random
import uuid
from typing import Any

import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.brake import CANCELLED, FEW, FINE
from order_monitor.core.check_result import CheckResult
from order_monitor.core.pin import Pin
from tests.simulation.hands import ACCOUNTS, PACKAGES, Hand, by_order, made, order_of, told
from tests.support.shops import NOW, Shop

ORDERS = 70
HOLD = 3600.0
LATER = 9e9
"""Epoch seconds, later than PostgreSQL's current time."""


def _answers(chance: random.Random, order_id: str) -> Answer:
    if chance.random() < 0.6:
        return Cancelled("iptal")
    return (
        Completed(Pin(f"PIN-{order_id[-6:]}"), "") if chance.random() < 0.6 else Waiting("bekliyor")
    )


async def _record(hand: Hand, chance: random.Random, ids: list[str]) -> list[Any]:
    found = await hand.orders.reread(
        [order_of(i) for i in sorted(chance.sample(ids, chance.randint(1, 25)))]
    )
    findings = [
        CheckResult(o, _answers(chance, o.id), NOW + 500, NOW, 1, account=o.integration or "")
        for o in sorted(found)
    ]
    return told(await hand.orders.record(findings)) if findings else []


async def _step(hand: Hand, chance: random.Random, ids: list[str]) -> list[Any]:
    desk = hand.orders.brake
    match chance.choice(("record", "record", "record", "understood", "questions", "release")):
        case "record":
            return await _record(hand, chance, ids)
        case "understood":
            await desk.understood({chance.choice(ACCOUNTS): LATER})
            return []
        case "release":
            if chance.random() < 0.7:
                return []
            return sorted((await desk.release(chance.choice(ACCOUNTS), "Ayşe")).items())
    asked = []
    for question in await desk.questions():
        # The numbers within one statement may be in any order.
        asked.append(
            (
                question.login,
                len(question.controls),
                {c.account for c in question.controls} <= set(ACCOUNTS),
            )
        )
        await desk.answered(question.login, chance.choice((CANCELLED, FEW, FINE)))
    return asked


async def _stands(hand: Hand) -> list[Any]:
    marks = [
        (name, value if name == "key" or not name.startswith("brake") else "")
        for name, value in await hand.settings()
    ]
    said = [
        value.partition(" ")[2]
        for name, value in await hand.settings()
        if name.startswith("brake control")
    ]
    held = sorted(
        (one.order_id, one.account, one.is_released) for one in await hand.orders.brake.held()
    )
    return [
        held,
        marks,
        said,
        await hand.rows(),
        await hand.reviews(),
        await hand.dispatches(),
        by_order(await hand.events()),
    ]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
async def test_both_hold_and_let_through_the_same(plain_shop: Shop, seed: int) -> None:
    """Two of the accounts are one login, whose ends are counted together."""
    hands = await made(plain_shop, from_shop=True, brake_hold=HOLD)
    ids = [str(uuid.UUID(int=n)) for n in range(1, ORDERS + 1)]
    for n, order_id in enumerate(ids):
        for hand in hands:
            await hand.add(order_id, PACKAGES[n % 3], ACCOUNTS[n % 3])
    was_held = False
    for n in range(25):
        real, model = [await _step(hand, random.Random(f"{seed} {n}"), ids) for hand in hands]
        assert real == model, f"at step {n}"
        real, model = [await _stands(hand) for hand in hands]
        assert real == model, f"at step {n}"
        was_held = was_held or bool(real[0])
    assert was_held
