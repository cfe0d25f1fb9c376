"""A test that waits for real time to pass says so, by a mark: all others move a clock by hand."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LONGEST = 0.1
"""Seconds that are no wait: to let other tasks run."""

ELSEWHERE = ("simulation", "faults", "shipped")
"""In the first the loop's own time is virtual; the others wait for real servers throughout."""

MARKS = {"pytest.mark.wall_clock", "in_virtual_time"}


class Sleeps(ast.NodeVisitor):
    """Finds waits of a fixed time, but in loops, which poll, and in functions within."""

    def __init__(self, test: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.found: list[float] = []
        for statement in test.body:
            self.visit(statement)

    def visit(self, node: ast.AST) -> None:
        is_apart = isinstance(node, ast.While | ast.For | ast.AsyncFor | ast.ClassDef)
        if not is_apart and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            super().visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func) in ("asyncio.sleep", "time.sleep"):
            seconds = node.args[0]
            if isinstance(seconds, ast.Constant) and isinstance(seconds.value, float | int):
                self.found.append(seconds.value)
        self.generic_visit(node)


def unmarked(source: str) -> list[str]:
    """Return the tests in ``source`` that sleep longer than that, and have no mark."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        marks = {ast.unparse(mark) for mark in node.decorator_list}
        is_long = any(seconds > LONGEST for seconds in Sleeps(node).found)
        if node.name.startswith("test_") and is_long and not MARKS & marks:
            found.append(node.name)
    return found


def test_who_waits_for_real_time_says_so() -> None:
    for path in TESTS.rglob("test_*.py"):
        if path.parent.name not in ELSEWHERE:
            assert unmarked(path.read_text("utf-8")) == [], path


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("await asyncio.sleep(0.5)", 1),
        ("async with shop:\n  time.sleep(2)", 1),
        ("try:\n  pass\n finally:\n  time.sleep(2)", 1),
        ("await asyncio.sleep(0.05)", 0),
        ("while True:\n  await asyncio.sleep(0.5)", 0),
        ("async def stall():\n  await asyncio.sleep(60)", 0),
    ],
)
def test_waits_are_found(body: str, count: int) -> None:
    assert len(unmarked(f"async def test_it():\n {body}\n")) == count
