"""Which answers are not believed at once, and what is remembered of them."""

import pytest
from structlog.testing import capture_logs

from order_monitor.core.answer import Answer, Cancelled, Completed, Garbled, Unreachable, Waiting
from order_monitor.core.order import Order
from order_monitor.core.queue import OrderQueue
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.watch.cancellations import UnconfirmedCancellations
from tests.shops import NOW

CONFIRM = 120.0


def entry(order_id: str = "x") -> TrackedOrder:
    return OrderQueue().add(Order(order_id, "sent", NOW, "1"), "a")


def test_a_cancellation_is_believed_when_it_is_read_again_after_the_time() -> None:
    doubts, one = UnconfirmedCancellations(CONFIRM), entry()
    with capture_logs() as logs:
        assert doubts.ask_again_at(one, Cancelled("iptal"), NOW) == NOW + CONFIRM
    assert logs == [
        {
            "event": "order.cancel_unconfirmed",
            "log_level": "info",
            "order_id": "x",
            "again_in": CONFIRM,
        }
    ]
    assert (doubts.open, one.rare.cancelled_at) == ({"x": "a"}, NOW)
    assert doubts.changes() == ({"x": "a"}, set())
    assert doubts.ask_again_at(one, Cancelled("iptal"), NOW + CONFIRM - 0.1) == NOW + CONFIRM
    assert doubts.open == {"x": "a"}
    assert doubts.changes() == ({}, set()), "it still waits since the first one"
    assert doubts.ask_again_at(one, Cancelled("iptal"), NOW + CONFIRM) is None
    assert (doubts.open, doubts.changes()) == ({}, ({}, {"x"}))
    assert doubts.changes() == ({}, set()), "told once"


@pytest.mark.parametrize(
    "answer", [Waiting("w"), Completed(None), Garbled("unknown_state"), Unreachable("timeout")]
)
def test_any_other_answer_withdraws_a_cancellation(answer: Answer) -> None:
    doubts, one = UnconfirmedCancellations(CONFIRM), entry()
    doubts.ask_again_at(one, Cancelled("iptal"), NOW)
    with capture_logs() as logs:
        assert doubts.ask_again_at(one, answer, NOW + 60) is None
    assert logs == [
        {
            "event": "order.cancel_withdrawn",
            "log_level": "warning",
            "order_id": "x",
            "outcome": answer.outcome,
        }
    ]
    assert (doubts.open, one.rare.cancelled_at) == ({}, None)
    assert doubts.changes() == ({}, {"x"}), "it need not be stored, or no longer"
    assert doubts.ask_again_at(one, Cancelled("iptal"), NOW + 200) == NOW + 200 + CONFIRM
    assert doubts.changes() == ({"x": "a"}, set())
    with capture_logs() as logs:
        doubts.ask_again_at(entry("y"), answer, NOW)
    assert logs == []
    assert doubts.changes() == ({}, set())


def test_one_withdrawn_and_read_again_is_stored_anew_and_its_old_one_closed() -> None:
    doubts, one = UnconfirmedCancellations(CONFIRM), entry()
    doubts.ask_again_at(one, Cancelled("iptal"), NOW)
    doubts.changes()
    doubts.ask_again_at(one, Waiting("w"), NOW + 60)
    doubts.ask_again_at(one, Cancelled("iptal"), NOW + 90)
    assert doubts.changes() == ({"x": "a"}, {"x"})


def test_without_a_time_to_wait_a_cancellation_is_believed_at_once() -> None:
    doubts, one = UnconfirmedCancellations(0.0), entry()
    assert doubts.ask_again_at(one, Cancelled("iptal"), NOW) is None
    assert (doubts.open, one.rare.cancelled_at, doubts.changes()) == ({}, None, ({}, set()))


def test_until_what_is_stored_is_read_it_is_known_who_was_answered_otherwise() -> None:
    doubts = UnconfirmedCancellations(CONFIRM)
    doubts.ask_again_at(entry("before"), Waiting("w"), NOW)
    assert doubts.answered is None
    doubts.answered = set()
    doubts.ask_again_at(entry("x"), Waiting("w"), NOW)
    doubts.ask_again_at(entry("y"), Cancelled("iptal"), NOW)
    assert doubts.answered == {"x"}


def test_who_is_forgotten_waits_no_longer() -> None:
    doubts, one, other = UnconfirmedCancellations(CONFIRM), entry("x"), entry("y")
    doubts.ask_again_at(one, Cancelled("iptal"), NOW)
    doubts.forget(one)
    doubts.forget(other)
    assert doubts.open == {}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Garbled("unknown_state"), [False, False, True, False]),
        (Garbled("two_answers"), [False, False, True, False]),
        (Garbled("unreadable_pin"), [True, False, False, False]),
        (Garbled("cut_short"), [False] * 4),
        (Waiting("w"), [False] * 4),
    ],
)
def test_a_person_looks_once_at_what_only_a_person_can_read(
    answer: Answer, told: list[bool]
) -> None:
    doubts, one = UnconfirmedCancellations(CONFIRM), entry()
    assert [doubts.is_for_a_person(one, answer) for _ in told] == told
    assert not doubts.is_for_a_person(one, Waiting("w"))
    assert one.rare.unknown == 0, "an answer in between restarts the count"
    assert [doubts.is_for_a_person(one, answer) for _ in told] == told
