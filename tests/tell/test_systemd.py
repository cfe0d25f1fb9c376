"""What systemd is told, over a real socket, by the real daemon.

And that a stuck loop is told to it by silence.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from order_monitor.tell.systemd import Notifier
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.processes import Panel, panel, running, sent, settings
from tests.support.proxies import Proxy
from tests.support.shops import Shop

pytestmark = pytest.mark.outside

__all__ = ["panel"]


class Manager:
    """Listens as systemd does."""

    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self.socket.setblocking(False)
        self.name = name

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    async def hears(self, wanted: str, before: list[str] | None = None) -> list[str]:
        """Wait for a message; return all up to and with it."""
        messages = [] if before is None else before
        async with asyncio.timeout(30):
            while not any(wanted in message for message in messages):
                messages += self.heard()
                await asyncio.sleep(0.01)
        return messages


@contextmanager
def managed(name: str, environ: pytest.MonkeyPatch | None = None, **more: str) -> Iterator[Manager]:
    manager = Manager(name)
    if environ is not None:
        for key, value in {"NOTIFY_SOCKET": name, **more}.items():
            environ.setenv(key, value)
    try:
        yield manager
    finally:
        manager.socket.close()


@pytest.mark.parametrize("abstract", [True, False])
async def test_readiness_is_told_when_the_first_scan_succeeded(
    plain_shop: Shop,
    panel: Panel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    abstract: bool,  # noqa: FBT001
) -> None:
    """F5: also on an abstract socket, whose ``@`` stands for a NUL."""
    await sent(plain_shop, 3)
    name = f"@order-monitor-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with managed(name, monkeypatch, WATCHDOG_USEC="600000") as manager:
        async with Proxy(plain_shop.dsn) as proxy:
            port, dsn = proxy.port, proxy.dsn
            await proxy.stop()
            async with running(tmp_path, settings(dsn, panel.server.url)) as run:
                messages = await manager.hears("WATCHDOG=1")
                assert "READY=1" not in messages, "the database is not there yet"
                await manager.hears("; database: ConnectionRefusedError", messages)
                await proxy.start_again(port)
                messages = await manager.hears("READY=1")
                await manager.hears(" open orders, 1 of 1 accounts open", messages)
                run.process.send_signal(signal.SIGHUP)
                messages = await manager.hears("RELOADING=1\nMONOTONIC_USEC=")
                await manager.hears("READY=1", messages)
                run.process.terminate()
                assert await run.end() == 0
                assert "STOPPING=1" in manager.heard()


STUCK = """
import asyncio, sys, time
from order_monitor.commands import daemon
from order_monitor.watch.lifecycle import Lifecycle
forever = Lifecycle.forever
async def stuck(self, before=None):
    asyncio.get_running_loop().call_later(1.5, time.sleep, 60)
    return await forever(self, before)
Lifecycle.forever = stuck
daemon.run_daemon(None)
"""


@pytest.mark.long
async def test_a_loop_that_hangs_feeds_no_watchdog(
    plain_shop: Shop, panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "monitor.toml").write_text(settings(plain_shop.dsn, panel.server.url))
    with managed(str(tmp_path / "notify"), monkeypatch, WATCHDOG_USEC="300000") as manager:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STUCK, cwd=tmp_path, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await manager.hears("WATCHDOG=1")
            last = time.monotonic()
            async with asyncio.timeout(30):
                while time.monotonic() - last < 1.0:
                    if "WATCHDOG=1" in manager.heard():
                        last = time.monotonic()
                    await asyncio.sleep(0.02)
            assert process.returncode is None, (
                "it lives, and is silent: three of its times have passed"
            )
        finally:
            process.kill()
            await process.wait()


async def test_an_engine_that_no_longer_ticks_feeds_no_watchdog(tmp_path: Path) -> None:
    """The loop itself may be well: what counts is that orders are looked at."""
    clock = ManualClock()
    stage = await stages.quiet(clock)
    name = str(tmp_path / "notify")
    with managed(name) as manager:
        notifier = Notifier(stage.view, clock, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"})
        notifier.report()
        assert "WATCHDOG=1" in manager.heard()
        clock.elapsed += 61
        notifier.report()
        assert "WATCHDOG=1" not in manager.heard()


async def test_without_systemd_it_is_silent() -> None:
    stage = await stages.quiet()
    notifier = Notifier(stage.view, ManualClock(), {})
    assert not notifier.listens
    notifier.send("READY=1")
    assert not Notifier(stage.view, ManualClock(), {"NOTIFY_SOCKET": "relative"}).listens


async def test_a_socket_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    stage = await stages.quiet()
    Notifier(stage.view, ManualClock(), {"NOTIFY_SOCKET": str(tmp_path / "gone")}).send("READY=1")


async def test_anothers_watchdog_is_not_fed(tmp_path: Path) -> None:
    stage = await stages.quiet()
    name = str(tmp_path / "notify")
    with managed(name) as manager:
        environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
        Notifier(stage.view, ManualClock(), environ).report()
        assert "WATCHDOG=1" not in manager.heard()


async def test_what_somebody_else_says_is_one_harmless_line(tmp_path: Path) -> None:
    """A status could bring a line of its own, and with it a command to systemd."""
    name = str(tmp_path / "notify")
    stage = await stages.quiet()
    with managed(name) as manager:
        notifier = Notifier(stage.view, ManualClock(), {"NOTIFY_SOCKET": name})
        stage.view.engine.state.scan_problem = "\x1b[31mgone\u202e\udc9b\nMAINPID=1"
        notifier.report()
        *_, status = manager.heard()
        assert status.endswith(r"; database: \u001b[31mgone\u202e\udc9b\nMAINPID=1")
        assert status.count("\n") == 0
        notifier.reloading()
        assert manager.heard()[0].startswith("RELOADING=1\nMONOTONIC_USEC=")
