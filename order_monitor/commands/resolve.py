"""``order-monitor resolve``: a person's decision about one order, by the same guarded path as the daemon's."""

from __future__ import annotations

import asyncio
import getpass
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from order_monitor.commands.agreement import agreed
from order_monitor.commands.composition import database_of, layout_of, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit, say
from order_monitor.commands.lookup import ended, history_of, name_of
from order_monitor.core.answer import Answer, Cancelled, Completed
from order_monitor.core.order import Pin
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.settings.model import Settings
from order_monitor.shop.database import Database
from order_monitor.shop.order_history import OrderHistory
from order_monitor.shop.own_tables import people_tables
from order_monitor.shop.reopening import Reopener, ReopenRefusedError
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import Reviews

_TRIES: Final = 20
_PAUSE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decides. ``how`` is ``completed``, ``failed`` or ``reopen``."""

    how: str
    reason: str
    by: str
    pin: Pin | None = None

    def answer(self) -> Answer:
        """Return it as the answer that it stands for."""
        return Completed(self.pin, self.reason) if self.how == "completed" else Cancelled(self.reason)


class _NotWrittenError(Exception):
    """Undoes the transaction; the text says why, fit to be shown."""


def run_resolve(
    config: Path | None, order_id: str, how: str, *, reason: str, by: str | None, with_pin: bool, accept: bool = False
) -> int:
    """Resolve one order; return 1 where it cannot be. With ``accept`` by the settings in force where this file's differ."""
    settings, sink, redactor = settings_of(config, "database", least="error")
    pin = _read_pin() if with_pin else None
    if pin is not None:
        redactor.learn([pin.reveal()])
    elif with_pin:
        say("order-monitor: no PIN was given on standard input")
        return ExitCode.NOT_DONE
    name = name_of(by)
    decision = Decision(how, reason.strip() or f"Resolved by {name}", name, pin)
    return run_to_exit(_agree_and_resolve(settings, order_id, decision, accept=accept), sink.close)


def _read_pin() -> Pin | None:
    """Read the PIN from standard input: an argument would stand in the process list and in the shell's history."""
    text = getpass.getpass("PIN: ") if sys.stdin.isatty() else sys.stdin.readline()
    code = text.strip()
    return Pin(code) if code else None


async def _agree_and_resolve(settings: Settings, order_id: str, decision: Decision, *, accept: bool) -> int:
    database = database_of(settings)
    try:
        await people_tables(database, settings.database.schema_)
        taken = await agreed(settings, database, accept=accept, by=decision.by)
        return ExitCode.NOT_DONE if taken is None else await _resolve(taken, database, order_id, decision)
    finally:
        await database.close()


async def _resolve(settings: Settings, database: Database, order_id: str, decision: Decision) -> int:
    orders = Orders(database, replace(layout_of(settings), author=decision.by))
    history = await history_of(database, orders, order_id)
    if isinstance(history, str):
        return ExitCode.NOT_DONE
    if decision.how == "reopen":
        return await _reopen(database, orders, settings, history, decision)
    if history.order.status not in orders.ledger.statements.open_statuses:
        say(f"{history.order.id}: {ended(history)}")
        return ExitCode.NOT_DONE
    return await _end(database, orders, history, decision)


async def _end(database: Database, orders: Orders, history: OrderHistory, decision: Decision) -> int:
    for _ in range(_TRIES):
        try:
            result = await _write(database, orders, history, decision)
        except _NotWrittenError as error:
            say(f"{history.order.id}: {error}")
            return ExitCode.NOT_DONE
        if result.fate is not Fate.LOCKED:
            break
        await asyncio.sleep(_PAUSE)
    else:
        say(f"{history.order.id}: somebody else holds the row; try again")
        return ExitCode.NOT_DONE
    assert result.write is not None
    pin = " with its PIN" if result.write.pin is not None else ""
    repeat = "; its event is a repeat: this end was told before" if result.repeat else ""
    say(f"{history.order.id}: now {result.write.status!r}{pin}, by {decision.by}{repeat}", to_stdout=True)
    return ExitCode.OK


async def _write(database: Database, orders: Orders, history: OrderHistory, decision: Decision) -> Result:
    """Write the decision, its event, and the end of its review in one transaction: all of it or nothing."""
    finding = Finding(history.order, decision.answer(), history.now)
    async with database.transaction() as connection:
        (result,) = await orders.ledger.write(connection, [finding], with_notes=True)
        if result.fate is Fate.LOCKED:
            return result
        if result.fate is not Fate.WRITTEN or result.write is None:
            msg = f"not written: {result.stuck or result.detail or result.fate} {result.detail}".rstrip()
            raise _NotWrittenError(msg)
        reviews = Reviews(orders.table.schema)
        await reviews.close(
            connection, orders.table, [history.order.id], decision.by, f"{decision.how}: {decision.reason}"
        )
    return result


async def _reopen(
    database: Database, orders: Orders, settings: Settings, history: OrderHistory, decision: Decision
) -> int:
    ledger, webhook = orders.ledger, settings.webhook.url is not None
    reopener = Reopener(ledger.table, ledger.layout, webhook=webhook)
    try:
        async with database.transaction() as connection:
            status = await reopener.reopen(connection, history.order.id, decision.reason, decision.by)
    except ReopenRefusedError as error:
        say(f"{history.order.id}: not reopened: {error}")
        return ExitCode.NOT_DONE
    say(f"{history.order.id}: {status!r} again; its end was withdrawn before the shop acted on it", to_stdout=True)
    return ExitCode.OK
