"""When the brake trips, and what lets through what it holds."""

import math

import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed, Garbled, Refused, Waiting
from order_monitor.core.brake import (
    ASK_EVERY,
    CANCELLED,
    FEW,
    FINE,
    FRESH,
    LEAP,
    UNCLEAR,
    Ends,
    Evidence,
    next_slot,
    trips,
    verdict_of,
)


@pytest.mark.parametrize(
    ("recent", "usual", "does"),
    [
        (Ends(0, 19), Ends(), False),
        (Ends(0, 20), Ends(), True),
        (Ends(10, 10), Ends(), False),
        (Ends(9, 11), Ends(), True),
        (Ends(9, 11), Ends(100, 10), True),
        (Ends(0, 500), Ends(40, 60), False),
        (Ends(0, 500), Ends(1000, 499), True),
        (Ends(0, 500), Ends(2, 1), False),
        (Ends(40, 60), Ends(80, 20), False),
        (Ends(39, 61), Ends(80, 20), True),
        (Ends(400, 100), Ends(), False),
    ],
)
def test_it_trips_from_twenty_on_by_more_than_half_and_three_times_the_usual_share(
    recent: Ends, usual: Ends, *, does: bool
) -> None:
    assert trips(recent, usual) is does


def test_nothing_has_no_share_and_ends_add_up() -> None:
    assert Ends().share == 0.0
    assert Ends(1, 2) + Ends(3, 4) == Ends(4, 6)


GOOD = Evidence(tripped_at=100, understood_at=101, control_at=3600, verdict=FINE)


@pytest.mark.parametrize(
    ("evidence", "since", "now", "lacking"),
    [
        (GOOD, 100, 3700, []),
        (GOOD, 100, 3699, ["1 s more"]),
        (Evidence(100, 100, 3600, FINE), 100, 3700, ["another order"]),
        (Evidence(100, 101, 3600, CANCELLED), 100, 3700, ["do not read cancelled now"]),
        (Evidence(100, 101, 3600, UNCLEAR), 100, 3700, ["asked as a control"]),
        (Evidence(100, 101, 3600, FEW), 100, 3700, ["asked as a control"]),
        (GOOD, 100, 3600 + FRESH + 1, ["asked as a control"]),
        (GOOD, 100, 3600 + FRESH, []),
        (Evidence(), 100, 200, ["3500 s more", "another order", "asked as a control"]),
        (Evidence(tripped_at=100, released_at=150), 150, 160, []),
        (
            Evidence(tripped_at=100, released_at=150),
            151,
            160,
            ["3591 s more", "another order", "asked as a control"],
        ),
    ],
)
def test_it_is_believed_by_time_and_evidence_or_by_a_persons_word(
    evidence: Evidence, since: float, now: float, lacking: list[str]
) -> None:
    told = evidence.lacks(since, now, 3600)
    assert len(told) == len(lacking)
    assert all(part in whole for part, whole in zip(lacking, told, strict=True))


AHEAD = Evidence(5000, 5001, 5002, FINE, 5003, 5004)


def test_what_is_dated_later_than_now_proves_nothing() -> None:
    assert AHEAD.as_of(100) == Evidence(100, -math.inf, -math.inf, FINE, 5003, -math.inf)
    assert AHEAD.as_of(5000) == AHEAD, "clocks are compared with an error of some seconds"
    assert GOOD.as_of(3700) == GOOD


@pytest.mark.parametrize("now", [500 - LEAP, 500, 500 + LEAP])
def test_what_is_dated_a_few_seconds_ahead_counts(now: float) -> None:
    just_noted = Evidence(500, 500, 500, FINE, 500, 500)
    assert just_noted.as_of(now) == just_noted
    assert just_noted.is_released(500, now)


@pytest.mark.parametrize(("since", "is_released"), [(90, False), (4000, True), (5004, False)])
def test_a_release_that_is_dated_later_is_of_what_was_held_then(
    since: float, *, is_released: bool
) -> None:
    assert AHEAD.is_released(since, 100) is is_released


@pytest.mark.parametrize("since", [100 - LEAP, 100, 100 + LEAP])
def test_an_order_held_now_is_not_released_by_a_person_of_later(since: float) -> None:
    assert not AHEAD.is_released(since, 100)


def test_a_person_reads_what_lacks() -> None:
    assert Evidence(100, 100, 3600, CANCELLED).lacks(100, 3600, 3600) == [
        "100 s more",
        "another order of the account that is understood as waiting or completed",
        "orders that were completed before and do not read cancelled now, as one of them does",
    ]


def test_without_a_brake_nothing_lacks() -> None:
    assert Evidence().lacks(100, 100, 0) == []


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([], FEW),
        ([Completed(None)] * 2, FEW),
        ([Completed(None)] * 3, FINE),
        ([Completed(None), Waiting(), Completed(None)], FINE),
        ([Completed(None), Completed(None), Cancelled()], CANCELLED),
        ([Cancelled()], CANCELLED),
        ([Refused("3")] * 5, UNCLEAR),
        ([Completed(None), Refused("3"), Garbled("x"), Completed(None)], UNCLEAR),
        ([Refused("3"), *[Completed(None)] * 3], FINE),
    ],
)
def test_what_the_controls_said(answers: list[Answer], verdict: str) -> None:
    assert verdict_of(answers) == verdict


def test_a_held_order_has_a_time_every_ten_minutes() -> None:
    assert next_slot(1000, 1000 + 2.5 * ASK_EVERY) == 1000 + 2 * ASK_EVERY
    assert next_slot(1000, 900) == 1000
    assert math.isfinite(next_slot(0, 1e9))
