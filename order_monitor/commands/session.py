"""What a command works with: its settings, the shop's database, and the accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec

from order_monitor.app import database_of, directory_of, orders_of, settings_of
from order_monitor.commands.exits import run_to_exit
from order_monitor.settings.model import Settings
from order_monitor.shop.accounts.tables import Integration, find_account_tables
from order_monitor.shop.database import Database
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.own_tables import need_tables
from order_monitor.shop.schema.table_config import EVENTS, PAUSES, REVIEW
from order_monitor.tell.redactor import Redactor
from order_monitor.watch.routing import Directory
from order_monitor.watch.system_clock import SystemClock

PEOPLES: Final = (EVENTS, PAUSES, REVIEW)
"""Our tables that every decision of a person needs."""

_Options = ParamSpec("_Options")


@dataclass(frozen=True, slots=True)
class Session:
    """The settings of one run of a command, and its connection to the shop's database."""

    settings: Settings
    database: Database
    redactor: Redactor

    @property
    def schema(self) -> str:
        """The schema of the shop's tables."""
        return self.settings.database.schema_

    def orders(self) -> Orders:
        """Return the orders table."""
        return orders_of(self.settings, self.database)

    async def need(self, *tables: str) -> None:
        """Check that these tables of ours exist, and that this role may do there what people do.

        Raises:
            TableError: one does not exist; the text says what to run.
            RightsError: a right is missing; the text says what to run.
        """
        async with self.database.transaction() as connection:
            await need_tables(connection, self.schema, *tables)

    async def integrations(self) -> list[Integration]:
        """Return the accounts in the shop's tables.

        Raises:
            SettingsError: the tables are missing, or not as expected.
            ShopError: the database is not available.
        """
        async with self.database.transaction() as connection:
            return await (await find_account_tables(connection, self.schema)).read(connection)

    def directory(self) -> Directory:
        """Return the accounts; those of the shop's tables are not known yet."""
        return directory_of(self.settings, SystemClock(), self.redactor.follow)

    @asynccontextmanager
    async def accounts(self) -> AsyncIterator[Directory]:
        """Lend the accounts: the one in the settings, or those in the shop's tables.

        Raises:
            SettingsError: the tables are missing, or not as expected.
            ShopError: the database is not available.
        """
        async with self.directory() as directory:
            if self.settings.provider.source == "database":
                directory.update(await self.integrations())
            yield directory


def command(
    *need: str, least: str | None = "error"
) -> Callable[
    [Callable[Concatenate[Session, _Options], Coroutine[Any, Any, int]]],
    Callable[Concatenate[Path | None, _Options], int],
]:
    """Make a command of a coroutine function that takes a `Session` and returns an exit code.

    The command takes the path of the settings in place of the session. It needs the settings'
    section ``database``, and those in ``need``, and logs what is at ``least`` of this level; None
    for the level in the settings.
    """

    def made(
        work: Callable[Concatenate[Session, _Options], Coroutine[Any, Any, int]],
    ) -> Callable[Concatenate[Path | None, _Options], int]:
        def run(config: Path | None, /, *given: _Options.args, **options: _Options.kwargs) -> int:
            settings, sink, redactor = settings_of(config, "database", *need, least=least)

            async def connected() -> int:
                async with database_of(settings) as database:
                    return await work(Session(settings, database, redactor), *given, **options)

            return run_to_exit(connected(), sink.close)

        return run

    return made
