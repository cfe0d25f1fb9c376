"""``order-monitor explain``: one order's whole story, in one screen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from order_monitor.account import Account
from order_monitor.answer import Answer, Completed
from order_monitor.clock import SystemClock
from order_monitor.commands.compose import (
    ExitCode,
    database_of,
    directory_of,
    layout_of,
    run_to_exit,
    say,
    schedule_of,
    settings_of,
)
from order_monitor.decide import Rules, timeout_message
from order_monitor.directory import Directory
from order_monitor.logs import Redactor
from order_monitor.order import SkipReason
from order_monitor.schedule import Schedule
from order_monitor.settings import Settings
from order_monitor.shop.orders import Orders
from order_monitor.shop.story import Story, nearest, read_story

_TIMES: Final = 5


def run_explain(config: Path | None, order_id: str, *, ask: bool, as_json: bool) -> int:
    """Explain an order and return the exit code: 1 for an unknown id."""
    settings, sink, redactor = settings_of(config, "database", "provider")
    return run_to_exit(_explain(settings, redactor, order_id, ask=ask, as_json=as_json), sink)


async def _explain(settings: Settings, redactor: Redactor, order_id: str, *, ask: bool, as_json: bool) -> int:
    database, clock = database_of(settings), SystemClock()
    orders = Orders(database, layout_of(settings))
    directory = directory_of(settings, clock, redactor.learn)
    try:
        story = await read_story(database, orders, order_id)
        if story is None:
            near = await nearest(database, orders, order_id)
            say(f"order-monitor: there is no order {order_id}" + (f"; near: {', '.join(near)}" if near else ""))
            return ExitCode.NOT_DONE
        directory.update(story.integrations)
        view = _View(story, directory, schedule_of(settings), settings)
        document = view.document()
        if ask:
            document["now"] = await _ask(view.account, story)
        say(redactor(json.dumps(document, ensure_ascii=False) if as_json else in_words(document)), to_stdout=True)
    finally:
        for account in directory.accounts.values():
            await account.provider.aclose()
        await database.close()
    return ExitCode.OK


async def _ask(account: Account | None, story: Story) -> dict[str, Any]:
    """Ask once; the answer is shown, and not written."""
    if account is None or not story.order.referans.strip():
        return {"outcome": "not_asked", "message": "there is nobody to ask, or nothing to ask about"}
    answer: Answer = (await account.provider.ask(story.order.referans)).answer
    shown = {"outcome": answer.outcome, "message": getattr(answer, "message", "") or getattr(answer, "why", "")}
    if isinstance(answer, Completed):
        shown["pin"] = "****" if answer.pin else "none"
        if answer.pin:
            shown["message"] = shown["message"].replace(answer.pin.reveal(), "****")
    return shown


@dataclass(frozen=True, slots=True)
class _View:
    story: Story
    directory: Directory
    schedule: Schedule
    settings: Settings

    @property
    def account(self) -> Account | None:
        found = self.directory.account_of(self.story.order)
        return found if isinstance(found, Account) else None

    def document(self) -> dict[str, Any]:
        order = self.story.order
        asked, why = self.verdict()
        return {
            "order": {
                "id": order.id,
                "tenant_id": order.tenant_id,
                "status": order.status,
                "sent_at": _iso(order.sent_at),
                "referans": order.referans or None,
                "pin": "****" if self.story.has_pin else None,
                "note": self.story.note or None,
            },
            "account": self.account.name if self.account else None,
            "asked_about": asked,
            "why": why,
            "checks": [{"at": _iso(order.last_sync_at), "outcome": "last check"}] if order.last_sync_at else [],
            "next": self.next_times() if asked else [],
            "review": self.story.reviews,
            "events": [{**event, "at": _iso(event["at"])} for event in self.story.events],
        }

    def verdict(self) -> tuple[bool, str]:
        """Say whether the order is asked about, and the rule that decides it."""
        order = self.story.order
        if order.status not in self.settings.statuses.open:
            return False, f"its status {order.status!r} is not one of statuses.open"
        reason = order.skip_reason(self.story.now) or self.directory.account_of(order)
        if isinstance(reason, SkipReason):
            return False, f"it is skipped: {reason} ({_MEANINGS[reason]})"
        if (pause := self.story.pauses.get(self.account.name if self.account else "")) is not None:
            return False, f"its account is paused since {_iso(pause.since)} by {pause.by}: {pause.reason}"
        age = self.story.now - (order.sent_at or self.story.now)
        if age >= self.schedule.give_up_after:
            rules = Rules(give_up_after=self.schedule.give_up_after)
            return (
                True,
                f"it is overdue: a definitive 'still waiting' ends it ({timeout_message(rules.give_up_after)!r})",
            )
        return True, "it is open, has a reference, and its account may be asked"

    def next_times(self) -> list[str]:
        """Return the next times of its schedule."""
        order, times = self.story.order, []
        sent = order.sent_at or self.story.now
        age = self.story.now - sent
        for _ in range(_TIMES):
            age = self.schedule.following(order.id, age)
            times.append(str(_iso(sent + age)))
        return times


_MEANINGS: Final = {
    SkipReason.NO_REFERENCE: "the shop saved no provider_referans",
    SkipReason.NO_SENT_AT: "it has no time at which it was sent",
    SkipReason.NO_ROUTING: "the shop has no routing for its package",
    SkipReason.NO_INTEGRATION: "its integration is not there",
    SkipReason.DISABLED: "its integration is disabled",
    SkipReason.OTHER_PROVIDER: "its integration is not znet's",
    SkipReason.BAD_ADDRESS: "the address or login of its integration may not be used",
    SkipReason.UNKNOWN_STATUS: "its status is not known",
    SkipReason.SENT_IN_FUTURE: "it was sent in the future",
}


def _iso(seconds: float | None) -> str | None:
    """Write epoch seconds as UTC; None for what is no date."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


def in_words(document: dict[str, Any]) -> str:
    """Lay the document out for people."""
    lines = [f"{name:<12}{value if value is not None else '-'}" for name, value in document["order"].items()]
    lines += [f"{'account':<12}{document['account'] or '-'}"]
    lines += [f"{'asked about':<12}{'yes' if document['asked_about'] else 'no'}: {document['why']}"]
    lines += [f"{'checked':<12}{check['at']}" for check in document["checks"]]
    lines += [f"{'next':<12}{time}" for time in document["next"]]
    lines += [f"{'for review':<12}{kind}: order-monitor resolve decides" for kind in document["review"]]
    for event in document["events"]:
        flags = ", ".join(
            [*(n for n in ("has_pin", "repeat", "consumed") if event[n]), *filter(None, [event["delivery"]])]
        )
        change = f"{event['from_status']} -> {event['to_status']}"
        lines.append(
            f"{'event':<12}{event['at']}  {change} by {event['decided_by']}  {flags}  {event['message'] or ''}".rstrip()
        )
    if "now" in document:
        lines.append(
            f"{'znet says':<12}{'  '.join(str(value) for value in document['now'].values() if value)} (not written)"
        )
    return "\n".join(lines)
