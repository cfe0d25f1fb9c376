"""Whose fault an answer is that was not understood: by what others of the account were answered in
the same minutes.
"""

from typing import Any

import pytest

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Unreachable,
    Waiting,
)
from order_monitor.core.judge import (
    NOT_UNDERSTOOD,
    PATIENCE,
    REFUSED,
    SAME_HOUR,
    SAME_MINUTES,
    Fault,
    Judge,
    is_odd,
)

ODD = Refused("3", "x")
EMPTY = Blocked("empty_answer")
BROKEN = Busy("http_500")


def ask(
    judge: Judge,
    order_id: str,
    answer: Answer = ODD,
    now: float = 0.0,
    limit: int = 5,
    **known: Any,
) -> Fault:
    return judge.judge(order_id, answer, now, due=now, limit=limit, **known)


@pytest.mark.parametrize(
    ("answer", "odd"),
    [
        (Refused("3"), True),
        (Garbled("not_understood"), True),
        (EMPTY, True),
        (BROKEN, True),
        (Busy("http_503"), True),
        (Busy("http_503", retry_after=9.0), False),
        (Busy("http_429"), False),
        (Blocked("refused_8"), False),
        (Blocked("html_answer"), False),
        (Unreachable("timeout"), False),
        (Waiting(), False),
        (Completed(None), False),
        (Cancelled(), False),
    ],
)
def test_which_answers_may_be_an_order_s_own(answer: Answer, *, odd: bool) -> None:
    assert is_odd(answer) is odd


@pytest.mark.parametrize("answer", [ODD, Garbled("not_understood"), EMPTY, BROKEN])
def test_beside_one_that_is_understood_it_is_the_order_s_own(answer: Answer) -> None:
    judge = Judge()
    judge.understood("good", 0.0)
    assert {ask(judge, str(n), answer, now=n) for n in range(50)} == {Fault.ORDER}
    assert not judge.is_in_doubt
    assert not judge.is_lost(1e6)
    assert judge.reason(1) == ""


@pytest.mark.parametrize("answer", [ODD, Garbled("not_understood"), EMPTY, BROKEN])
def test_where_nothing_is_understood_it_takes_several_orders(answer: Answer) -> None:
    judge = Judge()
    assert [ask(judge, str(n), answer) for n in range(5)] == [Fault.UNDECIDED] * 4 + [Fault.ACCOUNT]
    judge.understood("good", 0.0)
    assert judge.reason(1) == ""
    assert ask(judge, "9", answer) is Fault.ORDER


def test_one_order_never_speaks_for_its_account() -> None:
    judge = Judge()
    assert {ask(judge, "a", now=n, limit=1) for n in range(50)} == {Fault.UNDECIDED}
    assert not judge.is_in_doubt
    assert not judge.is_lost(1e6)


def test_an_order_that_is_known_to_be_odd_says_nothing_of_its_account() -> None:
    judge = Judge()
    assert {ask(judge, str(n), is_known_odd=True) for n in range(50)} == {Fault.ORDER}
    assert judge.odd == {}


def test_orders_that_were_understood_before_tell_of_their_account_at_once() -> None:
    judge = Judge()
    judge.understood("good", 0.0)
    found = [ask(judge, str(n), now=1.0, was_understood=True) for n in range(5)]
    assert found == [Fault.UNDECIDED] * 4 + [Fault.ACCOUNT]


def test_an_order_understood_before_is_no_evidence_for_itself() -> None:
    judge = Judge()
    judge.understood("a", 0.0)
    judge.understood("a", 1.0)
    assert judge.last_of_others("a") is None
    assert ask(judge, "a", now=1.0) is Fault.UNDECIDED
    judge.understood("b", 2.0)
    judge.understood("c", 3.0)
    assert judge.last_of_others("c") == ("b", 2.0)
    assert judge.last_of_others("b") == ("c", 3.0)


def test_the_evidence_is_of_the_same_minutes() -> None:
    judge = Judge()
    judge.understood("good", 0.0)
    assert ask(judge, "a", now=SAME_MINUTES) is Fault.ORDER
    assert ask(judge, "b", now=SAME_MINUTES + 1) is Fault.UNDECIDED
    assert judge.are_others_understood("b", SAME_HOUR, SAME_HOUR)
    assert not judge.are_others_understood("b", SAME_HOUR + 1, SAME_HOUR)


def test_what_is_understood_later_shows_whose_fault_it_was() -> None:
    judge = Judge()
    ask(judge, "old", now=0.0)
    ask(judge, "a", now=500.0)
    ask(judge, "self", now=501.0)
    assert list(judge.understood("self", 502.0)) == ["a"]
    assert judge.odd == {}


def test_what_counted_as_attempts_is_taken_back_once() -> None:
    judge = Judge()
    judge.understood("good", 0.0)
    ask(judge, "own", now=1.0)
    ask(judge, "counted", now=1.0, was_understood=True)
    ask(judge, "neither", now=1.0, was_understood=True)
    judge.counted("counted", 7.0)
    judge.counted("counted", 8.0)
    judge.counted("gone", 7.0)
    found = judge.take_back()
    assert {i: (odd.is_own, odd.is_counted) for i, odd in found.items()} == {
        "own": (True, False),
        "counted": (False, True),
    }
    assert found["counted"].asked_before == 7.0, "as before the first of them"
    assert judge.take_back() == {}


def test_an_order_is_kept_with_the_slot_at_which_its_answers_became_so() -> None:
    judge = Judge()
    ask(judge, "a", Garbled("cut_short"), now=1.0)
    ask(judge, "a", Garbled("cut_short"), now=2.0)
    assert judge.odd["a"].due == 1.0
    ask(judge, "a", ODD, now=3.0)
    assert judge.odd["a"].due == 3.0


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([ODD, ODD], REFUSED),
        ([ODD, Garbled("cut_short")], NOT_UNDERSTOOD),
        ([Garbled("cut_short"), Garbled("cut_short")], NOT_UNDERSTOOD),
        ([BROKEN, BROKEN], "http_500"),
        ([BROKEN, EMPTY], NOT_UNDERSTOOD),
        ([EMPTY, EMPTY], "empty_answer"),
        ([EMPTY, ODD], NOT_UNDERSTOOD),
    ],
)
def test_why_an_account_cannot_be_asked(answers: list[Answer], reason: str) -> None:
    judge = Judge()
    for n, answer in enumerate(answers):
        ask(judge, str(n), answer)
    assert judge.reason(2) == reason


def test_few_orders_are_lost_after_a_while() -> None:
    judge = Judge()
    ask(judge, "a", now=10.0)
    ask(judge, "b", now=11.0)
    assert not judge.is_lost(10.0 + PATIENCE)
    assert judge.is_lost(10.1 + PATIENCE)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Unreachable("timeout"), Fault.NETWORK),
        (Unreachable("internal_error"), Fault.OURS),
        (Blocked("private_address"), Fault.OURS),
        (Blocked("refused_8"), Fault.ACCOUNT),
        (Busy("http_429"), Fault.ACCOUNT),
    ],
)
def test_a_failure_is_nobody_s_own(answer: Answer, fault: Fault) -> None:
    judge = Judge()
    judge.understood("good", 0.0)
    assert ask(judge, "a", answer) is fault
    assert judge.odd == {}


def test_an_order_whose_questions_alone_fail_shuts_nothing() -> None:
    judge, failure = Judge(), Unreachable("timeout")
    assert [ask(judge, "a", failure) for _ in range(9)] == [Fault.NETWORK] * 9
    ask(judge, "b", failure)
    judge.understood("good", 0.0)
    assert [ask(judge, "a", failure, now=1e4) for _ in range(9)] == [Fault.ORDER] * 9
    assert [ask(judge, "b", failure) for _ in range(9)] == [Fault.NETWORK] * 9
    assert ask(judge, "a", Blocked("refused_8")) is Fault.ACCOUNT
    assert ask(judge, "a", failure) is Fault.NETWORK
    judge.understood("a", 0.0)
    judge.understood("b", 0.0)
    assert ask(judge, "a", failure) is Fault.NETWORK


@pytest.mark.parametrize(("others", "fault"), [(900, Fault.ORDER), (1100, Fault.NETWORK)])
def test_what_failed_on_the_way_is_forgotten_where_that_is_very_much(
    others: int, fault: Fault
) -> None:
    judge, failure = Judge(), Unreachable("timeout")
    for _ in range(9):
        ask(judge, "a", failure)
    for n in range(others):
        ask(judge, str(n), failure)
    judge.understood("good", 0.0)
    assert ask(judge, "a", failure) is fault


def test_an_odd_answer_is_forgiven_within_the_same_minutes_and_no_later() -> None:
    judge = Judge()
    ask(judge, "late", now=0.0)
    ask(judge, "just", now=1.0)
    assert list(judge.understood("good", 1.0 + SAME_MINUTES)) == ["just"]


def test_what_may_be_tried_beside_the_gate_ends_with_an_understood_answer() -> None:
    judge = Judge(spare=3)
    judge.understood("good", 0.0)
    assert judge.spare == 0


def test_evidence_older_than_the_same_minutes_is_none_however_long_the_machine_runs() -> None:
    judge = Judge()
    judge.understood("good", 1e6)
    assert judge.are_others_understood("a", 1e6 + SAME_MINUTES)
    assert not judge.are_others_understood("a", 1e6 + SAME_MINUTES + 1)


def test_the_last_two_that_were_understood_are_the_evidence() -> None:
    judge = Judge()
    for now, order_id in enumerate("aba"):
        judge.understood(order_id, float(now))
    judge.understood("c", 3.0)
    assert judge.last_of_others("c") == ("a", 2.0)


@pytest.mark.parametrize(("failures", "fault"), [(2, Fault.NETWORK), (3, Fault.ORDER)])
def test_three_failures_in_a_row_are_an_orders_own_where_others_are_answered(
    failures: int, fault: Fault
) -> None:
    judge, failure = Judge(), Unreachable("timeout")
    for _ in range(failures):
        assert ask(judge, "a", failure) is Fault.NETWORK
    judge.understood("good", 0.0)
    assert ask(judge, "a", failure) is fault


def test_an_order_that_is_understood_has_no_failures_behind_it() -> None:
    judge, failure = Judge(), Unreachable("timeout")
    for _ in range(2):
        ask(judge, "a", failure)
    judge.understood("a", 0.0)
    ask(judge, "a", failure)
    judge.understood("good", 0.0)
    assert ask(judge, "a", failure) is Fault.NETWORK


def test_how_long_nothing_was_understood() -> None:
    judge = Judge()
    assert judge.silent_for(50.0) == 0.0
    ask(judge, "a", now=10.0)
    ask(judge, "b", now=20.0)
    assert judge.silent_for(50.0) == 40.0
    judge.understood("good", 50.0)
    assert judge.silent_for(60.0) == 0.0
