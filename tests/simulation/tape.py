"""A record of a run's effects on the model shop, in order: each statement with its result, and the
shop's own changes in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import asyncpg

if TYPE_CHECKING:
    from tests.simulation.shop import Store

State = Mapping[str, Sequence[tuple[Any, ...]]]
"""The rows of each table."""

EVERY = 100
"""All rows are recorded at every entry whose number is a multiple of this, for comparison, and at
the end.
"""

Kind = Literal["begin", "do", "commit", "rollback", "hand", "end"]


@dataclass(frozen=True)
class TapeEntry:
    """One entry.

    ``connection`` made it ``at`` that time (epoch seconds); ``error`` is the exception of a
    statement.
    """

    kind: Kind
    at: float
    connection: int = 0
    name: str = ""
    sql: str = ""
    args: tuple[Any, ...] = ()
    result: Sequence[Any] = ()
    error: Exception | None = None
    hand: "Hand | None" = None
    events: int = 0
    """The number of earlier events."""
    state: State | None = None
    """All data committed so far, at some of the commits."""


@dataclass
class Hand:
    """The shop's own changes since the previous entry; None for deleted rows."""

    rows: Mapping[str, Any] = field(default_factory=dict)
    logins: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    sketches: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    consumed: Mapping[int, float] = field(default_factory=dict)
    locked: frozenset[str] | None = None
    """The rows that the shop holds locked from now on, if that has changed."""
    triggers: Mapping[str, str] | None = None
    """The triggers' effects on some rows from now on, if those have changed."""

    def __bool__(self) -> bool:
        is_changed = self.locked is not None or self.triggers is not None
        return is_changed or any(
            (self.rows, self.logins, self.settings, self.sketches, self.consumed)
        )


class Tape:
    """The recorder: the model shop reports every statement, commit and rollback."""

    def __init__(self) -> None:
        self.entries: list[TapeEntry] = []
        self._looked_at = 0
        self._rows: dict[str, Any] = {}
        self._logins: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}
        self._sketches: dict[tuple[str, str], str] = {}
        self._consumed: set[int] = set()
        self._locked: frozenset[str] = frozenset()
        self._triggers: dict[str, str] = {}

    def add(self, store: "Store", kind: Kind, connection: int, **more: Any) -> None:
        """Record one entry, after the shop's own preceding changes."""
        self.look(store)
        events = store.numbers.get("event", 0)
        if kind == "commit" and len(self.entries) - self._looked_at >= EVERY:
            self._looked_at, more["state"] = len(self.entries), state_of(store)
        self.entries.append(
            TapeEntry(kind, store.now(), connection, events=more.pop("events", events), **more)
        )

    def end(self, store: "Store") -> None:
        """Record the final state."""
        self.look(store)
        self.entries.append(TapeEntry("end", store.now(), state=state_of(store)))

    def did(
        self, store: "Store", connection: int, name: str, sql: str, args: Sequence[Any], **more: Any
    ) -> None:
        """Record a statement that changes no committed data."""
        copied = tuple(list(arg) if isinstance(arg, list) else arg for arg in args)
        self.add(store, "do", connection, name=name, sql=sql, args=copied, **more)

    def look(self, store: "Store") -> None:
        """Record the shop's own changes."""
        hand = Hand(
            _changes(self._rows, store.rows),
            _changes(self._logins, store.logins),
            _changes(self._settings, store.settings),
            _changes(self._sketches, store.sketches),
            {
                event.id: event.consumed_at
                for event in store.events
                if event.consumed_at is not None and event.id not in self._consumed
            },
        )
        locked = frozenset(
            i
            for i, holder in store.locked.items()
            if i in store.rows and not hasattr(holder, "pool")
        )
        triggers = {**dict.fromkeys(store.poisoned, "refuse"), **store.rewriting} | dict.fromkeys(
            store.poisoned, "refuse"
        )
        if locked != self._locked:
            hand.locked = locked
        if triggers != self._triggers:
            hand.triggers = triggers
        if hand:
            self.entries.append(TapeEntry("hand", store.now(), hand=hand))
            self.note(store)
            self._locked, self._triggers = locked, triggers

    def note(self, store: "Store") -> None:
        """Take the current data as known: a commit has changed them."""
        self._rows, self._logins, self._settings = (
            dict(store.rows),
            dict(store.logins),
            dict(store.settings),
        )
        self._sketches = dict(store.sketches)
        self._consumed = {event.id for event in store.events if event.consumed_at is not None}


def _changes(before: Mapping[Any, Any], now: Mapping[Any, Any]) -> dict[Any, Any]:
    if before == now:
        return {}
    changed = {key: row for key, row in now.items() if before.get(key) != row}
    return changed | {key: None for key in before if key not in now}


def state_of(store: "Store") -> State:
    """All committed data, as `tests.simulation.replay` reads it from PostgreSQL."""
    now = store.now()
    rows, events, deliveries = store.rows.values(), store.events, store.deliveries.values()
    return {
        "orders": [
            (r.id, r.status, r.sent_at, r.reference, r.account, r.pin, r.note, r.last_sync_at)
            for r in rows
        ],
        "events": [
            (
                *(
                    e.id,
                    e.order_id,
                    e.from_status,
                    e.to_status,
                    e.has_pin,
                    e.message,
                    e.checks,
                    e.decided_by,
                    e.repeat,
                ),
                *(
                    e.outcome,
                    e.source,
                    e.cause,
                    e.account,
                    e.reference,
                    e.consumed_at is not None,
                    e.decided_at,
                ),
            )
            for e in events
        ],
        "deliveries": [
            (d.event_id, d.order_id, d.attempts, d.is_delivered, d.is_dead) for d in deliveries
        ],
        "reviews": [(*key, at) for key, at in store.reviews.items()],
        "dispatches": [
            (
                *(d.order_id, d.account, d.reference, d.sent_at, d.login, d.touched, d.meant_by),
                *(d.found_at, d.understood_at, d.odd_at),
            )
            for d in store.dispatches.values()
        ],
        "pins": [(*key, row.order_id) for key, row in store.pins.items()],
        "settings": [(name, row.value) for name, row in store.settings.items()],
        "presence": [
            (key, row.kind, row.settings, row.seen_at) for key, row in store.presence.items()
        ],
        "pauses": [(account,) for account, until in store.pauses.items() if until > now],
        "timing": [(*key, text) for key, text in store.sketches.items() if text],
    }


NOT_REPLAYED = (
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)
"""Errors caused by timing or chance, which do not occur in a replay."""
