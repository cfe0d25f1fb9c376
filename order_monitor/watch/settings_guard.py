"""Keeps a daemon from asking and writing unless it agrees with the others on the settings that
decide money.

Checked before each scan and also every `EVERY` seconds, so that a person's `order-monitor settings
adopt` elsewhere is noticed within a minute. A daemon stores its own settings when it starts and no
other daemon uses the stored ones. Once it has agreed, it never replaces what a person, or a daemon
started later, has stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from order_monitor.core.check_result import CheckResult, WriteResult
from order_monitor.core.clock import Clock
from order_monitor.core.errors import (
    SettingsError,
    ShopError,
    ShopMisfitError,
    ShopUnavailableError,
)
from order_monitor.core.order import Order
from order_monitor.shop.database import Database
from order_monitor.shop.money_settings import LIVES_FOR, Agreement, Difference, MoneySettings
from order_monitor.shop.presence import Ident
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.shop.repository import Orders
from order_monitor.watch.context import Context
from order_monitor.watch.discovery import Shop

EVERY: Final = 15.0
"""Seconds between two checks: a quarter of the time after which a silent daemon counts as gone."""

HOLD: Final = "settings"
"""The name of this hold on the context."""

_LEAVING: Final = 2.0


class SettingsGuard:
    """The part of one daemon in this agreement."""

    def __init__(
        self, database: Database, schema: str, own: Mapping[str, str], me: Ident, clock: Clock
    ) -> None:
        """Compare ``own`` with what is stored in ``schema``, as the daemon ``me``."""
        self._database = database
        self._stored = MoneySettings(schema)
        self._own = own
        self._me = me
        self._clock = clock
        self._looking = asyncio.Lock()
        self._context: Context | None = None
        self._has_agreed = False
        self._seen_at = self._missed_at = float("-inf")
        self.problem = ""
        self._log = structlog.get_logger("order_monitor.settings")

    def watch(self, context: Context) -> None:
        """Hold ``context`` while the settings differ."""
        self._context = context

    @property
    def own(self) -> Mapping[str, str]:
        """The settings of this process."""
        return self._own

    async def compare(self) -> None:
        """Compare with the stored settings, and hold the context or let it continue.

        Raises:
            ShopError: the database is not available; nothing changes.
        """
        async with self._looking:
            is_first, now = not self._has_agreed, self._clock.monotonic()
            # Takes the lock only if there is something to store, or this daemon must be seen.
            me = self._me if is_first or self.problem or now - self._seen_at >= EVERY else None
            may_replace = is_first and now - self._missed_at >= LIVES_FOR
            try:
                async with self._database.transaction() as connection:
                    agreement = await self._stored.reconcile(
                        connection, self._own, by=self._me.id, may_replace=may_replace, me=me
                    )
            except ShopUnavailableError:
                self.missed()
                raise
            if me is not None and not agreement.differing:
                self._seen_at = now
            self._take(agreement)

    def missed(self) -> None:
        """Record that the database is away: as others cannot reach it, none counts as gone yet."""
        self._missed_at = self._clock.monotonic()

    async def change(self, own: Mapping[str, str]) -> Sequence[Difference]:
        """Switch to other settings, if no other daemon uses the stored ones, or they are the stored
        ones; otherwise return the differences.

        Raises:
            ShopError: the database is not available; the previous settings stay.
        """
        async with self._looking:
            async with self._database.transaction() as connection:
                agreement = await self._stored.reconcile(
                    connection, own, by=self._me.id, may_replace=True, me=self._me
                )
            if not agreement.differing:
                self._own, self._seen_at = own, self._clock.monotonic()
                self._take(agreement)
            return agreement.differing

    def _take(self, agreement: Agreement) -> None:
        if agreement.added or agreement.replaced:
            replaced = {one.key: {"old": one.stored, "new": one.own} for one in agreement.replaced}
            self._log.info("settings.stored", replaced=replaced, added=list(agreement.added))
        before, self.problem = self.problem, problem_of(agreement.differing)
        self._has_agreed = self._has_agreed or not self.problem
        if self.problem and self.problem != before:
            self._log.error("settings.differ", why=self.problem)
        elif before and not self.problem:
            self._log.info("settings.agree")
        if self._context is not None:
            self._context.hold_for(HOLD, self.problem)

    async def run(self) -> None:
        """Check until cancelled, starting after the first scan's check."""
        while True:
            await self._clock.sleep(EVERY)
            if self._has_agreed or self.problem:
                try:
                    await self.compare()
                except (ShopError, SettingsError) as error:
                    self._log.debug("settings.waiting", why=str(error))

    async def leave(self) -> None:
        """Let the next daemon see that this one is gone; without the database it learns later."""
        if self._has_agreed:
            try:
                async with asyncio.timeout(_LEAVING), self._database.transaction() as connection:
                    await self._stored.leave(connection, self._me)
            except (ShopError, TimeoutError) as error:
                self._log.debug("settings.not_left", why=str(error))


def problem_of(differing: Sequence[Difference]) -> str:
    """Describe the differences, and what to do about them; empty if there are none."""
    if not differing:
        return ""
    keys = "; ".join(map(str, differing))
    return f"settings differ from those in force: {keys}; stop the other process, or run order-monitor settings adopt"


class GuardedShop:
    """The shop, read and written only while this daemon agrees with the others."""

    def __init__(self, shop: Shop, tables: Orders, settings_guard: SettingsGuard) -> None:
        """Read and write ``shop`` if ``settings_guard`` allows it and ``tables`` are complete."""
        self._shop = shop
        self._tables = tables
        self._settings_guard = settings_guard

    @property
    def records_every_check(self) -> bool:
        """Return the shop's setting."""
        return self._shop.records_every_check

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        """Return the open orders.

        Raises:
            ShopMisfitError: the settings differ; the text says which.
            ShopError: the database is not available.
            SettingsError: the table is not as expected.
        """
        try:
            await self._tables.complete()
        except ShopUnavailableError:
            self._settings_guard.missed()
            raise
        await self._settings_guard.compare()
        self._see()
        return await self._shop.scan(part, take)

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return the orders that are still open, with their current rows."""
        return await self._shop.reread(orders)

    async def record(self, findings: list[CheckResult], lock_wait: float) -> list[WriteResult]:
        """Write.

        Raises:
            ShopMisfitError: the settings differ; the answers wait.
            ShopError: raised by the shop.
        """
        self._see()
        return await self._shop.record(findings, lock_wait)

    def _see(self) -> None:
        if self._settings_guard.problem:
            raise ShopMisfitError(self._settings_guard.problem)
