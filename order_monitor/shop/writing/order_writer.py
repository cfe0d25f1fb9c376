"""Record the results of checks: a whole batch or nothing, and find the cause if it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import structlog

from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import PIN_KINDS, StuckReason
from order_monitor.core.errors import (
    RowRejectedError,
    ShopError,
    ShopMisfitError,
    ShopUnavailableError,
)
from order_monitor.core.pin import Pin
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.reading.orders import note_same_reference
from order_monitor.shop.reading.queries import Queries
from order_monitor.shop.reviews import UNCONFIRMED, WORD_REFUSED
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.own_tables import lacking
from order_monitor.shop.writing.brake import KIND
from order_monitor.shop.writing.left_out import HINT_CODES, QUEUE_FULL, Hints, ProcessingWord
from order_monitor.shop.writing.row_writer import RowWriter, rehearse

PASSING_TRIES: Final = 10
"""How often one write is put off for a temporary obstacle before a person is informed: two minutes.
"""

_SERVERS_OWN: Final = ("08", "25", "53", "57", "58", "F0", "XX")
_ROLES_OWN: Final = ("42501",)


class OrderWriter:
    """Writes results and maintains the list for review."""

    def __init__(self, database: Database, schema_cache: SchemaCache) -> None:
        """Write the tables that ``schema_cache`` knows."""
        self._database = database
        self._schema_cache = schema_cache
        self._queries = Queries(schema_cache)
        self._hints = Hints()
        self._word = ProcessingWord(database, schema_cache)
        self._log = structlog.get_logger("order_monitor.orders")

    @property
    def _row_writer(self) -> RowWriter:
        row_writer = self._schema_cache.row_writer
        return replace(
            row_writer, rules=self._word.applied(row_writer.rules), hints=self._hints.are_given()
        )

    async def record(
        self, findings: Sequence[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        """Write results about different orders, all of them or none, waiting up to ``lock_wait``
        seconds for locks.

        Raises:
            RowRejectedError: some of several are refused: halve the batch. A single one is refused
                only for now: try it later.
            ShopUnavailableError: all or nothing may have been committed; record the same results
                again.
            ShopMisfitError: the table has changed.
        """
        await self._schema_cache.complete()
        try:
            await self._word.read_once(findings, lock_wait)
            results = await self._record(findings, lock_wait)
        except ShopMisfitError:
            self._schema_cache.doubt()
            raise
        await self._word.committed(results)
        return results

    async def _record(self, findings: Sequence[CheckResult], lock_wait: float) -> list[WriteResult]:
        try:
            return await self._widened(await self._write(findings, lock_wait), lock_wait)
        except RowRejectedError as error:
            await self._see_whose_fault(error)
            if len(findings) > 1:
                raise
            results = [await self._record_alone(findings[0], error, lock_wait)]
            await self._note_alone(results)
            return results

    async def _see_whose_fault(self, error: RowRejectedError) -> None:
        """Find out whose fault a refusal is by running the same statements on no row. The code does
        not show it, because a trigger can raise any code.

        Raises:
            ShopUnavailableError: the server's.
            ShopMisfitError: the table's, or this role's.
        """
        if error.is_passing or not error.code:
            return
        if error.is_servers:
            await self._read_off_queue()
        if error.is_servers or (not error.is_inner and error.code.startswith(_SERVERS_OWN)):
            raise ShopUnavailableError(str(error))
        try:
            async with self._schema_cache.transaction() as connection:
                await rehearse(connection, self._row_writer.statements)
                lacks = await lacking(connection, self._schema_cache.table_config.schema)
        except RowRejectedError as refusal:
            # There was no row to refuse, so a status word in the statements is no longer one of the
            # column's. A trigger may still be the cause.
            raise refusal if refusal.is_inner else ShopMisfitError(str(refusal)) from None
        if lacks:
            self._schema_cache.doubt()
            raise ShopMisfitError("; ".join(lacks))
        if not error.is_inner and error.code in _ROLES_OWN:
            raise ShopMisfitError(str(error))

    async def _note(self, connection: Connection, results: list[WriteResult]) -> None:
        """Update the list for review in the transaction that writes, so that a PIN that could not
        be written is never lost.

        Every matter is listed once while it is open, whichever process added it; matters that have
        been settled are closed.
        """
        reviews, table = self._schema_cache.shop_tables.reviews, self._row_writer.table
        await reviews.open(connection, table, results)
        await self._row_writer.held_pins.note(connection, results)
        settled = {r.order_id: r for r in results if r.is_end}
        withdrawn = {r.order_id for r in results if r.is_withdrawal}
        contradicted = {r.order_id for r in results if r.withdraws_cancellation}
        asked = [*settled, *sorted((withdrawn | contradicted) - settled.keys())]
        waiting = await reviews.about(connection, table, asked) if asked else []
        gone = [
            (i, kind)
            for i, kind in waiting
            if (kind == KIND and i in withdrawn) or (kind == UNCONFIRMED and i in contradicted)
        ]
        if gone:
            await reviews.mend(connection, table, gone, "withdrawn")
        known = [
            (r.order_id, str(StuckReason.NOT_KNOWN))
            for r in results
            if r.marked and self._is_known_again(r)
        ]
        await reviews.mend(connection, table, known, "the provider knows it after all")
        if waiting := [(i, kind) for i, kind in waiting if i in settled]:
            mended = [(i, kind) for i, kind in waiting if kind in _settled_by(settled[i])]
            await reviews.mend(connection, table, mended)
            refused = [i for i, kind in waiting if kind == StuckReason.REJECTED_BY_DATABASE]
            await reviews.mend_worded(connection, table, refused)
            await self._confirm(
                connection, [settled[i] for i, kind in waiting if kind == _OTHER_DISPATCH]
            )
        await self._word.settled(connection, results)

    def _is_known_again(self, result: WriteResult) -> bool:
        """Whether an order that the provider did not know, or may not have, is understood now."""
        finding = result.finding
        is_first = (
            not finding.order.understood and finding.age >= self._row_writer.rules.give_up_after
        )
        return finding.is_told and (finding.is_odd_noted or is_first)

    async def _confirm(self, connection: Connection, results: list[WriteResult]) -> None:
        """Close the review about another dispatch's PIN, if this dispatch brought the same."""
        digests = {r.order_id: r.code for r in results if r.code is not None}
        if digests and (same := await self._row_writer.codes.brought(connection, digests)):
            reviews, table = self._schema_cache.shop_tables.reviews, self._row_writer.table
            await reviews.mend(
                connection, table, ((order_id, _OTHER_DISPATCH) for order_id in same)
            )

    async def _note_alone(self, results: list[WriteResult]) -> None:
        """Update the list if nothing was written because the row itself is refused."""
        try:
            async with self._database.transaction() as connection:
                await self._note(connection, results)
        except ShopError as error:
            # It is tried again with the order's next answer, which will be refused too.
            self._log.warning(
                "review.not_kept", orders=[r.order_id for r in results][:10], why=str(error)
            )

    async def review(self, order_id: str, kind: str, account: str) -> None:
        """Add one matter to the list for review.

        Raises:
            ShopError: the database could not be asked.
        """
        reviews = (await self._schema_cache.complete()).reviews
        async with self._database.transaction() as connection:
            await reviews.note(connection, self._row_writer.table, order_id, kind, account)

    async def has_code(self, order_id: str, pin: Pin) -> bool:
        """Whether an order has the code of this PIN, in its row or by a claim, or the PIN has none.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        await self._schema_cache.complete()
        async with self._database.transaction() as connection:
            return await self._row_writer.held_pins.has_code(connection, order_id, pin)

    async def _widened(self, results: list[WriteResult], lock_wait: float) -> list[WriteResult]:
        """Retry PINs that were too wide if the column has been widened since it was looked up."""
        wide = [r for r in results if r.stuck is StuckReason.PIN_TOO_WIDE]
        known = self._row_writer.rules.pin_width
        if wide:
            await self._schema_cache.read_schema()
        if self._row_writer.rules.pin_width == known:
            return results
        return [r for r in results if r not in wide] + await self._write(
            [r.finding for r in wide], lock_wait
        )

    async def _record_alone(
        self, finding: CheckResult, error: RowRejectedError, lock_wait: float
    ) -> WriteResult:
        """Retry without the provider's text, which matters less than the status and the PIN.

        Raises:
            RowRejectedError: the obstacle is temporary and has not lasted long.
        """
        if error.is_passing:
            if finding.tries < PASSING_TRIES:
                raise error
        else:
            try:
                return (await self._write([finding], lock_wait, with_notes=False))[0]
            except RowRejectedError as second:
                error = second
        detail, is_word = str(error), await self._word.refused(finding, error, lock_wait)
        finding.attempted = None
        if is_word and self._word.is_left_out:
            return (await self._write([finding], lock_wait))[0]
        # Without a SQLSTATE it is our own check: what was read back is not what was written.
        stuck = StuckReason.CHANGED_BY_TRIGGER
        if error.code or is_word:
            stuck = StuckReason.REJECTED_BY_DATABASE
        detail = f"{WORD_REFUSED}: {detail}" if is_word else detail
        return WriteResult(finding, WriteStatus.STUCK, stuck=stuck, detail=detail, is_refused=True)

    async def _write(
        self, findings: Sequence[CheckResult], lock_wait: float, *, with_notes: bool = True
    ) -> list[WriteResult]:
        """Write; if refused, retry without a notification: a listener still finds the event."""
        row_writer = self._row_writer
        try:
            results = await self._write_by(row_writer, findings, lock_wait, with_notes=with_notes)
        except RowRejectedError as error:
            if not row_writer.hints or error.code not in HINT_CODES:
                raise
            results = await self._write_by(
                replace(row_writer, hints=False), findings, lock_wait, with_notes=with_notes
            )
            self._hints.refused(str(error))
            if error.code == QUEUE_FULL:
                await self._read_off_queue()
            return results
        if row_writer.hints and any(result.event_id is not None for result in results):
            self._hints.taken()
        return results

    async def _read_off_queue(self) -> None:
        """Make the server update listeners' read positions, which alone frees a full queue."""
        with suppress(ShopError):
            async with self._database.transaction() as connection:
                await connection.fetchval("SELECT pg_notification_queue_usage()")

    async def _write_by(
        self,
        row_writer: RowWriter,
        findings: Sequence[CheckResult],
        lock_wait: float,
        *,
        with_notes: bool,
    ) -> list[WriteResult]:
        async with self._database.transaction(of_rows=True, lock_wait=lock_wait) as connection:
            # Another order sent since this one was recorded may have the same reference, whether or
            # not it was asked about.
            ends = [f.order for f in findings if row_writer.may_end(f)]
            await note_same_reference(
                connection, self._schema_cache.shop_tables, self._queries, ends
            )
            results = await row_writer.write(connection, findings, with_notes=with_notes)
            await self._note(connection, results)
            return results


_OTHER_DISPATCH: Final = str(StuckReason.PIN_FOR_OTHER_DISPATCH)
_SETTLED_BY_AN_END: Final = frozenset[str](
    {
        StuckReason.UNKNOWN_STATE,
        StuckReason.FAILED_WITH_PIN,
        StuckReason.REFERENCE_TWICE,
        StuckReason.NOT_KNOWN,
        StuckReason.HELD_BY_BRAKE,
        UNCONFIRMED,
    }
)
"""Reviews that are settled once their order has ended."""

_SETTLED_BY_A_PIN: Final = (
    _SETTLED_BY_AN_END
    | PIN_KINDS
    | {StuckReason.TWO_ANSWERS, StuckReason.REJECTED_BY_DATABASE, StuckReason.CHANGED_BY_TRIGGER}
)
"""Reviews that are settled once their order has its PIN; any other end could lose one."""


def _settled_by(result: WriteResult) -> frozenset[str]:
    """Return the kinds of review that an end has settled; a person must close all others."""
    has_pin = result.write is not None and result.write.pin is not None
    return _SETTLED_BY_A_PIN if has_pin else _SETTLED_BY_AN_END
