"""Read the shop's open orders, and what must be known beside them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import asyncpg
import structlog

from order_monitor.core.errors import NotMigratedError
from order_monitor.core.gate import Pause
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.shop.accounts import Integration, credentials_of
from order_monitor.shop.brake import KIND, Held
from order_monitor.shop.catalogue import Catalogue, Holdings
from order_monitor.shop.claims import Claims
from order_monitor.shop.columns import literal
from order_monitor.shop.database import Connection, Database, UndoError, now_of
from order_monitor.shop.dispatches import TOUCHED
from order_monitor.shop.event_sql import WEBHOOK_MARK
from order_monitor.shop.layout import events_of, settings_of
from order_monitor.shop.own_tables import lacking
from order_monitor.shop.queries import Queries, order_of
from order_monitor.shop.recent_ends import RecentEnds, ended_sql

SLICE: Final = 500
"""How many rows are taken in at a time."""

WAITING_LIMIT: Final = 10_000
"""How far events that nobody consumed are counted."""

_BLANKS: Final = (("", ""), (" ", ""), ("", " "), (" ", " "), ("", "\n"), ("", "\r\n"), ("", "\t"), ("\t", ""))
"""What may stand before and behind a reference."""

_SWEEP_EVERY: Final = 60.0
"""Seconds between two looks at whether the orders whose ends are held are open still."""
_SHARE: Final = 100.0
"""What is not watched is counted again after so many times the seconds that counting took."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of what a scan reads, as soon as it is read: of very many orders nobody holds all at once.

    ``now`` is the database's clock when the reading began, epoch seconds. The first part has no orders, but what must be known
    before them: the accounts that a person has paused, and the shop's accounts where they were read.
    """

    now: float
    orders: Sequence[Order] = ()
    integrations: list[Integration] | None = None
    pauses: Mapping[str, Pause] = field(default_factory=dict)


Take = Callable[[Slice], None]
"""Takes the parts of a scan."""


@dataclass(frozen=True, slots=True)
class Apart:
    """How many open orders the first start concerns; no more than `COUNTED` of each kind are counted.

    ``left_alone`` are not watched because they were sent too long before it. ``held`` are watched, and nothing but it keeps them
    from being failed by their age.
    """

    left_alone: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Scan:
    """The open orders at one moment. ``now`` is the database's clock, epoch seconds; ``integrations`` where they were read.

    ``orders`` are those that nobody has taken part by part. ``is_whole`` tells that all were read, and not only some. ``waiting``
    is how many events the shop has not consumed (at most `WAITING_LIMIT`) and since when the oldest waits; None where
    the webhook delivers them.
    ``pauses`` are the accounts a person has paused, ``reviews`` how many things wait for a person. ``awaiting`` are orders that
    have ended without the PIN that may still come, ``held`` those whose end the brake holds. ``apart`` counts those that are not
    among ``orders``, as last counted.
    """

    now: float
    orders: list[Order]
    unknown: list[Order]
    integrations: list[Integration] | None = None
    waiting: tuple[int, float | None] | None = None
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    reviews: int = 0
    awaiting: list[Order] = field(default_factory=list)
    is_whole: bool = True
    held: Sequence[Held] = ()
    apart: Apart = Apart()


@dataclass(frozen=True, slots=True)
class End:
    """An order that we ended ``ago`` seconds ago, and how."""

    order: Order
    outcome: Outcome
    ago: float


class OrderReader:
    """Finds the open orders."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        """Read the tables that ``catalogue`` knows."""
        self._database = database
        self._catalogue = catalogue
        self.queries = Queries(catalogue)
        self._ends = RecentEnds()
        self._claims = Claims(catalogue)
        self._has_claims = False
        self._met: set[str] = set()
        self.accounts_read_at = self._swept_at = float("-inf")
        self._apart, self._counted = Apart(), (float("-inf"), float("-inf"))
        self._log = structlog.get_logger("order_monitor.orders")

    async def scan(
        self, only: Sequence[str] | None = None, *, since: float | None = None, take: Take | None = None
    ) -> Scan:
        """Return the open orders, and those whose status nobody knows; of the open ones ``only`` some, or those sent ``since``.

        With ``take`` the open orders are given to it as they are read, and those read before an error stay with it.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        await self._catalogue.complete()
        if not self._has_claims:
            await self._claims.fill()
            self._has_claims = True
        is_through = False
        try:
            async with self._catalogue.transaction() as connection:
                scan, late = await self._read(connection, only, since, take)
            is_through = True
        finally:
            if not is_through:
                # Of accounts read by a look that failed nobody may have heard: they are read again.
                self.accounts_read_at = float("-inf")
        holdings = self._catalogue.holdings
        await self._ends.put_up(self._database, holdings.ledger.table, holdings.reviews, late)
        return scan

    async def peek(self) -> Scan:
        """Return what a look would find, and leave nothing behind: what it notes on its way is undone.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        await self._catalogue.complete()
        found: list[Scan] = []
        with suppress(UndoError):
            async with self._catalogue.transaction() as connection:
                scan, _ = await self._read(connection, None, None, None)
                found.append(scan)
                raise UndoError
        return found[0]

    async def _read(
        self,
        connection: Connection,
        only: Sequence[str] | None,
        since: float | None,
        take: Take | None,
    ) -> tuple[Scan, list[str]]:
        """Return what is read at a look, and which orders have waited too long for their PIN."""
        if lacks := await lacking(connection, self._catalogue.layout.schema):
            raise NotMigratedError("; ".join(lacks))
        holdings = await self._catalogue.see(connection)
        orders: list[Order] = []
        integrations: list[Integration] | None = None
        if holdings.accounts is not None:
            await connection.execute(holdings.accounts.watch_routes_sql())
        pauses = await holdings.pauses.read(connection)
        first = Slice(await now_of(connection), pauses=pauses)
        async for part in self._parts(connection, first, only, since):
            integrations = integrations if part.integrations is None else part.integrations
            if take is None:
                orders += part.orders
            else:
                take(part)
        unknown_sql = self.queries.unknown_sql()
        unknown = [order_of(r) for r in await connection.fetch(unknown_sql)] if unknown_sql else []
        waiting = await self._waiting(connection)
        reviews = await holdings.reviews.count(connection)
        held = await self._held(connection, holdings, first.now) if reviews else []
        ended = await self._recent(connection, holdings, only)
        awaiting = await self._noted(connection, [order_of(r, r["ended_at"]) for r in ended if not r["is_late"]])
        # Last of all: whoever goes by it must not be behind by as long as the reading took.
        now = await now_of(connection)
        is_whole = only is None and since is None
        if is_whole:
            await self._count_apart(connection, now)
        scan = Scan(now, orders, unknown, integrations, waiting, pauses, reviews, awaiting, is_whole, held, self._apart)
        return scan, [r["id"] for r in ended if r["is_late"]]

    async def _count_apart(self, connection: Connection, now: float) -> None:
        """Count what is not watched, unless that would take more than a hundredth of the time: then the last count stands."""
        since, until = self._counted
        if not since <= now < until:
            self._apart, took = await self._count(connection)
            self._counted = now, now + took * _SHARE

    async def _count(self, connection: Connection) -> tuple[Apart, float]:
        """Return what the first start concerns, and how many seconds counting took."""
        sql = self.queries.counts_sql()
        row = await connection.fetchrow(sql) if sql is not None else None
        return (Apart(), 0.0) if row is None else (Apart(row["left_alone"], row["held"]), row["took"])

    async def count_apart(self) -> Apart:
        """Count the open orders that the first start concerns.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        await self._catalogue.complete()
        async with self._catalogue.transaction() as connection:
            return (await self._count(connection))[0]

    async def left_alone(self, limit: int) -> list[Order]:
        """Return open orders that are not watched because they were sent too long before the start, the oldest first.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        await self._catalogue.complete()
        sql = self.queries.left_alone_sql(limit)
        if sql is None:
            return []
        async with self._catalogue.transaction() as connection:
            return [order_of(row) for row in await connection.fetch(sql)]

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return those among some orders that are open, as they are now, each noted as it was sent: nothing is asked before.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        await self._catalogue.complete()
        async with self._catalogue.transaction() as connection:
            span = self._catalogue.holdings.ledger.statements.span(orders)
            ids = [order.id for order in orders]
            rows = await connection.fetch(self.queries.among_sql() + span, ids)
            if span and (elsewhere := sorted(set(ids) - {row["id"] for row in rows})):
                rows += await connection.fetch(self.queries.among_sql(), elsewhere)
            found = [order_of(row) for row in rows]
            return await self._noted(connection, found)

    async def _noted(self, connection: Connection, orders: list[Order]) -> list[Order]:
        """Note the dispatches that are not noted yet, and those of others with the same references; return the orders so."""
        ledger = self._catalogue.holdings.ledger
        fresh = [o for o in orders if not o.registered and may_be_noted(self._catalogue.holdings, o)]
        if not fresh:
            return orders
        touched = await ledger.dispatches.note(connection, fresh)
        for order_id in touched:
            self._log.warning(
                "order.touched", order_id=order_id, times=TOUCHED, rule="its age counts from when it was found"
            )
        await note_namesakes(connection, self._catalogue.holdings, self.queries, fresh)
        noted = {o.id for o in fresh}
        return [o._replace(registered=True) if o.id in noted else o for o in orders]

    async def _held(self, connection: Connection, holdings: Holdings, now: float) -> list[Held]:
        """Return the orders whose end is held; now and then let go those that are open no more: nobody asks about them again."""
        held = await holdings.ledger.brake.held(connection)
        if not held or 0 <= now - self._swept_at < _SWEEP_EVERY:
            return held
        self._swept_at = now
        statements = holdings.ledger.statements
        rows = await connection.fetch(statements.status_sql(), [one.order_id for one in held])
        is_open = {row["id"] for row in rows if row["status"] in statements.open_statuses}
        gone = [(one.order_id, KIND) for one in held if one.order_id not in is_open]
        await holdings.reviews.mend(connection, holdings.ledger.table, gone, "open no more")
        return [one for one in held if one.order_id in is_open]

    async def among(self, ids: Sequence[str]) -> dict[str, Order]:
        """Return some orders by their ids, as they are now, open or not; nothing is noted of them.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        table = (await self._catalogue.complete()).ledger.table
        one = f"{table['id'].sql} = ANY($1::text[]{table['id'].cast}[])"
        async with self._database.transaction() as connection:
            rows = await connection.fetch(f"{self.queries.select_sql()} WHERE o.{one}", list(ids))
        return {row["id"]: order_of(row) for row in rows}

    async def ended(self, within: float) -> list[End]:
        """Return the orders that we ended within so many seconds, the latest first.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        ledger = (await self._catalogue.complete()).ledger
        sql = self.queries.select_sql(", e.outcome, e.ago") + ended_sql(ledger)
        async with self._catalogue.transaction() as connection:
            rows = await connection.fetch(sql, within)
        return [End(order_of(row), Outcome(row["outcome"]), row["ago"]) for row in rows]

    async def _recent(
        self, connection: Connection, holdings: Holdings, only: Sequence[str] | None
    ) -> list[asyncpg.Record]:
        """Follow what ended lately; return what ended without a PIN and may still get one."""
        await self._ends.follow(connection, self._catalogue.layout, holdings.ledger.table, holdings.accounts)
        if only is not None:
            return []
        pin = f"o.{holdings.ledger.table['pin_code'].sql}::text"
        select = self.queries.select_sql(f", e.ended_at, e.is_late, {pin} AS pin")
        return await self._ends.without_pin(connection, holdings.ledger, select, holdings.reviews.sql)

    async def _parts(
        self, connection: Connection, first: Slice, only: Sequence[str] | None, since: float | None
    ) -> AsyncIterator[Slice]:
        """Yield what must be known first, and then the orders."""
        integrations: list[Integration] | None = None
        accounts = self._catalogue.holdings.accounts
        if accounts and not 0 <= first.now - self.accounts_read_at < self._catalogue.layout.refresh:
            integrations = await self._integrations(connection, first.now, set())
        yield replace(first, integrations=integrations)
        async for rows in self._slices(connection, only, since):
            named = {row["integration"] for row in rows} - self._met - {None} if accounts else set()
            # An account never met is looked for once; whether it is there by now tells the next time that all are read.
            integrations = await self._integrations(connection, first.now, named) if named else None
            yield replace(first, orders=[order_of(row) for row in rows], integrations=integrations)

    async def _slices(
        self, connection: Connection, only: Sequence[str] | None, since: float | None
    ) -> AsyncIterator[list[asyncpg.Record]]:
        """Yield the rows of open orders, of very many some at a time: nobody holds all, and others have their turn."""
        if since is not None:
            yield list(await connection.fetch(self.queries.since_sql(), since))
        elif only is not None:
            yield list(await connection.fetch(self.queries.among_sql(), list(only)))
        else:
            cursor = await connection.cursor(self.queries.scan_sql())
            while rows := await cursor.fetch(SLICE):
                yield rows

    async def _waiting(self, connection: Connection) -> tuple[int, float | None] | None:
        schema = self._catalogue.layout.schema
        row = await connection.fetchrow(
            "SELECT count(*) AS count, extract(epoch FROM min(decided_at))::float8 AS since, "
            f"EXISTS (SELECT FROM {settings_of(schema)} WHERE name = {literal(WEBHOOK_MARK)}) AS is_posted "
            f"FROM (SELECT decided_at FROM {events_of(schema)} WHERE consumed_at IS NULL ORDER BY id LIMIT {WAITING_LIMIT}) e"
        )
        return (row["count"], row["since"]) if row is not None and not row["is_posted"] else None

    async def _integrations(self, connection: Connection, now: float, named: set[str]) -> list[Integration]:
        """Read the shop's accounts, of which orders have ``named`` some that were never met."""
        integrations = await self.read_integrations(connection)
        await self._catalogue.holdings.ledger.logins.note(connection, credentials_of(integrations))
        # Where all are read anyway those met before are of no use: accounts come and go.
        self._met = {*(self._met if named else ()), *named, *(integration.id for integration in integrations)}
        self.accounts_read_at = now
        return integrations

    async def read_integrations(self, connection: Connection) -> list[Integration]:
        """Return the shop's accounts; none where they are not the shop's."""
        accounts = self._catalogue.holdings.accounts
        return await accounts.read(connection) if accounts else []


async def note_namesakes(connection: Connection, holdings: Holdings, queries: Queries, orders: Sequence[Order]) -> None:
    """Note those other orders of the shop's table that were sent under the references of some, and are not noted yet."""
    dispatches, table = holdings.ledger.dispatches, holdings.ledger.table
    if not orders or not table.is_reference_indexed:
        return
    references = spellings([o.referans for o in orders], is_text=table["provider_referans"].is_text)
    rows = await connection.fetch(dispatches.namesakes_sql(queries.select_sql()), references, [o.id for o in orders])
    same = [o for row in rows if not (o := order_of(row)).registered and may_be_noted(holdings, o)]
    await dispatches.note(connection, same)


def may_be_noted(holdings: Holdings, order: Order) -> bool:
    """Whether it is known to which account, under which reference and when an order was sent."""
    is_known = holdings.accounts is None or order.integration is not None
    return is_known and bool(order.referans.strip()) and order.sent_at is not None and math.isfinite(order.sent_at)


def spellings(references: Iterable[str], *, is_text: bool) -> list[str]:
    """Return references as they may stand in the table: blanks about one make no other of it, and an index knows no blanks."""
    given = set(references)
    if is_text:
        given |= {f"{before}{ref.strip()}{behind}" for ref in given for before, behind in _BLANKS}
    return sorted(given)
