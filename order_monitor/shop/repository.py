"""The shop's orders as one whole: looked up, read, and written."""

from __future__ import annotations

from collections.abc import Sequence

from order_monitor.core.order import Order
from order_monitor.core.recording import Finding, Result
from order_monitor.shop.accounts import AccountTables
from order_monitor.shop.brake_desk import BrakeDesk
from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.claims import Claims
from order_monitor.shop.columns import Table
from order_monitor.shop.database import Database
from order_monitor.shop.layout import Layout
from order_monitor.shop.ledger import Ledger
from order_monitor.shop.order_reader import Apart, End, OrderReader, Scan, Take
from order_monitor.shop.order_recorder import OrderRecorder
from order_monitor.shop.pruning import Pruning
from order_monitor.shop.unconfirmed import Unconfirmed


class Orders:
    """The orders table."""

    def __init__(self, database: Database, layout: Layout, *, writes_nothing: bool = False) -> None:
        """Work on the table that ``layout`` names; its columns are looked up on first use.

        What is looked up leaves nothing behind where this ``writes_nothing``: it is for `check`.
        """
        self._catalogue = Catalogue(database, layout, writes_nothing=writes_nothing)
        self.reader = OrderReader(database, self._catalogue)
        self._claims = Claims(self._catalogue)
        self._pruning = Pruning(self._catalogue)
        self._recorder = OrderRecorder(database, self._catalogue)
        self.unconfirmed = Unconfirmed(self._catalogue)
        self.brake = BrakeDesk(self._catalogue)

    def adopt(self, layout: Layout) -> None:
        """Go on by other settings, from the next look on."""
        self._catalogue.adopt(layout)

    async def prepare(self) -> Table:
        """Look up the columns, again if it was done before.

        Raises:
            SettingsError: a person must change the settings or the table.
            ShopError: the database could not be asked.
        """
        return (await self._catalogue.look()).ledger.table

    async def complete(self, *, again: bool = False) -> Table:
        """The same, where nothing of ours is missing either; looked up ``again`` where something was changed meanwhile.

        Raises:
            SettingsError: as `prepare`.
            ShopMisfitError: a table or a right of ours is missing, and what to do.
            ShopError: as `prepare`.
        """
        if again:
            await self._catalogue.look()
        return (await self._catalogue.complete()).ledger.table

    async def fill_claims(self) -> int:
        """Take over claims for codes from our own events; return how many: see `Claims.fill`."""
        return await self._claims.fill()

    async def prune(self) -> int:
        """Delete some of what no order needs any more; return how much: see `Pruning.step`."""
        return await self._pruning.step()

    @property
    def lacks(self) -> tuple[str, ...]:
        """The tables and rights of ours that `prepare` found missing, each with what to do."""
        return self._catalogue.holdings.lacks

    @property
    def ledger(self) -> Ledger:
        """The table found by `prepare`, ready to be written."""
        return self._catalogue.holdings.ledger

    @property
    def accounts(self) -> AccountTables | None:
        """The shop's accounts found by `prepare`, None where they are not the shop's."""
        return self._catalogue.holdings.accounts

    @property
    def table(self) -> Table:
        """The table found by `prepare`."""
        return self.ledger.table

    @property
    def records_every_check(self) -> bool:
        """Whether ``last_sync_at`` is written at each check."""
        return self.ledger.records_every_check

    async def scan(
        self, only: Sequence[str] | None = None, *, since: float | None = None, take: Take | None = None
    ) -> Scan:
        """Return the open orders, ``only`` some of them, or those sent ``since``: see `OrderReader.scan`."""
        return await self.reader.scan(only, since=since, take=take)

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return those among some orders that are open, as they are now: see `OrderReader.reread`."""
        return await self.reader.reread(orders)

    async def left_alone(self, limit: int) -> list[Order]:
        """Return open orders that were sent too long before the start to be watched: see `OrderReader.left_alone`."""
        return await self.reader.left_alone(limit)

    async def count_apart(self) -> Apart:
        """Count the open orders that the first start concerns: see `OrderReader.count_apart`."""
        return await self.reader.count_apart()

    async def ended(self, within: float) -> list[End]:
        """Return the orders that we ended within so many seconds: see `OrderReader.ended`."""
        return await self.reader.ended(within)

    async def record(self, findings: Sequence[Finding], lock_wait: float = 1.0) -> list[Result]:
        """Write findings about different orders, all of them or none: see `OrderRecorder.record`."""
        return await self._recorder.record(findings, lock_wait)

    async def review(self, order_id: str, kind: str, account: str) -> None:
        """Put one thing on the list for review: see `OrderRecorder.review`."""
        await self._recorder.review(order_id, kind, account)
