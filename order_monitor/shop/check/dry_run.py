"""Tries the real writes on a real row of the shop and always rolls them back, to find what refuses
them before an order is affected.

Notifications and events for the webhook are rolled back too; numbers taken from a sequence are not.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import asyncpg

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import Write, append_note
from order_monitor.core.errors import RowRejectedError, ShopError
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.shop.check.line import CheckLine
from order_monitor.shop.database import Connection, Database, UndoError, refusal
from order_monitor.shop.repository import Orders
from order_monitor.shop.writing.left_out import HINT_CODES
from order_monitor.shop.writing.pins import Claim
from order_monitor.shop.writing.row_writer import RowWriter

LONGEST_LOOK: Final = 1.0
"""Maximum seconds to look for a row, and to wait for a lock."""

MESSAGE: Final = "order-monitor check --rehearse"
_SUBJECT: Final = "rehearsal"
_DIGITS: Final = 16
_HINTLESS: Final = "see who may call pg_notify, and whether its queue is full"
_AGAIN: Final = "another session holds a lock: try again"


class DryRun:
    """Tries to write each status word from the settings, with its event."""

    def __init__(self, database: Database, orders: Orders) -> None:
        """Try it on ``orders``, which must be prepared, in ``database``."""
        self._database = database
        self._orders = orders

    async def lines(self) -> list[CheckLine]:
        """Return the row that was used and what was refused, or that no suitable row was found.

        Raises:
            ShopUnavailableError: the database cannot be reached.
        """
        lines: list[CheckLine] = []
        try:
            # Nothing is committed in any case: the exception is the only way out of the block.
            with suppress(UndoError):
                async with self._database.transaction(
                    of_rows=True, lock_wait=LONGEST_LOOK
                ) as connection:
                    lines += await self._try_all(connection)
                    raise UndoError
        except RowRejectedError as error:
            lines.append(_refused("", error, ""))
        return lines

    async def _try_all(self, connection: Connection) -> list[CheckLine]:
        found = await self._row(connection)
        if found is None:
            text = "not tried: no row that has ended is free and found within a second"
            return [CheckLine("warning", _SUBJECT, text, "try again when there is one")]
        row, whose = found
        lines = [CheckLine("ok", _SUBJECT, f"tried on order {row['id']}, {whose}, and rolled back")]
        for result in self._writes(row):
            lines += await self._try(connection, row, result)
        return lines

    async def _row(self, connection: Connection) -> tuple[asyncpg.Record, str] | None:
        """Lock our newest event's order, else the first that is not open; None if none is free."""
        statements = self._orders.row_writer.statements
        usual = await connection.fetchval("SELECT current_setting('statement_timeout')")
        await connection.execute(f"SET LOCAL statement_timeout = {int(LONGEST_LOOK * 1000)}")
        for newest, whose in (
            (True, "our newest event's"),
            (False, "the first by its key that is not open"),
        ):
            await connection.execute("SAVEPOINT look")
            try:
                row = await connection.fetchrow(statements.rehearsal_lock_sql(newest=newest))
            except asyncpg.PostgresError as error:
                if not refusal(error).is_passing:
                    raise
                await connection.execute("ROLLBACK TO SAVEPOINT look")
                row = None
            if row is not None:
                await connection.fetchval("SELECT set_config('statement_timeout', $1, true)", usual)
                return row, whose
        return None

    def _writes(self, row: asyncpg.Record) -> Sequence[WriteResult]:
        """Return each status word as a result for this row, from a status that it changes."""
        rules, status = self._orders.row_writer.rules, row["status"] or ""
        order = Order(
            row["id"], status, row["sent_at"], (row["reference"] or "").strip(), row["tenant_id"]
        )
        code = "".join(secrets.choice("0123456789") for _ in range(_DIGITS))[: rules.pin_width]
        note = append_note(row["note"], MESSAGE, rules.note_width)
        answers = (
            (
                Waiting(MESSAGE),
                Write(Outcome.PROCESSING, rules.processing, note=note, message=MESSAGE),
            ),
            (
                Completed(Pin(code), MESSAGE),
                Write(Outcome.COMPLETED, rules.completed, Pin(code), note, MESSAGE),
            ),
            (Cancelled(MESSAGE), Write(Outcome.FAILED, rules.failed, note=note, message=MESSAGE)),
        )
        results = []
        for answer, write in answers:
            seen_at = (row["sent_at"] or 0.0) + 1.0
            finding = CheckResult(
                order, answer, seen_at, by_person=True, had=row["pin"], had_none=False
            )
            an_open = next(iter(self._orders.row_writer.statements.open_statuses), "")
            was = status if status != write.status else an_open
            results.append(WriteResult(finding, WriteStatus.WRITTEN, write=write, status=was))
        return results

    async def _try(
        self, connection: Connection, row: asyncpg.Record, result: WriteResult
    ) -> list[CheckLine]:
        assert result.write is not None
        row_writer, word = self._orders.row_writer, result.write.status
        error = await self._refusal(connection, row_writer, row, result)
        if isinstance(error, str):
            text = f"{word!r} is taken, with its event{f', but {error}' if error else ''}"
            return [CheckLine("warning" if error else "ok", _SUBJECT, text)]
        if error.is_passing:
            return [CheckLine("warning", _SUBJECT, f"{word!r} could not be tried: {error}", _AGAIN)]
        if error.code in HINT_CODES and isinstance(
            await self._refusal(connection, replace(row_writer, hints=False), row, result), str
        ):
            text = f"{word!r} is taken, with its event, and the notification with it is refused: {error}"
            return [CheckLine("warning", _SUBJECT, text, _HINTLESS)]
        return [_refused(word, error, row["status"] or "")]

    async def _refusal(
        self,
        connection: Connection,
        row_writer: RowWriter,
        row: asyncpg.Record,
        result: WriteResult,
    ) -> RowRejectedError | str:
        """Write one status word and roll it back; return the error, or a remark about it."""
        await connection.execute("SAVEPOINT rehearsal")
        try:
            noticed = await row_writer.rehearse_on(connection, result)
            if (pin := result.finding.pin) is not None and (
                digest := row_writer.codes.digest(pin, row["own_words"] or "")
            ):
                await row_writer.codes.claim(
                    connection, [Claim(row["id"], row["root"], (MESSAGE,), digest)]
                )
        except RowRejectedError as error:
            return error
        except asyncpg.PostgresError as error:
            return refusal(error)
        finally:
            await connection.execute("ROLLBACK TO SAVEPOINT rehearsal")
        return noticed


def _refused(word: str, error: ShopError, status: str) -> CheckLine:
    what = f"{word!r} is refused on a row at {status!r}" if word else "it was refused"
    text = f"{what}: {error}"
    remedy = "correct what refuses it; where that refuses any change of a row that has ended, it says nothing of open ones"
    return CheckLine("error", _SUBJECT, text, remedy)
