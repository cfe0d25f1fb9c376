"""A new outcome, or a new answer about an order, is a type error wherever somebody must decide what
becomes of the money.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTLY = '''@dataclass(frozen=True, slots=True)
class Partly:
    """Half of it was delivered."""

    message: str = ""
    outcome: ClassVar[str] = "partly"


AboutOrder: TypeAlias'''


@pytest.mark.long
@pytest.mark.outside
@pytest.mark.untraced
def test_a_new_end_is_a_type_error_wherever_it_must_be_known(tmp_path: Path) -> None:
    copy = tmp_path / "order_monitor"
    shutil.copytree(ROOT / "order_monitor", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    outcome, answer = copy / "core/outcome.py", copy / "core/answer.py"
    outcome.write_text(
        outcome.read_text().replace(
            '    FAILED = "failed"\n', '    FAILED = "failed"\n    PARTLY = "partly"\n'
        )
    )
    text = answer.read_text().replace("AboutOrder: TypeAlias", PARTLY, 1)
    answer.write_text(
        text.replace(
            "Waiting | Completed | Cancelled\n", "Waiting | Completed | Cancelled | Partly\n"
        )
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "order_monitor/core",
            "order_monitor/watch/recheck.py",
            "order_monitor/commands/resolve.py",
            "order_monitor/demo/standin.py",
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = {
        line.partition(":")[0].removeprefix("order_monitor/")
        for line in done.stdout.splitlines()
        if "assert_never" in line
    }
    assert wrong == {
        *("core/outcome.py", "core/decision.py", "core/brake.py"),
        *("commands/resolve.py", "watch/recheck.py", "demo/standin.py"),
    }, done.stdout
