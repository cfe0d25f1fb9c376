"""The queue of what is to be written, by properties: nothing is lost, doubled, or overtaken by what cannot be written."""

from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.answer import Completed
from order_monitor.core.backlog import Backlog
from order_monitor.core.order import Order, Pin
from order_monitor.core.recording import Finding


def finding(n: int) -> Finding:
    return Finding(Order(str(n), "sent", 0.0, "1"), Completed(Pin("P")), 0.0, account=f"a{n % 3}")


@given(
    count=st.integers(1, 40),
    limit=st.integers(1, 12),
    fates=st.lists(st.sampled_from(["done", "split", "park", "park alone"]), min_size=1, max_size=60),
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
                backlog.park(one, now + 5.0, alone=fate.endswith("alone"))
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
        backlog.park(one, 10.0, alone=False)
    assert (len(backlog), backlog.free["a0"], backlog.next(9.9, 10), backlog.parked.next_at()) == (6, 0, [], 10.0)
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
        backlog.park(one, 1.0, alone=True)
    assert len(backlog.next(2.0, 10)) == 1
    backlog.parked.rest(50.0)
    assert backlog.next(3.0, 10) == []
    assert backlog.parked.next_at() == 50.0
    backlog.parked.hurry(4.0)
    assert len(backlog.next(4.0, 10)) == 1


def test_in_the_last_round_each_is_tried_once_more_and_then_left() -> None:
    backlog = Backlog()
    backlog.add(finding(1), 0.0)
    (one,) = backlog.next(0.0, 1)
    backlog.park(one, 100.0, alone=True)
    backlog.last_round(1.0)
    (again,) = backlog.next(1.0, 1)
    backlog.park(again, 200.0, alone=True)
    assert (backlog.next(300.0, 1), backlog.parked.next_at(), len(backlog), list(backlog)) == ([], None, 1, ["1"])
