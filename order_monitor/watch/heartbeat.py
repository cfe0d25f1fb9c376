"""Reports to the shop's database that this process is alive and how its clocks stand, and reads
from it how they stood before.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from order_monitor.core.errors import ShopError
from order_monitor.shop.presence import Presence
from order_monitor.watch.context import Context

EVERY: Final = 10.0
_LAST: Final = 2.0


class Heartbeat:
    """Continues whatever the state of the table: if it cannot be read or written nothing stops, but
    ages are not trusted until it can be read.
    """

    def __init__(
        self, context: Context, presence: Presence, boot: str, settings: str | None = None
    ) -> None:
        """Report the clocks of ``context``, as of the boot with this id; ``settings`` is a digest
        of the settings that decide money.
        """
        self._context = context
        self._presence = presence
        self._boot = boot
        self.settings = settings
        self._problem = ""
        self._log = structlog.get_logger("order_monitor.clocks")

    async def begin(self) -> None:
        """Read how the clocks stood before."""
        context, began = self._context, self._context.clock.monotonic()
        try:
            memory, now = await self._presence.recall(self._boot)
        except ShopError as error:
            self._fail(error)
            return
        boot = context.read_clock()
        for leap in context.clocks.recall(memory, boot):
            context.clock_log.leapt(leap, boot)
        context.compare(now, context.clock.monotonic() - began)
        self._problem = ""

    async def tell(self) -> None:
        """Report how the clocks stand, once the earlier state is read: this overwrites it."""
        context = self._context
        if context.clocks.is_recalling:
            await self.begin()
        if context.clocks.is_recalling:
            return
        boot, began = context.read_clock(), context.clock.monotonic()
        try:
            prunes = context.clocks.vouches(boot)
            now = await self._presence.tell(
                self._boot, context.clocks.state(), self.settings, prunes=prunes
            )
        except ShopError as error:
            self._fail(error)
            return
        context.compare(now, context.clock.monotonic() - began)
        self._problem = ""

    def _fail(self, error: ShopError) -> None:
        if not self._problem:
            self._log.warning("presence.not_told", why=str(error))
        self._problem = str(error)

    async def run(self) -> None:
        """Report every few seconds until cancelled."""
        while True:
            await self.tell()
            await self._context.clock.sleep(EVERY)

    async def leave(self) -> None:
        """Record that this process has stopped, if the database answers at once."""
        if self._context.clocks.is_recalling:
            return
        with suppress(ShopError, TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._presence.leave(self._boot, self._context.clocks.state(), self.settings)
