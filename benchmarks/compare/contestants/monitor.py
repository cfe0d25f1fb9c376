"""order-monitor: the daemon as in production, with its settings in the environment."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from benchmarks.compare.contestants.contestant import ROOT, Contestant
from benchmarks.compare.load import KOD, SIFRE, Load
from benchmarks.compare.processes import Command, ContestantFailedError

_NO_CEILING: Final = 100_000
"""Calls a second, set so high that only the number in flight limits it, as for the others."""


def environ(load: Load) -> dict[str, str]:
    """Return the environment with its settings."""
    settings = {
        "DATABASE__DSN": load.dsn,
        "PROVIDER__BASE_URL": load.url,
        "PROVIDER__KOD": KOD,
        "PROVIDER__SIFRE": SIFRE,
        "PROVIDER__ALLOW_HTTP": "true",
        "SCHEDULE__FIRST_CHECK": load.times.first,
        "SCHEDULE__BASE": load.times.base,
        "SCHEDULE__CAP": load.times.cap,
        "SCHEDULE__JITTER": load.times.jitter,
        "SCHEDULE__SCAN_INTERVAL": load.times.scan,
        "SCHEDULE__RECORD_SYNC": "false",
        "LIMITS__CONCURRENCY": load.in_flight,
        "LIMITS__CALLS_PER_SECOND": _NO_CEILING,
        "HEALTH__PORT": 0,
    }
    named = {f"ORDER_MONITOR_{name}": str(value) for name, value in settings.items()}
    others = {
        name: value for name, value in os.environ.items() if not name.startswith("ORDER_MONITOR_")
    }
    return {**others, **named, "PYTHONPATH": str(ROOT)}


async def install(dsn: str) -> None:
    """Run ``order-monitor migrate`` on a shop's database."""
    settings = environ(Load("http://127.0.0.1:9", dsn, ".", 20))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "order_monitor",
        "migrate",
        env=settings,
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise ContestantFailedError("order-monitor migrate failed")


MONITOR = Contestant(
    "order-monitor",
    "the daemon as it is run, its tables added by `order-monitor migrate`, an event written with each change",
    lambda load: [Command("own", (sys.executable, "-m", "order_monitor"), environ(load))],
    packages=("order-monitor",),
    install=install,
)
