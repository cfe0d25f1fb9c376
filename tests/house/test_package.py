"""The package, its lock, its README and its shape."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.outside

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [re.split(r"[<>=\[]", line)[0] for line in PROJECT["dependencies"]]
EXTRAS = PROJECT["optional-dependencies"]
EXTRA = [
    re.split(r"[<>=\[]", line)[0]
    for extra in ("demo", "django", "fast", "notify", "otel")
    for line in EXTRAS[extra]
]
README = (ROOT / "README.md").read_text()
LOCK = (ROOT / "deploy" / "requirements.lock").read_text()
LOCK_FOR_DEVELOPMENT = (ROOT / "deploy" / "dev.lock").read_text()
LOCK_WITH_NOTIFY = (ROOT / "deploy" / "notify.lock").read_text()


def tracked() -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in out.splitlines() if (ROOT / name).is_file()]


@pytest.mark.long
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "order_monitor/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {
        "order_monitor",
        next(n for n in names if ".dist-info" in n).partition("/")[0],
    }


def test_each_dependency_earns_its_line_in_the_readme() -> None:
    section = README.partition("## Dependencies")[2]
    assert re.findall(r"^- `([a-z0-9-]+)`", section, re.MULTILINE) == [*RUNTIME, *EXTRA]


@pytest.mark.parametrize("name", RUNTIME)
def test_the_lock_pins_and_hashes_each(name: str) -> None:
    assert re.search(rf"^{name}==[0-9.]+ \\\n    --hash=sha256:[0-9a-f]{{64}}", LOCK, re.MULTILINE)


@pytest.mark.parametrize("lock", [LOCK, LOCK_WITH_NOTIFY, LOCK_FOR_DEVELOPMENT])
def test_the_lock_names_no_place(lock: str) -> None:
    assert "://" not in lock
    assert "--index" not in lock
    assert "/" not in re.sub(r"sha256:\S+", "", lock)


def test_the_image_with_messages_is_the_same_and_more() -> None:
    assert [line for line in LOCK.splitlines() if line not in LOCK_WITH_NOTIFY.splitlines()] == []
    assert re.search(r"^apprise==[0-9.]+ ", LOCK_WITH_NOTIFY, re.MULTILINE)
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "ARG LOCK=requirements.lock\n" in dockerfile
    assert "!deploy/notify.lock" in (ROOT / ".dockerignore").read_text().splitlines()


def test_nothing_names_a_place_of_its_making() -> None:
    words = [
        "pypi" + ".org",
        "python" + "hosted",
        "registry." + "npmjs",
        "deb." + "debian.org",
        "/wo" + "rk/",
        "/fa" + "rm/",
    ]
    for path in tracked():
        text = path.read_text("utf-8", "replace")
        assert not [word for word in words if word in text], path


TRAPS = [
    f"{letter}{n}"
    for letter, count in zip("ABCDEF", (12, 6, 7, 13, 13, 12), strict=True)
    for n in range(1, count + 1)
]


@pytest.mark.parametrize("trap", TRAPS)
def test_each_known_trap_has_its_test_or_its_reason(trap: str) -> None:
    lines = [
        line
        for line in (ROOT / "tests" / "traps.md").read_text().splitlines()
        if line.startswith(f"| {trap} |")
    ]
    assert len(lines) == 1
    _, _, shown, remark, _ = lines[0].split("|")
    found = re.findall(r"`([\w/]+/test_\w+\.py)::(test_\w+)`", shown)
    assert found or remark.strip()
    for file, name in found:
        assert re.search(rf"def {name}\(", (ROOT / "tests" / file).read_text()), (file, name)
