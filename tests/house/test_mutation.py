"""The changes that no test notices: each is argued, and stands where it is said to stand."""

import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.readme import ROOT

SCRIPT = ROOT / ".ci" / "survivors.py"
pytestmark = pytest.mark.skipif(
    not SCRIPT.exists(), reason="needs the repository: this is a built package"
)


@pytest.fixture(scope="module", name="ci")
def loaded() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_each_change_that_is_argued_stands_in_the_code(ci: dict[str, Any]) -> None:
    texts: dict[str, dict[str, str]] = {}
    for change in ci["argued"](ci["FILE"].read_text("utf-8")):
        if change.module not in texts:
            texts[change.module] = ci["functions"]((ROOT / change.module).read_text("utf-8"))
        assert change.was in texts[change.module].get(change.function, ""), change
        assert change.was != change.becomes, change


def test_each_is_argued_once_and_in_one_line(ci: dict[str, Any]) -> None:
    text = ci["FILE"].read_text("utf-8")
    entries = [entry for listed in tomllib.loads(text).values() for entry in listed]
    assert len(ci["argued"](text)) == sum(len(entry["becomes"]) for entry in entries)
    for entry in entries:
        assert len(entry["why"].split()) > 2, entry
        assert "\n" not in entry["why"], entry


def test_each_stands_in_a_module_that_is_changed(ci: dict[str, Any]) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]
    for change in ci["argued"](ci["FILE"].read_text("utf-8")):
        assert any(Path(change.module).match(one) for one in settings["only_mutate"]), change


DIFF = """--- order_monitor/core/gate.py
+++ order_monitor/core/gate.py
@@ -1,3 +1,3 @@
     if self._shut:
-        self.probing  =  True
+        self.probing = False
     return self._shut"""
NAME = "order_monitor.core.gate.xǁGateǁstarted__mutmut_1"
LISTED = """
[["order_monitor/core/gate.py"]]
function = "Gate.started"
was = "self.probing = True"
becomes = ["self.probing = False"]
why = "It is never called."
"""


def test_a_change_is_known_again_by_its_function_and_its_line(ci: dict[str, Any]) -> None:
    change = ci["change_of"]("order_monitor/core/gate.py", NAME, DIFF)
    assert ci["argued"](LISTED) == {change: "It is never called."}
    plain = ci["change_of"]("a/b.py", "a.b.x__do_it__mutmut_12", DIFF)
    assert plain.function == "_do_it"


def test_a_run_fails_for_what_is_not_argued_and_for_what_is_argued_for_nothing(
    ci: dict[str, Any],
) -> None:
    module = "order_monitor/core/gate.py"
    change = ci["change_of"](module, NAME, DIFF)
    told, done = ci["complaints"], dict.fromkeys(map(str, range(99)), "killed")
    whole = {module: {**done, NAME: "survived"}}
    assert told(whole, {change}, {change}) == []
    assert [one.partition(":")[0] for one in told(whole, {change}, set())] == ["not argued"]
    assert "noticed after all" in told({module: done}, set(), {change})[0]
    assert "noticed after all" in told({}, set(), {change})[0]
    in_part = {module: {**done, "x": "not checked"}}
    assert told(in_part, set(), {change}) == []
    assert [one.partition(":")[0] for one in told(in_part, {change}, set())] == ["not argued"]


@pytest.mark.parametrize(
    ("outcomes", "share"),
    [
        (["killed"] * 56 + ["timeout"] + ["survived"] * 3, 95.0),
        (["killed", "survived", "no tests", "segfault"], 25.0),
        (["killed", "caught by type check", "not checked"], 100.0),
        (["survived"] * 3 + ["caught by type check"], 25.0),
        ([], 100.0),
    ],
)
def test_a_module_of_which_too_little_is_noticed_fails(
    ci: dict[str, Any], outcomes: list[str], share: float
) -> None:
    assert ci["share"](outcomes) == share
    fates = {"m.py": {str(n): fate for n, fate in enumerate(outcomes) if fate != "not checked"}}
    assert bool(ci["complaints"](fates, set(), set())) is (share < 95)


def test_two_may_live_in_a_small_module(ci: dict[str, Any]) -> None:
    small = {"m.py": {"1": "killed", "2": "survived", "3": "no tests"}}
    assert ci["complaints"](small, set(), set()) == []
