"""A test module holds tests: what several share is in tests/support, or in the harness of one
directory.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
OTHERS = TESTS.parent / "benchmarks"


def is_test(module: str) -> bool:
    return any(part.startswith("test_") for part in module.split("."))


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Yield each line that imports from a test module, and the module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [one.name for one in names]
            case ast.ImportFrom(module=module, names=names):
                modules = [module or "", *(one.name for one in names)]
            case _:
                continue
        for name in modules:
            if is_test(name):
                yield node.lineno, name
                break


def test_no_test_module_is_imported() -> None:
    found = [
        f"{path.relative_to(TESTS.parent)}:{line}: {module}"
        for path in sorted([*TESTS.rglob("*.py"), *OTHERS.rglob("*.py")])
        for line, module in imported(path.read_text())
    ]
    assert found == []


def test_what_imports_a_test_module_is_seen() -> None:
    source = """
from tests.shop.test_orders import found
from tests.shop import test_orders
from . import test_orders
import tests.shop.test_orders as orders

def late() -> None:
    from tests.support.orders import found, tested
    from tests.shop.test_orders import found
"""
    assert list(imported(source)) == [
        (2, "tests.shop.test_orders"),
        (3, "test_orders"),
        (4, "test_orders"),
        (5, "tests.shop.test_orders"),
        (9, "tests.shop.test_orders"),
    ]
