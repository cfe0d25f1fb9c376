"""In accord with the others about the settings that decide money, or asking and writing nothing.

Looked at before each scan and every `EVERY` seconds besides, so that a person's `order-monitor settings adopt` elsewhere is noticed
within a minute. A daemon stores its own where it starts and no other lives with what is stored; once it has been in accord it never
replaces what a person, or a later start, has stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError, ShopError, ShopMisfitError, ShopUnavailableError
from order_monitor.core.order import Order
from order_monitor.core.recording import Finding, Result
from order_monitor.shop.database import Database
from order_monitor.shop.money_settings import LIVES_FOR, Agreement, Daemon, Difference, MoneySettings
from order_monitor.shop.order_reader import Scan, Take
from order_monitor.watch.board import Board
from order_monitor.watch.discovery import Shop

EVERY: Final = 15.0
"""Seconds between two looks, a quarter of the time after which a daemon that is not seen counts as gone."""

HOLD: Final = "settings"
"""The name under which the board is held."""

_LEAVING: Final = 2.0


class Complete(Protocol):
    """What says whether the shop's tables are as they must be; `order_monitor.shop.repository.Orders` is it."""

    async def complete(self) -> object:
        """Raise what is wrong with them."""


class Accord:
    """One daemon's part in it."""

    def __init__(self, database: Database, schema: str, own: Mapping[str, str], me: Daemon, clock: Clock) -> None:
        """Compare ``own`` with what is stored in ``schema``, as the daemon ``me``."""
        self._database = database
        self._stored = MoneySettings(schema)
        self._own = own
        self._me = me
        self._clock = clock
        self._looking = asyncio.Lock()
        self._board: Board | None = None
        self._was_in_accord = False
        self._seen_at = self._missed_at = float("-inf")
        self.problem = ""
        self._log = structlog.get_logger("order_monitor.settings")

    def watch(self, board: Board) -> None:
        """Hold ``board`` while we differ."""
        self._board = board

    @property
    def own(self) -> Mapping[str, str]:
        """What this process goes by."""
        return self._own

    async def look(self) -> None:
        """Compare with what is stored, and hold the board or let it go on.

        Raises:
            ShopError: the database could not be asked; all stays as it was.
        """
        async with self._looking:
            is_first, now = not self._was_in_accord, self._clock.monotonic()
            # Under its lock only where there is something to be stored, or to be seen.
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
        """Note that the database is away: so it is for the others, who cannot be seen, and none counts as gone for a while."""
        self._missed_at = self._clock.monotonic()

    async def change(self, own: Mapping[str, str]) -> Sequence[Difference]:
        """Go by others from now on, where no other daemon lives with what is stored, or they are what is; else return what differs.

        Raises:
            ShopError: the database could not be asked; those before stay.
        """
        async with self._looking:
            async with self._database.transaction() as connection:
                agreement = await self._stored.reconcile(connection, own, by=self._me.id, may_replace=True, me=self._me)
            if not agreement.differing:
                self._own, self._seen_at = own, self._clock.monotonic()
                self._take(agreement)
            return agreement.differing

    def _take(self, agreement: Agreement) -> None:
        if agreement.added or agreement.replaced:
            replaced = {one.key: {"old": one.stored, "new": one.own} for one in agreement.replaced}
            self._log.info("settings.stored", replaced=replaced, added=list(agreement.added))
        before, self.problem = self.problem, problem_of(agreement.differing)
        self._was_in_accord = self._was_in_accord or not self.problem
        if self.problem and self.problem != before:
            self._log.error("settings.differ", why=self.problem)
        elif before and not self.problem:
            self._log.info("settings.agree")
        if self._board is not None:
            self._board.hold_for(HOLD, self.problem)

    async def run(self) -> None:
        """Look again for ever, from the first scan's look on."""
        while True:
            await self._clock.sleep(EVERY)
            if self._was_in_accord or self.problem:
                try:
                    await self.look()
                except (ShopError, SettingsError) as error:
                    self._log.debug("settings.waiting", why=str(error))

    async def leave(self) -> None:
        """Let whoever starts next see that we are gone; without the database they find out by themselves."""
        if self._was_in_accord:
            try:
                async with asyncio.timeout(_LEAVING), self._database.transaction() as connection:
                    await self._stored.leave(connection, self._me)
            except (ShopError, TimeoutError) as error:
                self._log.debug("settings.not_left", why=str(error))


def problem_of(differing: Sequence[Difference]) -> str:
    """Say what differs, and what to do about it; nothing where nothing does."""
    if not differing:
        return ""
    keys = "; ".join(map(str, differing))
    return f"settings differ from those in force: {keys}; stop the other process, or run order-monitor settings adopt"


class AgreedShop:
    """The shop, where orders are found and ends are written only while we are in accord with the others."""

    def __init__(self, shop: Shop, tables: Complete, accord: Accord) -> None:
        """Ask and write ``shop`` while ``accord`` says so; nothing is stored before its ``tables`` are as they must be."""
        self._shop = shop
        self._tables = tables
        self._accord = accord

    @property
    def records_every_check(self) -> bool:
        """As the shop does."""
        return self._shop.records_every_check

    async def scan(self, *, since: float | None = None, take: Take | None = None) -> Scan:
        """Return the open orders.

        Raises:
            ShopMisfitError: the settings differ, and which.
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        try:
            await self._tables.complete()
        except ShopUnavailableError:
            self._accord.missed()
            raise
        await self._accord.look()
        self._see()
        return await self._shop.scan(since=since, take=take)

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return those that are open, as they are now."""
        return await self._shop.reread(orders)

    async def record(self, findings: list[Finding], lock_wait: float) -> list[Result]:
        """Write.

        Raises:
            ShopMisfitError: the settings differ: what was answered meanwhile waits.
            ShopError: as the shop.
        """
        self._see()
        return await self._shop.record(findings, lock_wait)

    def _see(self) -> None:
        if self._accord.problem:
            raise ShopMisfitError(self._accord.problem)
