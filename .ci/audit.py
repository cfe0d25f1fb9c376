"""``.ci/audit.py PIP_AUDIT [--strict]``: check the locked packages for known vulnerabilities.

If the advisories are unreachable (no network, a mirror without them), it reports that and the check
passes; with ``--strict`` it fails.
"""

import json
import subprocess
import sys
from pathlib import Path

LOCKS = ("deploy/notify.lock", "deploy/build.lock")  # the first contains all of requirements.lock


def audit(command: str, lock: str) -> tuple[list[str], str]:
    """Return the known vulnerabilities of the locked packages, and why some were not checked."""
    options = [
        "--disable-pip",
        "--require-hashes",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "-r",
        lock,
    ]
    run = subprocess.run([command, *options], capture_output=True, text=True, check=False)
    try:
        found = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], (run.stderr.strip().splitlines() or ["no answer"])[-1]
    known = [
        f"{one['name']} {one['version']}: {flaw['id']}"
        for one in found
        for flaw in one.get("vulns", [])
    ]
    skipped = [one["name"] for one in found if "skip_reason" in one]
    return (
        known,
        f"{len(skipped)} of {len(found)} packages are unknown to the advisories" if skipped else "",
    )


def main() -> int:
    """Audit each lock file."""
    worst = 0
    for lock in LOCKS:
        known, missed = audit(sys.argv[1], lock)
        for flaw in known:
            print(f"{lock}: {flaw}")
        if missed:
            print(f"{lock}: NOT LOOKED AT: {missed}")
        elif not known:
            print(f"{lock}: nothing is known against it")
        worst = max(worst, bool(known), bool(missed) and "--strict" in sys.argv)
    return worst


if __name__ == "__main__":
    assert Path(LOCKS[0]).exists(), "run it from the repository"
    raise SystemExit(main())
