"""The orders in memory."""

import tracemalloc
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.order import Order, ReferenceFrom
from order_monitor.core.queue import OrderQueue
from order_monitor.core.ready_queues import LONGEST_WAITING_EVERY, STALE_ALLOWED
from order_monitor.core.tracked_order import NOTHING, ODD, Stage, TrackedOrder


def add(
    queue: OrderQueue, order_id: str, due: float, sent_at: float = 0.0, account: str = "a"
) -> TrackedOrder:
    entry = queue.add(Order(order_id, "sent", sent_at, "1"), account)
    queue.schedule(entry, due)
    return entry


def test_nothing_is_taken_before_it_is_due() -> None:
    queue = OrderQueue()
    add(queue, "x", 10)
    queue.promote(9.9)
    assert queue.take("a") is None
    assert queue.next_wake() == 10
    queue.promote(10)
    assert queue.ready.count("a") == 1
    taken = queue.take("a")
    assert taken is not None
    assert taken.stage is Stage.ASKING
    assert queue.ready.count("a") == 0
    assert queue.take("a") is None
    assert queue.next_wake() is None
    assert len(queue) == 1
    assert queue.get("x") is taken


def test_an_order_whose_answers_were_not_understood_before_is_known_as_odd_at_once() -> None:
    entry = OrderQueue().add(Order("x", "sent", 0.0, "1", odd_at=70.0), "a")
    rare = entry.rare
    assert (rare.odd, rare.odd_at, rare.odd_noted) == (ODD, 70.0, True)


def test_of_very_many_orders_the_newest_are_found_without_looking_at_all() -> None:
    queue = OrderQueue()
    for n, sent_at in enumerate([5000.0, 0.0, 990.0, 955.0, None, 1010.0]):
        queue.add(Order(str(n), "sent", sent_at, "1"), "a")
    assert [entry.id for entry in queue.newest(1000.0)] == ["5", "4", "3", "2"]
    assert queue.newest(2000.0) == []


def test_the_newest_goes_first_but_nobody_starves() -> None:
    queue = OrderQueue()
    for n in range(100):
        add(queue, str(n), due=n, sent_at=n)
    queue.promote(100)
    first = [queue.take("a") for _ in range(LONGEST_WAITING_EVERY)]
    assert [e.order.id for e in first if e] == ["99", "98", "97", "0"]
    for n in range(100, 200):
        add(queue, str(n), due=n, sent_at=n)
        queue.promote(200)
        queue.take("a")
    left = {e.order.id for e in queue if e.stage is Stage.READY}
    assert not left & {str(n) for n in range(10)}, "the oldest were served meanwhile"


def test_what_was_sent_at_no_known_time_goes_last() -> None:
    queue = OrderQueue()
    for name, sent_at in (("unknown", None), ("long ago", 0.5)):
        queue.schedule(queue.add(Order(name, "sent", sent_at, "1"), "a"), 0)
    queue.promote(0)
    first = queue.take("a")
    assert first is not None
    assert first.id == "long ago"


def test_equal_times_compare_no_payload() -> None:
    """E12: heap ties must not reach the orders themselves."""
    queue = OrderQueue()
    for n in range(50):
        add(queue, str(n), due=5)
    queue.promote(5)
    assert len({e.order.id for _ in range(50) if (e := queue.take("a"))}) == 50


def test_accounts_do_not_mix() -> None:
    queue = OrderQueue()
    add(queue, "x", 0, account="a")
    add(queue, "y", 0, account="b")
    queue.promote(0)
    assert queue.ready.count("a") == queue.ready.count("b") == 1
    taken = queue.take("b")
    assert taken is not None
    assert taken.order.id == "y"
    assert queue.take("c") is None


def test_a_held_order_keeps_its_due_time() -> None:
    queue = OrderQueue()
    entry = add(queue, "x", 0)
    queue.promote(0)
    queue.take("a")
    queue.schedule(entry, 0, wake=30)
    queue.promote(29)
    assert queue.ready.count("a") == 0
    queue.promote(30)
    assert queue.take("a") is entry
    assert entry.due == 0


def test_what_is_not_held_back_has_no_state_of_its_own() -> None:
    """Of a million orders each byte counts."""
    queue = OrderQueue()
    entry = add(queue, "x", 0)
    queue.schedule(entry, 5, wake=5)
    assert entry.rare is NOTHING


def test_what_is_forgotten_or_idle_is_never_taken() -> None:
    queue = OrderQueue()
    add(queue, "x", 0)
    queue.idle(add(queue, "y", 0))
    queue.promote(0)
    queue.forget("x")
    queue.forget("never there")
    assert queue.ready.count("a") == 0
    assert queue.take("a") is None
    assert queue.get("x") is None
    add(queue, "z", 5)
    queue.forget("z")
    assert queue.next_wake() is None


def test_rescheduling_replaces() -> None:
    queue = OrderQueue()
    entry = add(queue, "x", 5)
    queue.schedule(entry, 50)
    queue.promote(49)
    assert queue.ready.count("a") == 0
    queue.promote(50)
    queue.schedule(entry, 60)
    assert queue.ready.count("a") == 0
    assert queue.take("a") is None
    queue.promote(60)
    assert queue.take("a") is entry


@pytest.mark.slow
def test_stale_items_do_not_pile_up() -> None:
    """Under lasting overload each order leaves a stale item behind: they are swept."""
    queue = OrderQueue()
    base = add(queue, "base", 0)
    base.note(failures=1)
    queue.promote(0)
    for n in range(6 * STALE_ALLOWED):
        add(queue, str(n), due=1, sent_at=n)
        queue.promote(1)
        taken = queue.take("a")
        assert taken is not None
        assert taken is not base, "it stands behind the others"
        queue.forget(taken.order.id)
    ready = queue.ready.lines["a"]
    assert len(ready) < 3 * STALE_ALLOWED
    assert queue.take("a") is base


def test_stale_places_are_swept_once_they_are_many() -> None:
    """Sweeping goes through all orders: not whenever one leaves."""
    queue = OrderQueue()
    stale = [str(n) for n in range(STALE_ALLOWED + 1)]
    for name in ("stays", *stale):
        add(queue, name, due=0)
    while queue.promote(0):
        pass
    for name in stale:
        queue.forget(name)
    assert len(queue.ready.lines["a"]) == 2 * (1 + len(stale))
    add(queue, "one more", due=0)
    queue.promote(0)
    queue.forget("one more")
    assert len(queue.ready.lines["a"]) == 2 * 2, "which stays, and which just leaves"


def test_places_of_those_who_left_in_any_other_way_do_not_pile_up_either() -> None:
    """Asked about elsewhere, ended by others: they stand behind one whose turn never comes."""
    queue = OrderQueue()
    base = add(queue, "base", 0, sent_at=1e9)
    queue.promote(0)
    for n in range(3 * STALE_ALLOWED):
        add(queue, str(n), due=1, sent_at=n)
        queue.promote(1)
        queue.forget(str(n))
    assert len(queue.ready.lines["a"]) < 2 * (STALE_ALLOWED + 5)
    assert queue.take("a") is base


def test_what_orders_have_in_common_is_kept_once_and_not_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("order_monitor.core.known.SHARED_KEPT", 10)
    queue = OrderQueue()
    one, two = (queue.add(Order(name, "sent", 0.0, "1", tenant_id="t"), "a") for name in "xy")
    assert one.shared_fields is two.shared_fields
    for n in range(100):
        queue.add(Order(str(n), "sent", 0.0, "1", tenant_id=f"t{n}"), "a")
    fresh = queue.add(Order("z", "sent", 0.0, "1", tenant_id="t"), "a")
    assert fresh.shared_fields == one.shared_fields
    assert fresh.shared_fields is not one.shared_fields, (
        "the first are kept by none but their orders"
    )
    assert one.order == Order("x", "sent", 0.0, "1", tenant_id="t")
    away = Order("y", "sent", 0.0, "1", reference_from=ReferenceFrom.CHILD)
    assert queue.add(away, "a").order == away
    assert not queue.add(away, "a").is_still(away._replace(reference_from=0), "a")


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"),
            st.sampled_from(["add", "take", "forget", "hold", "idle"]),
            st.integers(0, 9),
        )
    )
)
def test_the_count_of_due_orders_is_always_right(steps: list[tuple[str, str, int]]) -> None:
    queue, now = OrderQueue(), 0.0
    for name, step, number in steps:
        entry = queue.get(name)
        match step:
            case "add" if entry is None:
                add(queue, name, now + number, sent_at=number)
            case "take":
                now += number
                queue.promote(now)
                queue.take("a")
            case "forget":
                queue.forget(name)
            case "hold" if entry:
                queue.schedule(entry, entry.due, wake=now + number)
            case "idle" if entry:
                queue.idle(entry)
        ready = [e for e in queue if e.stage is Stage.READY]
        assert queue.ready.count("a") == len(ready)
    assert queue.next_wake() == min((w for w in [queue.next_wake()] if w is not None), default=None)
    queue.promote(now + 100)
    taken = 0
    while queue.take("a"):
        taken += 1
    assert queue.ready.count("a") == 0
    assert taken <= len(queue)


def test_an_order_that_is_met_again_keeps_its_entry() -> None:
    queue = OrderQueue()
    entry, is_new = queue.enter(Order("x", "sent", 5.0, "1"), "a")
    assert (is_new, entry.stage, queue.get("x"), queue.has_any("a")) == (
        True,
        Stage.IDLE,
        entry,
        True,
    )
    assert queue.enter(Order("x", "sent", 9.0, "2"), "b") == (entry, False)
    assert (entry.order, entry.account) == (Order("x", "sent", 5.0, "1"), "a")
    assert (len(queue), queue.has_any("b")) == (1, False)


def test_an_unknown_order_is_not_known() -> None:
    assert OrderQueue().get("x") is None
    assert list(OrderQueue()) == []
    with pytest.raises(StopIteration):
        next(iter(OrderQueue()))


def test_what_is_due_already_is_ready_at_once() -> None:
    queue = OrderQueue()
    queue.schedule(queue.add(Order("x", "sent", 0.0, "1"), "a"), 5.0, now=5.0)
    queue.schedule(queue.add(Order("y", "sent", 0.0, "1"), "a"), 6.0, now=5.0)
    assert (queue.ready.count("a"), queue.next_wake()) == (1, 6.0)
    queue.schedule(entry := queue.add(Order("z", "sent", 0.0, "1"), "a"), 1.0, wake=9.0, now=5.0)
    assert (queue.ready.count("a"), entry.stage) == (1, Stage.SCHEDULED), "held back"


def test_what_is_read_anew_stands_with_whom_it_belongs_to() -> None:
    queue = OrderQueue()
    entry = add(queue, "x", 0)
    queue.promote(0)
    queue.renew(entry, Order("x", "pending", 7.0, "2", tenant_id="t", package="p"), "a")
    assert (queue.ready.count("a"), entry.order) == (
        1,
        Order("x", "pending", 7.0, "2", tenant_id="t", package="p"),
    )
    queue.renew(entry, Order("x", "pending", 7.0, "2"), "b")
    assert (queue.ready.count("a"), queue.has_any("a"), queue.has_any("b"), entry.stage) == (
        0,
        False,
        True,
        Stage.IDLE,
    )
    queue.schedule(entry, 0)
    queue.promote(0)
    assert queue.take("a") is None
    assert queue.take("b") is entry
    queue.renew(entry, Order("x", "done", 7.0, "2", ended_at=9.0), "b")
    assert entry.awaits_pin
    assert entry.order.ended_at == 9.0


def test_an_order_that_moved_while_due_is_not_taken_for_the_account_it_left() -> None:
    """Its place in the other account's line is still there."""
    queue = OrderQueue()
    for n in range(3):
        add(queue, str(n), 0)
    queue.promote(0)
    entry = queue.get("1")
    assert entry is not None
    queue.renew(entry, entry.order, "b")
    queue.schedule(entry, 0)
    queue.promote(0)
    assert {e.id for _ in range(3) if (e := queue.take("a"))} == {"0", "2"}
    assert queue.take("b") is entry


def test_who_was_forgotten_is_counted_once() -> None:
    """Whoever still has the entry in hand and plans it anew must not take it out of its line twice."""
    queue = OrderQueue()
    entries = [add(queue, name, 0) for name in "abc"]
    queue.promote(0)
    queue.forget("b")
    queue.schedule(entries[1], 5)
    assert queue.ready.count("a") == 2
    assert [queue.take("a") is not None for _ in range(3)] == [True, True, False]
    queue.promote(10)
    assert queue.ready.count("a") == 0


@pytest.mark.slow
def test_an_order_costs_few_bytes() -> None:
    """Counted, not timed: what a million open orders need follows from it (docs/scaling.md)."""
    count, queue = 5000, OrderQueue()
    status, account = "processing", "default"
    tracemalloc.start()
    try:
        for n in range(count):
            order = Order(str(uuid.UUID(int=n)), status, 1_790_000_000.5 + n / 10, str(10**15 + n))
            entry = queue.add(order, account)
            queue.schedule(entry, 1_790_000_060.5 + n / 10)
        waiting = tracemalloc.get_traced_memory()[0] / count
        while queue.promote(2e9):
            pass
        due = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert waiting < 320
    assert due < 330


def test_a_probe_takes_what_was_understood_before_else_what_was_never_asked() -> None:
    queue = OrderQueue()
    entries = [add(queue, str(n), 0.0, sent_at=float(n)) for n in range(8)]
    queue.promote(1.0)
    entries[0].understood = True
    taken = queue.take("a", probe=5)
    assert taken is entries[0]
    for entry in entries[1:4]:
        entry.note(odd=1)
    entries[4].note(failures=1)
    fresh = {queue.take("a", probe=n) for n in (1, 2, 3)}
    assert fresh == set(entries[5:])
    assert queue.take("a", probe=9) in entries[1:5]
    assert queue.take("b", probe=1) is None


def test_any_of_those_never_asked_may_be_the_probe() -> None:
    first = set()
    for salt in range(40):
        queue = OrderQueue()
        for n in range(20):
            add(queue, str(n), 0.0, sent_at=float(n))
        queue.promote(1.0)
        taken = queue.take("a", probe=salt)
        assert taken is not None
        first.add(taken.id)
    assert len(first) == 20


def test_what_is_not_understood_stands_behind_the_others() -> None:
    queue = OrderQueue()
    odd, newer = add(queue, "odd", 0.0, sent_at=9.0), add(queue, "old", 0.0, sent_at=1.0)
    odd.note(odd=2)
    queue.promote(1.0)
    assert queue.take("a") is newer
    assert queue.take("a") is odd


def test_an_order_asked_before_its_time_is_known_as_such_until_its_answer_is_dealt_with() -> None:
    queue = OrderQueue()
    early, other = add(queue, "early", 50.0), add(queue, "other", 60.0)
    queue.fill(early)
    assert (early.stage, early.due, queue.next_wake()) == (Stage.ASKING, 50.0, 60.0)
    assert queue.is_filled(early)
    assert not queue.is_filled(other)
    queue.writing(early)
    assert queue.is_filled(early)
    queue.schedule(early, 70.0)
    assert not queue.is_filled(early)


def test_the_next_to_come_due_are_told_soonest_first_and_only_those_wanted() -> None:
    queue = OrderQueue()
    entries = [add(queue, str(n), 100.0 - n) for n in range(9)]
    assert queue.coming(2) == [entries[8], entries[7]]
    assert queue.coming(2, lambda entry: entry.id < "5") == [entries[4], entries[3]]


def test_accounts_without_orders_are_dropped_with_what_their_orders_had_in_common() -> None:
    queue = OrderQueue()
    gone, kept = add(queue, "x", 5, account="a"), add(queue, "y", 6, account="b")
    queue.forget("x")
    queue.tidy()
    assert (queue.has_any("a"), queue.has_any("b")) == (False, True)
    again, more = add(queue, "x", 5, account="a"), add(queue, "z", 6, account="b")
    assert again.shared_fields is not gone.shared_fields
    assert more.shared_fields is kept.shared_fields
    assert queue.has_any("a")


def test_probes_in_a_row_go_to_other_orders_each_time() -> None:
    queue, seen = OrderQueue(), set()
    for n in range(20):
        add(queue, str(n), 0.0, sent_at=float(n))
    for _ in range(20):
        queue.promote(1.0)
        taken = queue.take("a", probe=3)
        assert taken is not None
        seen.add(taken.id)
        queue.schedule(taken, 0.0)
    assert len(seen) == 20
