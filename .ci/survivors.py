"""Read ``.ci/survivors.toml``: the small changes to the code that no test notices, and why each is
harmless.
"""

import ast
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).resolve().with_name("survivors.toml")
LEAST = 95.0
"""Percent of a module's changes that must be noticed."""

FEW = 2
"""So many may live in any module, however small it is."""

Fates = dict[str, dict[str, str]]
"""The outcome of each mutant, by module."""

NOTICED = ("killed", "timeout", "caught by type check")
"""What mypy refuses is noticed as well: `make check` runs it."""


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """In ``function`` of ``module``, the text ``was`` becomes another."""

    module: str
    function: str
    was: str
    becomes: str


def one_line(text: str) -> str:
    """Return text as one line, each gap one blank."""
    return " ".join(text.split())


def change_of(module: str, name: str, diff: str) -> Change:
    """Return the change that a mutant makes: ``name`` is mutmut's, ``diff`` a unified one."""
    function = name.rpartition(".")[2].partition("__mutmut_")[0].removeprefix("x")
    function = function[1:].replace("ǁ", ".")
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))]
    was, becomes = (
        one_line(" ".join(line[1:] for line in lines if line.startswith(sign))) for sign in "-+"
    )
    return Change(module, function, was, becomes)


def argued(text: str) -> dict[Change, str]:
    """Return each change that the file lists, with its reason."""
    return {
        Change(module, entry["function"], one_line(entry["was"]), one_line(becomes)): entry["why"]
        for module, entries in tomllib.loads(text).items()
        for entry in entries
        for becomes in entry["becomes"]
    }


def functions(source: str) -> dict[str, str]:
    """Return the text of each function and method of a module, by its name, as one line."""
    found: dict[str, str] = {}

    def read(body: list[ast.stmt], place: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                read(node.body, f"{place}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[place + node.name] = one_line(ast.get_source_segment(source, node) or "")

    read(ast.parse(source).body, "")
    return found


def share(outcomes: Iterable[str]) -> float:
    """Return the percentage of changes that were noticed, of those that were tried."""
    tried = [outcome for outcome in outcomes if outcome != "not checked"]
    return 100 * sum(outcome in NOTICED for outcome in tried) / len(tried) if tried else 100.0


def complaints(fates: Fates, survived: set[Change], listed: set[Change]) -> list[str]:
    """Return what is wrong with a run, in which the changes ``survived`` and others are
    ``listed`` as harmless.

    Of a module that was tried in part, only what survived is judged.
    """
    found = [f"not argued: {change}" for change in sorted(survived - listed)]
    whole = {module for module, by_name in fates.items() if "not checked" not in by_name.values()}
    of_whole = {change for change in listed if change.module in whole or change.module not in fates}
    found += [f"noticed after all, or gone: {change}" for change in sorted(of_whole - survived)]
    for module in sorted(whole):
        outcomes = list(fates[module].values())
        noticed = share(outcomes)
        if noticed < LEAST and sum(outcome not in NOTICED for outcome in outcomes) > FEW:
            found.append(f"{module}: {noticed:.1f} % are noticed and not {LEAST:g} %")
    return found
