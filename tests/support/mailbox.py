"""A service that receives messages, as posted by Apprise's ``json://``: a real server on
loopback.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

TOKEN = "token-CANARY-4711"


class Mailbox:
    """Stores what it receives; the test sets its status, and can make it wait."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, str]] = []
        self.asked = 0
        self.status = 200
        self.hold = asyncio.Event()
        self.hold.set()
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        told = await request.json()
        await self.hold.wait()
        if self.status == 200:
            self.got.append((told["type"], told["title"], told["message"]))
        return web.Response(status=self.status)

    @property
    def texts(self) -> list[str]:
        return [text for _, _, text in self.got]

    async def has_got(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.got) < count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def mailbox() -> AsyncIterator[Mailbox]:
    made = Mailbox()
    application = web.Application()
    application.router.add_post("/{rest:.*}", made.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"json://127.0.0.1:{runner.addresses[0][1]}/{TOKEN}"
    try:
        yield made
    finally:
        made.hold.set()
        await runner.cleanup()
