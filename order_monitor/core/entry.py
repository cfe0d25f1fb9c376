"""One open order in memory: small, because there may be a million. What many orders share is kept once, what few have apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, NamedTuple, TypedDict, Unpack

from order_monitor.core.order import Order

ODD: Final = 2
"""How many answers in a row must not be understood, by the order's own fault, before it is asked at the cap: one may be a slip."""

_TURNS: Final = 256
"""Python keeps one copy of each number below this: a turn costs no memory."""


class Stage(Enum):
    """Where an order stands between two checks."""

    IDLE = auto()
    SCHEDULED = auto()
    READY = auto()
    ASKING = auto()
    WRITING = auto()
    GONE = auto()


class Traits(NamedTuple):
    """What very many orders have in common; ``account`` is the key of who is asked."""

    account: str
    status: str
    tenant_id: str | None
    integration: str | None
    route: int
    package: str | None


@dataclass(frozen=True, slots=True)
class Memo:
    """What is remembered of the few orders with which something is the matter. Times are epoch seconds.

    ``ended_at``: it has ended, and only its PIN is awaited. ``failures`` in a row, and until when it is ``held`` back for them.
    ``stuck``: why its answer cannot be written. ``unknown``: how many answers in a row only a person can read.
    ``cancelled_at``: when an unconfirmed cancellation was read. ``anchor``: the ``sent_at`` that its times follow from, where the
    shop has changed it since. ``odd``: how many answers in a row were not understood, by its own fault; ``odd_at``: when the
    first was; ``odd_noted``: that stands in the database.
    """

    ended_at: float | None = None
    failures: int = 0
    held: float | None = None
    stuck: str | None = None
    unknown: int = 0
    cancelled_at: float | None = None
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
    cancelled_at: float | None
    anchor: float | None
    odd: int
    odd_at: float | None
    odd_noted: bool


NOTHING: Final = Memo()


@dataclass(slots=True, eq=False)
class Entry:
    """One open order and what this process remembers of it; lost at a restart, and missed by nobody.

    ``referans`` is None where it is read again before the order is asked about; ``asked_at`` is the row's ``last_sync_at``.
    ``registered`` tells that its dispatch is noted in the database: nothing is asked before; ``understood`` that an answer about
    it was understood before, which is noted there too. ``due`` and ``asked_at`` are epoch seconds, ``read_at``, when the order was
    last read, monotonic ones. ``turn`` tells an entry's places in a line apart: with each
    step it takes another one.
    """

    id: str
    traits: Traits
    sent_at: float | None
    referans: str | None
    asked_at: float | None = None
    read_at: float = 0.0
    due: float = 0.0
    stage: Stage = Stage.IDLE
    turn: int = 0
    checks: int = 0
    written: object = None
    memo: Memo = NOTHING
    registered: bool = False
    understood: bool = False

    @property
    def account(self) -> str:
        """Who is asked about it."""
        return self.traits.account

    @property
    def awaits_pin(self) -> bool:
        """Whether the order has ended, and only its PIN is asked for."""
        return self.memo.ended_at is not None

    @property
    def is_odd(self) -> bool:
        """Whether its answers are not understood, by its own fault, and that is no slip any more."""
        return self.memo.odd >= ODD

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its time, or for its turn."""
        return self.stage is Stage.SCHEDULED or self.stage is Stage.READY

    @property
    def is_in_hand(self) -> bool:
        """Whether it is being asked about, or its answer is on its way."""
        return self.stage is Stage.ASKING or self.stage is Stage.WRITING

    @property
    def wake(self) -> float:
        """When it becomes ready: when it is due, or later where it is held back."""
        return self.due if self.memo.held is None else self.memo.held

    @property
    def order(self) -> Order:
        """The order as it was read; its reference is empty where it is not kept."""
        _, status, tenant_id, integration, route, package = self.traits
        known = (self.id, status, self.sent_at, self.referans or "", tenant_id, self.asked_at)
        more = (self.registered, self.understood, self.memo.odd_at if self.memo.odd_noted else None)
        return Order(*known, integration, route, package, *more, ended_at=self.memo.ended_at)

    @property
    def planned(self) -> Order:
        """The order as its times follow from it."""
        order, anchor = self.order, self.memo.anchor
        return order if anchor is None else order._replace(sent_at=anchor)

    def is_still(self, order: Order, account: str) -> bool:
        """Whether ``order``, read just now, is what it was and ``account``'s; a reference that is not kept may be any."""
        _, status, sent_at, referans, tenant_id, _, integration, route, package, _, _, _, _, ended_at = order
        return (
            self.sent_at == sent_at
            and (self.referans is None or self.referans == referans)
            and self.traits == (account, status, tenant_id, integration, route, package)
            and self.memo.ended_at == ended_at
        )

    def note(self, **changes: Unpack[_Changes]) -> None:
        """Change what is remembered: fields of `Memo`."""
        memo = self.memo
        if any(getattr(memo, name) != value for name, value in changes.items()):
            memo = replace(memo, **changes)
            self.memo = NOTHING if memo == NOTHING else memo

    def step(self, stage: Stage) -> None:
        """Leave whatever line it stands in. Once gone it stays gone: whoever still has it in hand does not bring it back."""
        self.stage = stage if self.stage is not Stage.GONE else Stage.GONE
        self.turn = (self.turn + 1) % _TURNS
