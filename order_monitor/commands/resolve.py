"""``order-monitor resolve``: a person's decision about one order, by the same guarded path as the daemon's."""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from order_monitor.commands.composition import database_of, layout_of, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import ended, history_of, name_of
from order_monitor.core.answer import Answer, Cancelled, Completed
from order_monitor.core.pin import NoPin, Pin, Unreadable, read_pin
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.settings.model import Settings
from order_monitor.shop.database import Database
from order_monitor.shop.dispatches import account_of
from order_monitor.shop.order_history import OrderHistory
from order_monitor.shop.own_tables import people_tables
from order_monitor.shop.reopening import Reopener, ReopenRefusedError
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import Reviews
from order_monitor.tell.streams import say

_TRIES: Final = 20
_PAUSE: Final = 0.25
_LONGEST_INPUT: Final = 65_536


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


def run_resolve(config: Path | None, order_id: str, how: str, *, reason: str, by: str | None, with_pin: bool) -> int:
    """Resolve one order; return 1 where it cannot be."""
    settings, sink, redactor = settings_of(config, "database", least="error")
    pin = None
    if with_pin:
        try:
            pin = _pin_of(_typed() if sys.stdin.isatty() else _piped(), settings.provider.no_pin)
        except _NoPinGivenError as error:
            say(f"order-monitor: {error}; nothing was written")
            return ExitCode.NOT_DONE
        redactor.learn([pin.reveal(), *pin.reveal().split("\n")])
    name = name_of(by)
    decision = Decision(how, reason.strip() or f"Resolved by {name}", name, pin)
    return run_to_exit(_resolve(settings, order_id, decision), sink.close)


class _NoPinGivenError(Exception):
    """Standard input holds no PIN; the text says why, and nothing of what it holds."""


def _typed() -> str:
    """Ask for the PIN at a terminal, unseen. An argument would stand in the process list and in the shell's history."""
    try:
        return getpass.getpass("PIN: ")
    except EOFError:
        return ""


def _piped() -> str:
    """Return all of standard input: a PIN may have several lines, and half of one is none."""
    given = sys.stdin.buffer.read(_LONGEST_INPUT + 1)
    if len(given) > _LONGEST_INPUT:
        raise _NoPinGivenError(f"there are more than {_LONGEST_INPUT} bytes on standard input, which is no PIN")
    try:
        return given.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _NoPinGivenError("what stands on standard input is not UTF-8") from None


def _pin_of(text: str, no_pin: Collection[str]) -> Pin:
    match read_pin(text, no_pin):
        case Pin() as pin:
            return pin
        case NoPin():
            raise _NoPinGivenError("no PIN was given on standard input: it is empty, or says that there is none")
        case Unreadable(holds=holds):
            raise _NoPinGivenError(f"what was given as a PIN holds {holds}, and cannot be stored as one")


async def _resolve(settings: Settings, order_id: str, decision: Decision) -> int:
    database = database_of(settings)
    orders = Orders(database, replace(layout_of(settings), author=decision.by))
    try:
        await people_tables(database, settings.database.schema_)
        history = await history_of(database, orders, order_id)
        if isinstance(history, str):
            return ExitCode.NOT_DONE
        if decision.how == "reopen":
            return await _reopen(database, orders, settings, history, decision)
        if history.order.status not in orders.ledger.statements.open_statuses:
            say(f"{history.order.id}: {ended(history)}")
            return ExitCode.NOT_DONE
        return await _end(database, orders, history, decision)
    finally:
        await database.close()


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
    order = history.order
    finding = Finding(order, decision.answer(), history.now, account=account_of(order), by_person=True)
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
