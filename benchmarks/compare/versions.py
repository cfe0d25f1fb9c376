"""The versions compared and the machine; and which contestants cannot take part."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

from benchmarks.compare.contestants.contestant import Contestant

_PACKAGES = (
    "order-monitor",
    "httpx",
    "asyncpg",
    "celery",
    "gevent",
    "redis",
    "psycopg",
    "procrastinate",
    "pgqueuer",
)


def missing(contestant: Contestant) -> str | None:
    """Return what a contestant is missing on this machine."""
    for package in contestant.packages:
        if not _version(package):
            return f"{package} is not installed"
    if contestant.program and shutil.which(contestant.program) is None:
        return f"there is no {contestant.program}"
    return None


def versions(postgres: str) -> dict[str, str]:
    """Return the version of each contestant and part; ``postgres`` is the server's own version
    string.
    """
    found = {"Python": platform.python_version(), "PostgreSQL": postgres.split(maxsplit=1)[0]}
    found |= {name: number for name in _PACKAGES if (number := _version(name))}
    redis = shutil.which("redis-server")
    if redis:
        words = subprocess.run(
            [redis, "--version"], capture_output=True, text=True, check=False, timeout=10
        ).stdout.split()
        found["redis-server"] = next(
            (word[2:] for word in words if word.startswith("v=")), "unknown"
        )
    return found


def machine() -> dict[str, str]:
    """Return a description of this machine."""
    return {"cores": str(os.cpu_count()), "system": f"{platform.system()} {platform.machine()}"}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
