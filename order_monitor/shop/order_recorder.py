"""Record what was found of orders: a whole batch or nothing, and whose fault it is where it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import structlog

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.decision import PIN_KINDS, StuckReason
from order_monitor.core.errors import RowRejectedError, ShopError, ShopMisfitError, ShopUnavailableError
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.shop.brake import KIND
from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.ledger import Ledger, rehearse
from order_monitor.shop.left_out import HINT_CODES, QUEUE_FULL, WORD_REFUSED, Hints, ProcessingWord, mend_worded
from order_monitor.shop.order_reader import note_namesakes
from order_monitor.shop.own_tables import lacking
from order_monitor.shop.queries import Queries

PASSING_TRIES: Final = 10
"""How often one order's write is put off for what may pass, before a person is told: some two minutes."""

_SERVERS_OWN: Final = ("08", "25", "53", "57", "58", "F0", "XX")
_ROLES_OWN: Final = ("42501",)


class OrderRecorder:
    """Writes findings, and keeps the list for review."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        """Write the tables that ``catalogue`` knows."""
        self._database = database
        self._catalogue = catalogue
        self._queries = Queries(catalogue)
        self._hints = Hints()
        self._word = ProcessingWord(database, catalogue)
        self._log = structlog.get_logger("order_monitor.orders")

    @property
    def _ledger(self) -> Ledger:
        ledger = self._catalogue.holdings.ledger
        return replace(ledger, rules=self._word.applied(ledger.rules), hints=self._hints.are_given())

    async def record(self, findings: Sequence[Finding], lock_wait: float = 1.0) -> list[Result]:
        """Write findings about different orders, all of them or none, waiting ``lock_wait`` seconds for anybody's lock.

        Raises:
            RowRejectedError: some of several are refused: halve them. One alone is refused here only for now: try it later.
            ShopUnavailableError: all or nothing may have been committed; record the same findings again.
            ShopMisfitError: the table is not as it was.
        """
        await self._catalogue.complete()
        try:
            await self._word.look(findings, lock_wait)
            results = await self._record(findings, lock_wait)
        except ShopMisfitError:
            self._catalogue.doubt()
            raise
        await self._word.committed(results)
        return results

    async def _record(self, findings: Sequence[Finding], lock_wait: float) -> list[Result]:
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
        """Ask the server, not the code: do the very statements run on no row at all? A trigger can raise any code there is.

        Raises:
            ShopUnavailableError: it is the server's.
            ShopMisfitError: it is the table's, or this role's.
        """
        if error.is_passing or not error.code:
            return
        if error.is_servers:
            await self._read_off_queue()
        if error.is_servers or (not error.is_inner and error.code.startswith(_SERVERS_OWN)):
            raise ShopUnavailableError(str(error))
        try:
            async with self._catalogue.transaction() as connection:
                await rehearse(connection, self._ledger.statements)
                lacks = await lacking(connection, self._catalogue.layout.schema)
        except RowRejectedError as refusal:
            # There was no row to refuse: a word in the statements is none of the column's any more. A trigger is another matter.
            raise refusal if refusal.is_inner else ShopMisfitError(str(refusal)) from None
        if lacks:
            self._catalogue.doubt()
            raise ShopMisfitError("; ".join(lacks))
        if not error.is_inner and error.code in _ROLES_OWN:
            raise ShopMisfitError(str(error))

    async def _note(self, connection: Connection, results: list[Result]) -> None:
        """Keep the list for review, in the transaction that writes: a PIN that could not be written is never lost with it.

        What is for a person is put on it once while it is open, whoever put it there; what settled itself is taken off.
        """
        reviews, table = self._catalogue.holdings.reviews, self._ledger.table
        await reviews.open(connection, table, results)
        settled = {r.finding.order.id: r for r in results if r.write is not None and r.write.final}
        withdrawn = {r.finding.order.id for r in results if _withdraws(r)}
        asked = [*settled, *sorted(withdrawn)]
        waiting = await reviews.about(connection, table, asked) if asked else []
        if gone := [(i, kind) for i, kind in waiting if i in withdrawn and kind == KIND]:
            await reviews.mend(connection, table, gone, "withdrawn")
        known = [
            (r.finding.order.id, str(StuckReason.NOT_KNOWN)) for r in results if r.marked and self._is_known_again(r)
        ]
        await reviews.mend(connection, table, known, "the provider knows it after all")
        if waiting := [(i, kind) for i, kind in waiting if i in settled]:
            mended = [(i, kind) for i, kind in waiting if kind in _settled_by(settled[i])]
            await reviews.mend(connection, table, mended)
            refused = [i for i, kind in waiting if kind == StuckReason.REJECTED_BY_DATABASE]
            await mend_worded(reviews, connection, table, refused)
            await self._confirm(connection, [settled[i] for i, kind in waiting if kind == _OTHER_DISPATCH])
        await self._word.settled(connection, results)

    def _is_known_again(self, result: Result) -> bool:
        """Whether an order that the provider did not know, or was not known to know, is understood by now."""
        finding = result.finding
        is_first = not finding.order.understood and finding.age >= self._ledger.rules.give_up_after
        return finding.is_told and (finding.is_odd_noted or is_first)

    async def _confirm(self, connection: Connection, results: list[Result]) -> None:
        """Close what is open about a PIN that was read for another dispatch, where this one brought the same."""
        digests = {r.finding.order.id: r.code for r in results if r.code is not None}
        if digests and (same := await self._ledger.codes.brought(connection, digests)):
            reviews, table = self._catalogue.holdings.reviews, self._ledger.table
            await reviews.mend(connection, table, ((order_id, _OTHER_DISPATCH) for order_id in same))

    async def _note_alone(self, results: list[Result]) -> None:
        """Keep the list where nothing was written: the row itself is refused."""
        try:
            async with self._database.transaction() as connection:
                await self._note(connection, results)
        except ShopError as error:
            # It is tried again with the order's next answer, which is refused likewise.
            self._log.warning("review.not_kept", orders=[r.finding.order.id for r in results][:10], why=str(error))

    async def review(self, order_id: str, kind: str, account: str) -> None:
        """Put one thing on the list for review.

        Raises:
            ShopError: the database could not be asked.
        """
        reviews = (await self._catalogue.complete()).reviews
        async with self._database.transaction() as connection:
            await reviews.note(connection, self._ledger.table, order_id, kind, account)

    async def _widened(self, results: list[Result], lock_wait: float) -> list[Result]:
        """Try PINs that were too wide once more, if somebody has widened the column since it was looked up."""
        wide = [r for r in results if r.stuck is StuckReason.PIN_TOO_WIDE]
        known = self._ledger.rules.pin_width
        if wide:
            await self._catalogue.look()
        if self._ledger.rules.pin_width == known:
            return results
        return [r for r in results if r not in wide] + await self._write([r.finding for r in wide], lock_wait)

    async def _record_alone(self, finding: Finding, error: RowRejectedError, lock_wait: float) -> Result:
        """Try once more without the provider's text, which matters less than the status and the PIN.

        Raises:
            RowRejectedError: what stands against it may pass, and has not been waited for long.
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
        # What has no code of the server's is ours: what was read back was not what was written.
        stuck = StuckReason.REJECTED_BY_DATABASE if error.code or is_word else StuckReason.CHANGED_BY_TRIGGER
        detail = f"{WORD_REFUSED}: {detail}" if is_word else detail
        return Result(finding, Fate.STUCK, stuck=stuck, detail=detail, is_refused=True)

    async def _write(self, findings: Sequence[Finding], lock_wait: float, *, with_notes: bool = True) -> list[Result]:
        """Write; what is refused with a notification is tried without: whoever listens finds the event all the same."""
        ledger = self._ledger
        try:
            results = await self._write_by(ledger, findings, lock_wait, with_notes=with_notes)
        except RowRejectedError as error:
            if not ledger.hints or error.code not in HINT_CODES:
                raise
            results = await self._write_by(replace(ledger, hints=False), findings, lock_wait, with_notes=with_notes)
            self._hints.refused(str(error))
            if error.code == QUEUE_FULL:
                await self._read_off_queue()
            return results
        if ledger.hints and any(result.event_id is not None for result in results):
            self._hints.taken()
        return results

    async def _read_off_queue(self) -> None:
        """Let the server see how far its listeners have read: nothing else makes it look at a queue that is full."""
        with suppress(ShopError):
            async with self._database.transaction() as connection:
                await connection.fetchval("SELECT pg_notification_queue_usage()")

    async def _write_by(
        self, ledger: Ledger, findings: Sequence[Finding], lock_wait: float, *, with_notes: bool
    ) -> list[Result]:
        async with self._database.transaction(of_rows=True, lock_wait=lock_wait) as connection:
            # One that was sent since this order was noted has its reference as well, asked about or not.
            ends = [f.order for f in findings if ledger.may_end(f)]
            await note_namesakes(connection, self._catalogue.holdings, self._queries, ends)
            results = await ledger.write(connection, findings, with_notes=with_notes)
            await self._note(connection, results)
            return results


_OTHER_DISPATCH: Final = str(StuckReason.PIN_FOR_OTHER_DISPATCH)
_SETTLED_BY_AN_END: Final = frozenset(
    map(
        str,
        (
            StuckReason.UNKNOWN_STATE,
            StuckReason.FAILED_WITH_PIN,
            StuckReason.REFERENCE_TWICE,
            StuckReason.NOT_KNOWN,
            StuckReason.HELD_BY_BRAKE,
        ),
    )
)
"""What needs nobody any more once its order could be ended."""

_SETTLED_BY_A_PIN: Final = (
    _SETTLED_BY_AN_END
    | PIN_KINDS
    | frozenset(map(str, (StuckReason.TWO_ANSWERS, StuckReason.REJECTED_BY_DATABASE, StuckReason.CHANGED_BY_TRIGGER)))
)
"""What needs nobody any more once its order has its PIN: a PIN may have been read, and any other end would lose it."""


def _settled_by(result: Result) -> frozenset[str]:
    """Return the kinds of review that an end has settled; all others are a person's to close."""
    return _SETTLED_BY_AN_END if result.write is None or result.write.pin is None else _SETTLED_BY_A_PIN


def _withdraws(result: Result) -> bool:
    """Whether an order whose end may be held says otherwise by now, or is not what it was: nothing of it is held any more."""
    match result.fate:
        case Fate.GONE:
            return True
        case Fate.RESENT:
            return not result.wait
        case Fate.LOCKED | Fate.HELD:
            return False
    is_end = result.write is not None and result.write.final
    return not is_end and isinstance(result.finding.answer, (Completed, Waiting))
