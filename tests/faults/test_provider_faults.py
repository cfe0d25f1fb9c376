"""The provider misbehaves in every way that a socket allows, while orders keep coming in."""

import asyncio
import signal
from pathlib import Path

import pytest
import trustme

from tests.faults.panel import FAULTS, FaultyPanel
from tests.faults.stage import Shop
from tests.support.connections import server_context

SECONDS = 3.0
MEMORY = 60
"""Megabytes that a flood or a bomb may cost at most."""


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_provider_misbehaves(
    shop: Shop, panel: FaultyPanel, tmp_path: Path, fault: str
) -> None:
    async with shop.daemon(tmp_path) as run:
        async with shop.under_load():
            await run.event("order.completed")
            before = peak(run.process.pid)
            panel.fault = fault
            await asyncio.sleep(SECONDS)
            panel.fault = None
        await shop.end(f"the provider: {fault}, {panel.faults[fault]} times", at_least=50)
        assert peak(run.process.pid) - before < MEMORY
    assert panel.faults[fault] > 0


def peak(pid: int) -> float:
    """Return the most memory that a process has had, in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


async def test_the_provider_goes_away_and_comes_back(
    shop: Shop, panel: FaultyPanel, tmp_path: Path
) -> None:
    async with shop.daemon(tmp_path) as run:
        async with shop.under_load():
            await run.event("order.completed")
            port = panel.server.port
            await panel.server.__aexit__()
            await asyncio.sleep(SECONDS)
            await panel.server.listen(port)
        await shop.end("the provider gone for 3 s", at_least=50)
    assert "account.closed" in [event["event"] for event in run.events()]


async def test_the_provider_is_on_ipv6_alone(shop: Shop, tmp_path: Path) -> None:
    async with FaultyPanel(host="::1") as panel:
        shop.panel = panel
        async with shop.daemon(tmp_path):
            await shop.place(50, within=2)
            await shop.end("the provider on IPv6 alone", at_least=50)


async def test_the_providers_certificate_is_its_own(shop: Shop, tmp_path: Path) -> None:
    """Nothing is sent to whoever shows one that nobody has vouched for, and no order is failed.

    Once trusted, all go on.
    """
    authority = trustme.CA()
    async with FaultyPanel(tls=server_context(authority.issue_cert("127.0.0.1"))) as panel:
        shop.panel = panel
        async with shop.daemon(tmp_path) as run:
            await shop.place(50)
            told = await run.event("account.closed")
            assert told["reason"].startswith("certificate_")
            assert panel.calls == 0
            authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
            trusting = shop.config(provider={"timeout": 1.5, "ca_file": str(tmp_path / "ca.pem")})
            (tmp_path / "monitor.toml").write_text(trusting)
            run.process.send_signal(signal.SIGHUP)
            await shop.end("the provider's certificate unknown at first", at_least=50)
