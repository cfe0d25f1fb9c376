"""The real writes, tried on a real row of the shop's and always rolled back: what refuses them is found before an order meets it.

What a listener would hear and a webhook would post is rolled back with them; numbers that a sequence gave out are not.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal

import asyncpg

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.decision import Write, append_note
from order_monitor.core.errors import RowRejectedError, ShopError
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.shop.check_line import CheckLine
from order_monitor.shop.database import Connection, Database, UndoError, refusal
from order_monitor.shop.ledger import Ledger
from order_monitor.shop.left_out import HINT_CODES
from order_monitor.shop.pins import Claim
from order_monitor.shop.repository import Orders

LONGEST_LOOK: Final = 1.0
"""Seconds that looking for a row may take, and waiting for anybody's lock."""

MESSAGE: Final = "order-monitor check --rehearse"
_SUBJECT: Final = "rehearsal"
_DIGITS: Final = 16
_HINTLESS: Final = "see who may call pg_notify, and whether its queue is full"
_AGAIN: Final = "somebody holds it up: try again"


class Rehearsal:
    """Tries to write each word that the settings have, with its event."""

    def __init__(self, database: Database, orders: Orders) -> None:
        """Try it on ``orders``, which were looked up, in ``database``."""
        self._database = database
        self._orders = orders

    async def lines(self) -> list[CheckLine]:
        """Say which row it was tried on, and what was refused; where no row is fit for it, that.

        Raises:
            ShopUnavailableError: the database cannot be reached.
        """
        lines: list[CheckLine] = []
        try:
            # Not committed whatever happens: the exception is the only way out of the block.
            with suppress(UndoError):
                async with self._database.transaction(of_rows=True, lock_wait=LONGEST_LOOK) as connection:
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
        """Lock the order of our newest event, or else the first that is not open; None where nobody's is free."""
        statements = self._orders.ledger.statements
        usual = await connection.fetchval("SELECT current_setting('statement_timeout')")
        await connection.execute(f"SET LOCAL statement_timeout = {int(LONGEST_LOOK * 1000)}")
        for newest, whose in ((True, "our newest event's"), (False, "the first by its key that is not open")):
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

    def _writes(self, row: asyncpg.Record) -> Sequence[Result]:
        """Return each word as a finding about this row, from a status that makes it a change."""
        rules, status = self._orders.ledger.rules, row["status"] or ""
        order = Order(row["id"], status, row["sent_at"], (row["referans"] or "").strip(), row["tenant_id"])
        code = "".join(secrets.choice("0123456789") for _ in range(_DIGITS))[: rules.pin_width]
        note = append_note(row["note"], MESSAGE, rules.note_width)
        answers = (
            (Waiting(MESSAGE), Write(Outcome.PROCESSING, rules.processing, note=note, message=MESSAGE)),
            (Completed(Pin(code), MESSAGE), Write(Outcome.COMPLETED, rules.completed, Pin(code), note, MESSAGE)),
            (Cancelled(MESSAGE), Write(Outcome.FAILED, rules.failed, note=note, message=MESSAGE)),
        )
        results = []
        for answer, write in answers:
            seen_at = (row["sent_at"] or 0.0) + 1.0
            finding = Finding(order, answer, seen_at, by_person=True, had=row["pin"], had_none=False)
            was = status if status != write.status else next(iter(self._orders.ledger.statements.open_statuses), "")
            results.append(Result(finding, Fate.WRITTEN, write=write, status=was))
        return results

    async def _try(self, connection: Connection, row: asyncpg.Record, result: Result) -> list[CheckLine]:
        assert result.write is not None
        ledger, word = self._orders.ledger, result.write.status
        error = await self._refusal(connection, ledger, row, result)
        if isinstance(error, str):
            level: Literal["ok", "warning"] = "warning" if error else "ok"
            return [CheckLine(level, _SUBJECT, f"{word!r} is taken, with its event{f', but {error}' if error else ''}")]
        if error.is_passing:
            return [CheckLine("warning", _SUBJECT, f"{word!r} could not be tried: {error}", _AGAIN)]
        if error.code in HINT_CODES and isinstance(
            await self._refusal(connection, ledger.without_hints(), row, result), str
        ):
            text = f"{word!r} is taken, with its event, and the notification with it is refused: {error}"
            return [CheckLine("warning", _SUBJECT, text, _HINTLESS)]
        return [_refused(word, error, row["status"] or "")]

    async def _refusal(
        self, connection: Connection, ledger: Ledger, row: asyncpg.Record, result: Result
    ) -> RowRejectedError | str:
        """Write one word, and undo it; return what stood against it, or what was noticed about it."""
        await connection.execute("SAVEPOINT rehearsal")
        try:
            noticed = await ledger.rehearse_on(connection, result)
            if (pin := result.finding.pin) is not None and (digest := ledger.codes.digest(pin, row["own_words"] or "")):
                await ledger.codes.claim(connection, [Claim(row["id"], row["root"], (MESSAGE,), digest)])
        except RowRejectedError as error:
            return error
        except asyncpg.PostgresError as error:
            return refusal(error)
        finally:
            await connection.execute("ROLLBACK TO SAVEPOINT rehearsal")
        return noticed


def _refused(word: str, error: ShopError, status: str) -> CheckLine:
    text = f"{word!r} is refused on a row at {status!r}: {error}" if word else f"it was refused: {error}"
    remedy = (
        "correct what refuses it; where that refuses any change of a row that has ended, it says nothing of open ones"
    )
    return CheckLine("error", _SUBJECT, text, remedy)
