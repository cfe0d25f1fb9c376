"""Deletes, from time to time, what no order needs any more."""

from __future__ import annotations

from typing import Final

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.shop.repository import Orders

EVERY: Final = 3600.0
_PAUSE: Final = 1.0


class Housekeeping:
    """Prunes once an hour, in slices, so that no statement takes long."""

    def __init__(self, shop: Orders, clock: Clock) -> None:
        """Prune ``shop``."""
        self._shop = shop
        self._clock = clock
        self._log = structlog.get_logger("order_monitor.housekeeping")

    async def run(self) -> None:
        """Prune until cancelled."""
        while True:
            await self._clock.sleep(EVERY)
            count = await self.prune()
            if count:
                self._log.info("tables.pruned", rows=count)

    async def prune(self) -> int:
        """Prune all there is, or until the database is away; return the number of rows."""
        total = 0
        try:
            while count := await self._shop.prune():
                total += count
                await self._clock.sleep(_PAUSE)
        except (ShopError, SettingsError) as error:
            self._log.debug("tables.not_pruned", why=str(error))
        return total
