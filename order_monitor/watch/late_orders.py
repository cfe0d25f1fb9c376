"""Reports orders that are open for long, once each, so that the shop can tell the customer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.shop.writing.late import LateTable
from order_monitor.watch.engine import Engine

EVERY: Final = 10.0
"""Seconds between two passes."""

_NAMED: Final = 20


class LateOrders:
    """Looks for late orders while the daemon runs."""

    def __init__(
        self,
        engine: Engine,
        store: LateTable,
        clock: Clock,
        after: float,
        is_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """Report orders open for ``after`` seconds, while ``is_ours`` makes it this process's."""
        self._engine = engine
        self._store = store
        self._clock = clock
        self._after = after
        self._is_ours = is_ours
        self._log = structlog.get_logger("order_monitor.late")

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await self.step()
            await self._clock.sleep(EVERY)

    async def step(self) -> None:
        """Make one pass; whatever fails now is reported later."""
        context = self._engine.context
        if not self._engine.state.scans or context.hold or not self._is_ours():
            return
        # An order is late by the database's clock, and told of once.
        if not context.clocks.vouches(context.read_clock()):
            return
        try:
            found = await self._store.tell(self._after)
        except (ShopError, SettingsError) as error:
            self._log.debug("orders.late_waiting", why=str(error))
            return
        if found:
            self._log.warning("orders.late", count=len(found), orders=found[:_NAMED])
