"""`status` and `top` as processes, against a real daemon."""

import asyncio
import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from order_monitor.commands.status import screen
from order_monitor.tell.document import document_of
from tests.support import stages
from tests.support.commands import TOKEN, free_port, status
from tests.support.processes import Panel, panel, running, sent, settings
from tests.support.shops import Shop
from tests.support.stages import STAGES

pytestmark = [pytest.mark.outside, pytest.mark.long]

__all__ = ["panel"]


async def test_a_healthy_daemon_says_so(plain_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    ids = await sent(plain_shop, 3)
    port = free_port()
    config = settings(plain_shop.dsn, panel.server.url, health={"port": port, "token": TOKEN})
    async with running(tmp_path, config) as run:
        while (await plain_shop.row(ids[-1]))["external_status"] != "completed":
            await asyncio.sleep(0.02)
        code, out, _ = await status(tmp_path, config, "--json")
        document = json.loads(out)
        assert (code, document["ready"], document["orders"]["stuck"]) == (0, True, 0)
        assert {change["order_id"] for change in document["recent"]} == set(ids)
        assert document["accounts"][0]["name"] == "default"
        code, out, _ = await status(tmp_path, config)
        assert code == 0
        assert "healthy" in out
        assert ids[0] in out
        async with httpx.AsyncClient(
            trust_env=False, headers={"Authorization": f"Bearer {TOKEN}"}
        ) as client:
            metrics = await client.get(f"http://127.0.0.1:{port}/metrics")
            assert (
                'order_monitor_checks_total{account="default",outcome="completed"} 3.0'
                in metrics.text
            )
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200
        async with running(tmp_path / "asker", config, "top", "--every", "0.1s") as watching:
            while watching.out.count(b"last changes") < 2:
                await asyncio.sleep(0.02)
            watching.process.send_signal(signal.SIGINT)
            assert await watching.end() == 0
        run.process.terminate()
        assert await run.end() == 0


async def test_an_unhealthy_one_is_1_and_a_silent_one_is_4(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await sent(plain_shop, 12)
    panel.body = "8|Bağlantı Hatası"
    port = free_port()
    config = settings(plain_shop.dsn, panel.server.url, health={"port": port})
    assert (await status(tmp_path, config))[0] == 4
    async with running(tmp_path, config) as run:
        await run.event("account.closed")
        code, out, _ = await status(tmp_path, config)
        assert code == 1
        assert "closed: refused_8" in out
        run.process.terminate()
        await run.end()
    code, _, errors = await status(tmp_path, config, "--json")
    assert (code, f"no answer at 127.0.0.1:{port}" in errors) == (4, True)
    assert (await status(tmp_path, config.replace(f"port = {port}", "port = 0")))[0] == 4
    assert (await status(tmp_path, config.replace(f"port = {port}", "enabled = false")))[0] == 4
    async with running(tmp_path / "asker", config, "top") as watching:
        assert await watching.end() == 4


async def test_somebody_else_at_that_port_is_no_daemon(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    port = int(panel.server.url.rpartition(":")[2])
    code, _, errors = await status(
        tmp_path, settings(plain_shop.dsn, panel.server.url, health={"port": port})
    )
    assert (code, "does not answer as order-monitor does" in errors) == (4, True)


@pytest.mark.untraced
async def test_every_stage_can_be_shown_in_a_terminal() -> None:
    from rich.console import Console

    for name, make in STAGES.items():
        document: dict[str, Any] = document_of((await make()).view)
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(screen(document))
        text = console.export_text()
        assert ("not healthy" in text) is (name == "on_fire")
        assert stages.PIN not in text


async def test_a_terminal_shows_who_asks_what() -> None:
    from rich.console import Console

    console = Console(width=140, record=True, file=io.StringIO())
    console.print(screen(document_of((await stages.shared()).view)))
    text = console.export_text()
    for words in (
        "asked by shop-2-815/20002",
        "not asked by any process yet",
        "posts and counts for all",
        "this one",
    ):
        assert words in text


async def test_top_in_a_pipe_ends_with_its_reader(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(plain_shop.dsn, panel.server.url, health={"port": free_port()})
    async with running(tmp_path, config) as run:
        await run.event("started")
        command = f'"{sys.executable}" -m order_monitor top --every 0.1s | head -1; exit ${{PIPESTATUS[0]}}'
        watching = await asyncio.create_subprocess_exec(
            "/bin/bash", "-c", command, cwd=tmp_path, stdout=-1, stderr=-1
        )
        async with asyncio.timeout(30):
            out, err = await watching.communicate()
        assert (watching.returncode, out.count(b"\n"), err) == (0, 1, b"")
        run.process.terminate()
        assert await run.end() == 0
