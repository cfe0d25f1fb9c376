"""Changes to SQL: mutmut knows Python only, and leaves a statement's text as it is."""

import ast
import re
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest
from operator import itemgetter

from tests.simulation.mutants.__main__ import ROOT

PACKAGE = ROOT / "order_monitor"

OPPOSITES = (
    (r"\bAND\b", "OR"),
    (r"\bOR\b", "AND"),
    (r"\bNOT EXISTS\b", "EXISTS"),
    (r"(?<!NOT )\bEXISTS\b", "NOT EXISTS"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NOT DISTINCT FROM\b", "IS DISTINCT FROM"),
    (r"\bIS DISTINCT FROM\b", "IS NOT DISTINCT FROM"),
    (r" = (?=[a-z$'{A-Z])", " <> "),
    (r" <> ", " = "),
    (r" < ", " >= "),
    (r" > ", " <= "),
    (r" <= ", " > "),
    (r" >= ", " < "),
    (r"\bLEAST\b", "GREATEST"),
    (r"\bGREATEST\b", "LEAST"),
    (r"\bDESC\b", "ASC"),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bUNION\b(?! ALL)", "UNION ALL"),
    (r" FOR (?:NO KEY )?UPDATE(?: OF [a-z]+)?", ""),
    (r" ON CONFLICT [A-Z(][^\"]*DO NOTHING", ""),
)
"""What a word or a comparison is replaced with."""


@dataclass(frozen=True)
class Change:
    """A small change to a file of the package, of which ``line`` is the first line changed."""

    file: str
    line: int
    what: str
    code: str


def changes_of_sql(number: int, chosen: int, under: str) -> list[Change]:
    """Return ``number`` changes to the SQL under that folder, which mutmut leaves as it is.

    Each turns one word or comparison into its opposite.
    """
    made: list[tuple[bytes, Change]] = []
    for path in sorted((PACKAGE / under).rglob("*.py")):
        code, met = path.read_text("utf-8"), Counter[str]()
        file, lines = str(path.relative_to(PACKAGE)), code.splitlines(keepends=True)
        for number_of_line in sorted(_lines_of_sql(ast.parse(code), lines)):
            line = lines[number_of_line - 1]
            for pattern, becomes in OPPOSITES:
                for place in re.compile(pattern).finditer(line, line.find('"')):
                    after = f"{line[: place.start()]}{becomes}{line[place.end() :]}"
                    met[after] += 1
                    name = f"{chosen} {file} {after} {met[after]}"
                    rest = "".join(lines[number_of_line:])
                    whole = f"{''.join(lines[: number_of_line - 1])}{after}{rest}"
                    told = f"{' '.join(line[: place.end()].split())[-90:]} -> {becomes}"
                    key = blake2b(name.encode()).digest()
                    made.append((key, Change(file, number_of_line, told, whole)))
    return [change for _, change in nsmallest(number, made, key=itemgetter(0))]


def _lines_of_sql(tree: ast.Module, lines: list[str]) -> set[int]:
    """Return the lines of texts that are no docstrings and have a word of SQL in them."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            for below in ast.walk(node):
                below.documents = isinstance(node.value, ast.Constant)  # type: ignore[attr-defined]
        elif isinstance(node, ast.Constant | ast.JoinedStr) and not getattr(node, "documents", 0):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return {line for line in found if re.search(r"[\"' (](?:[A-Z]{2,}) ", lines[line - 1])}
