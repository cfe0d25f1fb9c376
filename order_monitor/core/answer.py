"""What a provider can answer about an order, independent of the provider.

There are three kinds, and mixing them up costs money: an answer about the order's state, an answer
that says nothing about the state and concerns only this question, and a failure of the whole
account. Only `Completed` and `Cancelled` end an order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeAlias

from order_monitor.core.easing import SHORTAGE_WORDS
from order_monitor.core.pin import Pin


@dataclass(frozen=True, slots=True)
class Waiting:
    """The order is in progress: a definitive answer, but not a final one."""

    message: str = ""
    outcome: ClassVar[str] = "waiting"


@dataclass(frozen=True, slots=True)
class Completed:
    """The order was delivered; ``pin`` is None for a direct top-up."""

    pin: Pin | None
    message: str = ""
    outcome: ClassVar[str] = "completed"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The provider cancelled the order."""

    message: str = ""
    outcome: ClassVar[str] = "cancelled"


@dataclass(frozen=True, slots=True)
class Refused:
    """One question was refused (``3|…``); says nothing about the order or the account."""

    code: str
    message: str = ""
    outcome: ClassVar[str] = "refused"


@dataclass(frozen=True, slots=True)
class Garbled:
    """An answer that cannot be understood; ``why`` is one of our own words, never the body.

    ``message`` describes the answer (`order_monitor.core.text.shown`): its shape or its words,
    never a PIN.
    """

    why: str
    message: str = field(default="", compare=False)
    outcome: ClassVar[str] = "garbled"


@dataclass(frozen=True, slots=True)
class Blocked:
    """The account may not ask at all: wrong login, missing permission, foreign address, wrong URL.

    ``message`` is the provider's text, safe to show.
    """

    why: str
    message: str = field(default="", compare=False)
    outcome: ClassVar[str] = "blocked"


@dataclass(frozen=True, slots=True)
class Busy:
    """The provider is overloaded or broken.

    ``retry_after`` is in seconds, None if the provider gave none.
    """

    why: str
    retry_after: float | None = None
    message: str = field(default="", compare=False)
    outcome: ClassVar[str] = "busy"


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No complete answer arrived: connect error, timeout, cut connection.

    Whether the question reached the provider is unknown.
    """

    why: str
    outcome: ClassVar[str] = "unreachable"


AboutOrder: TypeAlias = Waiting | Completed | Cancelled
Odd: TypeAlias = Refused | Garbled | Blocked | Busy
AccountFailure: TypeAlias = Blocked | Busy | Unreachable
NotAnswered: TypeAlias = Refused | Garbled | AccountFailure
Answer: TypeAlias = AboutOrder | NotAnswered

EXHAUSTED: Final = frozenset(SHORTAGE_WORDS)
"""``why`` of an `Unreachable` caused by a shortage on this machine or in this process: the provider
is not at fault.
"""

ON_THE_WAY: Final = frozenset(
    {"proxy_unreachable", "proxy_login", "proxy_refused", "proxy_failed", "proxy_protocol_error"}
    | {"resolver_failed", "name_not_found"}
)
"""``why`` of an `Unreachable` caused by the proxy or the resolver: never the order's fault, even if
other orders are answered.
"""

OUTCOMES = tuple(
    kind.outcome
    for kind in (Waiting, Completed, Cancelled, Refused, Garbled, Blocked, Busy, Unreachable)
)
"""The names of all outcomes: the labels of the metrics come from here."""
