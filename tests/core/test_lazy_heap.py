"""Entries in the order of a number."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.lazy_heap import WIDTH, LazyHeap
from order_monitor.core.tracked_order import SharedFields, Stage, TrackedOrder

TRAITS = SharedFields("a", "sent", None, None, True, None)


def entry(name: str, due: float, stage: Stage = Stage.SCHEDULED) -> TrackedOrder:
    made = TrackedOrder(name, TRAITS, 0.0, "", due=due)
    made.step(stage)
    return made


def line() -> LazyHeap:
    return LazyHeap(lambda entry: entry.due, lambda entry: entry.stage is Stage.SCHEDULED)


def leave(standing: LazyHeap) -> list[str]:
    """Let all leave, one after the other."""
    left: list[str] = []
    while (first := standing.first()) is not None:
        left.append(first.id)
        first.step(Stage.READY)
    return left


STEPS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.floats(-5 * WIDTH, 20 * WIDTH),
        st.sampled_from(["stand", "stand", "look", "leave", "tidy"]),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_least_stands_first_whatever_was_done_before(
    steps: Sequence[tuple[int, float, str]],
) -> None:
    """Beside a plain sorted list, with entries that stand anew, earlier or later, and leave at any
    time.
    """
    standing, entries = line(), [entry(str(n), 0.0, Stage.IDLE) for n in range(10)]
    for n, due, what in steps:
        match what:
            case "stand":
                entries[n].step(Stage.SCHEDULED)
                entries[n].due = due
                standing.push(entries[n])
            case "leave":
                entries[n].step(Stage.IDLE)
            case "tidy":
                standing.tidy()
        inside = sorted((e for e in entries if e.stage is Stage.SCHEDULED), key=lambda e: e.due)
        first = standing.first()
        assert (first and first.due) == (inside[0].due if inside else None)
        assert [e.due for e in standing.soonest(4, 1000)] == [e.due for e in inside[:4]]
    dues = {e.id: e.due for e in entries if e.stage is Stage.SCHEDULED}
    left = leave(standing)
    assert sorted(left) == sorted(dues)
    assert [dues[name] for name in left] == sorted(dues.values())


def test_those_of_one_number_go_in_the_order_they_came() -> None:
    standing = line()
    for n in range(50):
        standing.push(entry(str(n), 5.0))
    assert leave(standing) == [str(n) for n in range(50)]


def test_whoever_stands_anew_later_no_longer_stands_where_he_stood() -> None:
    standing, late, other = line(), entry("late", 1.0), entry("other", 2.0)
    standing.push(late)
    standing.push(other)
    assert standing.first() is late
    late.step(Stage.SCHEDULED)
    late.due = 3.0
    standing.push(late)
    assert leave(standing) == ["other", "late"]


def test_what_is_looked_at_for_the_soonest_is_bounded() -> None:
    asked = 0

    def number(entry: TrackedOrder) -> float:
        nonlocal asked
        asked += 1
        return entry.due

    standing = LazyHeap(number, lambda entry: entry.stage is Stage.SCHEDULED)
    for n in range(3000):
        standing.push(entry(str(n), 10_000.0 * WIDTH + n * WIDTH))
    standing.first()
    asked = 0
    assert [e.id for e in standing.soonest(5, 100)] == ["0", "1", "2", "3", "4"]
    assert asked <= 101


def test_an_old_place_that_looks_like_an_entrys_own_holds_nobody_up() -> None:
    """Turns are counted in a circle: once round, an old place bears the same turn again."""
    standing = line()
    one, other = entry("one", 5.0), entry("other", 6.0)
    standing.push(one)
    standing.push(other)
    assert standing.first() is one
    for _ in range(256):
        one.step(Stage.SCHEDULED)
    one.due = 700.0
    standing.push(one)
    assert leave(standing) == ["other", "one"]


def test_an_entry_that_left_does_not_come_back_by_an_old_place_that_looks_like_its_own() -> None:
    standing = line()
    one = entry("one", 5.0)
    standing.push(one)
    assert standing.first() is one
    for _ in range(256):
        one.step(Stage.IDLE)
    assert standing.first() is None


def test_below_zero_too_the_lowest_number_goes_first() -> None:
    """The newest order has the lowest number, all of which are below zero."""
    standing = line()
    standing.push(entry("one", -WIDTH - 1))
    assert standing.first() is not None
    standing.push(entry("newer", -2 * WIDTH + 1))
    assert leave(standing) == ["newer", "one"]


def test_whose_number_has_grown_goes_back_to_where_he_belongs() -> None:
    standing, entries = line(), [entry(str(n), float(n)) for n in range(4)]
    for one in entries:
        standing.push(one)
    assert standing.first() is entries[0]
    entries[0].due = 2.5
    assert leave(standing) == ["1", "2", "0", "3"]


def test_tidying_lets_go_of_whoever_has_left() -> None:
    standing, entries = line(), [entry(str(n), float(n)) for n in range(100)]
    assert len(standing) == 0
    for one in entries:
        standing.push(one)
        standing.push(one)
    standing.first()
    for one in entries[::2]:
        one.step(Stage.GONE)
    standing.tidy()
    assert len(standing) == 50
    assert leave(standing) == [str(n) for n in range(1, 100, 2)]
    assert len(standing) == 0


def test_whoever_is_gone_does_not_come_back() -> None:
    one = entry("x", 1.0)
    one.step(Stage.GONE)
    one.step(Stage.SCHEDULED)
    assert one.stage is Stage.GONE


def test_an_entry_remembers_what_is_the_matter_and_nothing_else() -> None:
    one = entry("x", 1.0)
    plain = one.rare
    one.note(failures=2, held=9.0)
    assert (one.wake, one.rare.failures, one.order.id) == (9.0, 2, "x")
    one.note(failures=0, held=None)
    assert one.rare is plain, "one copy for all with which nothing is the matter"
    assert one.wake == 1.0
