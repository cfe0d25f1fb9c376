"""What is shipped is named and looked over: the bill of materials, the linter's security rules, the
audit.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.readme import ROOT

LOCK = (ROOT / "deploy" / "requirements.lock").read_text("utf-8")
SBOM = ROOT / ".ci" / "sbom.py"
pytestmark = pytest.mark.skipif(
    not SBOM.exists(), reason="needs the repository: this is a built package"
)


def bill() -> str:
    command = [sys.executable, str(SBOM), "1.2.3", str(ROOT / "deploy" / "requirements.lock")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_bill_of_materials_names_every_locked_dependency_with_version_and_hashes() -> None:
    made = json.loads(bill())
    assert (made["bomFormat"], made["specVersion"], made["version"]) == ("CycloneDX", "1.6", 1)
    locked = dict(line.split()[0].split("==") for line in LOCK.splitlines() if "==" in line)
    assert len(locked) > 15
    assert {c["name"]: c["version"] for c in made["components"]} == locked
    assert {c["purl"] for c in made["components"]} == {
        f"pkg:pypi/{n}@{v}" for n, v in locked.items()
    }
    hashes = [
        h["content"] for c in made["components"] for h in c["externalReferences"][0]["hashes"]
    ]
    assert sorted(hashes) == sorted(
        part.split(":")[1] for part in LOCK.split() if part.startswith("--hash=sha256:")
    )
    (root,) = made["dependencies"]
    assert root["ref"] == made["metadata"]["component"]["bom-ref"] == "pkg:pypi/order-monitor@1.2.3"
    assert set(root["dependsOn"]) == {c["bom-ref"] for c in made["components"]}


def test_the_same_lock_makes_the_same_bill() -> None:
    assert bill() == bill()


def test_a_release_writes_the_bill_beside_the_wheel() -> None:
    assert '.ci/sbom.py "$version" deploy/requirements.lock > "${wheel%.whl}.cdx.json"' in (
        ROOT / ".ci" / "release"
    ).read_text("utf-8")


def test_the_linters_security_rules_are_on() -> None:
    """Ruff's S rules are bandit's; what is let pass is named here."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    assert lint["select"] == ["ALL"]
    assert [rule for rule in lint["ignore"] if rule.startswith("S")] == ["S101"]
    passed = {
        folder: [
            rule for rule in rules if rule == "S" or (rule.startswith("S") and rule[1:].isdigit())
        ]
        for folder, rules in lint["per-file-ignores"].items()
        if folder.startswith("order_monitor/")
    }
    assert {folder: rules for folder, rules in passed.items() if rules} == {
        name: ["S608"]
        for name in (
            "order_monitor/shop/**",
            "order_monitor/timing/store.py",
            "order_monitor/cluster/membership.py",
        )
    }


def test_planted_flaws_are_seen() -> None:
    planted = "import subprocess\n\nsubprocess.run('ls ' + input(), shell=True)\nexec(input())\npassword = 'hunter2'\n"
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename"]
    found = subprocess.run(
        [*command, "order_monitor/core/planted.py", "-"],
        input=planted,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert {"S602", "S102", "S105"} <= {word for word in found.split() if word.startswith("S")}


AUDITOR = """#!{python}
import json, sys
lock = sys.argv[-1]
answers = json.loads({answers!r})
answer = answers["build" if "build" in lock else "requirements"]
print(json.dumps(answer) if isinstance(answer, dict) else "")
print(answer, file=sys.stderr)
"""
FINE = {"dependencies": [{"name": "httpx", "version": "1", "vulns": []}]}
FLAWED = {"dependencies": [{"name": "httpx", "version": "1", "vulns": [{"id": "PYSEC-1"}]}]}
UNKNOWN = {
    "dependencies": [
        {"name": "httpx", "skip_reason": "not found"},
        {"name": "h11", "version": "1", "vulns": []},
    ]
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("answers", "strict", "code", "words"),
    [
        ((FINE, FINE), True, 0, "nothing is known"),
        ((FINE, FLAWED), False, 1, "deploy/build.lock: httpx 1: PYSEC-1"),
        ((UNKNOWN, FINE), False, 0, "NOT LOOKED AT: 1 of 2"),
        ((UNKNOWN, FINE), True, 1, "NOT LOOKED AT: 1 of 2"),
        (
            (FINE, "no route to host"),
            False,
            0,
            "deploy/build.lock: NOT LOOKED AT: no route to host",
        ),
        ((FINE, "no route to host"), True, 1, "deploy/build.lock: NOT LOOKED AT: no route to host"),
    ],
)
def test_a_known_vulnerability_fails_the_check_and_what_was_not_looked_at_is_said(
    tmp_path: Path,
    answers: tuple[object, object],
    *,
    strict: bool,
    code: int,
    words: str,
) -> None:
    auditor = tmp_path / "pip-audit"
    told = json.dumps(dict(zip(("requirements", "build"), answers, strict=True)))
    auditor.write_text(AUDITOR.format(python=sys.executable, answers=told))
    auditor.chmod(0o755)
    command = [
        sys.executable,
        str(ROOT / ".ci" / "audit.py"),
        str(auditor),
        *(["--strict"] if strict else []),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == code, run.stdout + run.stderr
    assert words in run.stdout
