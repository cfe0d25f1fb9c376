"""The shop's address for events, and the sender to it."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from order_monitor.shop.outbox import Outbox
from order_monitor.shop.repository import Orders
from order_monitor.shop.webhook_mark import Mark, address_of, set_first
from order_monitor.tell.webhook import Receiver as Posting
from order_monitor.tell.webhook import Sender
from tests.support.clocks import ManualClock
from tests.support.events import prepared
from tests.support.shops import Shop

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


class Receiver:
    """The shop's own address; what it answers is the test's to say."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.body = ""
        self.got: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.signed_at: list[float] = []
        self.url = ""
        self.hold = asyncio.Event()
        self.hold.set()
        self.signer = Webhook(SECRET)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.text()
        await self.hold.wait()
        headers = dict(request.headers)
        # The library insists on a recent time, the tests live at another: the signature is what
        # counts.
        at = float(headers["webhook-timestamp"])
        signature = self.signer.sign(headers["webhook-id"], datetime.fromtimestamp(at, UTC), body)
        assert headers["webhook-signature"] == signature
        self.signed_at.append(at)
        self.ids.append(headers["webhook-id"])
        self.got.append(json.loads(body))
        status = self.answers.pop(0) if self.answers else 204
        return web.Response(
            status=status, headers=self.headers, body=self.body.encode() if status == 200 else b""
        )

    async def has_got(self, count: int) -> None:
        """Wait for so many posts in all."""
        async with asyncio.timeout(30):
            while len(self.got) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    application = web.Application()
    application.router.add_post("/hook", made.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@asynccontextmanager
async def sender(
    shop: Shop, url: str, dsn: str | None = None, **more: Any
) -> AsyncIterator[Sender]:
    outbox = more.pop("outbox", None) or Outbox(shop.database(dsn), "public")
    clock = more.pop("clock", None) or ManualClock()
    is_ours, context = more.pop("is_ours", lambda: True), more.pop("context", None)
    client = more.pop("client", None) or httpx.AsyncClient(trust_env=False)
    to = Posting(url, SECRET, **more)
    made = Sender(outbox, client, to, clock, random.Random(1), is_ours=is_ours, context=context)
    try:
        yield made
    finally:
        await made.aclose()


async def hooked(shop: Shop, url: str) -> Orders:
    """The orders of a shop whose events are posted to ``url``."""
    orders = await prepared(shop)
    await mark(shop, url)
    return orders


async def mark(shop: Shop, url: str) -> Mark:
    """Let the shop's events be posted to ``url``, unless an address is set already."""
    async with shop.database().transaction() as connection:
        return await set_first(connection, "public", address_of(url))


async def delivery(shop: Shop, event_id: int) -> dict[str, Any]:
    row = await shop.connection.fetchrow(
        "SELECT *, extract(epoch FROM next_at - clock_timestamp())::float8 AS again_in "
        "FROM order_monitor_deliveries WHERE event_id = $1",
        event_id,
    )
    assert row is not None
    return {**row, "tries": json.loads(row["tries"])}


async def uid(shop: Shop, event_id: int) -> str:
    return str(
        await shop.connection.fetchval(
            "SELECT uid FROM order_monitor_events WHERE id = $1", event_id
        )
    )


async def make_due(shop: Shop) -> None:
    await shop.connection.execute("UPDATE order_monitor_deliveries SET next_at = clock_timestamp()")
