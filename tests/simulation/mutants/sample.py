"""``make mutants-sample``: random small changes to the whole package, and how many of them the
simulation alone notices.

A change to a statement that no run of these seeds executes cannot be noticed, and is not tried.

With ``--tests``, these decide instead of the simulation; ``--under`` is the folder that is changed.
``ARGS="--sql --under shop --tests tests/shop"`` shows how well the tests with a real PostgreSQL guard
the statements.
"""

import argparse
import ast
import difflib
import os
import re
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from heapq import nsmallest
from operator import itemgetter
from pathlib import Path
from typing import Any

import coverage
from libcst import Module
from mutmut.mutation.file_mutation import create_mutations, deep_replace

from tests.simulation.__main__ import say
from tests.simulation.loop import run
from tests.simulation.mutants.__main__ import ROOT, copied, first_broken
from tests.simulation.mutants.sql import PACKAGE, Change, changes_of_sql
from tests.simulation.special import drawn
from tests.simulation.world import play

LINKED = ("README.md", "pyproject.toml", "monitor.toml.example", "docs", "deploy")
"""What the tests read in addition to the package and themselves; a copy has links to it."""
PYTEST = (
    *("-m", "pytest", "-x", "-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"),
    *("--tb", "line", "--show-capture", "no", "-m", "not long"),
)
UNSEEN = {"UNSEEN", "not run", "does not start", "hangs"}


def statements(seeds: int) -> dict[str, tuple[list[int], set[int]]]:
    """Return, by file, where its statements begin, and which of them the first seeds execute."""
    measured = coverage.Coverage(source_pkgs=["order_monitor"], data_file=None)
    with measured.collect():
        for seed in range(seeds):
            for scenario in drawn(seed):
                run(play(scenario))
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        _, begins, _, missing, _ = measured.analysis2(str(path))
        # What an import executes was executed before the measurement began.
        executed = set(begins) - set(missing) | _of_the_import(path)
        found[str(path.relative_to(PACKAGE))] = (begins, executed)
    return found


def _of_the_import(path: Path) -> set[int]:
    """Return the lines outside functions, if the module was imported."""
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    if dotted not in sys.modules:
        return set()
    code = path.read_text("utf-8")
    inside: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.body[-1].end_lineno or node.body[-1].lineno
            inside.update(range(node.body[0].lineno, last + 1))
    return set(range(1, 1 + len(code.splitlines()))) - inside


def changes(number: int, chosen: int, under: str = "") -> list[Change]:
    """Return ``number`` changes to what is ``under`` that folder, drawn with the seed ``chosen``
    from all that mutmut can make.

    Each is drawn by its own text and place, so that a change of the package elsewhere leaves the
    draw as it was, and a run can be continued.
    """
    made: list[tuple[bytes, Path, str, Module, Any]] = []
    for path in sorted((PACKAGE / under).rglob("*.py")):
        code, met = path.read_text("utf-8"), Counter[str]()
        module, mutations, _, _ = create_mutations(str(path), code)
        for mutation in mutations:
            nodes = (mutation.original_node, mutation.mutated_node)
            text = " -> ".join(module.code_for_node(node) for node in nodes)
            met[text] += 1
            name = f"{chosen} {path.relative_to(PACKAGE)} {text} {met[text]}"
            made.append((blake2b(name.encode()).digest(), path, code, module, mutation))
    return [_change(*one) for _, *one in nsmallest(number, made, key=itemgetter(0))]


def _change(path: Path, code: str, module: Module, mutation: Any) -> Change:
    changed: Any = deep_replace(module, mutation.original_node, mutation.mutated_node)
    after: str = changed.code
    old, new = code.splitlines(), after.splitlines()
    first = next(
        n for n, pair in enumerate(zip([*old, ""], [*new, ""], strict=False)) if len(set(pair)) > 1
    )
    told = [
        " ".join(line.split())
        for line in difflib.unified_diff(old, new, n=0, lineterm="")
        if line[0] in "-+" and line[:3] not in {"---", "+++"}
    ]
    return Change(str(path.relative_to(PACKAGE)), first + 1, " ".join(told)[:150], after)


def seen(change: Change, seeds: int) -> tuple[int, str]:
    """Return the first seed that breaks with the change, and how; -1 if none does."""
    with tempfile.TemporaryDirectory() as folder:
        copied(Path(folder))
        (Path(folder) / "order_monitor" / change.file).write_text(change.code, "utf-8")
        return first_broken(Path(folder), seeds, timeout=10.0 * seeds)


def noticed(change: Change | None, tests: list[str]) -> str:
    """Return a test of these that fails with the change; nothing if all of them pass."""
    with tempfile.TemporaryDirectory() as folder:
        copied(Path(folder))
        for name in LINKED:
            (Path(folder) / name).symlink_to(ROOT / name)
        if change is not None:
            (Path(folder) / "order_monitor" / change.file).write_text(change.code, "utf-8")
        done = subprocess.run(
            [sys.executable, *PYTEST, *tests],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=False,
            timeout=1800.0,
        )
    if not done.returncode:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else "it does not start"


def by_simulation(drawn_changes: list[Change], seeds: int) -> Iterator[tuple[Change, str]]:
    """Try each with so many seeds of the simulation."""
    where = statements(seeds // 3)
    for change in drawn_changes:
        begins, run_there = where[change.file]
        statement = begins[max(0, bisect_right(begins, change.line) - 1)] if begins else 0
        if statement not in run_there:
            yield change, "not run"
            continue
        try:
            seed, _ = seen(change, seeds)
            yield change, "UNSEEN" if seed < 0 else f"seed {seed:3}"
        except ValueError:
            yield change, "does not start"
        except subprocess.TimeoutExpired:
            yield change, "hangs"


def by_tests(drawn_changes: list[Change], tests: list[str]) -> Iterator[tuple[Change, str]]:
    """Try each with these tests.

    Raises:
        ValueError: they fail without a change.
    """
    if failed := noticed(None, tests):
        msg = f"fails without a change: {failed}"
        raise ValueError(msg)
    for change in drawn_changes:
        try:
            yield change, noticed(change, tests) or "UNSEEN"
        except subprocess.TimeoutExpired:
            yield change, "hangs"


def main() -> None:
    """Try each, and count them by what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--chosen", type=int, default=1, help="the seed of the draw")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--since", type=int, default=0, help="leave out so many")
    parser.add_argument("--under", default="", help="a folder of the package, or all of it")
    parser.add_argument("--tests", nargs="*", help="what pytest runs instead of the simulation")
    parser.add_argument("--sql", action="store_true", help="change words of SQL instead")
    args = parser.parse_args()
    draw = changes_of_sql if args.sql else changes
    found = draw(args.number, args.chosen, args.under)[args.since :]
    say(f"{len(found)} changes are drawn")
    fates = Counter[str]()
    for change, fate in (
        by_tests(found, args.tests) if args.tests else by_simulation(found, args.seeds)
    ):
        fates[fate if fate in UNSEEN else "seen"] += 1
        say(f"{fate:18} {change.file}:{change.line}: {change.what}")
    say(", ".join(f"{count} {fate}" for fate, count in fates.most_common()))


if __name__ == "__main__":
    main()
