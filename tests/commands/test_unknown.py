"""Orders that the provider does not know beside good ones, in real processes: what cron finds, and
what a person is told.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.commands import call, prepare
from tests.support.processes import Panel, once, panel, running, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long


class Forgetful:
    """Lets a panel answer otherwise where it does not know the reference."""

    def __init__(self, panel: Panel, status: int, body: str) -> None:
        self._known = panel.server.behave
        self._status = status
        self._body = body
        panel.server.behave = self.behave

    async def behave(self, request: web.Request) -> web.StreamResponse | None:
        if request.query.get("tahsilat_api_islem_id", "").startswith("odd"):
            return web.Response(status=self._status, text=self._body)
        return await self._known(request) if self._known else None


async def mixed(shop: Shop) -> tuple[list[str], list[str]]:
    good: list[str] = []
    odd: list[str] = []
    for n in range(60):
        (order_id,) = await sent(shop, 1, reference=f"{'good' if n % 3 == 0 else 'odd'}-{n}")
        (good if n % 3 == 0 else odd).append(order_id)
    return good, odd


async def statuses(shop: Shop, ids: list[str]) -> set[str]:
    return {str((await shop.row(i))["external_status"]) for i in ids}


@pytest.mark.parametrize(
    ("status", "body"), [(200, "3|bulunamadi"), (200, ""), (500, "")], ids=["3|", "empty", "500"]
)
async def test_cron_finds_all_that_are_good(
    plain_shop: Shop, panel: Panel, tmp_path: Path, status: int, body: str
) -> None:
    Forgetful(panel, status, body)
    good, odd = await mixed(plain_shop)
    config = settings(plain_shop.dsn, panel.server.url)
    summary: dict[str, Any] = {}
    for _ in range(4):
        _, summary, _ = await once(tmp_path, config)
        assert min(v for v in summary.values() if isinstance(v, int)) >= 0
        assert 0 <= summary["asked"] <= 60
    assert await statuses(plain_shop, good) == {"completed"}
    assert await statuses(plain_shop, odd) == {"sent"}
    assert (summary["asked"], summary["not_asked"]) == (40, 0)


async def test_the_daemon_finds_them_and_a_person_is_told(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    Forgetful(panel, 200, "3|bulunamadi")
    good, odd = await mixed(plain_shop)
    await prepare(plain_shop)
    config = settings(plain_shop.dsn, panel.server.url, schedule={"give_up_after": 5, "cap": 1})
    async with running(tmp_path, config) as run:
        told = await run.event("account.not_known")
        assert told["account"] == "default"
        async with asyncio.timeout(60):
            while await plain_shop.connection.fetchval(
                "SELECT count(*) FROM order_monitor_review WHERE closed_at IS NULL"
            ) < len(odd):
                await asyncio.sleep(0.05)
    assert await statuses(plain_shop, good) == {"completed"}
    assert await statuses(plain_shop, odd) == {"sent"}
    _, out, _ = await call(tmp_path, config, "explain", odd[0])
    assert "its own fault (order)" in " ".join(out.split())
    assert "other orders of its account are" in " ".join(out.split())
    _, out, _ = await call(tmp_path, config, "review")
    assert out.count("\n") == 2
    assert "40 orders" in out or "not_known" in out
    _, out, _ = await call(tmp_path, config, "review", "--json")
    assert {review["kind"] for review in json.loads(out)} == {"not_known"}
