"""What is left out of writes because the shop's database refuses it: the notification that goes
with an event, and the status word for waiting.

Neither decides about money, and neither may block what does. Each is left out once it is known to
be the cause of a refusal, reported once, and tried again at most once a minute.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import structlog

from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import Rules
from order_monitor.core.errors import RowRejectedError, ShopError
from order_monitor.core.order import Order
from order_monitor.shop.database import Connection, Database, UndoError
from order_monitor.shop.marks import read_mark, set_mark
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.writing.row_writer import CHECK_NOW

LOOK_AGAIN: Final = 60.0
"""Seconds after which what is left out is tried again."""

ENOUGH: Final = 20
"""Number of different orders for which the column must have refused the word."""

PROCESSING: Final = "processing_refused"
"""The name of the mark that shares this between all processes of a shop: a run from cron would
never see enough refusals on its own.
"""

QUEUE_FULL: Final = "54000"

HINT_CODES: Final = (QUEUE_FULL, "42501", "42883")
"""Refusals by a notification: a full queue, no right, a function that replaces pg_notify."""


def _now() -> float:
    return asyncio.get_running_loop().time()


class Hints:
    """Whether a notification goes with an event."""

    def __init__(self) -> None:
        """Start with notifications on."""
        self._off_at: float | None = None
        self._log = structlog.get_logger("order_monitor.orders")

    def are_given(self) -> bool:
        """Whether to write with a notification now."""
        return self._off_at is None or _now() - self._off_at >= LOOK_AGAIN

    def refused(self, why: str) -> None:
        """Leave them out: a write was refused with one and passed without."""
        if self._off_at is None:
            self._log.warning("hints.left_out", why=why)
        self._off_at = _now()

    def taken(self) -> None:
        """Record that an event was committed with one."""
        if self._off_at is not None:
            self._log.info("hints.given_again")
        self._off_at = None


class ProcessingWord:
    """Whether a waiting order gets the word for waiting, stored in a mark that all processes of a
    shop share.

    Each process finds it out on its own, and at its start reads what others have found. ``orders``
    are those for which the column refused the word, for no other reason, since it last accepted it.
    """

    def __init__(self, database: Database, schema_cache: SchemaCache) -> None:
        """Try words in ``database``, on the table that ``schema_cache`` knows."""
        self._database = database
        self._schema_cache = schema_cache
        self._is_read = False
        self._told = False
        self._tried_at = float("-inf")
        self._reviewed: set[str] = set()
        self.orders: set[str] = set()
        self._log = structlog.get_logger("order_monitor.orders")

    @property
    def is_left_out(self) -> bool:
        """Whether the word is left out."""
        return len(self.orders) >= ENOUGH

    def applied(self, rules: Rules) -> Rules:
        """Return the rules to decide with."""
        if not self.is_left_out:
            return rules
        return replace(rules, writes_processing=False)

    async def read_once(self, findings: Iterable[CheckResult], lock_wait: float) -> None:
        """Read once what others have found.

        If the word is left out, try it from time to time on an order that waits.

        Raises:
            ShopError: the database could not be asked.
        """
        if not self._is_read:
            async with self._database.transaction() as connection:
                self.orders = orders_of(
                    await read_mark(connection, self._schema_cache.table.schema, PROCESSING)
                )
            self._is_read, self._reviewed = True, set(self.orders)
        if not self._schema_cache.row_writer.rules.writes_processing:
            self._tell("its type does not hold the word")
        elif self.is_left_out:
            self._tell("it was refused for many orders before this start")
            await self._try_again(findings, lock_wait)

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._log.error(
                "processing.left_out",
                status=self._schema_cache.row_writer.rules.processing,
                why=why,
            )

    async def _try_again(self, findings: Iterable[CheckResult], lock_wait: float) -> None:
        if _now() - self._tried_at < LOOK_AGAIN:
            return
        word = self._schema_cache.row_writer.rules.processing
        order = next(
            (f.order for f in findings if not f.is_urgent and f.order.status != word), None
        )
        if order is None:
            return
        self._tried_at = _now()
        if await self._tried(order, lock_wait) is True:
            await self._taken()

    async def _taken(self) -> None:
        """The column takes the word: forget the refusals. Other processes find out by a try."""
        if self.is_left_out:
            self._log.info(
                "processing.written_again", status=self._schema_cache.row_writer.rules.processing
            )
        self._told = False
        self.orders = set()
        try:
            async with self._database.transaction() as connection:
                await set_mark(connection, self._schema_cache.table.schema, PROCESSING, "")
        except ShopError as error:
            # A process that starts later finds out with its own try.
            self._log.debug("processing.mark_not_kept", why=str(error))

    async def refused(
        self, finding: CheckResult, error: RowRejectedError, lock_wait: float
    ) -> bool:
        """Record one order's refused write; return whether the word alone is the cause.

        To find out, the word alone is tried on the row, and so is the row's present status. Only if
        the first is refused and the second is not, the column is the cause.

        Raises:
            ShopError: the database could not be asked.
        """
        write, order = finding.attempted, finding.order
        if write is None or write.final or finding.by_person or error.is_passing:
            return False
        if (
            write.status != self._schema_cache.row_writer.rules.processing
            or order.status == write.status
            or self.is_left_out
        ):
            return False
        if order.id not in self.orders:
            # A trigger may also keep the row unchanged without an error: then the update to the
            # word returns no row, and the one to the row's own status does.
            if await self._tried(order, lock_wait) or not await self._tried(
                order, lock_wait, own=True
            ):
                return False
            await self._note(order.id)
            if self.is_left_out:
                self._tried_at = _now()
                self._tell(str(error))
        self._reviewed.add(order.id)
        return True

    async def _note(self, order_id: str) -> None:
        schema = self._schema_cache.table.schema
        async with self._database.transaction() as connection:
            known = orders_of(await read_mark(connection, schema, PROCESSING))
            self.orders = set(sorted({*self.orders, *known} - {order_id})[: ENOUGH - 1]) | {
                order_id
            }
            await set_mark(connection, schema, PROCESSING, json.dumps(sorted(self.orders)))
            if self.is_left_out:
                reviews = self._schema_cache.shop_tables.reviews
                await reviews.mend_worded(
                    connection, self._schema_cache.table, sorted(self._reviewed | self.orders)
                )
                self._reviewed.clear()

    async def settled(self, connection: Connection, results: Iterable[WriteResult]) -> None:
        """Close reviews opened only because of the word, where the order is written now."""
        written = [
            r.order_id for r in results if r.fate in (WriteStatus.WRITTEN, WriteStatus.UNCHANGED)
        ]
        mended = [order_id for order_id in written if order_id in self._reviewed]
        if mended:
            await self._schema_cache.shop_tables.reviews.mend_worded(
                connection, self._schema_cache.table, mended
            )

    async def committed(self, results: Iterable[WriteResult]) -> None:
        """Record what was written: a column that takes the word was not the cause before."""
        word = self._schema_cache.row_writer.rules.processing
        for result in results:
            if result.fate in (WriteStatus.WRITTEN, WriteStatus.UNCHANGED):
                self._reviewed.discard(result.order_id)
            is_word = (
                result.write is not None and not result.write.final and result.write.status == word
            )
            if self.orders and is_word and result.status != word and result.event_id is not None:
                await self._taken()

    async def _tried(self, order: Order, lock_wait: float, *, own: bool = False) -> bool | None:
        """Try the word, or the order's ``own`` status, and roll back; None: it shows nothing."""
        row_writer = self._schema_cache.row_writer
        statements = row_writer.statements
        sql = statements.try_status_sql(statements.node(statements.span([order])), own=own)
        arguments: list[Any] = [order.id] if own else [order.id, row_writer.rules.processing]
        rows = []
        try:
            async with self._database.transaction(of_rows=True, lock_wait=lock_wait) as connection:
                rows = await connection.fetch(sql, *arguments)
                await connection.execute(CHECK_NOW)
                raise UndoError
        except UndoError:
            return True if rows else None
        except RowRejectedError as error:
            return None if error.is_passing else False


def orders_of(mark: str | None) -> set[str]:
    """Return the orders that a mark names; an unreadable mark names none."""
    try:
        named = json.loads(mark or "[]")
    except ValueError:
        return set()
    return {str(name) for name in named} if isinstance(named, list) else set()
