"""Write what the image installs as a CycloneDX bill of materials: ``python .ci/sbom.py VERSION
deploy/requirements.lock > FILE``.

The same lock gives the same bytes: the output contains neither a time nor a random number.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict[str, Any]]:
    """Return each locked distribution, with the hashes of its files."""
    found: list[dict[str, Any]] = []
    for line in lock.splitlines():
        if pinned := PINNED.match(line):
            found.append(component(*pinned.groups()))
        for digest in HASH.findall(line):
            found[-1]["externalReferences"][0]["hashes"].append(
                {"alg": "SHA-256", "content": digest}
            )
    return found


def component(name: str, version: str) -> dict[str, Any]:
    """Return one distribution without its hashes, which belong to its files: any one of them may be
    installed.
    """
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    files = {"type": "distribution", "url": purl, "hashes": []}
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "externalReferences": [files],
    }


def bill(version: str, lock: str) -> dict[str, Any]:
    """Return the complete bill of materials for ``version`` of the program."""
    locked = components(lock)
    ref = f"pkg:pypi/order-monitor@{version}"
    program = {
        "type": "application",
        "bom-ref": ref,
        "name": "order-monitor",
        "version": version,
        "purl": ref,
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**program, "licenses": [{"license": {"id": "MIT"}}]}},
        "components": locked,
        "dependencies": [{"ref": ref, "dependsOn": [each["bom-ref"] for each in locked]}],
    }


if __name__ == "__main__":
    _, version, path = sys.argv
    print(json.dumps(bill(version, Path(path).read_text("utf-8")), indent=2))
