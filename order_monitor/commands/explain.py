"""``order-monitor explain``: the complete story of one order, on one screen."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from order_monitor.app import presence_of, schedule_of, terms_of
from order_monitor.commands.exits import ExitCode
from order_monitor.commands.explain_text import in_words
from order_monitor.commands.lookup import LEFT_ALONE_DO, history_of
from order_monitor.commands.session import Session, command
from order_monitor.commands.times import iso, moment, relative, span
from order_monitor.commands.timing_words import explained
from order_monitor.core.answer import Answer, Completed
from order_monitor.core.clocks import ClockWatch
from order_monitor.core.decision import timeout_message
from order_monitor.core.errors import ShopError
from order_monitor.core.gate import Pause
from order_monitor.core.order import OLDEST_SENT_AT, ReferenceFrom, SkipReason
from order_monitor.core.schedule import Schedule
from order_monitor.settings.model import Settings
from order_monitor.shop.accounts.pauses import pause_of_ends
from order_monitor.shop.database import Database
from order_monitor.shop.reading.history import HeldOrder, OrderHistory
from order_monitor.shop.repository import Orders
from order_monitor.tell.streams import show
from order_monitor.timing.plan import key_of
from order_monitor.timing.planner import Timing
from order_monitor.timing.store import Timings
from order_monitor.watch.account import Account
from order_monitor.watch.routing import Directory, asked_of
from order_monitor.watch.system_clock import SystemClock, boot_id

_TIMES: Final = 5
_ENDS: Final = "it ends if it is cancelled still"

HELD_DO: Final = "its age ends it only after order-monitor release --first-start"


@command("provider", least=None)
async def run_explain(session: Session, order_id: str, *, ask: bool, as_json: bool) -> int:
    """Explain an order.

    Raises:
        NotDoneError: there is no such order.
    """
    settings, orders = session.settings, session.orders()
    async with session.directory() as directory:
        history = await history_of(session, orders, order_id, "order-monitor: there is no order {}")
        directory.update(history.integrations)
        timing = await _timing(settings, session.database, orders)
        why_not = await _clocks(settings, session.database)
        view = _Story(history, directory, schedule_of(settings), settings, timing, why_not)
        document = view.document()
        if ask:
            document["now"] = await _ask(view.account, history)
        lines = [json.dumps(document, ensure_ascii=False)] if as_json else view.in_words(document)
        show(*map(session.redactor, lines))
    return ExitCode.OK


async def _clocks(settings: Settings, database: Database) -> str:
    """Return why no order is ended by its age at the moment, as the next process on this machine
    would see it.

    Empty if orders may be ended by age.
    """
    clock, clocks = SystemClock(), ClockWatch(is_recalling=True)
    began = clock.boot()
    try:
        memory, now = await presence_of(settings, database, "explain").recall(boot_id())
    except ShopError:
        return "how the clocks stood before cannot be read"
    boot = clock.boot()
    clocks.recall(memory, boot)
    clocks.note_machine(clock.time(), boot)
    clocks.note_database(now, boot, boot - began)
    return clocks.why(boot)


async def _timing(settings: Settings, database: Database, orders: Orders) -> Timing | None:
    """Return the timing that the daemon has learned and stored, None if only the schedule
    decides.
    """
    if settings.schedule.strategy != "learned":
        return None
    terms = terms_of(settings)
    kept = await Timings(
        database, orders, settings.database.schema_, terms.half_life, terms.packages
    ).read()
    timing = Timing(schedule_of(settings), terms)
    timing.load(kept or {}, SystemClock().time())
    while timing.refresh():
        pass
    return timing


async def _ask(account: Account | None, history: OrderHistory) -> dict[str, Any]:
    """Ask once; the answer is shown, and not written."""
    lacks = (SkipReason.NO_REFERENCE, SkipReason.BAD_REFERENCE)
    if account is None or history.order.skip_reason(history.now, account.kind) in lacks:
        return {
            "outcome": "not_asked",
            "message": "it has no provider, or no reference to ask with",
        }
    answer: Answer = (await account.provider.ask(history.order.reference)).answer
    shown = {
        "outcome": answer.outcome,
        "message": getattr(answer, "message", "") or getattr(answer, "why", ""),
    }
    if isinstance(answer, Completed):
        shown["pin"] = "****" if answer.pin else "none"
        if answer.pin:
            shown["message"] = answer.pin.masked(shown["message"])
    return shown


@dataclass(frozen=True, slots=True)
class _Story:
    history: OrderHistory
    directory: Directory
    schedule: Schedule
    settings: Settings
    timing: Timing | None = None
    ageless: str = ""
    """Why no order is ended by its age at the moment."""

    @property
    def account(self) -> Account | None:
        found = self.directory.account_of(self.history.order)
        return found if isinstance(found, Account) else None

    @property
    def _key(self) -> str:
        return self.account.key if self.account else ""

    @property
    def _ends_paused(self) -> Pause | None:
        return pause_of_ends(self.history.pauses, self._key)

    @property
    def is_open(self) -> bool:
        return self.history.order.status in self.settings.statuses.open

    def document(self) -> dict[str, Any]:
        order = self.history.order
        asked, why = self.verdict()
        at = iso(order.last_sync_at)
        checks = [{"at": at, "outcome": "last check"}] if order.last_sync_at else []
        return {
            "order": {
                "id": order.id,
                "tenant_id": order.tenant_id,
                "status": order.status,
                "sent_at": iso(order.sent_at),
                "referans": order.reference if order.has_reference else None,
                "pin": "****" if self.history.has_pin else None,
                "note": self.history.note or None,
            },
            "account": self.account.name if self.account else None,
            "asked_about": asked,
            "why": why,
            "checks": checks,
            "next": [str(iso(at)) for at in self.next_times()] if asked else [],
            "timing": self.timing_words() if asked else None,
            "review": self.history.reviews,
            "held": self._held_document(),
            "events": [{**event, "at": iso(event["at"])} for event in self.history.events],
        }

    def _held_document(self) -> dict[str, Any] | None:
        """Return since when, until when and why the order's end is held; None if it is not."""
        history, needs = self.history, list[str]()
        if not self.is_open:
            return None
        if (pause := self._ends_paused) is not None:
            since, until, why = pause.since, pause.until, "ends_paused"
        elif (held := history.held) is not None:
            since, until, why = held.since, self._let_go_from(held), "held_by_brake"
            needs = held.lacks
        elif (at := history.cancelled_at) is not None:
            since, until, why = at, self._confirmed_from(at), "cancel_unconfirmed"
            needs = ["a second answer that confirms the cancellation"]
        else:
            return None
        return {"since": iso(since), "until": iso(until), "why": why, "needs": needs}

    def in_words(self, document: dict[str, Any]) -> list[str]:
        """Format the document for people, below a sentence that sums up the order's state."""
        now = self.history.now
        asked, why = self.verdict(lambda at: moment(at, now))
        said = self._open_for(asked=asked, why=why) if self.is_open else _ended(self.history)
        reviews = self.history.reviews
        review = f"; for review: {', '.join(reviews)}" if reviews else ""
        return in_words(f"{said}{review}.", {**document, "why": why}, now)

    def _open_for(self, *, asked: bool, why: str) -> str:
        """Sum up the state of an open order, as of the database's clock."""
        now, sent = self.history.now, self.history.order.sent_at
        if not asked or sent is None:
            is_date = sent is not None and OLDEST_SENT_AT <= sent <= now
            since = f"Open for {span(now - sent)}" if sent is not None and is_date else "Open"
            return f"{since}, and not asked about: {why}"
        late = now - sent - self.schedule.give_up_after
        overdue = f", overdue for {span(late)}" if late >= 0 else ""
        again = relative(self.next_times()[0], now)
        return f"Waiting at the provider for {span(now - sent)}{overdue}; {self._last_answer()}; asked again {again}"

    def _last_answer(self) -> str:
        """Return when the last answer came.

        Without ``last_sync_at`` only the first of several equal answers is recorded.
        """
        history, now = self.history, self.history.now
        if history.order.last_sync_at is not None:
            return f"last answer {relative(history.order.last_sync_at, now)}: waiting"
        event = history.last_event(self.settings.statuses.processing)
        if event is None:
            return "no answer is noted"
        return f"last noted answer {relative(event['at'], now)}: waiting"

    def verdict(self, when: Callable[[float], str | None] = iso) -> tuple[bool, str]:
        """Return whether the order is asked about, and the rule that decides it, with times
        formatted by ``when``.
        """
        order = self.history.order
        if not self.is_open:
            return False, f"its status {order.status!r} is not one of statuses.open"
        if (before := self.history.left_alone_before) is not None:
            why = f"{SkipReason.BEFORE_START}, sent before {when(before)}; {LEFT_ALONE_DO}"
            return False, f"it is left alone: {why}"
        reason = asked_of(self.directory, order, self.history.now)
        if isinstance(reason, SkipReason):
            return False, f"it is skipped: {reason} ({MEANINGS[reason]})"
        if (pause := self.history.pauses.get(self._key)) is not None:
            why = f"since {when(pause.since)} by {pause.by}: {pause.reason}"
            return False, f"its account is paused {why}"
        return True, self._asked_about(when)

    def _asked_about(self, when: Callable[[float], str | None]) -> str:
        """Describe an order that is asked about, and what holds back its end."""
        order = self.history.order
        if (pause := self._ends_paused) is not None:
            held = f"its end is held since {when(pause.since)} by {pause.by}: {pause.reason}"
            if (at := self.history.pin_held_at) is not None:
                held = f"{held}; a PIN was read at {when(at)}"
            return f"it is open and asked about, but {held}"
        if self.history.held is not None:
            return self._held(self.history.held, when)
        if (at := self.history.cancelled_at) is not None:
            until = when(self._confirmed_from(at))
            return (
                f"its provider said at {when(at)} that it is cancelled: it is failed if a second "
                f"answer from {until} on says the same; any other answer withdraws that"
            )
        if order.odd_at is not None:
            return self._odd(order.odd_at, when)
        age = self.history.now - (order.sent_at or self.history.now)
        if order.reference_from == ReferenceFrom.CHILD:
            return "another tenant took it, as an order in another database: it ends as that one does, never by its age"
        if age >= self.schedule.give_up_after:
            return self._overdue(when)
        return "it is open, has a reference, and its account may be asked"

    def _confirmed_from(self, cancelled_at: float) -> float:
        """Return when a second answer may confirm a cancellation (epoch seconds)."""
        return cancelled_at + self.settings.schedule.confirm_cancelled

    def _let_go_from(self, held: HeldOrder) -> float:
        """Return until when the brake holds an end at least (epoch seconds)."""
        return held.since + self.settings.schedule.brake_hold

    def _overdue(self, when: Callable[[float], str | None]) -> str:
        """Explain what becomes of an order that is past its time limit."""
        if (held := self.history.held_before) is not None:
            return f"it is overdue, but was sent before the first start ({when(held)}): {HELD_DO}"
        back = self.history.put_back_at
        if back is not None and self.history.now - back < self.schedule.give_up_after:
            return f"it is overdue, but was put back to open ({when(back)}): its time limit counts from then"
        if self.ageless:
            return f"it is overdue, but its age cannot end it just now: {self.ageless}"
        words = timeout_message(self.schedule.give_up_after)
        return f"it is overdue: a definitive 'still waiting' ends it ({words!r})"

    def _odd(self, odd_at: float, when: Callable[[float], str | None]) -> str:
        """Explain that the provider does not know the order, the evidence, and what will happen to
        it.
        """
        evidence = ""
        if (others := self.history.others_understood_at) is not None:
            evidence = f"; other orders of its account are, last {when(others)}"
        schedule = self.settings.schedule
        ends = "is failed" if schedule.give_up_unknown else "is for a person"
        until = when(odd_at + schedule.give_up_after)
        return (
            f"no answer about it is understood since {when(odd_at)}{evidence}: its own fault (order), so it is asked at the "
            f"longest pause, after the others; from {until} on it {ends}"
        )

    def _held(self, held: HeldOrder, when: Callable[[float], str | None]) -> str:
        """Explain since when the brake holds its end, and what releases it."""
        name = shlex.quote(self.account.name) if self.account else "ACCOUNT"
        needs = f"it still needs {'; '.join(held.lacks)}" if held.lacks else _ENDS
        until = when(self._let_go_from(held))
        return (
            f"its end is held by the brake since {when(held.since)}, until {until} at least: more of its account were "
            f"cancelled or given up at once than usual; asked again every ten minutes, {needs}; or order-monitor release {name}"
        )

    def next_times(self) -> list[float]:
        """Return its next check times, from the schedule or the learned timing, in epoch
        seconds.
        """
        order = self.history.order
        times: list[float] = []
        sent = order.sent_at or self.history.now
        age = self._last_age()
        after = self.history.now
        if (cancelled_at := self.history.cancelled_at) is not None:
            after = max(after, self._confirmed_from(cancelled_at))
            times.append(after)
        while len(times) < _TIMES:
            age = self._following(age)
            times += [sent + age] if sent + age > after else []
        return times

    def _following(self, age: float) -> float:
        order = self.history.order
        if self.timing is None:
            return self.schedule.following(order.id, age)
        return self.timing.next_check(key_of(order), order.id, age)

    def _last_age(self) -> float:
        """Return the age of the last check before now, as far as it is recorded or can be
        calculated.
        """
        order, now = self.history.order, self.history.now
        sent = order.sent_at or now
        if self.timing is None:
            return now - sent
        age = max(0.0, (order.last_sync_at or sent) - sent)
        while sent + (following := self._following(age)) <= now:
            age = following
        return age

    def timing_words(self) -> str | None:
        """Explain in a sentence when the next check is and why, if timing is learned."""
        if self.timing is None:
            return None
        order, age = self.history.order, self._last_age()
        return explained(self.timing.reason(key_of(order), order.id, age, order.sent_at), age)


def _ended(history: OrderHistory) -> str:
    status, pin = history.order.status, ", with its PIN" if history.has_pin else ""
    event = history.last_event(status)
    if event is None:
        return f"Its status is {status!r}{pin}: not asked about, and no event tells since when"
    at = relative(event["at"], history.now)
    return f"Became {status!r} {at}, by {event['decided_by']}{pin}"


MEANINGS: Final = {
    SkipReason.NO_REFERENCE: "the shop saved no provider_referans",
    SkipReason.BAD_REFERENCE: "no usable reference: over 500 characters, or at znet a UUID or an order id that is no number",
    SkipReason.NO_SENT_AT: "it has no time at which it was sent",
    SkipReason.NO_ROUTING: "the shop has no routing for its package",
    SkipReason.NO_INTEGRATION: "its integration is not there",
    SkipReason.SEVERAL_ACCOUNTS: "its package's routing names several accounts, or has changed since it was sent",
    SkipReason.DISABLED: "its integration is disabled",
    SkipReason.OTHER_PROVIDER: "its integration is of a provider that is not asked (znet, barakat and apstore are)",
    SkipReason.NO_PROVIDER: "it comes from the shop's codes, or is delivered by hand",
    SkipReason.WAITS_FOR_CHILD: "another tenant of the shop took it, as an order of its own: it ends as that one does",
    SkipReason.BAD_ADDRESS: "the address or login of its integration may not be used",
    SkipReason.UNKNOWN_STATUS: "its status is not known",
    SkipReason.SENT_IN_FUTURE: "it was sent in the future",
    SkipReason.BEFORE_START: "it was sent too long before the first start",
    SkipReason.SETTLED_BY_SHOP: "the shop's own status is one of statuses.settled",
}
