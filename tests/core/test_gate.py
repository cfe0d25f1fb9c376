"""The account's gate and its pace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.answer import Waiting
from order_monitor.core.gate import FIRST_PAUSE, LONGEST_PAUSE, LONGEST_RETRY_AFTER, Gate, Pace
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.watch.account import Account


def shut(gate: Gate, now: float = 0.0) -> None:
    for _ in range(gate.limit):
        gate.failed(now, "timeout", probe=False)


def test_it_shuts_after_failures_in_a_row() -> None:
    gate = Gate(limit=3)
    assert not gate.failed(0, "timeout", probe=False)
    assert not gate.failed(0, "timeout", probe=False)
    assert not gate.succeeded(probe=False)
    assert not gate.failed(0, "timeout", probe=False)
    assert not gate.failed(0, "timeout", probe=False)
    assert gate.is_open
    assert gate.failed(0, "http_500", probe=False)
    assert not gate.is_open
    assert gate.reason == "http_500"


def test_one_probe_at_a_time_with_growing_pauses() -> None:
    gate, now, pauses = Gate(limit=1), 0.0, []
    gate.failed(now, "timeout", probe=False)
    for _ in range(9):
        opens = gate.opens_at()
        assert opens is not None
        assert not gate.lets_through(opens - 0.01)
        assert gate.lets_through(opens)
        pauses.append(opens - now)
        now = opens
        assert gate.started()
        assert not gate.lets_through(now + 1000), "one probe at a time"
        assert gate.opens_at() is None
        assert not gate.failed(now, "timeout", probe=True)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert gate.started()
    assert gate.succeeded(probe=True)
    assert gate.is_open
    shut(gate, now)
    assert gate.opens_at() == now + FIRST_PAUSE, "after success the pauses start anew"


def test_calls_under_way_when_it_shut_are_one_outage() -> None:
    gate = Gate(limit=2)
    shut(gate)
    for _ in range(20):
        assert not gate.failed(3.0, "timeout", probe=False)
    assert gate.opens_at() == FIRST_PAUSE


def test_a_late_success_opens_it() -> None:
    gate = Gate(limit=2)
    shut(gate)
    assert gate.succeeded(probe=False)
    assert gate.is_open


def test_retry_after_is_obeyed_at_once_and_within_reason() -> None:
    gate = Gate(limit=5)
    assert gate.failed(0, "http_429", probe=False, retry_after=7)
    assert gate.opens_at() == 7
    assert gate.started()
    assert not gate.failed(7, "http_429", probe=True, retry_after=1)
    assert gate.opens_at() == 8, "below the limit its own word is enough"
    gate = Gate(limit=1)
    gate.failed(0, "http_503", probe=False, retry_after=1)
    assert gate.opens_at() == FIRST_PAUSE, "in a real outage our own pause may be longer"
    gate = Gate()
    gate.failed(0, "http_503", probe=False, retry_after=10**9)
    assert gate.opens_at() == LONGEST_RETRY_AFTER


def test_a_probe_that_ends_without_a_word_is_handed_back() -> None:
    gate = Gate(limit=1)
    gate.failed(0, "timeout", probe=False)
    gate.started()
    gate.released(probe=True)
    assert gate.lets_through(FIRST_PAUSE)
    gate.released(probe=False)


def test_an_outage_of_weeks_is_probed_all_the_while() -> None:
    gate, now = Gate(limit=1), 0.0
    gate.failed(now, "timeout", probe=False)
    for _ in range(1100):
        now = gate.opens_at() or 0.0
        gate.started()
        gate.failed(now, "timeout", probe=True)
    assert gate.opens_at() == now + LONGEST_PAUSE


@pytest.mark.parametrize("limit", [1, 5])
def test_a_word_that_comes_late_shortens_no_pause(limit: int) -> None:
    gate = Gate(limit=limit)
    gate.failed(0, "http_429", probe=False, retry_after=100)
    assert not gate.failed(1, "http_429", probe=False, retry_after=5)
    assert gate.opens_at() == 100
    assert not gate.failed(2, "http_429", probe=False, retry_after=200)
    assert gate.opens_at() == 202


def test_retry_after_nothing_shuts_it_for_a_moment() -> None:
    gate = Gate(limit=5)
    assert gate.failed(3, "http_429", probe=False, retry_after=0)
    assert (gate.is_open, gate.opens_at(), gate.lets_through(3)) == (False, 3, True)


def test_an_account_that_makes_no_sense_is_shut_at_once() -> None:
    gate = Gate(limit=5)
    assert gate.shut(0, "not_understood", probe=False)
    assert (gate.is_open, gate.reason, gate.streak, gate.opens_at()) == (
        False,
        "not_understood",
        5,
        FIRST_PAUSE,
    )
    assert not gate.shut(1, "refused", probe=False), "it was shut already"
    assert gate.opens_at() == FIRST_PAUSE
    gate.started()
    assert not gate.shut(5, "refused", probe=True)
    assert (gate.reason, gate.opens_at()) == ("refused", 5 + 2 * FIRST_PAUSE)
    assert gate.succeeded(probe=True)
    assert (gate.reason, gate.streak) == ("", 0)


def test_whoever_resumes_an_account_finds_it_as_new() -> None:
    gate = Gate(limit=2)
    shut(gate)
    gate.started()
    gate.failed(FIRST_PAUSE, "timeout", probe=True)
    gate.restart()
    assert (gate.is_open, gate.reason, gate.streak) == (True, "", 0)
    assert not gate.failed(100, "timeout", probe=False)
    assert gate.failed(100, "timeout", probe=False)
    assert gate.opens_at() == 100 + FIRST_PAUSE


def test_after_a_changed_login_the_pauses_start_anew() -> None:
    gate = Gate(limit=1)
    gate.failed(0, "refused_8", probe=False)
    gate.started()
    gate.failed(5, "refused_8", probe=True)
    gate.retry_now()
    assert gate.opens_at() == 0
    gate.started()
    gate.failed(6, "refused_8", probe=True)
    assert gate.opens_at() == 6 + FIRST_PAUSE


def test_a_call_that_is_no_probe_takes_no_probe_back() -> None:
    gate = Gate(limit=1)
    gate.failed(0, "timeout", probe=False)
    gate.started()
    gate.released(probe=False)
    assert not gate.lets_through(1000)
    gate.failed(1, "timeout", probe=False)
    assert not gate.lets_through(1000)
    gate.succeeded(probe=False)
    assert gate.probing, "its caller still hands it back"
    gate.succeeded(probe=True)
    assert not gate.probing


def test_a_call_through_an_open_gate_is_no_probe() -> None:
    gate = Gate()
    assert not gate.started()
    assert not gate.probing
    assert (gate.opens_at(), gate.reason, gate.streak) == (None, "", 0)


def test_a_changed_login_lets_a_probe_through_at_once() -> None:
    gate = Gate(limit=1)
    gate.failed(100, "refused_8", probe=False)
    assert not gate.lets_through(100)
    gate.retry_now()
    assert gate.lets_through(100)


def test_a_probe_that_tells_nothing_leaves_the_pause_as_it_is() -> None:
    gate = Gate(limit=1)
    gate.failed(0.0, "timeout", probe=False)
    for now in (5.0, 10.0, 15.0):
        assert gate.opens_at() == now
        gate.started()
        gate.learned_nothing(now, probe=True)
    gate.started()
    gate.failed(20.0, "timeout", probe=True)
    assert gate.opens_at() == 30.0
    gate.learned_nothing(25.0, probe=False)
    assert gate.opens_at() == 30.0


def test_pauses_grow_only_where_they_are_to() -> None:
    gate = Gate(limit=1)
    assert gate.shut(0.0, "refused", probe=False, grows=False)
    for now in (5.0, 10.0, 15.0):
        gate.started()
        assert not gate.shut(now, "refused", probe=True, grows=False)
        assert gate.opens_at() == now + FIRST_PAUSE
    gate.started()
    gate.shut(20.0, "refused", probe=True)
    assert gate.opens_at() == 30.0


@given(
    st.lists(
        st.tuples(st.sampled_from(["fail", "succeed", "start", "wait"]), st.floats(0, 400)),
        max_size=60,
    )
)
def test_it_always_opens_again(events: list[tuple[str, float]]) -> None:
    """Whatever happens, one success ends the outage and no pause exceeds the longest."""
    gate, now, probes = Gate(limit=2), 0.0, 0
    for kind, number in events:
        match kind:
            case "wait":
                now += number
            case "start" if gate.lets_through(now):
                probes += gate.started()
            case "fail":
                gate.failed(now, "x", probe=probes > 0)
                probes = max(0, probes - 1)
            case "succeed":
                gate.succeeded(probe=probes > 0)
                probes = max(0, probes - 1)
        opens = gate.opens_at()
        assert opens is None or opens <= now + LONGEST_PAUSE
    gate.succeeded(probe=True)
    assert gate.lets_through(now)


def test_the_pace_spaces_calls_evenly() -> None:
    pace, now, calls = Pace(10.0), 100.0, 0
    while now < 200:
        if pace.ready_at() <= now:
            pace.spend(now)
            calls += 1
        now += 0.001
    assert 999 <= calls <= 1001


def test_the_pace_saves_nothing_up_for_a_burst() -> None:
    pace = Pace(10.0)
    pace.spend(0)
    pace.spend(1000)
    assert pace.ready_at() > 1000


def test_extra_requests_count() -> None:
    pace = Pace(10.0, slack=0)
    pace.spend(0)
    pace.spend(0, 2)
    assert pace.ready_at() == pytest.approx(0.3)


def test_a_timer_that_is_a_little_late_costs_no_call() -> None:
    pace = Pace(10.0, slack=0.02)
    pace.spend(100)
    assert pace.ready_at() == pytest.approx(100.08)
    pace.spend(100.09)
    assert pace.ready_at() == pytest.approx(100.18)
    pace.spend(100.25)
    assert pace.ready_at() == pytest.approx(100.33), "no more than the slack is made up for"


class _Silent:
    async def ask(self, reference: str) -> Reply:
        return Reply(Waiting())

    async def balance(self) -> Balance | NoBalance:
        return NoBalance("timeout")

    async def aclose(self) -> None:
        return None


def test_an_account_starts_when_both_gate_and_pace_allow() -> None:
    account = Account("a", _Silent(), Gate(limit=1), Pace(1.0, slack=0))
    assert account.may_start(0)
    account.pace.spend(0)
    assert not account.may_start(0.5)
    assert account.may_start_at() == 1
    account.gate.failed(0, "timeout", probe=False)
    assert account.may_start_at() == FIRST_PAUSE
    account.gate.started()
    assert account.may_start_at() is None
    assert not account.may_start(100)
