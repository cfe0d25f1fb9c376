"""The fuzzers' targets hold for their seeds and for what hypothesis makes up: a target that is
broken itself finds nothing.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.targets import SEEDS, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_hold(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@given(st.binary(max_size=200))
def test_any_bytes_hold(data: bytes) -> None:
    targets.answers(data)
    targets.responses(data)
    targets.settings_file(data)


def test_a_target_would_see_a_pin_that_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    from order_monitor.core.answer import Completed
    from order_monitor.core.pin import Pin

    monkeypatch.setattr(targets, "parse", lambda *_, **__: Completed(Pin("MADE-UP"), "x"))
    with pytest.raises(AssertionError):
        targets.answers(b"\x00OK|2|SENT|x")
