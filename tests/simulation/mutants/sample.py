"""``make mutants-sample``: random small changes to the whole package, and how many of them the
simulation alone notices.

A change to a statement that no run of these seeds executes cannot be noticed, and is not tried.
"""

import argparse
import ast
import difflib
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
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
from tests.simulation.special import drawn
from tests.simulation.world import play

PACKAGE = ROOT / "order_monitor"


@dataclass(frozen=True)
class Change:
    """A small change to a file of the package, of which ``line`` is the first line changed."""

    file: str
    line: int
    what: str
    code: str


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


def changes(number: int, chosen: int) -> list[Change]:
    """Return ``number`` changes, drawn with the seed ``chosen`` from all that mutmut can make.

    Each is drawn by its own text and place, so that a change of the package elsewhere leaves the
    draw as it was, and a run can be continued.
    """
    made: list[tuple[bytes, Path, str, Module, Any]] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        code, met = path.read_text("utf-8"), Counter[str]()
        module, mutations, _, _ = create_mutations(str(path), code)
        for mutation in mutations:
            nodes = (mutation.original_node, mutation.mutated_node)
            text = " -> ".join(module.code_for_node(node) for node in nodes)
            met[text] += 1
            name = f"{chosen} {path.relative_to(PACKAGE)} {text} {met[text]}"
            made.append((blake2b(name.encode()).digest(), path, code, module, mutation))
    say(f"{len(made)} changes can be made; {number} of them are drawn")
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


def main() -> None:
    """Try each, and count them by what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--chosen", type=int, default=1, help="the seed of the draw")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--since", type=int, default=0, help="leave out so many")
    args = parser.parse_args()
    where, fates = statements(args.seeds // 3), Counter[str]()
    for change in changes(args.number, args.chosen)[args.since :]:
        begins, run_there = where[change.file]
        statement = begins[max(0, bisect_right(begins, change.line) - 1)] if begins else 0
        if statement not in run_there:
            fate = "not run"
        else:
            try:
                seed, _ = seen(change, args.seeds)
                fate = "UNSEEN" if seed < 0 else f"seed {seed:3}"
            except ValueError:
                fate = "does not start"
            except subprocess.TimeoutExpired:
                fate = "hangs"
        fates["seen" if fate.startswith("seed") else fate] += 1
        say(f"{fate:18} {change.file}:{change.line}: {change.what}")
    say(", ".join(f"{count} {fate}" for fate, count in fates.most_common()))


if __name__ == "__main__":
    main()
