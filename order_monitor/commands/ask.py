"""``order-monitor ask``: ask the provider now, whatever the schedule says, and write by the very path that the daemon takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from order_monitor.commands.agreement import agreed
from order_monitor.commands.composition import (
    attendance_of,
    close_all,
    database_of,
    engine_of,
    layout_of,
    policy_of,
    settings_of,
)
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.explain import MEANINGS
from order_monitor.commands.lookup import (
    LEFT_ALONE_DO,
    SEVERAL,
    UNKNOWN,
    account_of,
    ended,
    history_of,
    take_accounts,
    when,
)
from order_monitor.commands.serving import sender_of
from order_monitor.core.answer import Answer, Completed
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.core.schedule import Now
from order_monitor.settings.model import Settings
from order_monitor.shop.database import Database
from order_monitor.shop.order_reader import Scan, Take
from order_monitor.shop.own_tables import people_tables
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import Reviews
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.streams import say
from order_monitor.watch.engine import Engine
from order_monitor.watch.lifecycle import Lifecycle, Stop
from order_monitor.watch.observer import Observer
from order_monitor.watch.system_clock import SystemClock

AUTHOR = "ask"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The shop's orders, of which only some are to be seen: by their ids, or by what they are."""

    orders: Orders
    ids: list[str] | None
    wanted: Callable[[Order], bool] = lambda _: True

    @property
    def records_every_check(self) -> bool:
        """As the orders do."""
        return self.orders.records_every_check

    async def scan(self, *, since: float | None = None, take: Take | None = None) -> Scan:
        """Return those chosen, all at once."""
        scan = await self.orders.scan(self.ids)
        return replace(scan, orders=[order for order in scan.orders if self.wanted(order)], unknown=[])

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return those that are open, as they are now."""
        return await self.orders.reread(orders)

    async def record(self, findings: list[Finding], lock_wait: float) -> list[Result]:
        """Write, as the daemon does."""
        return await self.orders.record(findings, lock_wait)


@dataclass(slots=True)
class Told(Observer):
    """Keeps what became of each order."""

    answers: dict[str, Answer] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Keep an answer."""
        self.answers[order.id] = answer

    def settled(self, account: str, result: Result, delay: float) -> None:
        """Keep a fate."""
        self.results[result.finding.order.id] = result

    def of(self, order_id: str) -> tuple[bool, str]:
        """Return whether an order was answered and written, and what to say of it."""
        answer, result = self.answers.get(order_id), self.results.get(order_id)
        if answer is None:
            return False, "not asked"
        text = getattr(answer, "message", "") or getattr(answer, "why", "")
        if isinstance(answer, Completed) and answer.pin:
            text = answer.pin.blotted(text)
        said = f"znet says {answer.outcome}" + (f" ({text})" if text else "")
        if result is None:
            return answer.outcome in ("waiting", "refused", "garbled"), f"{said}; nothing to write"
        return _fate(result, said)


def _fate(result: Result, said: str) -> tuple[bool, str]:
    match result.fate:
        case Fate.WRITTEN if result.write is not None:
            pin = ", with its PIN" if result.write.pin is not None else ""
            return True, f"{said}; now {result.write.status!r}{pin}"
        case Fate.STUCK:
            return False, f"{said}; cannot be written: {result.stuck} {result.detail}".rstrip()
        case Fate.HELD:
            return False, f"{said}; held: {result.detail}"
        case Fate.GONE:
            return True, f"{said}; somebody else ended it first ({result.status!r})"
        case _:
            return True, f"{said}; nothing to write"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which orders are meant: by their ids, or by what they are."""

    ids: list[str]
    account: str | None = None
    overdue: bool = False
    stuck: bool = False


def run_ask(config: Path | None, choice: Choice, *, as_json: bool, accept: bool) -> int:
    """Ask about the orders chosen; return 0 where each was answered and written.

    With ``accept`` by the settings in force where this file's differ.
    """
    settings, sink, redactor = settings_of(config, "database", "provider", least="warning")
    return run_to_exit(_agree_and_ask(settings, redactor, choice, as_json=as_json, accept=accept), sink.close)


async def _agree_and_ask(settings: Settings, redactor: Redactor, choice: Choice, *, as_json: bool, accept: bool) -> int:
    database = database_of(settings)
    try:
        await people_tables(database, settings.database.schema_)
        taken = await agreed(settings, database, accept=accept, by=AUTHOR)
    finally:
        await database.close()
    return ExitCode.NOT_DONE if taken is None else await _ask(taken, redactor, choice, as_json=as_json)


async def _ask(settings: Settings, redactor: Redactor, choice: Choice, *, as_json: bool) -> int:
    ids, account, overdue, stuck = choice.ids, choice.account, choice.overdue, choice.stuck
    stop, told = Stop(), Told()
    database = database_of(settings)
    layout = replace(layout_of(settings), author=AUTHOR)
    # What a person names is asked about, however old it is; what is chosen by what it is, is chosen among the watched.
    orders = Orders(database, replace(layout, ignore_before=None) if ids or stuck else layout)
    sender = sender_of(settings, database)
    lines: list[dict[str, Any]] = []
    with stop.on_signals():
        try:
            await orders.prepare()
            named = (
                await _open_ones(database, Orders(database, layout), list(dict.fromkeys(ids)), lines) if ids else None
            )
            if stuck:
                async with database.transaction() as connection:
                    named = [r.order_id for r in await Reviews(settings.database.schema_).read(connection)]
            chosen = Chosen(orders, named)
            engine = engine_of(settings, chosen, redactor, policy_of(settings, one_pass=True, plan=Now()), told)
            await take_accounts(settings, database, engine.directory)
            if account is not None:
                if (meant := account_of(engine.directory, account)) is None:
                    return ExitCode.NOT_DONE
                account = meant.key
            engine.discovery.shop = Chosen(orders, named, _wanted(settings, engine, account, overdue=overdue))
            attendance = attendance_of(settings, database, engine, AUTHOR)
            life = Lifecycle(engine, SystemClock(), stop, grace=settings.shutdown.grace)
            try:
                if sender is not None:
                    await sender.begin()
                await life.once(attendance.begin)
                await attendance.tell()
                if sender is not None and not stop.event.is_set():
                    await sender.drain()
                lines += _lines(engine, told, named if ids else None)
            finally:
                await close_all(engine, database, sender)
        finally:
            await database.close()
    _print(lines, redactor, as_json=as_json)
    return ExitCode.OK if all(line["done"] for line in lines) else ExitCode.NOT_DONE


async def _open_ones(database: Database, orders: Orders, ids: list[str], lines: list[dict[str, Any]]) -> list[str]:
    """Return those of ``ids`` that are open; say of the others what they are."""
    found = []
    for order_id in ids:
        history = await history_of(database, orders, order_id)
        if isinstance(history, str):
            lines.append({"order_id": order_id, "done": False, "text": history})
        elif history.order.status not in orders.ledger.statements.open_statuses:
            lines.append({"order_id": order_id, "done": False, "text": ended(history)})
        else:
            if (before := history.left_alone_before) is not None:
                say(
                    f"{order_id}: else left alone ({SkipReason.BEFORE_START}, sent before {when(before)}); {LEFT_ALONE_DO}"
                )
            found.append(history.order.id)
    return found


def _wanted(settings: Settings, engine: Engine, account: str | None, *, overdue: bool) -> Callable[[Order], bool]:
    def wanted(order: Order) -> bool:
        if overdue and (order.sent_at is None or engine.now() - order.sent_at < settings.schedule.give_up_after):
            return False
        found = engine.directory.account_of(order)
        return account is None or (not isinstance(found, SkipReason) and found.key == account)

    return wanted


def _lines(engine: Engine, told: Told, named: list[str] | None) -> list[dict[str, Any]]:
    known = {entry.id: entry.account for entry in engine.queue}
    lines = []
    for order_id in dict.fromkeys([*(named or []), *known, *told.answers]):
        done, text = told.of(order_id)
        if order_id not in told.answers:
            text = f"not asked: {_why(engine, order_id, known.get(order_id))}"
        lines.append({"order_id": order_id, "done": done, "text": text})
    return lines


def _why(engine: Engine, order_id: str, account: str | None) -> str:
    if order_id in engine.skips:
        reason = engine.skips[order_id]
        more = f" ({MEANINGS[reason]}); decide it by order-monitor resolve" * (reason is SkipReason.SETTLED_BY_SHOP)
        return f"it cannot be asked about: {reason}{more}"
    found = engine.accounts.get(account or "")
    if found is None:
        return "it is not open any more"
    if found.paused is not None:
        pause = found.paused
        return f"account {found.name} is paused since {when(pause.since)} by {pause.by}: {pause.reason}"
    return f"account {found.name} does not answer: {found.gate.reason or found.last_error or 'stopped'}"


def _print(lines: list[dict[str, Any]], redactor: Redactor, *, as_json: bool) -> None:
    if as_json:
        say(redactor(json.dumps(lines, ensure_ascii=False)), to_stdout=True)
        return
    for line in lines:
        if line["text"] not in (UNKNOWN, SEVERAL):
            say(redactor(f"{line['order_id']}: {line['text']}"), to_stdout=True)
    if not lines:
        say("nothing to ask about", to_stdout=True)
