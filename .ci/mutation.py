"""Change what decides and writes in one small way at a time, and report what no test notices.

``make mutation``; ``ARGS="order_monitor.core.gate.*"`` limits it to one module. It works on a fresh
copy in ``build/mutation``. It fails where a change that no test notices is not argued in
``.ci/survivors.toml``, where one that is argued there is noticed after all, and where the tests
notice too little of a module.
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
from survivors import FILE, Change, Fates, argued, change_of, complaints, share

PLACE = Path("build/mutation")
COPIED = ("order_monitor", "tests")
KINDS = {
    "refused by mypy": "caught by type check",
    "killed": "killed",
    "timeout": "timeout",
    "survived": "survived",
    "no tests": "no tests",
    "not checked": "not checked",
}
LIVED = ("survived", "no tests")


def copy() -> None:
    """Copy the code and its tests there, and change into it: mutmut writes only to its working
    directory.
    """
    shutil.rmtree(PLACE, ignore_errors=True)
    for name in COPIED:
        shutil.copytree(name, PLACE / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("pyproject.toml", PLACE)
    os.chdir(PLACE)


def run(patterns: list[str]) -> None:
    """Run the tests against each mutant.

    Frozen objects are not copied into each of the thousands of forks.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.register_at_fork(before=gc.freeze, after_in_child=gc.disable)
    cli(["run", *patterns], standalone_mode=False)


def results() -> Fates:
    """Return the outcome of each mutant, by module."""
    found = {}
    for path in sorted(Path("mutants/order_monitor").rglob("*.meta")):
        codes = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
        if codes:
            module = path.relative_to("mutants").with_suffix("")
            found[str(module)] = {name: status_by_exit_code[code] for name, code in codes.items()}
    return found


def tell(fates: Fates) -> None:
    """Print one row per module of which something was tried."""
    print(f"{'':44}" + "".join(f"{kind:>17}" for kind in KINDS) + f"{'noticed':>12}")
    total: Counter[str] = Counter()
    for module, by_name in fates.items():
        counts = Counter(by_name.values())
        total += counts
        if set(counts) == {"not checked"}:
            continue
        print(f"{module:44}" + "".join(f"{counts[kind]:>17}" for kind in KINDS.values()), end="")
        print(f"{share(by_name.values()):>10.1f} %")
    print(f"{'':44}" + "".join(f"{total[kind]:>17}" for kind in KINDS.values()), end="")
    print(f"{share(total.elements()):>10.1f} %")


def survivors(fates: Fates) -> set[Change]:
    """Return the changes that no test noticed, and write the diff of each."""
    found = set()
    with Path("survivors.txt").open("w", encoding="utf-8") as told:
        for module, by_name in fates.items():
            for name in [name for name, fate in by_name.items() if fate in LIVED]:
                diff = get_diff_for_mutant(name, path=module)
                told.write(f"# {name}: {by_name[name]}\n{diff}\n")
                found.add(change_of(module, name, diff))
    print(f"what survived: {PLACE / 'survivors.txt'}")
    return found


if __name__ == "__main__":
    copy()
    run(sys.argv[1:])
    fates = results()
    tell(fates)
    wrong = complaints(fates, survivors(fates), set(argued(FILE.read_text("utf-8"))))
    sys.exit("\n".join(wrong) or 0)
