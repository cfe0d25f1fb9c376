"""Commands as a person types them, and the daemon they act on."""

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.migration import Migration
from order_monitor.watch.system_clock import SystemClock
from tests.support import launch
from tests.support.processes import KOD, PIN, SIFRE, Run, running
from tests.support.shops import NO_FIRST_START, Shop

RARELY = {"first_check": 3600, "base": 3600, "cap": 3600}


async def prepare(shop: Shop) -> None:
    """Add our own tables, as `migrate` does."""
    database = Database(parse_dsn(shop.dsn))
    _ = [line async for line in Migration(database, shop.table_config, SystemClock()).apply()]
    async with database.transaction() as connection:
        await connection.execute(NO_FIRST_START)
    await database.close()


async def call(
    tmp_path: Path, config: str, *arguments: str, stdin: str | bytes = ""
) -> tuple[int, str, str]:
    """Run a command with something on its standard input.

    Its arguments are looked at as `ps` would.
    """
    folder = tmp_path / f"c{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    (folder / "monitor.toml").write_text(config)
    process = await launch.start(*arguments, cwd=folder, stdin=launch.PIPE)
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin.encode() if isinstance(stdin, str) else stdin)
    for secret in (PIN, SIFRE, KOD):
        assert secret.encode() not in out + err, "a secret was shown"
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def daemon(
    shop: Shop, tmp_path: Path, config: str, *, rate: float = 1.0
) -> AsyncIterator[Run]:
    folder = tmp_path / "daemon"
    folder.mkdir(exist_ok=True)
    async with running(folder, config, rate=rate) as run:
        while not any(e["event"] == "started" for e in run.events()):
            await asyncio.sleep(0.01)
        yield run
        run.process.terminate()
        assert await run.end() == 0


async def events(shop: Shop) -> list[dict[str, Any]]:
    return [
        dict(r)
        for r in await shop.connection.fetch("SELECT * FROM order_monitor_events ORDER BY id")
    ]


async def is_final(shop: Shop, order_id: str, status: str = "completed") -> None:
    async with asyncio.timeout(30):
        while (await shop.row(order_id))["external_status"] != status:
            await asyncio.sleep(0.02)


async def check(tmp_path: Path, config: str) -> tuple[int, list[dict[str, str]], str]:
    async with running(tmp_path, config, "check", "--json") as run:
        code = await run.end()
    out = run.out.decode()
    return code, json.loads(out) if out else [], run.err.decode()


def of(lines: list[dict[str, str]], level: str) -> dict[str, dict[str, str]]:
    return {line["subject"]: line for line in lines if line["level"] == level}


TOKEN = "TOKEN-CANARY-1"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def status(tmp_path: Path, config: str, *arguments: str) -> tuple[int, str, str]:
    folder = tmp_path / "asker"
    folder.mkdir(exist_ok=True)
    async with running(folder, config, "status", *arguments) as run:
        code = await run.end()
    assert TOKEN.encode() not in run.out + run.err
    return code, run.out.decode(), run.err.decode()
