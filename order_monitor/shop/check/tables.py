"""Examine the shop's database and report what is wrong with it, without writing anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final

from order_monitor.core.errors import RightsError, RowRejectedError, SettingsError, ShopMisfitError
from order_monitor.shop.check.line import CheckLine
from order_monitor.shop.check.obstacles import found_out, walls_of
from order_monitor.shop.check.words import words_of_the_table
from order_monitor.shop.database import Database
from order_monitor.shop.migration import Migration
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import Review, Reviews
from order_monitor.shop.schema.columns import Table
from order_monitor.shop.schema.own_tables import as_script
from order_monitor.shop.schema.relations import remarks_of
from order_monitor.shop.schema.rights import missing_rights
from order_monitor.shop.schema.table_config import TableConfig, is_open
from order_monitor.shop.writing.row_writer import rehearse


class TableCheck:
    """Examines the database; ``can_work`` tells whether orders could be read and written there."""

    def __init__(
        self, database: Database, orders: Orders, migration: Migration, table_config: TableConfig
    ) -> None:
        """Examine only ``database``, and change nothing in it."""
        self._database = database
        self._orders = orders
        self._migration = migration
        self._table_config = table_config
        self.can_work = False

    async def examine(self) -> AsyncIterator[CheckLine]:
        """Yield one finding after the other; checks that an error makes impossible are left out.

        Raises:
            ShopUnavailableError: the database cannot be reached.
        """
        async with self._database.transaction() as connection:
            version = await connection.fetchval("SHOW server_version")
            encoding = await connection.fetchval("SHOW server_encoding")
        yield CheckLine("ok", "database", f"reached: PostgreSQL {version}")
        if encoding != "UTF8":
            text = f"its encoding is {encoding}: some messages cannot be stored and are left out"
            yield CheckLine("warning", "database", text)
        async with self._database.transaction() as connection:
            rights = await missing_rights(connection, self._table_config)
        if rights.needed:
            yield CheckLine("error", "rights", "this role lacks rights", rights.sql)
        elif rights.further:
            text = "some columns, or what the settings need besides the orders, are left out: this role may not use them"
            yield CheckLine("warning", "rights", text, as_script(rights.further))
        try:
            table = await self._orders.prepare()
        except SettingsError as error:
            for problem in error.problems:
                subject, _, rest = problem.partition(": ")
                text, _, remedy = rest.partition("; ")
                yield CheckLine("error", subject, text, remedy)
            return
        except RightsError:
            return
        async for line in self._examine_table(table, has_rights=not rights.needed):
            yield line

    async def _examine_table(self, table: Table, *, has_rights: bool) -> AsyncIterator[CheckLine]:
        names = ", ".join(column.name for column in table.columns.values())
        yield CheckLine("ok", f"table {table.schema}.{table.name}", f"columns found: {names}")
        for text, remedy in remarks_of(table.relation, f"{table.schema}.{table.name}"):
            yield CheckLine("warning", f"table {table.schema}.{table.name}", text, remedy)
        for text in table.left_out:
            what, _, remedy = text.partition(": ")
            yield CheckLine("warning", "columns", f"left out: {what}", remedy)
        migrate = "order-monitor migrate"
        missing = [
            CheckLine("warning", change.what, "is missing", migrate)
            for change in await self._migration.missing(table)
        ]
        # Each missing part is reported separately; the statements need all of them.
        can_work = has_rights and not self._orders.lacks
        rights = await self._statements() if can_work else []
        walls = await walls_of(self._database, self._migration, table, self._table_config)
        for line in [*rights, *walls, *missing, *_twins(table)]:
            yield line
        for drop in await self._migration.outdated(table):
            text = "serves other statuses than the settings name"
            yield CheckLine("warning", drop.what, text, migrate)
        if has_rights and self._orders.lacks:
            text = "nothing is asked about, and no order is ended, until our tables are there"
            yield CheckLine("warning", "own tables", text, migrate)
        elif can_work and not any(line.level == "error" for line in rights):
            self.can_work = True
            for line in await self._identity(table):
                yield line
            found = await found_out(self._database, self._table_config)
            found += await words_of_the_table(self._database, table, self._table_config)
            for line in [*found, await self._deliveries(), *await self._people()]:
                yield line

    async def _statements(self) -> list[CheckLine]:
        """Run the statements of the daemon without touching any row."""
        try:
            async with self._database.transaction() as connection:
                await connection.fetch(f"EXPLAIN {self._orders.reader.queries.scan_sql()}")
                await rehearse(connection, self._orders.row_writer.statements)
        except (ShopMisfitError, RowRejectedError) as error:
            text = f"a statement of the work is refused: {error}"
            return [CheckLine("error", "rights", text, _hint(str(error)))]
        return [CheckLine("ok", "rights", "all that is needed, and the statements of the work run")]

    async def _identity(self, table: Table) -> list[CheckLine]:
        """Report whether rows can have, or have, the same id: an answer could be about either."""
        if table.relation.is_unique:
            return []
        lines, identity = [], table["id"].sql
        async with self._database.transaction() as connection:
            count = await connection.fetchval(
                f"SELECT count(*) FROM (SELECT 1 FROM {table.sql} o WHERE o.{identity} IN (SELECT n.{identity} "
                f"FROM {table.sql} n WHERE n.{is_open(table, self._table_config)}) GROUP BY o.{identity} HAVING count(*) > 1) d"
            )
        if count:
            share = "orders share their ids" if count > 1 else "order shares its id"
            text = f"{count} open {share} with another row: none of these is written"
            lines.append(CheckLine("error", "identity", text, "give each row an id of its own"))
        if not table.relation.is_keyed and not table.relation.is_view:
            below = any(not part.is_partition for part in table.relation.parts)
            add_key = f"ALTER TABLE {table.sql} ADD PRIMARY KEY ({identity})"
            remedy = "let no child table hold another's id" if below else add_key
            text = f"nothing keeps {table['id'].name} unique"
            lines.append(CheckLine("warning", "identity", text, remedy))
        return lines

    async def _people(self) -> list[CheckLine]:
        """Report rows that wait for a person because the database refuses them."""
        reviews = Reviews(self._table_config.schema)
        async with self._database.transaction() as connection:
            return [_refused(review) for review in await reviews.refused(connection, REFUSED)]

    async def _deliveries(self) -> CheckLine:
        waiting, dead = await Outbox(self._database, self._table_config.schema).counts()
        text = f"{waiting} events wait for delivery, {dead} {'is a dead letter' if dead == 1 else 'are dead letters'}"
        do = "order-monitor explain ORDER says why" if dead else ""
        return CheckLine("warning" if dead else "ok", "webhook", text, do)


REFUSED: Final = 20
"""Maximum number of refused rows to list."""

_REFUSED_DO: Final = "see which trigger or constraint raises that code; then order-monitor ask it, or resolve it by hand"


def _refused(review: Review) -> CheckLine:
    """Report a row that cannot be written: its order stays open although its end is known."""
    text = f"the database refuses its row: {review.detail}"
    return CheckLine("error", f"order {review.order_id}", text, _REFUSED_DO)


def _hint(error: str) -> str:
    remedy = "a row security policy hides orders: exempt this role (BYPASSRLS)"
    return remedy if "42501" in error else ""


def worst(lines: Iterable[CheckLine]) -> str:
    """Return the most severe level among ``lines``."""
    levels = {line.level for line in lines}
    return next((level for level in ("error", "warning") if level in levels), "ok")


def _twins(table: Table) -> list[CheckLine]:
    """Report that orders of one reference may be missed: they are found only through an index."""
    if table.is_reference_indexed or table.relation.is_view:
        return []  # for a view this is reported elsewhere
    name = table["provider_referans"].name
    text = f"no index leads with {name}: of two orders with one reference, one not yet asked about is not seen"
    return [CheckLine("warning", "references", text, "order-monitor migrate")]
