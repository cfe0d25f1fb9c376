"""Change the pure core in one small way after the other, and say which changes no test notices.

``make mutation``; with ``ARGS="order_monitor.core.gate.*"`` those of one module. It works on a copy in
``build/mutation``, which it makes anew each time.
"""

import gc
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

from mutmut.__main__ import cli
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

PLACE = Path("build/mutation")
COPIED = ("order_monitor", "tests")
KINDS = ("killed", "survived", "timeout", "no tests", "not checked")


def copy() -> None:
    """Bring the code and its tests there, and go there: mutmut knows no other place for what it makes than where it stands."""
    shutil.rmtree(PLACE, ignore_errors=True)
    for name in COPIED:
        shutil.copytree(name, PLACE / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("pyproject.toml", PLACE)
    os.chdir(PLACE)


def run(patterns: list[str]) -> None:
    """Let the tests meet each mutant. What is frozen is not copied into each of thousands of forks."""
    os.register_at_fork(before=gc.freeze, after_in_child=gc.disable)
    cli(["run", *patterns], standalone_mode=False)


def results() -> dict[str, dict[str, str]]:
    """Return for each module what became of each of its mutants."""
    found = {}
    for path in sorted(Path("mutants/order_monitor").rglob("*.meta")):
        codes = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
        if codes:
            module = path.relative_to("mutants").with_suffix("")
            found[str(module)] = {name: status_by_exit_code[code] for name, code in codes.items()}
    return found


def tell(found: dict[str, dict[str, str]]) -> None:
    """Print a row a module, and write the difference that each survivor makes."""
    print(f"{'':44}" + "".join(f"{kind:>12}" for kind in KINDS))
    total: Counter[str] = Counter()
    with Path("survivors.txt").open("w", encoding="utf-8") as survivors:
        for module, fates in found.items():
            counts = Counter(fates.values())
            total += counts
            print(f"{module:44}" + "".join(f"{counts[kind]:>12}" for kind in KINDS))
            for name, fate in fates.items():
                if fate in ("survived", "no tests"):
                    survivors.write(f"# {name}: {fate}\n{get_diff_for_mutant(name, path=module)}\n")
    print(f"{'':44}" + "".join(f"{total[kind]:>12}" for kind in KINDS))
    print(f"what survived: {PLACE / 'survivors.txt'}")


if __name__ == "__main__":
    copy()
    run(sys.argv[1:])
    tell(results())
