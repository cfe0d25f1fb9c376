"""Read the shop's open orders, and the data that is needed with them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import asyncpg
import structlog

from order_monitor.core.confirmation import Unconfirmed
from order_monitor.core.errors import NotMigratedError
from order_monitor.core.gate import Pause
from order_monitor.core.order import LONGEST_REFERENCE, Order
from order_monitor.core.outcome import FINAL, Outcome
from order_monitor.shop.accounts.tables import Integration, credentials_of
from order_monitor.shop.database import Connection, Database, UndoError, now_of
from order_monitor.shop.reading.queries import Queries, order_of
from order_monitor.shop.reading.recent_ends import RecentEnds, ended_sql
from order_monitor.shop.reviews import UNCONFIRMED, Review
from order_monitor.shop.schema.cache import SchemaCache, ShopTables
from order_monitor.shop.schema.columns import literal, qualified, quoted
from order_monitor.shop.schema.own_tables import lacking
from order_monitor.shop.schema.table_config import (
    CONSUMER,
    DELIVERIES,
    events_of,
    literals,
    settings_of,
)
from order_monitor.shop.writing.brake import KIND, Held
from order_monitor.shop.writing.claims import Claims
from order_monitor.shop.writing.dispatches import TOUCHED
from order_monitor.shop.writing.event_sql import WEBHOOK_MARK

SLICE: Final = 100
"""Number of orders passed on at a time: to take them in blocks the event loop for some
milliseconds.
"""

FETCHED: Final = 5
"""Number of slices that are read in one go."""

LOOK_FOR_NEW_EVERY: Final = 5.0
"""Seconds between two looks for orders that are sent while all are being read."""

_OVERLAP: Final = 60.0
"""Seconds by which a row may become visible after the ``sent_at`` in it."""

WAITING_LIMIT: Final = 10_000
"""Maximum number of unconsumed events that are counted."""

_LATE: Final = "to_jsonb(c)->'late'"
_IS_WANTED: Final = (
    f"e.id >= COALESCE((SELECT least(c.since, ({_LATE}->>0)::bigint) FROM {{0}}), 0) "
    f"AND COALESCE((SELECT e.id >= c.since OR {_LATE} @> to_jsonb(e.id) FROM {{0}}), true)"
)
"""SQL condition that the consumers act on an event: it is not before their start, or was not in the
table when that was set. An older version of their table has no column ``late``.
"""

SHOWN_REVIEWS: Final = 100
"""How many of the things that wait for a person are read at a look, to be shown."""

_BLANKS: Final = (
    ("", ""),
    (" ", ""),
    ("", " "),
    (" ", " "),
    ("", "\n"),
    ("", "\r\n"),
    ("", "\t"),
    ("\t", ""),
)
"""Whitespace that may surround a reference in the table."""

_SWEEP_EVERY: Final = 60.0
"""Seconds between two checks whether orders with held ends, or with unconfirmed cancellations, are
still open.
"""
_SHARE: Final = 100.0
"""Orders that are not watched are counted again after this many times the duration of the count."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of a scan, passed on as soon as it is read, so that very many orders are never all in
    memory at once.

    ``now`` is the database's clock when the scan began, epoch seconds. The first slice has no
    orders but what is needed before them: the accounts that a person has paused, and the shop's
    accounts if they were read.
    """

    now: float
    orders: Sequence[Order] = ()
    integrations: list[Integration] | None = None
    pauses: Mapping[str, Pause] = field(default_factory=dict)


class Part(NamedTuple):
    """Which open orders are read: those with these ids, those sent after this time (epoch seconds),
    those of the accounts with these keys, or all.
    """

    only: Sequence[str] | None = None
    since: float | None = None
    of: Collection[str] | None = None


ALL: Final = Part()

Take = Callable[[Slice], None]
"""Receives the slices of a scan."""


@dataclass(frozen=True, slots=True)
class Apart:
    """Number of open orders affected by the first start.

    At most `COUNTED` of each kind are counted. ``left_alone``: not watched, because they were sent
    too long before it. ``held``: watched, and only the first start prevents that they are failed by
    their age.
    """

    left_alone: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Scan:
    """The open orders at one moment.

    ``now`` is the database's clock, epoch seconds; ``integrations`` where they were read.
    ``orders`` are those that nobody has taken part by part. ``is_whole`` tells that all were read,
    and not only some. ``waiting`` is how many events the shop has not consumed (at most
    `WAITING_LIMIT`; without those that the Django app's consumers leave alone, or that the webhook
    has delivered or put aside) and since when the oldest waits.
    ``pauses`` are the accounts a person has paused, ``reviews`` how many things wait for a person,
    and ``oldest_reviews`` the first `SHOWN_REVIEWS` of them. ``awaiting`` are orders that have
    ended without the PIN that may still come, ``held`` those whose end the brake holds,
    ``unconfirmed`` those whose cancellation waits for a second answer, None while the shop is only
    observed. ``apart`` counts those that are not among ``orders``, as last counted.
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
    oldest_reviews: Sequence[Review] = ()
    unconfirmed: Sequence[Unconfirmed] | None = None


@dataclass(frozen=True, slots=True)
class End:
    """An order that we ended ``ago`` seconds ago, and its outcome."""

    order: Order
    outcome: Outcome
    ago: float


class OrderReader:
    """Finds the open orders."""

    def __init__(self, database: Database, schema_cache: SchemaCache) -> None:
        """Read the tables that ``schema_cache`` knows."""
        self._database = database
        self.schema_cache = schema_cache
        self.queries = Queries(schema_cache)
        self._ends = RecentEnds()
        self.claims = Claims(schema_cache)
        self._has_claims = False
        self._met: set[str] = set()
        self._has_start = self._is_long = False
        self.accounts_read_at = self._swept_at = self._pins_swept_at = float("-inf")
        self._apart, self.counted = Apart(), (float("-inf"), float("-inf"))
        # A full read takes minutes where orders are very many, and so may the read of an account that
        # is taken over: one connection stays for what is written.
        self._long_reads = asyncio.Semaphore(max(1, database.pool_size - 1))
        self._log = structlog.get_logger("order_monitor.orders")

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        """Return the open orders, or a ``part`` of them, and those with an unknown status.

        With ``take`` the open orders are passed to it as they are read; it keeps those read before
        an error.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        await self.schema_cache.complete()
        observes = self.schema_cache.table_config.observes
        if not (self._has_claims or observes):
            await self.claims.fill()
            self._has_claims = True
        is_through = False
        is_long = part.only is None and part.since is None
        try:
            async with (
                self._long_reads if is_long else nullcontext(),
                self.schema_cache.transaction() as connection,
            ):
                scan, late = await self._read(connection, part, take)
            is_through = True
        finally:
            if not is_through:
                # The accounts read by a failed scan may have reached no one: read them again.
                self.accounts_read_at = float("-inf")
        shop_tables = self.schema_cache.shop_tables
        await self._ends.put_up(
            self._database, shop_tables.row_writer.table, shop_tables.reviews, late
        )
        return scan

    async def peek(self) -> Scan:
        """Return what a scan would find, and roll back everything that it records.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        await self.schema_cache.complete()
        found: list[Scan] = []
        with suppress(UndoError):
            async with self.schema_cache.transaction() as connection:
                scan, _ = await self._read(connection, ALL, None)
                found.append(scan)
                raise UndoError
        return found[0]

    async def _read(
        self,
        connection: Connection,
        wanted: Part,
        take: Take | None,
    ) -> tuple[Scan, list[str]]:
        """Return the scan, and the orders that have waited too long for their PIN."""
        if lacks := await lacking(connection, self.schema_cache.table_config.schema):
            raise NotMigratedError("; ".join(lacks))
        shop_tables = await self.schema_cache.see(connection)
        orders: list[Order] = []
        integrations: list[Integration] | None = None
        if shop_tables.accounts is not None:
            await connection.execute(shop_tables.accounts.watch_routes_sql())
        pauses = await shop_tables.pauses.read(connection)
        first = Slice(await now_of(connection), pauses=pauses)
        async for part in self._parts(connection, first, wanted):
            integrations = integrations if part.integrations is None else part.integrations
            if take is None:
                orders += part.orders
            else:
                take(part)
        unknown_sql = self.queries.unknown_sql()
        unknown = [order_of(r) for r in await connection.fetch(unknown_sql)] if unknown_sql else []
        waiting = await self._waiting(connection, is_quick=wanted.since is not None)
        reviews, waits, pins = await shop_tables.reviews.count(connection)
        oldest = await shop_tables.reviews.read(connection, SHOWN_REVIEWS) if reviews else []
        # One may be added or closed between the two statements.
        reviews = len(oldest) if len(oldest) < SHOWN_REVIEWS else max(reviews, SHOWN_REVIEWS)
        held: list[Held] = []
        unconfirmed: list[Unconfirmed] | None = None
        if not self.schema_cache.table_config.observes:
            is_any = bool(reviews or waits)
            held, unconfirmed = (
                await self._held(connection, shop_tables, first.now) if is_any else ([], [])
            )
            if pins and not 0 <= first.now - self._pins_swept_at < _SWEEP_EVERY:
                self._pins_swept_at = first.now
                await shop_tables.row_writer.held_pins.settle_all(connection)
        ended = await self._recent(connection, shop_tables, wanted.only)
        awaiting = await self.noted(
            connection, [order_of(r, r["ended_at"]) for r in ended if not r["is_late"]]
        )
        # Read last, so that it is not behind by the duration of the scan.
        now = await now_of(connection)
        is_whole = wanted == ALL
        if is_whole:
            await self._count_apart(connection, now)
        found = (
            orders,
            unknown,
            integrations,
            waiting,
            pauses,
            reviews,
            awaiting,
            is_whole,
            held,
            self._apart,
            oldest,
            unconfirmed,
        )
        scan = Scan(now, *found)
        return scan, [r["id"] for r in ended if r["is_late"]]

    async def _count_apart(self, connection: Connection, now: float) -> None:
        """Count the orders that are not watched, unless that would take more than one per cent of
        the time; the last count then stays.
        """
        since, until = self.counted
        if not since <= now < until:
            self._apart, took = await self._count(connection)
            self.counted = now, now + took * _SHARE

    async def _count(self, connection: Connection) -> tuple[Apart, float]:
        """Return the orders affected by the first start, and the seconds that counting took."""
        sql = self.queries.counts_sql()
        row = await connection.fetchrow(sql) if sql is not None else None
        return (
            (Apart(), 0.0) if row is None else (Apart(row["left_alone"], row["held"]), row["took"])
        )

    async def count_apart(self) -> Apart:
        """Count the open orders affected by the first start.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        await self.schema_cache.complete()
        async with self.schema_cache.transaction() as connection:
            return (await self._count(connection))[0]

    async def left_alone(self, limit: int) -> list[Order]:
        """Return open orders that are not watched because they were sent too long before the start,
        oldest first.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        await self.schema_cache.complete()
        sql = self.queries.left_alone_sql(limit)
        if sql is None:
            return []
        async with self.schema_cache.transaction() as connection:
            return [order_of(row) for row in await connection.fetch(sql)]

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return the current state of those given orders that are open, and record the dispatch of
        each: nothing is asked before that.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        await self.schema_cache.complete()
        async with self.schema_cache.transaction() as connection:
            span = self.schema_cache.shop_tables.row_writer.statements.span(orders)
            ids = [order.id for order in orders]
            rows = await connection.fetch(self.queries.among_sql() + span, ids)
            if span and (elsewhere := sorted(set(ids) - {row["id"] for row in rows})):
                rows += await connection.fetch(self.queries.among_sql(), elsewhere)
            found = [order_of(row) for row in rows]
            return await self.noted(connection, found)

    async def noted(self, connection: Connection, orders: list[Order]) -> list[Order]:
        """Record the dispatches that are not recorded yet, and those of other orders with the same
        references; return the updated orders.
        """
        row_writer = self.schema_cache.shop_tables.row_writer
        fresh = [
            o for o in orders if not o.registered and may_be_noted(self.schema_cache.shop_tables, o)
        ]
        if not fresh:
            return orders
        touched = await row_writer.dispatches.note(connection, fresh)
        for order_id in touched:
            self._log.warning(
                "order.touched",
                order_id=order_id,
                times=TOUCHED,
                rule="its age counts from when it was found",
            )
        await note_same_reference(connection, self.schema_cache.shop_tables, self.queries, fresh)
        noted = {o.id for o in fresh}
        return [o._replace(registered=True) if o.id in noted else o for o in orders]

    async def _held(
        self, connection: Connection, shop_tables: ShopTables, now: float
    ) -> tuple[list[Held], list[Unconfirmed]]:
        """Return the orders whose end the brake holds, and those whose cancellation waits for a
        second answer.

        From time to time, drop those that are no longer open, or that the shop has settled itself:
        they are not asked about again.
        """
        row_writer = shop_tables.row_writer
        held = await row_writer.brake.held(connection)
        waiting = await row_writer.cancellations.waiting(connection)
        if not (held or waiting) or 0 <= now - self._swept_at < _SWEEP_EVERY:
            return held, waiting
        self._swept_at = now
        statements, ids = (
            row_writer.statements,
            {h.order_id for h in held} | {w.order_id for w in waiting},
        )
        rows = await connection.fetch(statements.read_sql(), sorted(ids))
        is_open = {
            row["id"]
            for row in rows
            if row["status"] in statements.open_statuses and not row["settled"]
        }
        gone = [(i, kind) for i in ids - is_open for kind in (KIND, UNCONFIRMED)]
        await shop_tables.reviews.mend(connection, row_writer.table, gone, "open no more")
        return (
            [one for one in held if one.order_id in is_open],
            [one for one in waiting if one.order_id in is_open],
        )

    async def among(self, ids: Sequence[str]) -> dict[str, Order]:
        """Return orders by id, in their current state, open or not; records nothing.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        table = (await self.schema_cache.complete()).row_writer.table
        one = f"{table['id'].sql} = ANY($1::text[]{table['id'].cast}[])"
        async with self._database.transaction() as connection:
            rows = await connection.fetch(f"{self.queries.select_sql()} WHERE o.{one}", list(ids))
        return {row["id"]: order_of(row) for row in rows}

    async def ended(self, within: float) -> list[End]:
        """Return the orders that we ended within that many seconds, latest first.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        row_writer = (await self.schema_cache.complete()).row_writer
        sql = self.queries.select_sql(", e.outcome, e.ago") + ended_sql(row_writer)
        async with self.schema_cache.transaction() as connection:
            rows = await connection.fetch(sql, within)
        return [End(order_of(row), Outcome(row["outcome"]), row["ago"]) for row in rows]

    async def has_ended_so(self, order_id: str, outcome: Outcome) -> bool:
        """Whether that is how an order has ended last, by its events, and it was not reopened since.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        table = (await self.schema_cache.complete()).row_writer.table
        words = literals((*FINAL, "reopened"))
        async with self.schema_cache.transaction() as connection:
            last = await connection.fetchval(
                f"SELECT e.outcome FROM {events_of(table.schema)} e WHERE e.outcome IN ({words}) "
                f"AND e.order_id = $1::text{table['id'].cast} ORDER BY e.id DESC LIMIT 1",
                order_id,
            )
        return bool(last == outcome)

    async def _recent(
        self, connection: Connection, shop_tables: ShopTables, only: Sequence[str] | None
    ) -> list[asyncpg.Record]:
        """Follow recent ends; return orders that ended without a PIN and may still get one."""
        await self._ends.follow(
            connection,
            self.schema_cache.table_config,
            shop_tables.row_writer.table,
            shop_tables.accounts,
        )
        if only is not None:
            return []
        pin = f"o.{shop_tables.row_writer.table['pin_code'].sql}::text"
        select = self.queries.select_sql(f", e.ended_at, e.is_late, {pin} AS pin")
        return await self._ends.without_pin(
            connection, shop_tables.row_writer, select, shop_tables.reviews.sql
        )

    async def _parts(
        self, connection: Connection, first: Slice, wanted: Part
    ) -> AsyncIterator[Slice]:
        """Yield what is needed first, and then the orders."""
        integrations: list[Integration] | None = None
        accounts = self.schema_cache.shop_tables.accounts
        if (
            accounts
            and not 0 <= first.now - self.accounts_read_at < self.schema_cache.table_config.refresh
        ):
            integrations = await self._integrations(connection, first.now, set())
        yield replace(first, integrations=integrations)
        async for orders in self._slices(connection, wanted, first.now):
            used = {order.integration for order in orders} if accounts else set[str | None]()
            named = {key for key in used - self._met if key is not None}
            # An unknown account is looked for once; if it does not exist yet, the next full read
            # of the accounts finds it.
            integrations = await self._integrations(connection, first.now, named) if named else None
            for start in range(0, len(orders), SLICE):
                # Other tasks get their turn.
                await asyncio.sleep(0)
                # However many there are: each slice has a statement's time of its own.
                self._database.progressed(connection)
                part = orders[start : start + SLICE]
                yield replace(first, orders=part, integrations=integrations)
                integrations = None

    async def _slices(
        self,
        connection: Connection,
        wanted: Part,
        now: float,
    ) -> AsyncIterator[list[Order]]:
        """Yield the open orders in slices, so that very many are not all in memory and other tasks
        get their turn.

        A full read that takes long also yields what is sent meanwhile, from ``now`` (epoch seconds)
        on.
        """
        if wanted.since is not None:
            yield _orders(await connection.fetch(self.queries.since_sql(), wanted.since))
        elif wanted.only is not None:
            yield _orders(await connection.fetch(self.queries.among_sql(), list(wanted.only)))
        elif wanted.of is not None and self.schema_cache.shop_tables.accounts is not None:
            async for orders in self._slices_of(connection, frozenset(wanted.of)):
                yield orders
        else:
            cursor = await connection.cursor(self.queries.scan_sql())
            began = looked_at = _now()
            met = set[str]()
            recent = now - _OVERLAP
            while rows := await cursor.fetch(FETCHED * SLICE):
                self._database.progressed(connection)
                fresh = [order for order in _orders(rows) if order.id not in met]
                met.update(order.id for order in fresh if (order.sent_at or 0.0) > recent)
                yield fresh
                if _now() - looked_at >= LOOK_FOR_NEW_EVERY:
                    # The cursor shows the table as it was when the scan began.
                    sent = await connection.fetch(self.queries.since_sql(), recent)
                    fresh = [order for order in _orders(sent) if order.id not in met]
                    met.update(order.id for order in fresh)
                    yield fresh
                    looked_at = _now()
                    recent = now + (looked_at - began) - _OVERLAP

    async def _slices_of(
        self, connection: Connection, of: Collection[str]
    ) -> AsyncIterator[list[Order]]:
        """Yield the open orders of some accounts.

        If so many others are open that the server does not find the next few in a statement's time,
        all are read at the next attempt, and chosen here.
        """
        is_long, self._is_long = self._is_long, True
        sql, args = (
            (self.queries.scan_sql(), []) if is_long else (self.queries.of_sql(), [sorted(of)])
        )
        cursor = await connection.cursor(sql, *args)
        while rows := await cursor.fetch(FETCHED * SLICE):
            self._database.progressed(connection)
            yield [order for order in _orders(rows) if order.integration in of]
        self._is_long = False

    async def _waiting(
        self, connection: Connection, *, is_quick: bool
    ) -> tuple[int, float | None] | None:
        schema = self.schema_cache.table_config.schema
        consumer = f"{quoted(schema)}.{quoted(CONSUMER)}"
        # What the consumers leave alone waits for nobody. A permission that is missing must not
        # break the transaction.
        if not is_quick:
            self._has_start = await connection.fetchval(
                "SELECT COALESCE(has_table_privilege(to_regclass($1), 'SELECT'), false)", consumer
            )
        is_wanted = _IS_WANTED.format(f"{consumer} c WHERE c.id = 1") if self._has_start else "true"
        is_posted = (
            f"EXISTS (SELECT FROM {settings_of(schema)} WHERE name = {literal(WEBHOOK_MARK)})"
        )
        # Where events are posted, most are never consumed. Only what was not delivered either waits:
        # a shop may have gone back to the table, where the mark stays.
        undelivered = (
            f"SELECT d.event_id FROM {qualified(schema, DELIVERIES)} d WHERE {is_posted} "
            "AND d.delivered_at IS NULL AND d.dead_at IS NULL "
            f"ORDER BY d.event_id DESC LIMIT {WAITING_LIMIT}"
        )
        row = await connection.fetchrow(
            "SELECT count(*) AS count, extract(epoch FROM min(decided_at))::float8 AS since FROM ("
            f"(SELECT decided_at FROM {events_of(schema)} e WHERE NOT {is_posted} "
            f"AND consumed_at IS NULL AND {is_wanted} ORDER BY id LIMIT {WAITING_LIMIT}) UNION ALL "
            f"(SELECT decided_at FROM ({undelivered}) d JOIN {events_of(schema)} e ON e.id = d.event_id "
            f"WHERE e.consumed_at IS NULL AND {is_wanted})) e"
        )
        return None if row is None else (row["count"], row["since"])

    async def _integrations(
        self, connection: Connection, now: float, named: set[str]
    ) -> list[Integration]:
        """Read the shop's accounts, because all are due or orders have ``named`` unknown ones."""
        integrations = await self.read_integrations(connection)
        await self.schema_cache.shop_tables.row_writer.logins.note(
            connection, credentials_of(integrations)
        )
        # A full read makes the earlier ones useless: accounts come and go.
        self._met = {
            *(self._met if named else ()),
            *named,
            *(integration.id for integration in integrations),
        }
        self.accounts_read_at = now
        return integrations

    async def read_integrations(self, connection: Connection) -> list[Integration]:
        """Return the shop's accounts; none if the shop's tables are not used for accounts."""
        accounts = self.schema_cache.shop_tables.accounts
        return await accounts.read(connection) if accounts else []


async def note_same_reference(
    connection: Connection, shop_tables: ShopTables, queries: Queries, orders: Sequence[Order]
) -> None:
    """Record the dispatches of other orders in the shop's table that were sent under the references
    of some, if they are not recorded yet.
    """
    dispatches, table = shop_tables.row_writer.dispatches, shop_tables.row_writer.table
    sql = dispatches.same_reference_sql(queries.select_sql())
    if not orders or sql is None:
        return
    references = spellings(
        [o.reference for o in orders], is_text=table["provider_referans"].is_text
    )
    rows = await connection.fetch(sql, references, [o.id for o in orders])
    same = [
        o for row in rows if not (o := order_of(row)).registered and may_be_noted(shop_tables, o)
    ]
    await dispatches.note(connection, same)


def may_be_noted(shop_tables: ShopTables, order: Order) -> bool:
    """Whether an order's account, reference and time of sending are known."""
    is_known = shop_tables.accounts is None or order.integration is not None
    return (
        is_known
        and 0 < len(order.reference.strip()) <= LONGEST_REFERENCE
        and order.sent_at is not None
        and math.isfinite(order.sent_at)
    )


def spellings(references: Iterable[str], *, is_text: bool) -> list[str]:
    """Return the forms in which references may be stored: surrounding whitespace does not matter,
    but an index compares exactly.
    """
    given = set(references)
    if is_text:
        given |= {f"{before}{ref.strip()}{behind}" for ref in given for before, behind in _BLANKS}
    return sorted(given)


def _orders(rows: Iterable[asyncpg.Record]) -> list[Order]:
    return [order_of(row) for row in rows]


def _now() -> float:
    return asyncio.get_running_loop().time()
