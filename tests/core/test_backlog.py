"""The queue of what is to be written, by properties: nothing is lost, doubled, or overtaken by what
cannot be written.
"""

from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.backlog import Backlog, BlockedWrites
from order_monitor.core.check_result import CheckResult
from order_monitor.core.order import Order
from order_monitor.core.pin import Pin


def finding(n: int) -> CheckResult:
    return CheckResult(
        Order(str(n), "sent", 0.0, "1"), Completed(Pin("P")), 0.0, account=f"a{n % 3}"
    )


@given(
    count=st.integers(1, 40),
    limit=st.integers(1, 12),
    fates=st.lists(
        st.sampled_from(["done", "split", "park", "park alone"]), min_size=1, max_size=60
    ),
)
def test_every_finding_leaves_exactly_once(count: int, limit: int, fates: list[str]) -> None:
    backlog, now, seen = Backlog(), 0.0, []
    for n in range(count):
        backlog.add(finding(n), now)
    turns = iter(fates)
    for _ in range(2000):
        now += 1.0
        batch = backlog.next(now, limit)
        assert len(batch) <= limit
        fate = next(turns, "done")
        if fate == "split" and len(batch) > 1:
            backlog.split(batch)
            continue
        for one in batch:
            if fate.startswith("park"):
                backlog.block(one, now + 5.0, alone=fate.endswith("alone"))
            else:
                backlog.done(one)
                seen.append(one.order.id)
        if not len(backlog):
            break
    assert sorted(seen, key=int) == [str(n) for n in range(count)]
    assert not backlog.free.total()
    assert backlog.oldest() is None


def test_what_is_held_up_does_not_count_as_free_and_is_not_tried_before_its_time() -> None:
    backlog = Backlog()
    for n in range(6):
        backlog.add(finding(n), 1.0)
    for one in backlog.next(1.0, 10):
        backlog.block(one, 10.0, alone=False)
    assert (len(backlog), backlog.free["a0"], backlog.next(9.9, 10), backlog.blocked.next_at()) == (
        6,
        0,
        [],
        10.0,
    )
    assert len(backlog.next(10.0, 10)) == 6
    assert backlog.free["a0"] == 2


def test_fresh_findings_and_halves_and_what_was_held_up_take_turns() -> None:
    backlog = Backlog()
    for n in range(4):
        backlog.add(finding(n), 0.0)
    backlog.split(backlog.next(0.0, 4))
    for n in range(4, 8):
        backlog.add(finding(n), 0.0)
    kinds = [tuple(int(one.order.id) for one in backlog.next(1.0, 2)) for _ in range(4)]
    assert kinds in ([(4, 5), (0, 1), (6, 7), (2, 3)], [(0, 1), (4, 5), (2, 3), (6, 7)])


def test_alone_is_alone_and_rests() -> None:
    backlog = Backlog()
    for n in range(3):
        backlog.add(finding(n), 0.0)
    for one in backlog.next(0.0, 3):
        backlog.block(one, 1.0, alone=True)
    assert len(backlog.next(2.0, 10)) == 1
    backlog.blocked.rest(50.0)
    assert backlog.next(3.0, 10) == []
    assert backlog.blocked.next_at() == 50.0
    backlog.blocked.hurry(4.0)
    assert len(backlog.next(4.0, 10)) == 1


def names(batch: list[CheckResult]) -> list[str]:
    return [one.order.id for one in batch]


def test_the_oldest_is_told_until_it_has_met_its_fate() -> None:
    backlog = Backlog()
    assert (len(backlog), backlog.oldest(), "1" in backlog) == (0, None, False)
    backlog.add(finding(1), 5.0)
    backlog.add(finding(2), 7.0)
    assert (len(backlog), backlog.oldest(), "1" in backlog) == (2, 5.0, True)
    backlog.done(backlog.next(8.0, 1)[0])
    assert (len(backlog), backlog.oldest(), "1" in backlog) == (1, 7.0, False)
    assert dict(backlog.free) == {"a1": 0, "a2": 1}


def test_a_batch_waits_for_more_only_where_more_would_fill_it() -> None:
    backlog = Backlog()
    assert not backlog.could_grow_to(2), "there is none"
    backlog.add(finding(1), 0.0)
    assert backlog.could_grow_to(2)
    assert not backlog.could_grow_to(1), "it is full"
    backlog.add(finding(2), 0.0)
    backlog.split(backlog.next(0.0, 2))
    assert not backlog.could_grow_to(9), "a half of a refused batch goes as it is"
    for _ in range(2):
        (one,) = backlog.next(0.0, 2)
        backlog.block(one, 50.0, alone=False)
    assert not backlog.could_grow_to(9), "nothing is free"


def test_an_odd_batch_is_split_as_evenly_as_can_be_and_a_half_goes_in_parts_where_less_is_allowed() -> (
    None
):
    backlog = Backlog()
    for n in range(7):
        backlog.add(finding(n), 0.0)
    backlog.split(backlog.next(0.0, 7))
    assert [
        names(backlog.next(0.0, 9)),
        names(backlog.next(0.0, 3)),
        names(backlog.next(0.0, 3)),
    ] == [
        ["0", "1", "2"],
        ["3", "4", "5"],
        ["6"],
    ]
    assert backlog.next(0.0, 3) == []


def test_what_is_to_go_alone_goes_when_it_stands_first_and_else_waits_for_the_others() -> None:
    blocked = BlockedWrites()
    for n, alone in ((1, True), (2, False), (3, True), (4, False), (5, False)):
        blocked.add(finding(n), float(n), alone=alone)
    assert blocked.next_at() == 1.0
    assert names(blocked.pop_due(9.0, 9)) == ["1"]
    assert names(blocked.pop_due(9.0, 2)) == ["2", "4"]
    assert names(blocked.pop_due(4.9, 9)) == ["3"]
    assert names(blocked.pop_due(4.9, 9)) == []
    assert names(blocked.pop_due(5.0, 9)) == ["5"]
    assert blocked.next_at() is None


def test_while_nothing_is_tried_alone_the_others_go_on() -> None:
    blocked = BlockedWrites()
    blocked.add(finding(1), 1.0, alone=True)
    blocked.add(finding(2), 2.0, alone=False)
    blocked.rest(50.0)
    assert blocked.next_at() == 50.0
    assert names(blocked.pop_due(9.0, 9)) == ["2"]
    assert names(blocked.pop_due(49.9, 9)) == []
    assert names(blocked.pop_due(50.0, 9)) == ["1"]
    blocked.add(finding(3), 3.0, alone=False)
    assert blocked.next_at() == 3.0
    blocked.add(finding(4), 2.0, alone=True)
    blocked.rest(1.0)
    assert blocked.next_at() == 2.0


def test_whoever_hurries_tries_all_now_as_they_came() -> None:
    blocked = BlockedWrites()
    for n, until in ((1, 90.0), (2, 80.0), (3, 70.0)):
        blocked.add(finding(n), until, alone=n == 2)
    blocked.rest(100.0)
    blocked.hurry(5.0)
    assert blocked.next_at() == 5.0
    assert [names(blocked.pop_due(5.0, 9)) for _ in range(3)] == [["1", "3"], ["2"], []]


def test_in_the_last_round_each_is_tried_once_more_and_then_left() -> None:
    backlog = Backlog()
    backlog.add(finding(1), 0.0)
    (one,) = backlog.next(0.0, 1)
    backlog.block(one, 100.0, alone=True)
    backlog.last_round(1.0)
    (again,) = backlog.next(1.0, 1)
    backlog.block(again, 200.0, alone=True)
    assert (backlog.next(300.0, 1), backlog.blocked.next_at(), len(backlog), list(backlog)) == (
        [],
        None,
        1,
        ["1"],
    )


def test_a_batch_with_a_final_answer_does_not_wait_for_company_where_none_may_be_urgent() -> None:
    backlog = Backlog()
    assert not backlog.could_grow_to(9, unhurried=True), "there is none"
    backlog.add(CheckResult(Order("0", "sent", 0.0, "1"), Waiting(), 0.0), 0.0)
    assert backlog.could_grow_to(9, unhurried=True)
    backlog.add(finding(1), 0.0)
    assert not backlog.could_grow_to(9, unhurried=True)
    assert backlog.could_grow_to(9)
    backlog.next(0.0, 9)
    assert not backlog.could_grow_to(9, unhurried=True), "they are under way"


def test_accounts_for_which_nothing_waits_are_dropped() -> None:
    backlog = Backlog()
    backlog.add(finding(1), 0.0)
    backlog.add(finding(2), 0.0)
    backlog.done(backlog.next(0.0, 1)[0])
    backlog.tidy()
    assert dict(backlog.free) == {"a2": 1}
    backlog.add(finding(4), 0.0)
    assert dict(backlog.free) == {"a1": 1, "a2": 1}
