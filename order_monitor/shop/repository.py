"""The shop's orders: one interface to look them up, read and write them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from order_monitor.core.check_result import CheckResult, WriteResult
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.shop.accounts.tables import AccountTables
from order_monitor.shop.database import Database
from order_monitor.shop.observations import ObservationStore
from order_monitor.shop.pruning import prune
from order_monitor.shop.reading.orders import ALL, End, OrderReader, Part, Scan, Take
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.columns import Table
from order_monitor.shop.schema.table_config import TableConfig
from order_monitor.shop.writing.brake_table import BrakeTable
from order_monitor.shop.writing.order_writer import OrderWriter
from order_monitor.shop.writing.row_writer import RowWriter


class Orders:
    """The orders table."""

    def __init__(
        self,
        database: Database,
        table_config: TableConfig,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        writes_nothing: bool = False,
    ) -> None:
        """Work on the table that ``table_config`` names; its columns are looked up on first use.

        ``monotonic`` (seconds) is the clock for the next look-up. With ``writes_nothing``, for
        `check`, the look-up is rolled back.
        """
        self._schema_cache = SchemaCache(
            database, table_config, monotonic, writes_nothing=writes_nothing
        )
        self.reader = OrderReader(database, self._schema_cache)
        self._recorder = OrderWriter(database, self._schema_cache)
        self.brake = BrakeTable(self._schema_cache)
        self.observations = ObservationStore(database, self._schema_cache, self.reader)

    def reconfigure(self, table_config: TableConfig) -> None:
        """Use other settings from the next look on."""
        self._schema_cache.reconfigure(table_config)

    async def prepare(self) -> Table:
        """Look up the columns, even if that was done before.

        Raises:
            SettingsError: a person must change the settings or the table.
            ShopError: the database could not be asked.
        """
        return (await self._schema_cache.read_schema()).row_writer.table

    async def complete(self, *, again: bool = False) -> Table:
        """Look up the columns, and require that none of our tables is missing.

        With ``again``, look even if that was done before, because something was changed meanwhile.

        Raises:
            SettingsError: as `prepare`.
            ShopMisfitError: one of our tables or rights is missing; the text says what to do.
            ShopError: as `prepare`.
        """
        if again:
            await self._schema_cache.read_schema()
        return (await self._schema_cache.complete()).row_writer.table

    async def prune(self) -> int:
        """Delete a slice of what no order needs any more; return how much: see `pruning.prune`."""
        return await prune(self._schema_cache)

    @property
    def schema_cache(self) -> SchemaCache:
        """What is known of the tables, for what reads or writes them besides."""
        return self._schema_cache

    @property
    def lacks(self) -> tuple[str, ...]:
        """Our tables, and rights on them, that `prepare` found missing, each with what to do."""
        return self._schema_cache.shop_tables.lacks

    @property
    def row_writer(self) -> RowWriter:
        """The table found by `prepare`, ready to be written."""
        return self._schema_cache.row_writer

    @property
    def accounts(self) -> AccountTables | None:
        """The account tables found by `prepare`, None if accounts are not in the shop's tables."""
        return self._schema_cache.shop_tables.accounts

    @property
    def table(self) -> Table:
        """The table found by `prepare`."""
        return self.row_writer.table

    @property
    def records_every_check(self) -> bool:
        """Whether ``last_sync_at`` is written at each check."""
        return self.row_writer.records_every_check

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        """Return the open orders, all or a part of them: see `OrderReader.scan`."""
        return await self.reader.scan(part, take)

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return the open ones of some orders in their current state: see `OrderReader.reread`."""
        return await self.reader.reread(orders)

    async def ended(self, within: float) -> list[End]:
        """Return the orders that we ended within that many seconds: see `OrderReader.ended`."""
        return await self.reader.ended(within)

    async def has_ended_so(self, order_id: str, outcome: Outcome) -> bool:
        """Whether that is how an order has ended last: see `OrderReader.has_ended_so`."""
        return await self.reader.has_ended_so(order_id, outcome)

    async def record(
        self, findings: Sequence[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        """Write results about different orders, all of them or none: see `OrderWriter.record`."""
        return await self._recorder.record(findings, lock_wait)

    async def review(self, order_id: str, kind: str, account: str) -> None:
        """Add one matter to the list for review: see `OrderWriter.review`."""
        await self._recorder.review(order_id, kind, account)

    async def has_code(self, order_id: str, pin: Pin) -> bool:
        """Whether an order was given the code of a PIN: see `OrderWriter.has_code`."""
        return await self._recorder.has_code(order_id, pin)
