"""One order's history as text: first a sentence with the answer, then the details, line by line."""

from __future__ import annotations

from typing import Any

from order_monitor.commands.review import what_to_do
from order_monitor.commands.times import moment, seconds_of


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
