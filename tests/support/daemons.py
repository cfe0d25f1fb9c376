"""Daemons that are reloaded and stopped, and what they stored."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.migration import Migration
from order_monitor.watch.system_clock import SystemClock
from tests.support.processes import Run, running
from tests.support.shops import Shop


async def prepare(shop: Shop) -> None:
    """Add our own tables, as `migrate` does, where they are not there."""
    database = Database(parse_dsn(shop.dsn))
    async for _ in Migration(database, shop.table_config, SystemClock()).apply():
        pass
    await database.close()


async def reload(
    run: Run, folder: Path, config: str, event: str = "settings.reloaded"
) -> dict[str, Any]:
    """Let a daemon read another file; return what it says of it."""
    before = len([e for e in run.events() if e["event"] == event])
    (folder / "monitor.toml").write_text(config)
    run.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(20):
        while len(found := [e for e in run.events() if e["event"] == event]) == before:
            await asyncio.sleep(0.01)
    return found[-1]


async def stored(shop: Shop) -> dict[str, str]:
    rows = await shop.connection.fetch(
        "SELECT name, value FROM order_monitor_settings WHERE name LIKE 'money.%'"
    )
    return {row["name"].removeprefix("money."): row["value"] for row in rows}


@asynccontextmanager
async def started(tmp_path: Path, name: str, config: str) -> AsyncIterator[Run]:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    async with running(folder, config) as run:
        await run.event("started")
        yield run


async def stop(run: Run) -> None:
    run.process.terminate()
    assert await run.end() == 0, run.err.decode()


async def ready(run: Run) -> tuple[int, str]:
    """Ask a daemon whether it is ready."""
    port = (await run.event("health.listening"))["port"]
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/readyz")
    return answer.status_code, answer.text


async def until_ready(run: Run, code: int = 200) -> str:
    async with asyncio.timeout(40):
        while True:
            found, text = await ready(run)
            if found == code:
                return text
            await asyncio.sleep(0.1)
