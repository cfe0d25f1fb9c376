"""One order's story as text: first a sentence with the answer, then the details, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from order_monitor.commands.review import what_to_do
from order_monitor.commands.times import beside, moment, seconds_of, span
from order_monitor.core.order import OLDEST_SENT_AT
from order_monitor.shop.reading.history import OrderHistory


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of an order.

    ``next_at`` is epoch seconds, ``give_up_after`` seconds; ``why`` is for people.
    """

    is_open: bool
    asked: bool
    why: str
    next_at: float | None
    give_up_after: float
    processing: str


def opening(history: OrderHistory, standing: Standing) -> str:
    """Sum up the order's state in one sentence, as of the database's clock."""
    said = _waiting(history, standing) if standing.is_open else _ended(history)
    reviews = f"; for review: {', '.join(history.reviews)}" if history.reviews else ""
    return f"{said}{reviews}."


def _waiting(history: OrderHistory, standing: Standing) -> str:
    now, sent = history.now, history.order.sent_at
    if not standing.asked or sent is None:
        is_date = sent is not None and OLDEST_SENT_AT <= sent <= now
        since = f"Open for {span(now - sent)}" if sent is not None and is_date else "Open"
        return f"{since}, and not asked about: {standing.why}"
    late = now - sent - standing.give_up_after
    overdue = f", overdue for {span(late)}" if late >= 0 else ""
    again = f"; asked again {beside(standing.next_at, now)}" if standing.next_at is not None else ""
    return f"Waiting at the provider for {span(now - sent)}{overdue}; {_last_answer(history, standing.processing)}{again}"


def _last_answer(history: OrderHistory, processing: str) -> str:
    """Return when the last answer about an order came.

    Without ``last_sync_at`` only the first of several equal answers is recorded.
    """
    if history.order.last_sync_at is not None:
        return f"last answer {beside(history.order.last_sync_at, history.now)}: waiting"
    noted = next(
        (event["at"] for event in reversed(history.events) if event["to_status"] == processing),
        None,
    )
    return (
        "no answer is noted"
        if noted is None
        else f"last noted answer {beside(noted, history.now)}: waiting"
    )


def _ended(history: OrderHistory) -> str:
    status, pin = history.order.status, ", with its PIN" if history.has_pin else ""
    event = next(
        (event for event in reversed(history.events) if event["to_status"] == status), None
    )
    if event is None:
        return f"Its status is {status!r}{pin}: not asked about, and no event tells since when"
    return f"Became {status!r} {beside(event['at'], history.now)}, by {event['decided_by']}{pin}"


def in_words(first: str, document: dict[str, Any], now: float) -> list[str]:
    """Format the document of ``explain --json``, below its first sentence.

    Times are formatted by `moment`.
    """

    def at(text: str | None) -> str:
        return moment(seconds_of(text), now)

    order = {**document["order"], "sent_at": at(document["order"]["sent_at"])}
    lines = [first, ""]
    lines += [f"{name:<12}{value if value is not None else '-'}" for name, value in order.items()]
    lines += [f"{'account':<12}{document['account'] or '-'}"]
    lines += [f"{'asked about':<12}{'yes' if document['asked_about'] else 'no'}: {document['why']}"]
    lines += [f"{'checked':<12}{at(check['at'])}" for check in document["checks"]]
    lines += [f"{'next':<12}{at(time)}" for time in document["next"]]
    lines += [f"{'timing':<12}{document['timing']}"] if document["timing"] else []
    lines += [
        f"{'for review':<12}{kind}: {what_to_do(order['id'], kind)}" for kind in document["review"]
    ]
    lines += [
        f"{'event':<12}{at(event['at'])}  {_event(event)}".rstrip() for event in document["events"]
    ]
    if "now" in document:
        answer = "  ".join(str(value) for value in document["now"].values() if value)
        lines.append(f"{'answer now':<12}{answer} (not written)")
    return lines


def _event(event: dict[str, Any]) -> str:
    known = [name for name in ("has_pin", "repeat", "consumed") if event[name]]
    flags = ", ".join([*known, *filter(None, [event["delivery"]])])
    change = f"{event['from_status']} -> {event['to_status']}"
    return f"{change} by {event['decided_by']}  {flags}  {event['message'] or ''}"
