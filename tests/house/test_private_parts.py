"""Tests look at what our modules show: none reaches into a name with an underscore."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]

PUBLIC = {"_", "_replace", "_exit"}
"""Public for all their underscore, by Python's documentation: of named tuples and of os."""

EXCEPTIONS: dict[str, dict[str, str]] = {
    "support/launch.py": {
        "_run_exitfuncs": "Python's own: a copied process ends as Python does",
        "_shutdown": "Python's own: the same",
    },
    "timing/test_advice.py": {"_between": "t"},
    "timing/test_estimate.py": {"_rounded": "t"},
    "shop/test_database.py": {"_transport": "asyncpg's own: it shows its socket nowhere else"},
}
"""By file and name: why it is reached for all the same."""

OWN = {"self", "cls"}
SETTERS = {"getattr", "setattr", "delattr", "hasattr", "patch", "object"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def is_own(owner: ast.expr) -> bool:
    """Whether an attribute is of the object itself, or of the class that its own extends."""
    match owner:
        case ast.Name(id=name):
            return name in OWN
        case ast.Call(func=ast.Name(id="super")):
            return True
    return False


def reached(source: str) -> Iterator[tuple[int, str]]:
    """Yield each line with a private name of something else, and the name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=owner, attr=name) if is_private(name) and not is_own(owner):
                yield node.lineno, name
            case ast.ImportFrom(names=names):
                yield from ((node.lineno, one.name) for one in names if is_private(one.name))
            case ast.Call(
                func=ast.Name(id=function) | ast.Attribute(attr=function), args=arguments
            ) if function in SETTERS:
                for one in arguments[:2]:
                    text = str(one.value) if isinstance(one, ast.Constant) else ""
                    if is_private(text.rpartition(".")[2]):
                        yield node.lineno, text.rpartition(".")[2]


def test_no_test_reaches_into_private_parts() -> None:
    found, unused = [], {(file, name) for file, names in EXCEPTIONS.items() for name in names}
    for path in sorted(TESTS.rglob("*.py")):
        file = str(path.relative_to(TESTS))
        for line, name in reached(path.read_text()):
            if name in EXCEPTIONS.get(file, {}):
                unused.discard((file, name))
            else:
                found.append(f"{file}:{line}: {name}")
    assert found == []
    assert unused == set(), "exceptions that are needed no more"


def test_what_reaches_in_is_seen() -> None:
    source = """
from order_monitor.core import _hidden
thing._part.go()
self._mine, cls._mine, super()._mine, thing.__class__, thing._replace(a=1)
self.thing._part
monkeypatch.setattr(module, "_LIMIT", 3)
monkeypatch.setattr("order_monitor.module._LIMIT", 3)
getattr(thing, "_part")
"""
    assert sorted(reached(source)) == [
        (2, "_hidden"),
        (3, "_part"),
        (5, "_part"),
        (6, "_LIMIT"),
        (7, "_LIMIT"),
        (8, "_part"),
    ]
