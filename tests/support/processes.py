"""The program as a process, over a real database and a panel that holds back its answers."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from order_monitor.core.answer import Completed
from order_monitor.core.pin import Pin
from order_monitor.demo.standin import StandIn
from tests.support import launch
from tests.support.shops import Shop

ROOT = Path(__file__).parents[2]
PIN = "PIN-CANARY-7788"
SIFRE = "sifre-CANARY/9?"
KOD = "kod-CANARY"


class Panel:
    """The stand-in, with calls that the test holds back and lets go."""

    def __init__(self) -> None:
        self.server = StandIn({}, kod=KOD, sifre=SIFRE, behave=self._behave)
        self.answer: Any = Completed(Pin(PIN), "tamam")
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()
        self.body: str | None = None
        self.numbers: dict[str, int] = {}

    async def _behave(self, request: web.Request) -> web.StreamResponse | None:
        from order_monitor.demo.standin import render

        assert request.query["kod"] == KOD
        assert request.query["sifre"] == SIFRE
        self.started.set()
        await self.release.wait()
        return web.Response(text=self.body if self.body is not None else render(self._own(request)))

    def pin_of(self, reference: str) -> str:
        """The PIN that an order was answered with."""
        number = self.numbers[reference]
        return f"{PIN}-{number}" if number else PIN

    def _own(self, request: web.Request) -> Any:
        """The answer; a PIN is one order's, so that all but the first have another one."""
        number = self.numbers.setdefault(
            request.query.get("tahsilat_api_islem_id", ""), len(self.numbers)
        )
        pin = getattr(self.answer, "pin", None)
        return (
            replace(self.answer, pin=Pin(f"{pin.reveal()}-{number}"))
            if pin and number
            else self.answer
        )


@pytest.fixture
async def panel() -> AsyncIterator[Panel]:
    made = Panel()
    async with made.server:
        yield made
        made.release.set()


class Run:
    """A process, its output, and a port to ask about its health."""

    def __init__(self, process: asyncio.subprocess.Process | launch.Process) -> None:
        self.process = process
        self.out = b""
        self.err = b""
        self._readers = [
            asyncio.create_task(self._read("out")),
            asyncio.create_task(self._read("err")),
        ]

    async def _read(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        assert stream is not None
        while data := await stream.read(65_536):
            setattr(self, name, getattr(self, name) + data)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.decode().splitlines() if line.startswith("{")]

    async def event(self, name: str) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while True:
                for event in self.events():
                    if event["event"] == name:
                        return event
                assert self.process.returncode is None, self.err.decode()
                await asyncio.sleep(0.01)

    async def end(self) -> int:
        async with asyncio.timeout(40):
            await asyncio.gather(*self._readers)
            return await self.process.wait()


def settings(dsn: str, url: str, **more: dict[str, Any]) -> str:
    sections: dict[str, dict[str, Any]] = {
        "database": {"dsn": dsn, "statement_timeout": 5},
        "provider": {"base_url": url, "kod": KOD, "sifre": SIFRE, "allow_http": True},
        "schedule": {"first_check": 1, "base": 1, "scan_interval": 0.2},
        "limits": {"calls_per_second": 500},
        "health": {"port": 0},
        "log": {"level": "debug"},
    }
    for section, values in more.items():
        sections.setdefault(section, {}).update(values)
    return "\n".join(
        f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
        for name, values in sections.items()
    )


@asynccontextmanager
async def running(
    tmp_path: Path,
    config: str,
    *arguments: str,
    ahead: float = 0.0,
    rate: float = 1.0,
    more: Mapping[str, str] | None = None,
) -> AsyncIterator[Run]:
    """Run the program in a process of its own, whose machine's clock is ``ahead`` by so many
    seconds, or runs faster.

    ``more`` are further variables of its environment.
    """
    (tmp_path / "monitor.toml").write_text(config)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ORDER_MONITOR_")}
    environ |= more or {}
    environ[launch.CLOCK_AHEAD] = str(ahead)
    environ[launch.CLOCK_RATE] = str(rate)
    async with ended(await launch.start(*arguments, cwd=tmp_path, env=environ)) as run:
        yield run


@asynccontextmanager
async def ended(process: launch.Process | asyncio.subprocess.Process) -> AsyncIterator[Run]:
    """A process that is over after the block, and has shown no secret."""
    run = Run(process)
    try:
        yield run
    finally:
        if process.returncode is None:
            process.kill()
        await run.end()
        for output in (run.out, run.err):
            for secret in (PIN, SIFRE, KOD, "sifre-CANARY%2F9%3F"):
                assert secret.encode() not in output, "a secret was shown"


async def sent(shop: Shop, count: int, **more: Any) -> list[str]:
    """Orders sent long enough ago by the real clock."""
    now = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    return [await shop.add(sent_at=now - 100 - n, **more) for n in range(count)]


async def once(tmp_path: Path, config: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    async with running(tmp_path, config, "--once", "--json", *arguments) as run:
        code = await run.end()
    lines = run.out.decode().splitlines()
    assert len(lines) <= 1, "one line"
    return code, json.loads(lines[0]) if lines else {}, run.err.decode()
