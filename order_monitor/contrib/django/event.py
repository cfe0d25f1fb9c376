"""One row of ``order_monitor_events``, as a handler receives it, and the SQL that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

EVENTS: Final = "order_monitor_events"
CHANNEL: Final = "order_monitor"


@dataclass(frozen=True, slots=True)
class Event:
    """An order's end or its reopening. The PIN is in the order, never here.

    Times are aware and in UTC, regardless of ``USE_TZ``. Use ``outcome``, never ``to_status``,
    which is the shop's word.
    """

    id: int
    order_id: str
    tenant_id: str | None
    from_status: str | None
    to_status: str
    has_pin: bool
    message: str | None
    checks: int | None
    sent_at: datetime | None
    decided_at: datetime
    decided_by: str
    repeat: bool
    outcome: str | None
    source: str | None
    cause: str | None
    account: str | None
    reference: str | None
    uid: str | None

    @property
    def moves_money(self) -> bool:
        """Whether this is the first event of this end: only then approve or refund."""
        return self.outcome in ("completed", "failed") and not self.repeat


COLUMNS: Final = tuple(one.name for one in fields(Event))
KNOWN: Final = frozenset((*COLUMNS, "consumed_at"))
"""The columns of the table that this version knows."""

_AS_TEXT: Final = frozenset(("order_id", "tenant_id", "uid"))
_TIMES: Final = frozenset(("sent_at", "decided_at"))


def _selected(name: str) -> str:
    if name in _AS_TEXT:
        return f"e.{name}::text"
    # As a number, so that neither USE_TZ nor the connection's time zone matters.
    return f"extract(epoch FROM e.{name})::float8" if name in _TIMES else f"e.{name}"


SELECTED: Final = ", ".join(_selected(name) for name in COLUMNS)
"""SQL for an event's columns, of a row ``e``."""


def event_of(row: Sequence[Any]) -> Event:
    """Return the event from a row read with ``SELECTED``."""
    values = dict(zip(COLUMNS, row, strict=True))
    for name in _TIMES:
        if values[name] is not None:
            values[name] = datetime.fromtimestamp(values[name], UTC)
    return Event(**values)
