"""How calls slow down while this machine is short of something."""

import errno

import pytest

from order_monitor.core.easing import (
    CALM_AFTER,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SHORTAGE_REMEDIES,
    SHORTAGE_WORDS,
    Easing,
    shortage_of,
)


def test_calls_that_fail_together_are_one_shortage_and_each_further_one_doubles_the_pause() -> None:
    easing = Easing()
    assert easing.has_room(0.0, 500)
    assert [easing.ran_out(0.0, "no_files", 40) for _ in range(20)] == [True] + [False] * 19
    assert easing.until == FIRST_PAUSE
    assert not easing.has_room(0.4, 0)
    assert [easing.has_room(FIRST_PAUSE, calls) for calls in (0, 19, 20)] == [True, True, False]
    assert [easing.has_room(FIRST_PAUSE + 10, calls) for calls in (39, 40)] == [True, False]
    now = FIRST_PAUSE
    for _ in range(10):
        easing.ran_out(now, "no_files", 1)
        now = easing.until
    assert easing.has_room(now, 0)
    easing.ran_out(now, "no_files", 1)
    assert easing.until == now + LONGEST_PAUSE


def test_it_is_over_after_a_minute_without_one() -> None:
    easing = Easing()
    assert not easing.is_over(1e9)
    easing.ran_out(0.0, "no_files", 2)
    assert not easing.is_over(FIRST_PAUSE + CALM_AFTER - 1)
    assert easing.is_over(FIRST_PAUSE + CALM_AFTER)
    assert not easing.is_over(FIRST_PAUSE + CALM_AFTER)
    assert easing.has_room(FIRST_PAUSE + CALM_AFTER, 10_000)


def test_the_pause_doubles_from_half_a_second_to_half_a_minute() -> None:
    easing, pauses, now = Easing(), [], 0.0
    for _ in range(9):
        easing.ran_out(now, "no_files", 8)
        pauses.append(easing.until - now)
        now = easing.until
    assert pauses == [0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def test_half_of_the_calls_may_go_on_and_one_at_least() -> None:
    for under_way, room in ((40, 20), (41, 20), (3, 1), (2, 1), (1, 1), (0, 1)):
        easing = Easing()
        easing.ran_out(0.0, "no_files", under_way)
        assert easing.has_room(FIRST_PAUSE, room - 1)
        assert not easing.has_room(FIRST_PAUSE, room)


def test_the_room_grows_without_a_jump_and_has_an_end() -> None:
    easing = Easing()
    easing.ran_out(0.0, "no_files", 8)
    assert easing.has_room(FIRST_PAUSE + 5, 5)
    assert not easing.has_room(FIRST_PAUSE + 5, 6)
    assert easing.has_room(1e9, 4 * 2**16 - 1)
    assert not easing.has_room(1e9, 4 * 2**16)


def test_each_failure_puts_off_the_end_and_is_told_by_its_last_reason() -> None:
    easing = Easing()
    assert easing.ran_out(0.0, "no_files", 8)
    assert not easing.ran_out(20.0, "no_memory", 8)
    assert not easing.ran_out(20.5, "no_threads", 2)
    assert easing.reason == "no_threads"
    assert not easing.is_over(80.9)
    assert easing.is_over(81.0), "a minute after the pause that ended at 21.0"
    assert easing.reason == ""
    assert easing.ran_out(90.0, "no_files", 8), "another one begins"
    assert easing.until == 90.0 + FIRST_PAUSE


@pytest.mark.parametrize(
    ("error", "shortage"),
    [
        (OSError(errno.EADDRNOTAVAIL, "x"), "no_local_ports"),
        (OSError(errno.EADDRINUSE, "x"), "no_local_ports"),
        (OSError(errno.EMFILE, "x"), "no_files"),
        (OSError(errno.ENFILE, "x"), "no_files"),
        (OSError(errno.ENOBUFS, "x"), "no_memory"),
        (OSError(errno.ENOMEM, "x"), "no_memory"),
        (OSError(errno.ECONNREFUSED, "x"), ""),
        (OSError("x"), ""),
        (ValueError(errno.EMFILE), ""),
        (None, ""),
    ],
)
def test_what_ran_out_is_known_by_the_error(error: BaseException | None, shortage: str) -> None:
    assert shortage_of(error) == shortage
    assert not shortage or shortage in SHORTAGE_WORDS.keys() & SHORTAGE_REMEDIES.keys()
