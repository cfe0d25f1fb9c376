"""Deletes, from time to time, what no order needs any more."""

from __future__ import annotations

from typing import Final

import structlog

from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.shop.repository import Orders
from order_monitor.watch.context import Context

EVERY: Final = 3600.0
_PAUSE: Final = 1.0


class Housekeeping:
    """Prunes once an hour, in slices, so that no statement takes long."""

    def __init__(self, shop: Orders, context: Context) -> None:
        """Prune ``shop`` while the clocks of ``context`` agree: what is old is so by one of them."""
        self._shop = shop
        self._context = context
        self._clock = context.clock
        self._log = structlog.get_logger("order_monitor.housekeeping")

    async def run(self) -> None:
        """Prune until cancelled."""
        while True:
            await self._clock.sleep(EVERY)
            count = await self.prune()
            if count:
                self._log.info("tables.pruned", rows=count)

    async def prune(self) -> int:
        """Prune all there is, or until the database is away or its clock is not to be trusted;
        return the number of rows.
        """
        total = 0
        try:
            while self._is_trusted() and (count := await self._shop.prune()):
                total += count
                await self._clock.sleep(_PAUSE)
        except (ShopError, SettingsError) as error:
            self._log.debug("tables.not_pruned", why=str(error))
        return total

    def _is_trusted(self) -> bool:
        return self._context.clocks.vouches(self._context.read_clock())
