"""One open order in memory: small, because there may be a million.

Values shared by many orders are stored once; rare values are stored separately.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, NamedTuple, TypedDict, Unpack

from order_monitor.core.order import Order, ReferenceFrom

ODD: Final = 2
"""Number of answers in a row that must not be understood, through the order's own fault, before it
is asked only at the cap: one may be an accident.
"""

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
"""Matches a UUID as PostgreSQL writes it."""

_DIGITS: Final = 18
"""Up to so many digits an integer is half as large as their text."""

_TURNS: Final = 256
"""Python keeps one copy of each integer below this, so a turn costs no memory."""


def pack(reference: str) -> int | str:
    """Return a reference in the smallest form from which ``str`` makes the same text: of a million
    orders each byte counts.

    >>> pack("1760885915220128"), pack("007"), pack("٣")
    (1760885915220128, '007', '٣')
    """
    is_number = reference.isdigit() and reference.isascii() and reference[0] != "0"
    return int(reference) if is_number and len(reference) <= _DIGITS else reference


def key_of(order_id: str) -> int | str:
    """Return an order's id in a smaller form, different for each id: a UUID as its number.

    >>> key_of("00000000-0000-0000-0000-00000000000f"), key_of("15")
    (15, '15')
    """
    return int(order_id.replace("-", ""), 16) if _UUID(order_id) else order_id


def id_of(key: int | str) -> str:
    """Return the id of which `key_of` made ``key``."""
    if isinstance(key, str):
        return key
    digits = f"{key:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Stage(Enum):
    """Where an order is between two checks."""

    IDLE = auto()
    SCHEDULED = auto()
    READY = auto()
    ASKING = auto()
    WRITING = auto()
    GONE = auto()


_READY: Final = Stage.READY
_SCHEDULED: Final = Stage.SCHEDULED
_ASKING: Final = Stage.ASKING
_WRITING: Final = Stage.WRITING
_GONE: Final = Stage.GONE
"""To look a member up in its class takes five times as long."""


class SharedFields(NamedTuple):
    """Values that very many orders share; ``account`` is the key of the account that is asked."""

    account: str
    status: str
    tenant_id: str | None
    integration: str | None
    route: int
    package: str | None
    reference_from: int = ReferenceFrom.COLUMN


@dataclass(frozen=True, slots=True)
class RareState:
    """State that only a few orders have, those with a problem.

    Times are epoch seconds. ``ended_at``: it has ended, and only its PIN is awaited. ``failures``
    counts failures in a row, and ``held`` is the time until which it is held back for them.
    ``stuck``: why its answer cannot be written. ``unknown``: number of answers in a row that only a
    person can read. ``anchor``: the ``sent_at`` that its times follow from, if the shop has changed it since. ``odd``: number of
    answers in a row that were not understood, through its own fault; ``odd_at``: when the first one
    came; ``odd_noted``: that is stored in the database.
    """

    ended_at: float | None = None
    failures: int = 0
    held: float | None = None
    stuck: str | None = None
    unknown: int = 0
    anchor: float | None = None
    odd: int = 0
    odd_at: float | None = None
    odd_noted: bool = False


class _Changes(TypedDict, total=False):
    ended_at: float | None
    failures: int
    held: float | None
    stuck: str | None
    unknown: int
    anchor: float | None
    odd: int
    odd_at: float | None
    odd_noted: bool


NOTHING: Final = RareState()


@dataclass(slots=True, eq=False)
class TrackedOrder:
    """One open order and what this process remembers about it.

    Lost at a restart, which does no harm. ``key`` is its id (see `key_of`), ``packed`` its
    reference (see `pack`); ``asked_at`` is the row's ``last_sync_at``. ``registered``: its dispatch
    is recorded in the database; nothing is asked before that. ``understood``: an answer about it
    was understood before, which is recorded there too. ``other_at`` is when this process last read
    that it waits or is completed. ``due``, ``asked_at`` and ``other_at`` are epoch seconds;
    ``read_at``, when the order was last read, is monotonic seconds. ``turn`` changes with each step
    and so identifies an entry's current place in a queue.
    """

    key: int | str
    shared_fields: SharedFields
    sent_at: float | None
    packed: int | str
    asked_at: float | None = None
    read_at: float = 0.0
    due: float = 0.0
    stage: Stage = Stage.IDLE
    turn: int = 0
    checks: int = 0
    written: object = None
    other_at: float | None = None
    rare: RareState = NOTHING
    registered: bool = False
    understood: bool = False

    @property
    def id(self) -> str:
        """Its id."""
        return id_of(self.key)

    @property
    def reference(self) -> str:
        """The reference by which it is asked about."""
        return str(self.packed)

    @reference.setter
    def reference(self, reference: str) -> None:
        self.packed = pack(reference)

    @property
    def account(self) -> str:
        """The key of the account that is asked about it."""
        return self.shared_fields.account

    @property
    def awaits_pin(self) -> bool:
        """Whether the order has ended and only its PIN is still asked for."""
        return self.rare.ended_at is not None

    @property
    def is_odd(self) -> bool:
        """Whether its answers are not understood, through its own fault, more than by accident."""
        return self.rare.odd >= ODD

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its time or for its turn."""
        return self.stage is _SCHEDULED or self.stage is _READY

    @property
    def is_in_hand(self) -> bool:
        """Whether it is being asked about or its answer is being written."""
        return self.stage is _ASKING or self.stage is _WRITING

    @property
    def wake(self) -> float:
        """When it becomes ready: when due, or later if it is held back."""
        return self.due if self.rare.held is None else self.rare.held

    @property
    def order(self) -> Order:
        """The order as it was read."""
        _, status, tenant_id, integration, route, package, source = self.shared_fields
        known = (self.id, status, self.sent_at, self.reference, tenant_id, self.asked_at)
        more = (self.registered, self.understood, self.rare.odd_at if self.rare.odd_noted else None)
        return Order(
            *known,
            integration,
            route,
            package,
            *more,
            reference_from=source,
            ended_at=self.rare.ended_at,
        )

    @property
    def planned(self) -> Order:
        """The order with the ``sent_at`` that its times follow from."""
        order, anchor = self.order, self.rare.anchor
        return order if anchor is None else order._replace(sent_at=anchor)

    def is_still(self, order: Order, account: str) -> bool:
        """Whether ``order``, read just now, is unchanged and still belongs to ``account``."""
        (
            _,
            status,
            sent_at,
            reference,
            tenant_id,
            _,
            integration,
            route,
            package,
            _,
            _,
            _,
            _,
            source,
            ended_at,
        ) = order
        return (
            self.sent_at == sent_at
            and self.reference == reference
            and self.shared_fields
            == (account, status, tenant_id, integration, route, package, source)
            and self.rare.ended_at == ended_at
        )

    def note(self, **changes: Unpack[_Changes]) -> None:
        """Change fields of `RareState`."""
        rare = self.rare
        if any(getattr(rare, name) != value for name, value in changes.items()):
            rare = replace(rare, **changes)
            self.rare = NOTHING if rare == NOTHING else rare

    def step(self, stage: Stage) -> None:
        """Move to ``stage`` and leave the current queue.

        A gone order stays gone, even if a step under way still moves it.
        """
        if self.stage is not _GONE:
            self.stage = stage
        self.turn = (self.turn + 1) % _TURNS
