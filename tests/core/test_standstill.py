"""When writing stands still, told by what was refused and what waits since something was last
written.
"""

from order_monitor.core.standstill import StalledWrites


def known(_: str) -> bool:
    return True


def problem(hindered: StalledWrites, now: float) -> str:
    return hindered.problem(now, known)


def refused(*ids: str, at: float = 0.0) -> StalledWrites:
    hindered = StalledWrites()
    for order_id in ids:
        hindered.refused(order_id, "no [P0001]", at)
    return hindered


def test_three_orders_refused_for_a_minute_are_told_and_two_never() -> None:
    three, two = refused("a", "b", "c"), refused("a", "b")
    assert problem(three, 59.0) == ""
    assert problem(three, 60.0) == "nothing written for 60 s: orders refused: 3 (no [P0001])"
    assert problem(two, 86_400.0) == ""


def test_the_same_order_refused_ten_times_is_one() -> None:
    hindered = StalledWrites()
    for n in range(10):
        hindered.refused("a", "no", float(n))
    assert problem(hindered, 1000.0) == ""


def test_the_minute_counts_from_the_first_however_far_apart_they_are_tried() -> None:
    """Each is tried again at its next check, minutes later."""
    hindered = refused("a")
    hindered.refused("b", "no", 500.0)
    hindered.refused("c", "no", 1000.0)
    assert problem(hindered, 1000.0)
    hindered.refused("a", "no", 1100.0)
    assert problem(hindered, 5000.0)


def test_what_is_written_begins_it_anew() -> None:
    hindered = refused("a", "b", "c")
    hindered.written(70.0)
    assert problem(hindered, 100.0) == ""
    for order_id in "abc":
        hindered.refused(order_id, "no", 100.0)
    assert problem(hindered, 159.0) == ""
    assert problem(hindered, 160.0)


def test_an_answer_that_needs_no_write_is_no_progress_and_takes_its_own_order_away_alone() -> None:
    hindered = refused("a", "b", "c", "d")
    hindered.passed("x")
    hindered.passed("d")
    assert problem(hindered, 60.0)
    hindered.passed("c")
    assert problem(hindered, 60.0) == ""


def test_orders_that_are_gone_count_no_more() -> None:
    hindered = refused("a", "b", "c")
    assert hindered.problem(60.0, "ab".__contains__) == ""
    assert problem(hindered, 60.0) == "", "forgotten"


def test_what_waits_counts_once_it_has_waited_for_a_minute() -> None:
    hindered = StalledWrites()
    for n, order_id in enumerate("abc"):
        hindered.held_up(order_id, 10.0 * n)
        hindered.held_up(order_id, 10.0 * n + 5)
    assert problem(hindered, 79.0) == ""
    assert problem(hindered, 80.0) == "nothing written for 60 s: held up: 3"
    hindered.written(80.0)
    assert problem(hindered, 139.0) == "", "another got through: they have a minute more"
    assert problem(hindered, 140.0)
    hindered.passed("a")
    assert problem(hindered, 140.0) == ""


def test_an_order_that_is_refused_is_no_longer_held_up() -> None:
    hindered = StalledWrites()
    for order_id in "abc":
        hindered.held_up(order_id, 0.0)
        hindered.refused(order_id, "no", 10.0)
    hindered.written(10.0)
    assert problem(hindered, 1000.0) == ""


def test_both_kinds_count_together_and_an_order_once() -> None:
    hindered = refused("a")
    hindered.held_up("a", 0.0)
    hindered.held_up("b", 0.0)
    assert problem(hindered, 100.0) == ""
    hindered.held_up("c", 50.0)
    assert problem(hindered, 100.0) == "", "it waits for less than a minute, as any write may"
    assert problem(hindered, 110.0) == (
        "nothing written for 60 s: orders refused: 1 (no [P0001]), held up: 2"
    )
    hindered.refused("b", "no", 111.0)
    hindered.held_up("d", 111.0)
    assert "orders refused: 2 (no), held up: 1" in problem(hindered, 111.0)
