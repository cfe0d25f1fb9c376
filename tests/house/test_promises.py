"""Every promise in the book names a test, and the test is there."""

import ast
import re

import pytest

from tests.support.readme import PAGES, ROOT

(SECTION,) = re.findall(
    r"^## What is promised\n(.*?)^## ", PAGES["operating.md"], re.MULTILINE | re.DOTALL
)
ROWS = [line.split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][1:]
NAMED = sorted(set(re.findall(r"`([a-z_/]+\.py)::(\w+)`", SECTION)))


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip("| ")[:50] for row in ROWS])
def test_each_promise_names_a_test(row: list[str]) -> None:
    assert len(row) == 2
    assert re.findall(r"`[a-z_/]+\.py::test_\w+`", row[1])


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_each_named_test_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    assert name in {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_real_fault_is_among_the_promises() -> None:
    for path in (ROOT / "tests" / "faults").glob("test_*.py"):
        found = re.findall(r"^async def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
        missing = {name for name in found if (f"faults/{path.name}", name) not in NAMED}
        assert missing <= {"test_the_provider_goes_away_and_comes_back"}, path.name


@pytest.mark.parametrize(
    ("name", "heading"), [("README.md", "What is promised"), ("README.ar.md", "ما نَعِد به")]
)
def test_each_promise_of_a_readme_stands_beside_a_test_that_is_there(
    name: str, heading: str
) -> None:
    text = (ROOT / name).read_text("utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    promises = section.split("\n- ")[1:]
    assert len(promises) == 6
    for promise in promises:
        named = re.findall(r"`([a-z_/]+\.py)`", promise)
        assert named, promise
        assert all((ROOT / "tests" / file).is_file() for file in named), named
