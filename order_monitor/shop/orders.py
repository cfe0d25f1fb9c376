"""The shop's orders: read the open ones, and record what was found. Of a batch, one bad row never sinks the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import asyncpg

from order_monitor.account import Pause
from order_monitor.decide import StuckReason
from order_monitor.errors import RowRejectedError, SettingsError, ShopMisfitError
from order_monitor.finding import Fate, Finding, Result
from order_monitor.order import Order
from order_monitor.shop.accounts import AccountTables, Integration, find_account_tables
from order_monitor.shop.columns import Table, columns_of, find_table, quoted
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.layout import (
    DELIVERIES,
    EVENTS,
    PAUSES,
    REVIEW,
    Layout,
    check_statuses,
    is_open,
    is_unknown,
    open_statuses,
)
from order_monitor.shop.ledger import Ledger
from order_monitor.shop.people import Pauses, Reviews, may_use

UNKNOWN_LIMIT: Final = 1000
"""How many orders of unknown status are read at the most: they are shown, not worked on."""

WAITING_LIMIT: Final = 10_000
"""How far events that nobody consumed are counted."""

_NO_ROUTE: Final = "NULL::text AS integration, true AS routed"


@dataclass(frozen=True, slots=True)
class Scan:
    """The open orders at one moment. ``now`` is the database's clock, epoch seconds; ``integrations`` where they were read.

    ``waiting`` is how many events the shop has not consumed (at most `WAITING_LIMIT`) and since when the oldest waits; None
    where there is no events table, or the webhook delivers them. ``pauses`` are the accounts a person has paused, ``reviews``
    how many things wait for a person.
    """

    now: float
    orders: list[Order]
    unknown: list[Order]
    integrations: list[Integration] | None = None
    waiting: tuple[int, float | None] | None = None
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    reviews: int = 0


class Orders:
    """The orders table."""

    def __init__(self, database: Database, layout: Layout) -> None:
        """Work on the table that ``layout`` names; its columns are looked up on first use."""
        self._database = database
        self._layout = layout
        self._ledger: Ledger | None = None
        self._stale = False
        self._accounts: AccountTables | None = None
        self._met: set[str] = set()
        self._read_at = float("-inf")
        self._pauses: Pauses | None = None
        self._reviews: Reviews | None = None
        self._reviewed: set[tuple[str, str]] = set()

    def adopt(self, layout: Layout) -> None:
        """Go on by other settings, from the next look on."""
        self._layout = layout
        self._stale = self._ledger is not None

    async def prepare(self) -> Table:
        """Look up the columns, again if it was done before.

        Raises:
            SettingsError: a person must change the settings or the table.
            ShopError: the database could not be asked.
        """
        layout = self._layout
        async with self._database.transaction() as connection:
            table = await find_table(
                connection,
                schema=layout.schema,
                table=layout.table,
                overrides=layout.overrides,
                time_zone=layout.time_zone,
            )
            if layout.accounts_from_shop:
                self._accounts = await find_account_tables(connection, layout.schema)
            events = bool(await columns_of(connection, layout.schema, EVENTS))
            may_pause = await may_use(connection, layout.schema, PAUSES, "SELECT")
            may_review = await may_use(connection, layout.schema, REVIEW, "SELECT, INSERT")
            if layout.webhook and not await columns_of(connection, layout.schema, DELIVERIES):
                raise SettingsError([f"webhook.url: there is no table {DELIVERIES}; run order-monitor migrate"])
        check_statuses(table, layout)
        note = table.get("note")
        rules = replace(
            layout.rules, pin_width=table["pin_code"].width, note_width=note.width if note is not None else None
        )
        self._ledger = Ledger(table, layout, rules, events)
        self._pauses = Pauses(layout.schema) if may_pause else None
        self._reviews = Reviews(layout.schema) if may_review else None
        return table

    @property
    def ledger(self) -> Ledger:
        """The table found by `prepare`, ready to be written."""
        assert self._ledger is not None, "prepare() comes first"  # noqa: S101 - a programming error
        return self._ledger

    @property
    def table(self) -> Table:
        """The table found by `prepare`."""
        return self.ledger.table

    @property
    def open_statuses(self) -> tuple[str, ...]:
        """The statuses of open orders that the column can hold."""
        return open_statuses(self.table, self._layout)

    @property
    def records_every_check(self) -> bool:
        """Whether ``last_sync_at`` is written at each check."""
        return self.ledger.records_every_check

    async def _look_again(self) -> None:
        """Look the columns up, where that was never done or the table seems to have changed since."""
        if self._ledger is None:
            await self.prepare()
        elif self._stale:
            try:
                await self.prepare()
            except SettingsError as error:
                raise ShopMisfitError(str(error)) from None
        self._stale = False

    async def scan(self, only: Sequence[str] | None = None) -> Scan:
        """Return the open orders, or ``only`` those among some, and those whose status nobody knows.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        await self._look_again()
        try:
            async with self._database.transaction() as connection:
                now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
                found = await self._found(connection, only)
                unknown_sql = self.unknown_sql()
                unknown = await connection.fetch(unknown_sql) if unknown_sql else []
                integrations = await self._integrations(connection, now, found)
                waiting = await self._waiting(connection)
                pauses = await self._pauses.read(connection) if self._pauses else {}
                reviews = await self._reviews.count(connection) if self._reviews else 0
        except ShopMisfitError:
            self._stale = True
            raise
        orders, odd = [order_of(r) for r in found], [order_of(r) for r in unknown]
        return Scan(now, orders, odd, integrations, waiting, pauses, reviews)

    async def _found(self, connection: Connection, only: Sequence[str] | None) -> list[asyncpg.Record]:
        if only is None:
            return list(await connection.fetch(self.scan_sql()))
        among = f"o.{self.table['id'].sql} = ANY($1::text[]{self.table['id'].cast}[])"
        return list(await connection.fetch(f"{self.scan_sql()} AND {among}", list(only)))

    async def _waiting(self, connection: Connection) -> tuple[int, float | None] | None:
        if not self.ledger.events or self._layout.webhook:
            return None
        row = await connection.fetchrow(
            "SELECT count(*) AS count, extract(epoch FROM min(decided_at))::float8 AS since FROM (SELECT decided_at "  # noqa: S608
            f"FROM {quoted(self._layout.schema)}.{quoted(EVENTS)} WHERE consumed_at IS NULL ORDER BY id LIMIT {WAITING_LIMIT}) e"
        )
        return (row["count"], row["since"]) if row is not None else None

    async def _integrations(
        self, connection: Connection, now: float, found: Sequence[asyncpg.Record]
    ) -> list[Integration] | None:
        """Read the shop's accounts when it is time to, or when an order names one never met."""
        if self._accounts is None:
            return None
        named = {row["integration"] for row in found} - {None}
        if not named - self._met and 0 <= now - self._read_at < self._layout.refresh:
            return None
        integrations = await self.read_integrations(connection)
        self._met = named | {integration.id for integration in integrations}
        self._read_at = now
        return integrations

    async def read_integrations(self, connection: Connection) -> list[Integration]:
        """Return the shop's accounts; none where they are not the shop's."""
        return await self._accounts.read(connection) if self._accounts else []

    def scan_sql(self) -> str:
        """SQL of the open orders. The statuses stand in it as literals, so that the partial index is used."""
        return f"{self.select_sql()} WHERE o.{is_open(self.table, self._layout)}"

    def unknown_sql(self) -> str | None:
        """SQL of the orders in a status that is neither open nor known to be final; None where there can be none."""
        condition = is_unknown(self.table, self._layout)
        return f"{self.select_sql()} WHERE o.{condition} LIMIT {UNKNOWN_LIMIT}" if condition else None

    def select_sql(self) -> str:
        """SQL that reads orders, up to its WHERE; the table is called ``o``."""
        t = self.table
        tenant = f"o.{t['tenant_id'].sql}::text" if t.get("tenant_id") else "NULL::text"
        sync = t.epoch("last_sync_at", "o") if t.get("last_sync_at") else "NULL::float8"
        route, join = self._accounts.route_sql(t, "o") if self._accounts else (_NO_ROUTE, "")
        return (
            f"SELECT o.{t['id'].sql}::text AS id, o.{t['external_status'].sql}::text AS status, "  # noqa: S608
            f"{t.epoch('sent_at', 'o')} AS sent_at, o.{t['provider_referans'].sql}::text AS referans, "
            f"{tenant} AS tenant_id, {sync} AS last_sync_at, {route} FROM {t.sql} o {join}"
        )

    async def record(self, findings: Sequence[Finding]) -> list[Result]:
        """Write a batch of findings about different orders; one that the database refuses does not sink the others.

        Raises:
            ShopUnavailableError: all or nothing, or some of it, may have been committed; record the same findings again.
            ShopMisfitError: the table is not as it was.
        """
        results = await self._record(findings)
        await self._note(results)
        return results

    async def _note(self, results: list[Result]) -> None:
        """Put what is stuck on the list for review, once."""
        fresh = [r for r in results if r.stuck is not None and (r.finding.order.id, str(r.stuck)) not in self._reviewed]
        if fresh and self._reviews is not None:
            async with self._database.transaction() as connection:
                await self._reviews.open(connection, self.table, fresh)
            self._reviewed |= {(r.finding.order.id, str(r.stuck)) for r in fresh}

    async def review(self, order_id: str, kind: str, account: str) -> None:
        """Put one thing on the list for review, where there is such a list.

        Raises:
            ShopError: the database could not be asked.
        """
        await self._look_again()
        if self._reviews is not None:
            async with self._database.transaction() as connection:
                await self._reviews.note(connection, self.table, order_id, kind, account)

    async def _record(self, findings: Sequence[Finding]) -> list[Result]:
        await self._look_again()
        try:
            return await self._widened(await self._write(findings, with_notes=True))
        except ShopMisfitError:
            self._stale = True
            raise
        except RowRejectedError as error:
            if len(findings) > 1:
                middle = len(findings) // 2
                return [*await self._record(findings[:middle]), *await self._record(findings[middle:])]
            return [await self._record_alone(findings[0], error)]

    async def _widened(self, results: list[Result]) -> list[Result]:
        """Try PINs that were too wide once more, if somebody has widened the column since it was looked up."""
        wide = [r for r in results if r.stuck is StuckReason.PIN_TOO_WIDE]
        known = self.ledger.rules.pin_width
        if wide:
            await self.prepare()
        if self.ledger.rules.pin_width == known:
            return results
        return [r for r in results if r not in wide] + await self._write([r.finding for r in wide], with_notes=True)

    async def _record_alone(self, finding: Finding, error: RowRejectedError) -> Result:
        """Try once more without the provider's text, which matters less than the status and the PIN."""
        try:
            return (await self._write([finding], with_notes=False))[0]
        except RowRejectedError:
            finding.attempted = None
            return Result(finding, Fate.STUCK, stuck=StuckReason.REJECTED_BY_DATABASE, detail=str(error))

    async def _write(self, findings: Sequence[Finding], *, with_notes: bool) -> list[Result]:
        async with self._database.transaction() as connection:
            return await self.ledger.write(connection, findings, with_notes=with_notes)


def order_of(row: asyncpg.Record) -> Order:
    """Return the order that `Orders.select_sql` read."""
    return Order(
        row["id"],
        row["status"],
        row["sent_at"],
        row["referans"] or "",
        row["tenant_id"],
        row["last_sync_at"],
        row["integration"],
        row["routed"],
    )
