"""``order-monitor ask``: ask the provider now, whatever the schedule says, and write through the
same code as the daemon.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from order_monitor.app import (
    closing,
    engine_of,
    heartbeat_of,
    policy_of,
    sender_of,
    table_config_of,
)
from order_monitor.commands.agreement import agreed
from order_monitor.commands.exits import ExitCode, report
from order_monitor.commands.explain import MEANINGS
from order_monitor.commands.lookup import (
    LEFT_ALONE_DO,
    SEVERAL,
    UNKNOWN,
    NoOrderError,
    account_of,
    ended,
    history_of,
    when,
)
from order_monitor.commands.session import PEOPLES, Session, command
from order_monitor.core.answer import Answer, Completed
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.schedule import Now
from order_monitor.settings.model import Settings
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import Reviews
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.streams import say, show
from order_monitor.watch.engine import Engine
from order_monitor.watch.lifecycle import Lifecycle, Stop
from order_monitor.watch.observer import Observer
from order_monitor.watch.routing import Directory
from order_monitor.watch.system_clock import SystemClock

AUTHOR = "ask"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A view of the shop's orders that shows only some of them, chosen by id or by property."""

    orders: Orders
    ids: list[str] | None
    wanted: Callable[[Order, float], bool]
    """Whether an order is chosen, at a time by the database's clock (epoch seconds)."""

    @property
    def records_every_check(self) -> bool:
        """Return the setting of the wrapped orders."""
        return self.orders.records_every_check

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        """Return the chosen orders, all at once."""
        scan = await self.orders.scan(Part(only=self.ids))
        wanted = [order for order in scan.orders if self.wanted(order, scan.now)]
        return replace(scan, orders=wanted, unknown=[])

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return those that are still open, with their current rows."""
        return await self.orders.reread(orders)

    async def record(self, findings: list[CheckResult], lock_wait: float) -> list[WriteResult]:
        """Write, as the daemon does."""
        return await self.orders.record(findings, lock_wait)


@dataclass(slots=True)
class ResultCollector(Observer):
    """Keeps the result of each order."""

    answers: dict[str, Answer] = field(default_factory=dict)
    results: dict[str, WriteResult] = field(default_factory=dict)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Keep an answer."""
        self.answers[order.id] = answer

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """Keep the result of a write."""
        self.results[result.finding.order.id] = result

    def of(self, order_id: str) -> tuple[bool, str]:
        """Return whether an order was answered and written, and the text to print for it."""
        answer, result = self.answers.get(order_id), self.results.get(order_id)
        if answer is None:
            return False, "not asked"
        text = getattr(answer, "message", "") or getattr(answer, "why", "")
        if isinstance(answer, Completed) and answer.pin:
            text = answer.pin.masked(text)
        said = f"the provider says {answer.outcome}" + (f" ({text})" if text else "")
        if result is None:
            return answer.outcome in ("waiting", "refused", "garbled"), f"{said}; nothing to write"
        return _fate(result, said)


def _fate(result: WriteResult, said: str) -> tuple[bool, str]:
    match result.fate:
        case WriteStatus.WRITTEN if result.write is not None:
            pin = ", with its PIN" if result.write.pin is not None else ""
            return True, f"{said}; now {result.write.status!r}{pin}"
        case WriteStatus.STUCK:
            return False, f"{said}; cannot be written: {result.stuck} {result.detail}".rstrip()
        case WriteStatus.HELD:
            return False, f"{said}; held: {result.detail}"
        case WriteStatus.UNCONFIRMED:
            return False, f"{said}; believed only when a second answer confirms it"
        case WriteStatus.GONE:
            return True, f"{said}; another writer ended it first ({result.status!r})"
        case _:
            return True, f"{said}; nothing to write"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which orders to ask about: by id, or by property."""

    ids: list[str]
    account: str | None = None
    overdue: bool = False
    stuck: bool = False


@command("provider", least="warning")
async def run_ask(session: Session, choice: Choice, *, as_json: bool, accept: bool) -> int:
    """Ask about the chosen orders; return 0 if each was answered and written.

    With ``accept``, use the settings in force if this file's differ.
    """
    await session.need(*PEOPLES)
    session = await agreed(session, accept=accept, by=AUTHOR)
    settings, database = session.settings, session.database
    stop, results, clock = Stop(), ResultCollector(), SystemClock()
    table_config = replace(table_config_of(settings), author=AUTHOR)
    # An order named by its id is asked about however old it is. A choice by property covers only
    # the watched orders.
    is_named = bool(choice.ids) or choice.stuck
    orders = Orders(
        database, replace(table_config, ignore_before=None) if is_named else table_config
    )
    lines: list[dict[str, Any]] = []
    with stop.on_signals():
        async with closing(sender_of(settings, database)) as sender:
            await orders.prepare()
            ids = None
            if choice.ids:
                watched = Orders(database, table_config)
                ids = await _open_ones(session, watched, list(dict.fromkeys(choice.ids)), lines)
            if choice.stuck:
                async with database.transaction() as connection:
                    reviews = await Reviews(session.schema).read(connection)
                ids = [review.order_id for review in reviews]
            async with session.accounts() as directory:
                account = None
                if choice.account is not None:
                    account = account_of(directory, choice.account).key
                wanted = _wanted(settings, directory, account, overdue=choice.overdue)
                policy = policy_of(settings, one_pass=True, plan=Now())
                engine = engine_of(Chosen(orders, ids, wanted), directory, policy, clock, results)
                heartbeat = heartbeat_of(settings, database, engine, AUTHOR)
                life = Lifecycle(engine, clock, stop, grace=settings.shutdown.grace)
                if sender is not None:
                    await sender.begin()
                await life.once(heartbeat.begin)
                await heartbeat.tell()
                if sender is not None and not stop.event.is_set():
                    await sender.drain()
                lines += _lines(engine, results, ids if choice.ids else None)
    _print(lines, session.redactor, as_json=as_json)
    return ExitCode.OK if all(line["done"] for line in lines) else ExitCode.NOT_DONE


async def _open_ones(
    session: Session, orders: Orders, ids: list[str], lines: list[dict[str, Any]]
) -> list[str]:
    """Return the ids in ``ids`` that are open; add a line to ``lines`` for each of the others."""
    found = []
    for order_id in ids:
        try:
            history = await history_of(session, orders, order_id)
        except NoOrderError as error:
            report(error)
            lines.append({"order_id": order_id, "done": False, "text": error.why})
            continue
        if history.order.status not in orders.row_writer.statements.open_statuses:
            lines.append({"order_id": order_id, "done": False, "text": ended(history)})
            continue
        if (before := history.left_alone_before) is not None:
            say(
                f"{order_id}: else left alone ({SkipReason.BEFORE_START}, sent before {when(before)}); {LEFT_ALONE_DO}"
            )
        found.append(history.order.id)
    return found


def _wanted(
    settings: Settings, directory: Directory, account: str | None, *, overdue: bool
) -> Callable[[Order, float], bool]:
    def wanted(order: Order, now: float) -> bool:
        if overdue and (
            order.sent_at is None or now - order.sent_at < settings.schedule.give_up_after
        ):
            return False
        found = directory.account_of(order)
        return account is None or (not isinstance(found, SkipReason) and found.key == account)

    return wanted


def _lines(
    engine: Engine, results: ResultCollector, named: list[str] | None
) -> list[dict[str, Any]]:
    known = {entry.id: entry.account for entry in engine.queue}
    lines = []
    for order_id in dict.fromkeys([*(named or []), *known, *results.answers]):
        done, text = results.of(order_id)
        if order_id not in results.answers:
            text = f"not asked: {_why(engine, order_id, known.get(order_id))}"
        lines.append({"order_id": order_id, "done": done, "text": text})
    return lines


def _why(engine: Engine, order_id: str, account: str | None) -> str:
    if order_id in engine.skips:
        reason = engine.skips[order_id]
        more = f" ({MEANINGS[reason]}); decide it by order-monitor resolve" * (
            reason is SkipReason.SETTLED_BY_SHOP
        )
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
        show(redactor(json.dumps(lines, ensure_ascii=False)))
        return
    for line in lines:
        if line["text"] not in (UNKNOWN, SEVERAL):
            show(redactor(f"{line['order_id']}: {line['text']}"))
    if not lines:
        show("nothing to ask about")
