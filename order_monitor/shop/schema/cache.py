"""The structure of the shop's database: read when first needed, and again when it seems to have
changed.

That is the case when the database refuses a statement built from the last look, and when a scan of
the open orders finds a column that has changed: a column with a new type may be read wrongly
without any error. The program then looks again on its own: at once, or, if the last such look found
nothing new or nothing usable, `LOOK_EVERY` seconds after that.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from order_monitor.core.errors import (
    NotMigratedError,
    RightsError,
    RowRejectedError,
    SettingsError,
    ShopMisfitError,
    ShopUnavailableError,
)
from order_monitor.core.login import Credentials
from order_monitor.core.order import CONFIGURED
from order_monitor.shop.accounts.logins import Logins
from order_monitor.shop.accounts.pauses import Pauses
from order_monitor.shop.accounts.tables import AccountTables, credentials_of, find_account_tables
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.first_start import read_start
from order_monitor.shop.marks import digest_key
from order_monitor.shop.reviews import Reviews
from order_monitor.shop.schema.columns import Column, Table, columns_of
from order_monitor.shop.schema.own_tables import lacking
from order_monitor.shop.schema.rights import missing_rights
from order_monitor.shop.schema.search import find_table
from order_monitor.shop.schema.table_config import TableConfig, can_hold, check_statuses
from order_monitor.shop.writing.pins import Codes
from order_monitor.shop.writing.row_writer import RowWriter

LOOK_EVERY: Final = 60.0
"""Seconds until the next look at the catalogue after a doubt for which one did not help."""


@dataclass(frozen=True, slots=True)
class ShopTables:
    """The result of one look: the orders table, ready to be written, and the other tables.

    ``lacks`` are our own tables and rights that are missing. If any of them is, no order is asked
    about and none is ended, because an end must not be without its event. ``columns`` are the used
    columns of the orders table, as they are.
    """

    row_writer: RowWriter
    accounts: AccountTables | None
    pauses: Pauses
    reviews: Reviews
    lacks: tuple[str, ...] = ()
    columns: Mapping[str, Column] = field(default_factory=dict)


class SchemaCache:
    """Knows the columns of the orders table, and which tables exist."""

    def __init__(
        self,
        database: Database,
        table_config: TableConfig,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        writes_nothing: bool = False,
    ) -> None:
        """Look in ``database`` for what ``table_config`` names, on first use.

        ``monotonic`` (seconds) is the clock for `LOOK_EVERY`. With ``writes_nothing``, everything
        recorded during a look is rolled back.
        """
        self._writes_nothing = writes_nothing
        self._database = database
        self.table_config = table_config
        self._shop_tables: ShopTables | None = None
        self._is_stale = False
        self._is_doubted = False
        self._problem = ""
        self._looked_in_vain_at = float("-inf")
        self._monotonic = monotonic
        self._logins: Logins | None = None

    def reconfigure(self, table_config: TableConfig) -> None:
        """Use other settings from the next look on."""
        self.table_config = table_config
        self._is_stale = self._shop_tables is not None

    @property
    def shop_tables(self) -> ShopTables:
        """The result of the last look."""
        assert self._shop_tables is not None, "read_schema() comes first"
        return self._shop_tables

    @property
    def row_writer(self) -> RowWriter:
        """The orders table of the last look, ready to be written."""
        return self.shop_tables.row_writer

    @property
    def table(self) -> Table:
        """The orders table of the last look."""
        return self.row_writer.table

    def doubt(self) -> None:
        """Look again before the next use, or once allowed: the table seems to have changed."""
        self._is_doubted = True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection for reading.

        If the database refuses a statement, the table structure is considered in doubt.

        Raises:
            ShopError: as `Database.transaction`.
        """
        try:
            async with self._database.transaction() as connection:
                yield connection
        except (ShopMisfitError, RowRejectedError):
            self.doubt()
            raise

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[ShopTables, Connection]]:
        """Lend the tables, of which none may be missing, and a connection for reading them.

        Raises:
            SettingsError, ShopError: as `complete` and `transaction`.
        """
        shop_tables = await self.complete()
        async with self.transaction() as connection:
            yield shop_tables, connection

    async def see(self, connection: Connection) -> ShopTables:
        """Return the tables, after another look if a used column has changed.

        Raises:
            ShopMisfitError: the table has become unusable, or one of our tables is missing.
        """
        known, there = self.shop_tables.columns, dict[str, Column]()
        if known:
            config = self.table_config
            there = await columns_of(connection, config.schema, config.table)
        if any(there.get(name) != column for name, column in known.items()):
            await self._look_again(connection)
        return self._whole()

    async def complete(self) -> ShopTables:
        """Return the tables if none of our own is missing, after another look if necessary.

        Raises:
            RightsError: this role lacks rights that it needs.
            SettingsError: at the first look: a person must change the settings or the table.
            NotMigratedError: something is missing; the text says what to do. It may exist at the
                next look.
            ShopError: the database could not be asked, or the table has changed.
        """
        if self._shop_tables is None:
            await self.read_schema()
        elif self._is_stale:
            await self._look_again()
        elif self._is_doubted:
            await self._settle_doubt()
        self._is_stale = bool(self.shop_tables.lacks)
        return self._whole()

    def _whole(self) -> ShopTables:
        if self.shop_tables.lacks:
            raise NotMigratedError("; ".join(self.shop_tables.lacks))
        return self.shop_tables

    async def _settle_doubt(self) -> None:
        """Look again, or raise what a useless look found less than `LOOK_EVERY` seconds ago."""
        if self._monotonic() - self._looked_in_vain_at >= LOOK_EVERY:
            await self._look_again()
        elif self._problem:
            raise ShopMisfitError(self._problem)

    async def _look_again(self, connection: Connection | None = None) -> None:
        before, before_at = self._shop_tables, self._looked_in_vain_at
        # Prevents concurrent callers from looking too.
        self._looked_in_vain_at = self._monotonic()
        try:
            now = await self.read_schema() if connection is None else await self._found(connection)
        except ShopUnavailableError:
            self._looked_in_vain_at = before_at
            raise
        except (SettingsError, RightsError) as error:
            problems = error.problems if isinstance(error, SettingsError) else [str(error)]
            self._problem, self._is_doubted = "; ".join(problems), True
            raise ShopMisfitError(self._problem) from None
        if before is None or (now.row_writer.table, now.accounts) != (
            before.row_writer.table,
            before.accounts,
        ):
            self._looked_in_vain_at = float("-inf")

    async def read_schema(self) -> ShopTables:
        """Look up the columns and the tables, even if that was done before.

        Raises:
            SettingsError: a person must change the settings or the table.
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            return await self._found(connection)

    async def _found(self, connection: Connection) -> ShopTables:
        self._shop_tables = await self._look(connection)
        self._problem, self._is_doubted = "", False
        return self._shop_tables

    async def _look(self, connection: Connection) -> ShopTables:
        table_config = self.table_config
        rights = await missing_rights(connection, table_config)
        if rights.is_beside_own:
            raise RightsError(rights.sql)
        table = await find_table(connection, table_config)
        accounts = None
        if table_config.accounts_from_shop:
            accounts = await find_account_tables(connection, table_config.schema)
        # Citus cannot look for another order's row from within a statement about orders.
        is_spread = table.relation.distributed_by is not None
        tenants_sql = ""
        if accounts is not None and table_config.follows_chains and not is_spread:
            tenants_sql = accounts.internal_sql()
        table = replace(table, asks_by_id=table_config.asks_by_id, tenants_sql=tenants_sql)
        check_statuses(table, table_config)
        lacks = await lacking(connection, table_config.schema)
        note = table.get("note")
        rules = replace(
            table_config.rules,
            pin_width=table["pin_code"].width,
            note_width=note.width if note is not None else None,
            writes_processing=can_hold(table, table_config.rules.processing),
        )
        reviews, schema = Reviews(table_config.schema), table_config.schema
        row_writer = RowWriter(table, table_config, rules, Logins(schema, b""))
        columns = {column.name: column for column in table.columns.values()}
        found = ShopTables(row_writer, accounts, Pauses(schema), reviews, tuple(lacks), columns)
        if lacks:
            return found
        if self._writes_nothing:
            await connection.execute("SAVEPOINT before_notes")
        key, start = await digest_key(connection, schema), await read_start(connection, schema)
        shared = await Codes(table, schema, key).shared(connection)
        logins = await self._logins_of(connection, accounts, key)
        if self._writes_nothing:
            await connection.execute("ROLLBACK TO SAVEPOINT before_notes")
        return replace(
            found,
            row_writer=replace(
                row_writer,
                logins=logins,
                key=key,
                shared=shared,
                began_at=start.first_migrate,
                first_start=start.moment,
                ignored_before=start.ignored_before(table_config.ignore_before),
            ),
        )

    async def _logins_of(
        self, connection: Connection, accounts: AccountTables | None, key: bytes
    ) -> Logins:
        """Return the accounts' logins; those of the shop's accounts are recorded at each read."""
        if self._logins is None:
            self._logins = Logins(self.table_config.schema, key)
        known: Mapping[str, Credentials] = {}
        if accounts is not None:
            known = credentials_of(await accounts.read(connection))
        elif self.table_config.credentials is not None:
            known = {CONFIGURED: self.table_config.credentials}
        else:
            return self._logins
        await self._logins.note(connection, known)
        return self._logins
