"""Where the extra ``fast`` is installed, the program runs on uvloop."""

from pathlib import Path

from order_monitor.core.answer import Completed
from order_monitor.core.pin import Pin
from tests.support.commands import daemon, is_final, prepare
from tests.support.processes import PIN, Panel, panel, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]


async def test_the_daemon_runs_on_uvloop(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    await prepare(shop)
    panel.answer = Completed(Pin(PIN))
    (order_id,) = await sent(shop, 1)
    async with daemon(shop, tmp_path, settings(shop.dsn, panel.server.url)) as run:
        assert "uvloop" in Path(f"/proc/{run.process.pid}/maps").read_text()
        await is_final(shop, order_id)
    assert (await shop.row(order_id))["pin_code"] == PIN
