"""What is kept in memory of one order, and whether a row read again is still the same."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from order_monitor.core.order import Order, ReferenceFrom, Route
from order_monitor.core.queue import OrderQueue
from order_monitor.core.tracked_order import NOTHING, Stage, TrackedOrder, id_of, key_of, pack

ROW = Order("x", "sent", 100.0, "1", "t", 90.0, "i", Route.OWN, "p", ended_at=200.0)


def tracked(order: Order = ROW) -> TrackedOrder:
    return OrderQueue().add(order, "a")


def test_a_row_read_again_unchanged_is_still_the_same() -> None:
    entry = tracked()
    assert entry.is_still(ROW, "a")
    assert entry.is_still(ROW._replace(last_sync_at=None, registered=True, odd_at=1.0), "a")


@pytest.mark.parametrize(
    "changed",
    [
        {"sent_at": 101.0},
        {"sent_at": None},
        {"reference": "2"},
        {"status": "processing"},
        {"tenant_id": "u"},
        {"integration": "j"},
        {"route": Route.ONE},
        {"package": "q"},
        {"reference_from": ReferenceFrom.EXTERNAL_ID},
        {"ended_at": 201.0},
        {"ended_at": None},
    ],
)
def test_any_change_that_matters_makes_it_another(changed: dict[str, Any]) -> None:
    assert not tracked().is_still(ROW._replace(**changed), "a")


def test_another_account_makes_it_another() -> None:
    assert not tracked().is_still(ROW, "b")


def test_what_is_noted_stays_beside_what_was_and_the_usual_costs_nothing() -> None:
    entry = tracked(ROW._replace(ended_at=None))
    entry.note(failures=2)
    entry.note(odd=3)
    assert (entry.rare.failures, entry.rare.odd, entry.is_odd) == (2, 3, True)
    kept = entry.rare
    entry.note(failures=2)
    assert entry.rare is kept
    entry.note(failures=0, odd=0)
    assert entry.rare is NOTHING


def test_each_step_is_another_turn_and_who_is_gone_stays_gone() -> None:
    entry = tracked()
    turns = set()
    for _ in range(256):
        entry.step(Stage.READY)
        turns.add(entry.turn)
    assert turns == set(range(256))
    entry.step(Stage.GONE)
    entry.step(Stage.SCHEDULED)
    assert entry.stage is Stage.GONE


REFERENCES = st.text() | st.from_regex(r"[0-9]{1,40}", fullmatch=True)


@given(REFERENCES)
@example("")
@example("0")
@example("007")
@example("1760885915220128")
@example("9" * 19)
@example("٣")
@example("1_000")
@example(" 12")
def test_a_reference_is_kept_to_the_letter(reference: str) -> None:
    queue = OrderQueue()
    entry = queue.add(Order("o", "sent", 0.0, reference), "a")
    assert entry.reference == entry.order.reference == reference
    entry.reference = reference
    assert entry.reference == reference
    assert entry.is_still(Order("o", "sent", 0.0, reference), "a")
    assert not entry.is_still(Order("o", "sent", 0.0, reference + "1"), "a")


def test_a_number_is_kept_as_one() -> None:
    assert pack("1760885915220128") == 1760885915220128
    assert pack("01760885915220128") == "01760885915220128"
    assert pack("9" * 18) == 999_999_999_999_999_999
    assert pack("9" * 19) == "9" * 19


def test_a_uuid_is_kept_as_a_number() -> None:
    assert key_of("00000000-0000-0000-0000-00000000000f") == 15


IDS = st.text() | st.uuids().map(str) | st.from_regex(r"[0-9a-fA-F-]{30,40}", fullmatch=True)


@given(IDS)
@example("00000000-0000-0000-0000-00000000000f")
@example("00000000-0000-0000-0000-00000000000F")
@example("0000000000000000000000000000000f")
@example("15")
@example("00000000-0000-0000-0000-0000000_0000")
def test_an_id_is_kept_to_the_letter(order_id: str) -> None:
    assert id_of(key_of(order_id)) == order_id
    queue = OrderQueue()
    entry = queue.add(Order(order_id, "sent", 0.0, "r"), "a")
    assert entry.id == entry.order.id == order_id
    assert queue.get(order_id) is entry
    queue.forget(order_id)
    assert queue.get(order_id) is None
