"""What the shop's database holds for us: looked up when first needed, and again when it seems to have changed.

It seems so when the database refuses what was made of the last look, and when a look at the open orders finds a column that is not
what it was: a column that changed its type may be read wrongly without any error. The program then looks again by itself: at once,
or where the last such look found nothing new or nothing of use, `LOOK_EVERY` seconds after that.
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
from order_monitor.shop.accounts import AccountTables, credentials_of, find_account_tables
from order_monitor.shop.columns import Column, columns_of
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.first_start import read_start
from order_monitor.shop.layout import Layout, can_hold, check_statuses
from order_monitor.shop.ledger import Ledger
from order_monitor.shop.logins import Logins
from order_monitor.shop.marks import digest_key
from order_monitor.shop.own_tables import lacking
from order_monitor.shop.pauses import Pauses
from order_monitor.shop.pins import Codes
from order_monitor.shop.reviews import Reviews
from order_monitor.shop.rights import missing_rights
from order_monitor.shop.table_search import find_table

LOOK_EVERY: Final = 60.0
"""Seconds to the next look at the catalogue after one that a doubt has caused, and that did not help."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What was found at one look: the orders table ready to be written, and the tables beside it.

    ``lacks`` are the tables and rights of ours that are missing: with any of them missing no order is asked about and none is
    ended, for no end may be without its event. ``columns`` are those of the orders table that are used, as they are.
    """

    ledger: Ledger
    accounts: AccountTables | None
    pauses: Pauses
    reviews: Reviews
    lacks: tuple[str, ...] = ()
    columns: Mapping[str, Column] = field(default_factory=dict)


class Catalogue:
    """Knows the columns of the orders table, and which tables there are."""

    def __init__(
        self,
        database: Database,
        layout: Layout,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        writes_nothing: bool = False,
    ) -> None:
        """Look in ``database`` for what ``layout`` names, on first use; ``monotonic`` (seconds) tells when to look again.

        What is noted on the way is undone where this ``writes_nothing``.
        """
        self._writes_nothing = writes_nothing
        self._database = database
        self.layout = layout
        self._holdings: Holdings | None = None
        self._is_stale = False
        self._is_doubted = False
        self._problem = ""
        self._looked_in_vain_at = float("-inf")
        self._monotonic = monotonic
        self._logins: Logins | None = None

    def adopt(self, layout: Layout) -> None:
        """Go on by other settings, from the next look on."""
        self.layout = layout
        self._is_stale = self._holdings is not None

    @property
    def holdings(self) -> Holdings:
        """What the last look found."""
        assert self._holdings is not None, "look() comes first"
        return self._holdings

    def doubt(self) -> None:
        """Look again before the next use, or as soon as that may be: the table does not seem to be as it was."""
        self._is_doubted = True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection to read by; what the database refuses of it puts what is known of the tables in doubt.

        Raises:
            ShopError: as `Database.transaction` does.
        """
        try:
            async with self._database.transaction() as connection:
                yield connection
        except (ShopMisfitError, RowRejectedError):
            self.doubt()
            raise

    async def see(self, connection: Connection) -> Holdings:
        """Return what there is, looked up again where a column in use is not what it was.

        Raises:
            ShopMisfitError: the table is of no use any more, or something of ours is missing.
        """
        known = self.holdings.columns
        there = await columns_of(connection, self.layout.schema, self.layout.table) if known else {}
        if any(there.get(name) != column for name, column in known.items()):
            await self._look_again(connection)
        if self.holdings.lacks:
            raise NotMigratedError("; ".join(self.holdings.lacks))
        return self.holdings

    async def current(self) -> Holdings:
        """Return what there is, looked up again where need be.

        Raises:
            RightsError: this role may not use what it needs.
            SettingsError: at the first look, a person must change the settings or the table.
            ShopError: the database could not be asked, or the table is not as it was.
        """
        if self._holdings is None:
            await self.look()
        elif self._is_stale:
            await self._look_again()
        elif self._is_doubted:
            await self._settle_doubt()
        self._is_stale = bool(self.holdings.lacks)
        return self.holdings

    async def _settle_doubt(self) -> None:
        """Look again, unless a look in vain is less than `LOOK_EVERY` ago; what that found wrong still holds then."""
        if self._monotonic() - self._looked_in_vain_at >= LOOK_EVERY:
            await self._look_again()
        elif self._problem:
            raise ShopMisfitError(self._problem)

    async def _look_again(self, connection: Connection | None = None) -> None:
        before, before_at = self._holdings, self._looked_in_vain_at
        # Whoever needs the tables meanwhile does not look too.
        self._looked_in_vain_at = self._monotonic()
        try:
            now = await self.look() if connection is None else await self._found(connection)
        except ShopUnavailableError:
            self._looked_in_vain_at = before_at
            raise
        except (SettingsError, RightsError) as error:
            problems = error.problems if isinstance(error, SettingsError) else [str(error)]
            self._problem, self._is_doubted = "; ".join(problems), True
            raise ShopMisfitError(self._problem) from None
        if before is None or (now.ledger.table, now.accounts) != (before.ledger.table, before.accounts):
            self._looked_in_vain_at = float("-inf")

    async def complete(self) -> Holdings:
        """Return what there is, where nothing of ours is missing.

        Raises:
            SettingsError: as `current`.
            NotMigratedError: something is missing, and what to do; it may be there at the next look.
            ShopError: as `current`.
        """
        holdings = await self.current()
        if holdings.lacks:
            raise NotMigratedError("; ".join(holdings.lacks))
        return holdings

    async def look(self) -> Holdings:
        """Look up the columns and the tables, again if it was done before.

        Raises:
            SettingsError: a person must change the settings or the table.
            ShopError: the database could not be asked.
        """
        async with self._database.transaction() as connection:
            return await self._found(connection)

    async def _found(self, connection: Connection) -> Holdings:
        self._holdings = await self._look(connection)
        self._problem, self._is_doubted = "", False
        return self._holdings

    async def _look(self, connection: Connection) -> Holdings:
        layout = self.layout
        rights = await missing_rights(connection, layout)
        if rights.is_beside_own:
            raise RightsError(rights.sql)
        table = await find_table(
            connection,
            schema=layout.schema,
            table=layout.table,
            overrides=layout.overrides,
            time_zone=layout.time_zone,
            wanted=layout.wanted,
        )
        accounts = await find_account_tables(connection, layout.schema) if layout.accounts_from_shop else None
        check_statuses(table, layout)
        lacks = await lacking(connection, layout.schema)
        note = table.get("note")
        width = note.width if note is not None else None
        writes_processing = can_hold(table, layout.rules.processing)
        pin_width = table["pin_code"].width
        rules = replace(layout.rules, pin_width=pin_width, note_width=width, writes_processing=writes_processing)
        reviews, schema = Reviews(layout.schema), layout.schema
        ledger = Ledger(table, layout, rules, Logins(schema, b""))
        columns = {column.name: column for column in table.columns.values()}
        found = Holdings(ledger, accounts, Pauses(schema), reviews, tuple(lacks), columns)
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
            ledger=replace(
                ledger,
                logins=logins,
                key=key,
                shared=shared,
                began_at=start.first_migrate,
                first_start=start.moment,
                ignored_before=start.ignored_before(layout.ignore_before),
            ),
        )

    async def _logins_of(self, connection: Connection, accounts: AccountTables | None, key: bytes) -> Logins:
        """Return who is logged in at the accounts; those of the shop are noted each time they are read."""
        if self._logins is None:
            self._logins = Logins(self.layout.schema, key)
        known: Mapping[str, Credentials] = {}
        if accounts is not None:
            known = credentials_of(await accounts.read(connection))
        elif self.layout.credentials is not None:
            known = {CONFIGURED: self.layout.credentials}
        else:
            return self._logins
        await self._logins.note(connection, known)
        return self._logins
