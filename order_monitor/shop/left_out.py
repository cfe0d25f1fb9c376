"""What is left out of writes because the shop's database does not take it: the hint beside an event, and the word for waiting.

Neither decides money, and neither may stand in the way of what does. Each is left out when it is known to be what is refused, told
once, and tried again once a minute at the most.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import structlog

from order_monitor.core.decision import Rules, StuckReason
from order_monitor.core.errors import RowRejectedError, ShopError
from order_monitor.core.order import Order
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.columns import Table
from order_monitor.shop.database import Connection, Database, UndoError
from order_monitor.shop.ledger import CHECK_NOW, Ledger
from order_monitor.shop.marks import read_mark, set_mark
from order_monitor.shop.reviews import Reviews

LOOK_AGAIN: Final = 60.0
"""Seconds after which what is left out is tried again."""

ENOUGH: Final = 20
"""How many different orders the column must have refused the word for."""

WORD_REFUSED: Final = "statuses.processing is not taken by its column"
"""How the detail of a review begins that was opened for nothing else: no PIN was read, and no end."""

PROCESSING: Final = "processing_refused"
"""The name of the mark under which all processes of a shop find it: a pass from cron would never see enough by itself."""

QUEUE_FULL: Final = "54000"

HINT_CODES: Final = (QUEUE_FULL, "42501", "42883")
"""Which refusals a notification may be the cause of: a full queue, no right to notify, a function in its place."""


def _now() -> float:
    return asyncio.get_running_loop().time()


class Hints:
    """Whether a notification goes with an event."""

    def __init__(self) -> None:
        """Give them."""
        self._off_at: float | None = None
        self._log = structlog.get_logger("order_monitor.orders")

    def are_given(self) -> bool:
        """Whether to write with one now."""
        return self._off_at is None or _now() - self._off_at >= LOOK_AGAIN

    def refused(self, why: str) -> None:
        """Leave them out: a write passed without, and was refused with one."""
        if self._off_at is None:
            self._log.warning("hints.left_out", why=why)
        self._off_at = _now()

    def taken(self) -> None:
        """Take note of an event that was committed with one."""
        if self._off_at is not None:
            self._log.info("hints.given_again")
        self._off_at = None


class ProcessingWord:
    """Whether an order that waits gets the word for that, kept in a mark that all processes of a shop share.

    Each process finds it out for itself, and reads at its start what others have found. ``orders`` are those that the column, and
    nothing else about them, has refused since it last took the word.
    """

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        """Try words in ``database``, on the table that ``catalogue`` knows."""
        self._database = database
        self._catalogue = catalogue
        self._is_read = False
        self._told = False
        self._tried_at = float("-inf")
        self._reviewed: set[str] = set()
        self.orders: set[str] = set()
        self._log = structlog.get_logger("order_monitor.orders")

    @property
    def is_left_out(self) -> bool:
        """Whether it is."""
        return len(self.orders) >= ENOUGH

    def applied(self, rules: Rules) -> Rules:
        """Return the rules to decide by."""
        if not self.is_left_out:
            return rules
        return replace(rules, writes_processing=False)

    @property
    def _ledger(self) -> Ledger:
        return self._catalogue.holdings.ledger

    async def look(self, findings: Iterable[Finding], lock_wait: float) -> None:
        """Read what others have found, once; where the word is left out, try it now and then on an order that waits.

        Raises:
            ShopError: the database could not be asked.
        """
        if not self._is_read:
            async with self._database.transaction() as connection:
                self.orders = orders_of(await read_mark(connection, self._ledger.table.schema, PROCESSING))
            self._is_read, self._reviewed = True, set(self.orders)
        if not self._ledger.rules.writes_processing:
            self._tell("its type does not hold the word")
        elif self.is_left_out:
            self._tell("it was refused for many orders before this start")
            await self._try_again(findings, lock_wait)

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._log.error("processing.left_out", status=self._ledger.rules.processing, why=why)

    async def _try_again(self, findings: Iterable[Finding], lock_wait: float) -> None:
        if _now() - self._tried_at < LOOK_AGAIN:
            return
        word = self._ledger.rules.processing
        order = next((f.order for f in findings if not f.is_urgent and f.order.status != word), None)
        if order is None:
            return
        self._tried_at = _now()
        if await self._tried(order, lock_wait) is True:
            await self._taken()

    async def _taken(self) -> None:
        """The column takes the word: all that was held against it is forgotten, by the others at their own next try."""
        if self.is_left_out:
            self._log.info("processing.written_again", status=self._ledger.rules.processing)
        self._told = False
        self.orders = set()
        try:
            async with self._database.transaction() as connection:
                await set_mark(connection, self._ledger.table.schema, PROCESSING, "")
        except ShopError as error:
            # Whoever starts later finds out by a try of its own.
            self._log.debug("processing.mark_not_kept", why=str(error))

    async def refused(self, finding: Finding, error: RowRejectedError, lock_wait: float) -> bool:
        """Take note of one order's refused write; return whether the word alone stands against it.

        Whatever raised it: the word is tried by itself on the row, and so is the status that stands there. Only where the first is
        refused and the second is not does the cause lie in the column.

        Raises:
            ShopError: the database could not be asked.
        """
        write, order = finding.attempted, finding.order
        if write is None or write.final or finding.by_person or error.is_passing:
            return False
        if write.status != self._ledger.rules.processing or order.status == write.status or self.is_left_out:
            return False
        if order.id not in self.orders:
            # A trigger may also keep the row as it is, without an error: then its own status finds it, and the word does not.
            if await self._tried(order, lock_wait) or not await self._tried(order, lock_wait, own=True):
                return False
            await self._note(order.id)
            if self.is_left_out:
                self._tried_at = _now()
                self._tell(str(error))
        self._reviewed.add(order.id)
        return True

    async def _note(self, order_id: str) -> None:
        schema = self._ledger.table.schema
        async with self._database.transaction() as connection:
            known = orders_of(await read_mark(connection, schema, PROCESSING))
            self.orders = set(sorted({*self.orders, *known} - {order_id})[: ENOUGH - 1]) | {order_id}
            await set_mark(connection, schema, PROCESSING, json.dumps(sorted(self.orders)))
            if self.is_left_out:
                reviews = self._catalogue.holdings.reviews
                await mend_worded(reviews, connection, self._ledger.table, sorted(self._reviewed | self.orders))
                self._reviewed.clear()

    async def settled(self, connection: Connection, results: Iterable[Result]) -> None:
        """Close what was opened for the word alone about orders that are written after all, in the transaction that writes them."""
        written = [r.finding.order.id for r in results if r.fate in (Fate.WRITTEN, Fate.UNCHANGED)]
        mended = [order_id for order_id in written if order_id in self._reviewed]
        if mended:
            await mend_worded(self._catalogue.holdings.reviews, connection, self._ledger.table, mended)

    async def committed(self, results: Iterable[Result]) -> None:
        """Take note of what was written: where the column took the word, it is not the column that refused it before."""
        word = self._ledger.rules.processing
        for result in results:
            if result.fate in (Fate.WRITTEN, Fate.UNCHANGED):
                self._reviewed.discard(result.finding.order.id)
            is_word = result.write is not None and not result.write.final and result.write.status == word
            if self.orders and is_word and result.status != word and result.event_id is not None:
                await self._taken()

    async def _tried(self, order: Order, lock_wait: float, *, own: bool = False) -> bool | None:
        """Try the word, or the order's ``own`` status, on its row alone, and roll it back; None where that says nothing."""
        statements, word = self._ledger.statements, self._ledger.rules.processing
        sql = statements.try_status_sql(statements.node(statements.span([order])), own=own)
        arguments: list[Any] = [order.id] if own else [order.id, word]
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


async def mend_worded(reviews: Reviews, connection: Connection, table: Table, order_ids: list[str]) -> None:
    """Close the reviews of some orders that were opened because the column refused the word for waiting, and for nothing else."""
    await reviews.mend_worded(connection, table, order_ids, str(StuckReason.REJECTED_BY_DATABASE), WORD_REFUSED)


def orders_of(mark: str | None) -> set[str]:
    """Return the orders that a mark names; what cannot be read names none."""
    try:
        named = json.loads(mark or "[]")
    except ValueError:
        return set()
    return {str(name) for name in named} if isinstance(named, list) else set()
