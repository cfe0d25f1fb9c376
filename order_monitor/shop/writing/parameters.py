"""What a change of an order hands to its statement: one table of name, type and value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from order_monitor.core.check_result import CheckResult
from order_monitor.core.decision import Write
from order_monitor.core.order import CONFIGURED
from order_monitor.core.outcome import Cause
from order_monitor.shop.writing.event_sql import PERSON, PROGRAM
from order_monitor.shop.writing.set_sql import AUTHOR, entry_of

_INT4_MAX: Final = 2**31 - 1


class Change(NamedTuple):
    """A ``write`` to an order at the status ``was``; ``author`` signs its history's entry."""

    finding: CheckResult
    write: Write
    was: str
    author: str = AUTHOR

    @property
    def pin(self) -> str | None:
        """The PIN that is written."""
        return self.write.pin.reveal() if self.write.pin else None

    @property
    def done_at(self) -> float | None:
        """When an order that ends was seen to have ended (epoch seconds)."""
        return self.finding.seen_at if self.write.final else None

    @property
    def duration(self) -> int | None:
        """How long an order that ends took, in milliseconds."""
        sent = self.finding.order.sent_at
        if sent is None or not self.write.final:
            return None
        # A time that is no real date may be infinite, which no integer is.
        return int(max(0.0, min((self.finding.seen_at - sent) * 1000, _INT4_MAX)))

    @property
    def told(self) -> str | None:
        """The message for the event, without the PIN that it may contain."""
        message, pin = self.write.message, self.finding.pin
        return pin.masked(message) if message and pin else message or None

    @property
    def entry(self) -> str | None:
        """What is added to the order's history."""
        message = self.write.message
        if not message or self.write.note is None:
            return None
        return entry_of(message, self.finding.seen_at, self.author)

    @property
    def source(self) -> str:
        """Whether the program or a person decided."""
        return PERSON if self.finding.by_person else PROGRAM

    @property
    def cause(self) -> str:
        """Why the order changes."""
        if self.finding.by_person:
            return Cause.PERSON
        return Cause.CHILD if self.finding.child is not None else self.write.cause


class Parameter(NamedTuple):
    """One array of a statement: its name there, the type of its elements, and an order's value."""

    name: str
    type: str
    value: Callable[[Change], object]


_ID: Final = Parameter("id", "text", lambda c: c.finding.order.id)
_PIN: Final = Parameter("pin", "text", lambda c: c.pin)
_TOLD: Final = Parameter("told", "text", lambda c: c.told)
_CHECKS: Final = Parameter("checks", "int4", lambda c: c.finding.checks)
_SENT_AT: Final = Parameter("sent_at", "float8", lambda c: c.finding.order.sent_at)
_ORIGIN: Final = (
    Parameter("source", "text", lambda c: c.source),
    Parameter("cause", "text", lambda c: c.cause),
    Parameter("account", "text", lambda c: c.finding.account or CONFIGURED),
    Parameter("reference", "text", lambda c: c.finding.order.reference.strip()),
    Parameter("had", "text", lambda c: c.finding.had),
    Parameter("had_none", "boolean", lambda c: c.finding.had_none),
)

UPDATE: Final = (
    _ID,
    Parameter("status", "text", lambda c: c.write.status),
    _PIN,
    Parameter("note", "text", lambda c: c.write.note),
    Parameter("message", "text", lambda c: c.write.message or None),
    Parameter("seen_at", "float8", lambda c: c.finding.seen_at),
    Parameter("done_at", "float8", lambda c: c.done_at),
    Parameter("duration", "int4", lambda c: c.duration),
    Parameter("was", "text", lambda c: c.was),
    _TOLD,
    _CHECKS,
    _SENT_AT,
    Parameter("outcome", "text", lambda c: c.write.outcome),
    Parameter("entry", "text", lambda c: c.entry),
    *_ORIGIN,
)
"""A change of an open order."""

LATE: Final = (
    _ID,
    Parameter("status", "text", lambda c: c.was),
    _PIN,
    _TOLD,
    _CHECKS,
    _SENT_AT,
    *_ORIGIN,
)
"""A late PIN: the order keeps its status."""


def unnest_sql(parameters: Sequence[Parameter]) -> str:
    """SQL for the orders' records as rows of ``u``."""
    arrays = ", ".join(f"${n}::{p.type}[]" for n, p in enumerate(parameters, 1))
    return f"unnest({arrays}) AS u({', '.join(p.name for p in parameters)})"


def record_of(parameters: Sequence[Parameter], change: Change) -> tuple[object, ...]:
    """Return one order's values: all of them together."""
    return tuple(parameter.value(change) for parameter in parameters)
