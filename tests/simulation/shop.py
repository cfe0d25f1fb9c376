"""The shop's database in memory, below the real statements: it recognises each statement by its
text, and does what PostgreSQL does.

Rows are locked, changes wait for the commit, and a cut connection rolls back. An unknown statement
is an error, so that the model cannot fall behind; `test_model_shop` runs the same orders over it
and over a real PostgreSQL.
"""

import asyncio
import random
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from order_monitor.core.decision import Rules
from order_monitor.core.login import Credentials
from order_monitor.core.order import CONFIGURED, NEVER_SENT, SAME_TIME, Route
from order_monitor.core.outcome import Cause
from order_monitor.shop.accounts.logins import KEPT_DAYS, Logins
from order_monitor.shop.accounts.pauses import Pauses
from order_monitor.shop.accounts.tables import AccountTables
from order_monitor.shop.database import Connection as Lent
from order_monitor.shop.database import Database
from order_monitor.shop.first_start import read_start
from order_monitor.shop.marks import FIRST_MIGRATE, FIRST_START_RELEASED, digest_key, read_mark
from order_monitor.shop.reading.orders import OrderReader
from order_monitor.shop.reading.recent_ends import ended_sql, pins_sql, without_pin_sql
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import Reviews
from order_monitor.shop.schema.cache import SchemaCache, ShopTables
from order_monitor.shop.schema.columns import COLUMNS_SQL, IS_TABLE_SQL, Column, Table
from order_monitor.shop.schema.table_config import TableConfig
from order_monitor.shop.writing.brake_table import BrakeTable
from order_monitor.shop.writing.dispatches import TOUCHED
from order_monitor.shop.writing.event_sql import PROGRAM, WEBHOOK_MARK
from order_monitor.shop.writing.order_writer import OrderWriter
from order_monitor.shop.writing.pins import Codes
from order_monitor.shop.writing.row_writer import RowWriter
from order_monitor.shop.writing.statements import NOWHERE
from order_monitor.timing.store import history_sql
from tests.simulation.members import ModelDatabase, Session
from tests.simulation.other_tables import STARTS, Login, OtherTables
from tests.simulation.posting import Delivery
from tests.simulation.presence import Attendant
from tests.simulation.relatives import CHAINED, Chained
from tests.simulation.shared import DAY, LONGEST_LOCK, Claimed, Dispatch, Setting, own_of
from tests.simulation.tape import Tape

OPEN = ("sent", "pending", "processing", "queued")
FINAL = ("completed", "delivered", "failed", "refunded")
LATE_REPEATS, NO_DIGIT = "c.is_late OR COALESCE(t.before, false), c.outcome", "!~ '[0-9]'"
COMPARED = "IS NOT DISTINCT FROM u.had RETURNING"
"""What the model does only if the statement does so: the repeat of a late PIN's event, texts that
may not be PINs, the previous text.
"""

REPLICATED = (
    *(
        "rows",
        "events",
        "deliveries",
        "reviews",
        "review_accounts",
        "review_references",
        "decided",
        "dispatches",
        "pins",
        "settings",
    ),
    *("presence", "sketches"),
)
"""The parts of the store that a standby has."""

_LOCK_WAIT = re.compile(r"set_config\('lock_timeout', '([0-9]+)'")
_NO_PIN = frozenset(word.strip().lower() for word in Rules().no_pin if word.isascii())


def refused() -> asyncpg.PostgresError:
    """An error raised by a function in one of the shop's triggers."""
    error = asyncpg.RaiseError("no")
    error.server_source_filename, error.context = "pl_exec.c", "PL/pgSQL function"
    return error


@dataclass(frozen=True)
class Stored:
    """A row of product_orders."""

    id: str
    status: str
    sent_at: float
    reference: str
    account: str
    package: str = ""
    pin: str | None = None
    note: str | None = None
    last_sync_at: float | None = None
    external: str | None = None
    root: str | None = None
    path: str | None = None
    shop_status: str | None = None


@dataclass
class Event:
    """A row of order_monitor_events."""

    id: int
    order_id: str
    from_status: str
    to_status: str
    has_pin: bool
    message: str | None
    checks: int | None
    decided_at: float
    decided_by: str
    repeat: bool
    outcome: str
    sent_at: float | None = None
    source: str | None = None
    cause: str | None = None
    account: str | None = None
    reference: str | None = None
    consumed_at: float | None = None
    queued: bool = False

    @property
    def uid(self) -> str:
        """Its external id: unique, and independent of its number."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, str(self.id)))


@dataclass
class Store:
    """All committed data.

    ``on_commit`` is called for each change of ours with the row before, the row after, and what
    made the change.
    """

    epoch: float
    chance: random.Random
    on_commit: Callable[[Stored, Stored, "Commit"], None] = lambda *_: None
    rows: dict[str, Stored] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    reviews: dict[tuple[str, str], float] = field(default_factory=dict)
    review_accounts: dict[tuple[str, str], str] = field(default_factory=dict)
    review_references: dict[tuple[str, str], str] = field(default_factory=dict)
    decided: dict[tuple[str, str], str] = field(default_factory=dict)
    """The reviews that a person has closed, with the person."""
    dispatches: dict[tuple[str, str, str], Dispatch] = field(default_factory=dict)
    pins: dict[tuple[str, bytes], Claimed] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    presence: dict[str, Attendant] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)
    sketches: dict[tuple[str, str], str] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    locked: dict[str, object] = field(default_factory=dict)
    poisoned: set[str] = field(default_factory=set)
    rewriting: dict[str, str] = field(default_factory=dict)
    """The effect of a trigger on writes to some rows: ``open``, ``no pin``, ``nothing``, or
    ``delivered``.
    """
    blocked: set[str] = field(default_factory=set)
    """Rows whose writes wait for another session's lock in a trigger, until the statement gives
    up.
    """
    slow: set[str] = field(default_factory=set)
    down: bool = False
    stall: bool = False
    commits: str = ""
    deadlocks: bool = False
    quick: bool = False
    statements: int = 0
    cut_at: int = 0
    """The number, among all ``statements``, at which the connection is cut, once."""
    tape: Tape | None = None
    """The tape that records everything, if any."""
    ahead: float = 0.0
    """By how many seconds the server's clock is ahead of the real time."""
    ahead_since: float = float("-inf")
    """When the database failed over last to a server with another clock."""
    opened: set[tuple[str, str]] = field(default_factory=set)
    """All that was ever put before a person: the order and the kind."""
    numbers: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    """The statements that the model does not know."""
    sessions: list[Session] = field(default_factory=list)
    """The sessions of a cluster's members, until they have ended."""

    def members(self) -> list[Session]:
        """Return the sessions that the server keeps."""
        self.sessions = [session for session in self.sessions if session.is_there]
        return self.sessions

    def now(self) -> float:
        return self.epoch + self.ahead + asyncio.get_running_loop().time()

    def copied(self) -> dict[str, Any]:
        """Return a standby's current state.

        Accounts and pauses come from people, and are not lost here.
        """
        return {name: deepcopy(getattr(self, name)) for name in REPLICATED}

    def go_back(self, kept: dict[str, Any]) -> None:
        """Switch to the standby's state: later commits are lost, but numbers are not reused."""
        for name, value in kept.items():
            setattr(self, name, value)

    def number_of(self, what: str) -> int:
        """Return a table's next number; a rollback leaves a gap."""
        self.numbers[what] = self.numbers.get(what, 0) + 1
        return self.numbers[what]


@dataclass(frozen=True)
class Commit:
    """The transaction of a row's change.

    ``began`` is its start, in epoch seconds.
    """

    author: str
    began: float
    events: tuple[Event, ...]


class Pool:
    """One process's connections.

    The callbacks run each time paused accounts, all accounts, or settings were read.
    """

    def __init__(
        self,
        store: Store,
        row_writer: RowWriter,
        on_pauses: Callable[[set[str]], None] = lambda _: None,
        on_logins: Callable[[list[Login]], None] = lambda _: None,
        on_money: Callable[[dict[str, str]], None] = lambda _: None,
    ) -> None:
        self.store = store
        self.row_writer = row_writer
        self.on_pauses = on_pauses
        self.on_logins = on_logins
        self.on_money = on_money
        self.reader: OrderReader | None = None
        self.accounts = (
            AccountTables("public", ROUTING, INTEGRATIONS)
            if row_writer.table_config.accounts_from_shop
            else None
        )
        self.is_dead = False
        self.session: Session | None = None
        """The newest session of this process as a member of a cluster."""
        self.known: dict[str, str] = {}
        self.seen: dict[str, Any] = {}
        """The data of the last read: ``open`` orders (None if not all were read), ``reviews``,
        ``events``, ``pauses``.
        """
        self._lent: list[Connection] = []
        self._free = asyncio.Semaphore(4)

    @property
    def is_committing(self) -> bool:
        """Whether a COMMIT is in flight, which the server may or may not execute if the process
        dies now.
        """
        return any(connection.is_committing for connection in self._lent)

    def die(self, *, commits: bool) -> None:
        """Cut all connections: uncommitted changes are undone, and a COMMIT in flight is decided by
        ``commits``.
        """
        self.is_dead = True
        for connection in self._lent:
            connection.cut(commits=commits)
        if self.session is not None:
            self.session.close()

    def join(self) -> Session:
        """Open a member's session."""
        self.session = Session(self.store, self)
        self.store.sessions.append(self.session)
        return self.session

    async def acquire(self, *, timeout: float | None = None) -> "Connection":  # noqa: ASYNC109 - asyncpg's
        await self._free.acquire()
        try:
            await self.pause()
        except BaseException:
            self._free.release()
            raise
        self._lent.append(Connection(self))
        return self._lent[-1]

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        connection.roll_back()
        self._lent.remove(connection)
        self._free.release()

    async def pause(self) -> None:
        """The latency of network and server; an error while the database is down."""
        store = self.store
        if self.is_dead:
            raise ConnectionResetError("away")
        await asyncio.sleep(0 if store.quick else store.chance.uniform(0.0005, 0.02))
        if store.stall:
            await asyncio.sleep(3600)
        store.statements += 1
        if self._is_away():
            raise ConnectionResetError("away")

    def _is_away(self) -> bool:
        return self.store.down or self.is_dead or self.store.statements == self.store.cut_at

    async def expire_connections(self) -> None:
        return None

    async def close(self) -> None:
        return None

    def terminate(self) -> None:
        return None


class Row(dict[str, Any]):
    """A row as asyncpg gives it: a slice of it are the values of its columns in their order."""

    def __getitem__(self, key: Any) -> Any:
        return tuple(self.values())[key] if isinstance(key, slice) else super().__getitem__(key)


class Cursor:
    """The rows that a cursor has not returned yet."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    async def fetch(self, count: int) -> list[Any]:
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken


class Connection(Chained, OtherTables):
    """A connection with a transaction."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.store = pool.store
        self.author = pool.row_writer.table_config.author
        self.is_committing = False
        self.lock_wait = LONGEST_LOCK
        self.number = pool.store.number_of("connection")
        self._began = 0.0
        self._is_open = False
        self._is_closed = False
        self._drafts: dict[str, dict[Any, Any]] = {}
        self._changed: dict[str, tuple[Stored, Stored]] = {}
        self._events: list[Event] = []
        self._later: list[Callable[[], None]] = []

    def is_closed(self) -> bool:
        return self._is_closed

    def terminate(self) -> None:
        self.roll_back()
        self._is_closed = True

    def cut(self, *, commits: bool) -> None:
        """The process at this end is dead."""
        if self.is_committing and commits:
            self._apply()
        self.is_committing = False
        self.terminate()

    def roll_back(self) -> None:
        store = self.store
        if self._is_open and store.tape is not None:
            store.tape.add(store, "rollback", self.number)
        self._is_open = False
        for order_id in [i for i, owner in store.locked.items() if owner is self]:
            del store.locked[order_id]
        self._changed, self._events, self._later, self._drafts = {}, [], [], {}

    async def execute(self, sql: str, *args: Any) -> str:
        if sql.strip().startswith("BEGIN"):
            found = _LOCK_WAIT.search(sql)
            assert found is not None
            self.lock_wait = int(found[1]) / 1000
            await self.pool.pause()
            self._began = self.store.now()
            self._is_open = True
            if self.store.tape is not None:
                self.store.tape.add(self.store, "begin", self.number)
        elif sql == "COMMIT":
            await self._commit()
        elif sql == "ROLLBACK":
            self.roll_back()
            await self.pool.pause()
        else:
            return f"DONE {len(await self._do(sql, args))}"
        return "DONE"

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        return [Row(row) for row in await self._do(sql, args)]

    async def cursor(self, sql: str, *args: Any) -> "Cursor":
        return Cursor(await self.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *args: Any) -> Any:
        row = await self.fetchrow(sql, *args)
        return next(iter(row.values())) if row else None

    async def _commit(self) -> None:
        store = self.store
        self.is_committing = True
        try:
            await self.pool.pause()
        finally:
            self.is_committing = False
        if store.commits == "cut" and store.chance.random() < 0.5:
            raise ConnectionResetError("cut before the commit")
        self._apply()
        await self.pool.pause()
        if store.commits == "lost" and store.chance.random() < 0.5:
            raise ConnectionResetError("cut after the commit")

    def _apply(self) -> None:
        store, commit = self.store, Commit(self.author, self._began, tuple(self._events))
        if store.tape is not None:
            store.tape.look(store)
        for before, after in self._changed.values():
            store.rows[after.id] = after
            store.on_commit(before, after, commit)
        for event in self._events:
            store.events.append(event)
            if event.queued:
                store.deliveries[event.id] = Delivery(event.id, event.order_id, store.now())
        store.events.sort(key=lambda event: event.id)
        for change in self._later:
            change()
        self._keep_drafts()
        if store.tape is not None:
            store.tape.note(store)
            store.tape.add(store, "commit", self.number)
        self._is_open = False
        self.roll_back()

    async def _do(self, sql: str, args: Sequence[Any]) -> list[Any]:
        await self.pool.pause()
        name = self.pool.known.get(sql)
        if name is None:
            name = self.pool.known[sql] = _name_of(sql, self.pool)
        if name in ("_update", "_late_update") and not self.store.blocked.isdisjoint(args[0]):
            await asyncio.sleep(self.lock_wait)
            raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout")
        await self._lock_first(name, sql, args)
        if self.store.tape is None:
            return getattr(self, name)(sql, args) or []
        return self._taped(self.store.tape, name, sql, args)

    def _taped(self, tape: Tape, name: str, sql: str, args: Sequence[Any]) -> list[Any]:
        """Execute a statement, and record it with its result."""
        tape.look(self.store)
        events = self.store.numbers.get("event", 0)
        try:
            result = getattr(self, name)(sql, args) or []
        except asyncpg.PostgresError as error:
            tape.did(self.store, self.number, name, sql, args, error=error, events=events)
            raise
        tape.did(self.store, self.number, name, sql, args, result=list(result), events=events)
        return list(result)

    def _time(self, *_: Any) -> list[Any]:
        return [{"now": self.store.now()}]

    def _newest(self, *_: Any) -> list[Any]:
        return [{"max": max((e.id for e in self.store.events), default=0)}]

    def _waiting(self, *_: Any) -> list[Any]:
        is_posted, undelivered = WEBHOOK_MARK in self._all("settings"), self.store.deliveries
        open_ones = [
            event.decided_at
            for event in self.store.events
            if event.consumed_at is None
            and (not is_posted or (event.id in undelivered and not undelivered[event.id].is_over))
        ]
        oldest = min(open_ones, default=None)
        self.pool.seen["events"] = (len(open_ones), oldest)
        return [{"count": len(open_ones), "since": oldest}]

    def _unknown(self, *_: Any) -> list[Any]:
        return []

    # --- the orders

    def _row(self, order_id: str) -> Stored | None:
        return (
            self._changed[order_id][1]
            if order_id in self._changed
            else self.store.rows.get(order_id)
        )

    def _take(self, order_id: str, fits: Callable[[Stored], bool]) -> Stored | None:
        """Lock a row, unless it does not match or another transaction holds it."""
        row = self._row(order_id)
        if row is None or not fits(row) or self.store.locked.get(order_id, self) is not self:
            return None
        self.store.locked[order_id] = self
        return row

    def _lock(self, _: str, args: Sequence[Any]) -> list[Any]:
        if self.store.deadlocks and self.store.chance.random() < 0.2:
            raise asyncpg.DeadlockDetectedError("deadlock")
        rows = [
            self._take(order_id, lambda row: row.status in OPEN) for order_id in sorted(args[0])
        ]
        return [self._as_locked(row) for row in rows if row is not None]

    def _as_locked(self, row: Stored) -> dict[str, Any]:
        words = f"{row.status}\x1f{row.id}\x1f{row.package}\x1f{row.account}\x1f{row.reference}"
        more = {
            "sent_at": row.sent_at,
            "own": own_of(row),
            "root": row.root or row.id,
            "own_words": words,
            "settled": False,
        }
        return {**_as_row(row), "note": row.note, "reference": row.reference, **more}

    def _read(self, _: str, args: Sequence[Any]) -> list[Any]:
        rows = [self._row(order_id) for order_id in args[0]]
        return [self._as_locked(row) for row in rows if row is not None]

    def _late_lock(self, sql: str, args: Sequence[Any]) -> list[Any]:
        (ids, statuses), is_looked_at = args, NO_DIGIT in sql

        def fits(row: Stored) -> bool:
            return row.status in statuses and (not is_looked_at or may_lack(row.pin))

        rows = [self._take(order_id, fits) for order_id in sorted(ids)]
        found = [self._as_locked(row) for row in rows if row is not None]
        return [{**row, "note": None} for row in found]

    def _update(self, sql: str, args: Sequence[Any]) -> list[Any]:
        records = list(zip(*args, strict=True))
        if sum(r[0] in self.store.slow for r in records) and len(records) > 4:
            raise asyncpg.QueryCanceledError("statement timeout")
        changed = []
        for record in records:
            (
                order_id,
                status,
                pin,
                note,
                _message,
                seen_at,
                _done,
                _ms,
                was,
                told,
                checks,
                sent,
                outcome,
                _,
                *rest,
            ) = record
            (*rest, had, _), row = rest, self._row(order_id)
            if row is None or row.status not in OPEN or (pin is not None and row.pin != had):
                continue
            if order_id in self.store.poisoned:
                raise refused()
            fresh = replace(row, status=status, pin=pin or row.pin, note=note or row.note)
            if self.pool.row_writer.table.get("last_sync_at") is not None:
                fresh = replace(fresh, last_sync_at=seen_at)
            if (rewritten := self._rewritten(row, fresh)) is None:
                continue
            fresh, is_event = rewritten, was != rewritten.status
            event = (
                self._event(sql, row, fresh, told, checks, outcome, sent, rest)
                if is_event
                else None
            )
            changed.append(self._changed_to(row, fresh, event))
        return changed

    def _rewritten(self, row: Stored, fresh: Stored) -> Stored | None:
        """Return a trigger's result for a write; None if it keeps the row unchanged."""
        match self.store.rewriting.get(row.id):
            case "nothing":
                return None
            case "open" if fresh.status in FINAL:
                return replace(fresh, status=row.status)
            case "no pin":
                return replace(fresh, pin=row.pin)
            case "delivered" if fresh.status == "completed":
                return replace(fresh, status="delivered")
        return fresh

    def _retell(self, _: str, args: Sequence[Any]) -> None:
        """Put triggers' changes of rows into this transaction's events."""
        for number, status, has_pin in zip(*args, strict=True):
            event = next(event for event in self._events if event.id == number)
            event.to_status, event.has_pin = status, has_pin

    def _late_update(self, sql: str, args: Sequence[Any]) -> list[Any]:
        changed, is_compared = [], COMPARED in sql
        for order_id, status, pin, told, checks, sent, *more in zip(*args, strict=True):
            (*rest, had, _), row = more, self._row(order_id)
            if row is None or row.status != status or (is_compared and row.pin != had):
                continue
            if order_id in self.store.poisoned:
                raise refused()
            if (fresh := self._rewritten(row, replace(row, pin=pin))) is None:
                continue
            event = self._event(
                sql, row, fresh, told, checks, "completed", sent, rest, is_late=True
            )
            changed.append(self._changed_to(row, fresh, event))
        return changed

    def _changed_to(
        self, row: Stored, fresh: Stored, event: tuple[Event, bool] | None
    ) -> dict[str, Any]:
        """Store a row's change and its event for the commit, and return the statement's result."""
        self._changed[row.id] = (self._changed.get(row.id, (row,))[0], fresh)
        found = {"id": row.id, "status": fresh.status, "pin": fresh.pin}
        if event is None:
            return {**found, "event_id": None, "repeat": False, "anew": False}
        self._events.append(event[0])
        return {**found, "event_id": event[0].id, "repeat": event[0].repeat, "anew": event[1]}

    def _event(
        self,
        sql: str,
        before: Stored,
        after: Stored,
        told: str | None,
        checks: int,
        outcome: str,
        sent: float | None,
        origin: Sequence[str],
        *,
        is_late: bool = False,
    ) -> tuple[Event, bool]:
        """Return the event of a change, and whether it repeats one of an earlier dispatch."""
        source, cause, account, reference = origin
        same = [
            e
            for e in [*self.store.events, *self._events]
            if e.order_id == after.id
            and e.outcome == outcome
            and not e.repeat
            and (e.reference is None or e.reference == reference)
            and (e.reference is None or e.account == account or CONFIGURED in (e.account, account))
        ]
        repeat, has_pin = (is_late and LATE_REPEATS in sql) or bool(same), not lacks(after.pin)
        made = Event(
            self.store.number_of("event"),
            after.id,
            before.status,
            after.status,
            has_pin,
            told,
            checks,
            self.store.now(),
            self.author,
            repeat,
            outcome,
            sent,
            source,
            cause,
            account,
            reference,
        )
        made.queued = WEBHOOK_MARK in self._all("settings")
        earlier = sent is not None and any(
            e.sent_at is None or e.sent_at < sent - SAME_TIME for e in same
        )
        return made, repeat and not is_late and earlier

    def _try_status(self, _: str, args: Sequence[Any]) -> list[Any]:
        """Give one row a status, then roll back: a row that is refused is refused with any
        status.
        """
        row = self._row(args[0])
        if row is None or row.status not in OPEN:
            return []
        if row.id in self.store.poisoned:
            raise refused()
        return [{"id": row.id}]

    def _may_lack(self, row: Stored) -> bool:
        return may_lack(row.pin)

    def _touch(self, _: str, args: Sequence[Any]) -> None:
        for order_id, seen_at in zip(*args, strict=True):
            row = self._row(order_id)
            if row is not None and row.status in OPEN:
                self._changed[order_id] = (
                    self._changed.get(order_id, (row,))[0],
                    replace(row, last_sync_at=seen_at),
                )

    def _status(self, _: str, args: Sequence[Any]) -> list[Any]:
        return [_as_row(row) for order_id in args[0] if (row := self._row(order_id)) is not None]

    def _watched(self) -> Iterable[Stored]:
        """Return the open orders that were not sent too long before the start."""
        before = self._row_writer.ignored_before
        return (
            row for row in self.store.rows.values() if row.status in OPEN and row.sent_at >= before
        )

    @property
    def _row_writer(self) -> RowWriter:
        reader = self.pool.reader
        return (
            self.pool.row_writer if reader is None else reader.schema_cache.shop_tables.row_writer
        )

    def _scan(self, *_: Any) -> list[Any]:
        rows = self._as_orders(self._watched())
        self.pool.seen["open"] = len(rows)
        return rows

    def _scan_since(self, _: str, args: Sequence[Any]) -> list[Any]:
        self.pool.seen["open"] = None
        return self._as_orders(row for row in self._watched() if row.sent_at > args[0])

    def _scan_among(self, _: str, args: Sequence[Any]) -> list[Any]:
        return self._as_orders(row for row in self._watched() if row.id in args[0])

    def _scan_of(self, _: str, args: Sequence[Any]) -> list[Any]:
        return [row for row in self._as_orders(self._watched()) if row["integration"] in args[0]]

    def _count_apart(self, *_: Any) -> list[Any]:
        row_writer, now = self._row_writer, self.store.now()
        open_at = [row.sent_at for row in self.store.rows.values() if row.status in OPEN]
        late = now - row_writer.rules.give_up_after
        held = sum(
            row_writer.ignored_before <= at < row_writer.first_start and at <= late
            for at in open_at
        )
        released = FIRST_START_RELEASED in self._all("settings")
        left_alone = sum(at < row_writer.ignored_before for at in open_at)
        self.pool.seen["left_alone"] = left_alone
        return [{"left_alone": left_alone, "held": 0 if released else held, "took": 0.0}]

    def _namesakes(self, _: str, args: Sequence[Any]) -> list[Any]:
        references, ids = args
        return self._as_orders(
            row
            for row in self.store.rows.values()
            if row.reference in references and row.id not in ids and row.status != NEVER_SENT
        )

    def _as_orders(self, rows: Iterable[Stored]) -> list[dict[str, Any]]:
        dispatches = self._newest_dispatches()
        return [
            self._as_order(row, dispatches.get((row.id, row.reference.strip()))) for row in rows
        ]

    def _as_order(self, row: Stored, sent: Dispatch | None) -> dict[str, Any]:
        from_shop, own = self.pool.row_writer.table_config.accounts_from_shop, own_of(row)
        noted = sent.account if sent is not None else None
        integration, route = None, Route.ONE
        if from_shop:
            integration = own or noted
            route = Route.OWN if own else Route.ONE if noted else Route.NONE
        is_old = sent is not None and sent.touched >= TOUCHED
        registered = (
            sent is not None
            and sent.account == (integration if from_shop else CONFIGURED)
            and abs(sent.sent_at - row.sent_at) < SAME_TIME
        )
        return {
            "id": row.id,
            "status": row.status,
            "sent_at": sent.found_at if sent is not None and is_old else row.sent_at,
            "reference": row.reference,
            "tenant_id": None,
            "last_sync_at": row.last_sync_at if self.pool.row_writer.records_every_check else None,
            "integration": integration,
            "route": int(route),
            "package": row.package or None,
            "registered": registered,
            "understood": registered and sent is not None and sent.understood_at is not None,
            "odd_at": sent.odd_at if registered and sent is not None else None,
            "settled": False,
            "reference_from": 0,
        }

    def _pins(self, _: str, args: Sequence[Any]) -> list[Any]:
        oldest = self.store.now() - DAY
        found: dict[tuple[str | None, str | None], None] = {}
        for event in self.store.events:
            row = self.store.rows.get(event.order_id)
            is_one = event.id > args[0] and event.has_pin and event.decided_at > oldest
            if is_one and row is not None and not lacks(row.pin):
                found[row.package or None, self._integration_of(row)] = None
        return [
            {"package": package, "tenant_id": None, "integration": account}
            for package, account in found
        ]

    def _unclaimed(self, _: str, args: Sequence[Any]) -> list[Any]:
        first, last = args
        oldest = self.store.now() - KEPT_DAYS * DAY
        given = {
            event.order_id: event
            for event in self.store.events
            if first <= event.id <= last and event.has_pin and event.decided_at > oldest
        }
        rows = [
            (row, event)
            for i, event in sorted(given.items())
            if (row := self.store.rows.get(i)) is not None
        ]
        names = ("id", "pin", "reference", "sent_at", "own", "root", "own_words")
        return [
            {name: self._as_locked(row)[name] for name in names}
            | {"account": event.account, "integration": self._integration_of(row)}
            for row, event in rows
        ]

    def _without_pin(self, sql: str, args: Sequence[Any]) -> list[Any]:
        fits = may_lack if NO_DIGIT in sql else lacks
        now, wait, longest = self.store.now(), args[0], args[1]
        last: dict[str, Event] = {}
        for event in self.store.events:
            is_one = not event.has_pin and event.outcome == "completed" and event.source == PROGRAM
            is_one = is_one and event.cause != Cause.CHILD
            if is_one and event.decided_at > now - longest:
                last[event.order_id] = event
        found = []
        for event in sorted(last.values(), key=lambda event: -event.decided_at):
            row = self.store.rows.get(event.order_id)
            is_late = event.decided_at < now - wait
            if row is None or row.status != event.to_status or not fits(row.pin):
                continue
            if is_late and (row.id, "pin_missing") in self.store.reviews:
                continue
            more = {"ended_at": event.decided_at, "is_late": is_late, "pin": row.pin}
            found.append({**self._as_orders([row])[0], **more})
        return found

    def _ended(self, _: str, args: Sequence[Any]) -> list[Any]:
        now = self.store.now()
        last = {
            event.order_id: event
            for event in self.store.events
            if event.source == PROGRAM
            and event.from_status != event.to_status
            and event.decided_at > now - args[0]
        }
        return [
            {**self._as_orders([row])[0], "outcome": event.outcome, "ago": now - event.decided_at}
            for event in sorted(last.values(), key=lambda event: -event.decided_at)
            if (row := self.store.rows.get(event.order_id)) is not None
            and row.status == event.to_status
            and event.outcome in ("completed", "failed")
        ]

    def _last_end(self, _: str, args: Sequence[Any]) -> list[Any]:
        ends = [
            {"outcome": event.outcome}
            for event in self.store.events
            if event.order_id == args[0] and event.outcome in ("completed", "failed", "reopened")
        ]
        return ends[-1:]


_STARTS: dict[str, str] = {
    "SELECT extract(epoch FROM clock_timestamp())::float8": "_time",
    "SELECT COALESCE(max(id), 0) FROM": "_newest",
    'SELECT e.outcome FROM "public"."order_monitor_events" e': "_last_end",
    "SELECT count(*) AS count, extract(epoch FROM min(decided_at))": "_waiting",
    'UPDATE "public"."order_monitor_events" e SET to_status': "_retell",
    'SELECT name, value, extract(epoch FROM stored_at)::float8 AS stored_at FROM "public"."order_monitor_settings" '
    "WHERE name IN ('first_migrate'": "_start_marks",
    **STARTS,
    **CHAINED,
}


def _name_of(sql: str, pool: Pool) -> str:
    """Return the handler of a statement, by its whole text if it is about orders.

    Raises:
        AssertionError: it is unknown.
    """
    row_writer, reader = pool.row_writer, pool.reader
    if " AS left_alone, " in sql:
        return "_count_apart"
    statements = row_writer.statements
    whole = {
        statements.lock_sql(): "_lock",
        statements.lock_sql(NOWHERE): "_lock",
        statements.update_sql(): "_update",
        statements.status_sql(): "_status",
        statements.read_sql(): "_read",
        statements.late_lock_sql(): "_late_lock",
        statements.late_update_sql(): "_late_update",
        statements.try_status_sql(): "_try_status",
        statements.try_status_sql(own=True): "_try_status",
        pins_sql(row_writer.table_config, row_writer.table, pool.accounts): "_pins",
        history_sql(row_writer.table_config, row_writer.table, pool.accounts): "_past",
        COLUMNS_SQL: "_columns",
        IS_TABLE_SQL: "_is_table",
    }
    if row_writer.records_every_check:
        whole[statements.touch_sql()] = "_touch"
    found = whole.get(sql) or next(
        (name for start, name in _STARTS.items() if sql.lstrip().startswith(start)), None
    )
    if found is None and reader is not None:
        found = _name_of_reading(sql, row_writer, reader)
    if found is None:
        pool.store.unknown.append(sql)
        msg = f"the model shop does not know this statement: {sql[:300]}"
        raise AssertionError(msg)
    return found


def _name_of_reading(sql: str, row_writer: RowWriter, reader: OrderReader) -> str | None:
    queries = reader.queries
    whole = {
        queries.scan_sql(): "_scan",
        queries.since_sql(): "_scan_since",
        queries.unknown_sql(): "_unknown",
        queries.of_sql(): "_scan_of",
        reader.claims.sql(): "_unclaimed",
        row_writer.dispatches.same_reference_sql(queries.select_sql()): "_namesakes",
    }
    if sql.startswith(f"{queries.among_sql()}"):
        return "_scan_among"
    if sql.endswith(without_pin_sql(row_writer, Reviews(row_writer.table_config.schema).sql)):
        return "_without_pin"
    if sql.endswith(ended_sql(row_writer)):
        return "_ended"
    return whole.get(sql)


def _as_row(row: Stored) -> dict[str, Any]:
    return {"id": row.id, "status": row.status, "pin": row.pin}


def lacks(pin: str | None) -> bool:
    """Whether a text is not a PIN, according to the statements."""
    return not (pin or "").strip(" \t\r\n-*_.") or (pin or "").strip().lower() in _NO_PIN


def may_lack(pin: str | None) -> bool:
    """Whether a text might not be a PIN, according to the statements: the program decides."""
    return lacks(pin) or not re.search("[0-9]", pin or "") or bool(re.search("[&<]", pin or ""))


def column(name: str, data_type: str = "text") -> Column:
    return Column(name, data_type)


ROUTING = {name: column(name) for name in ("id", "tenant_id", "package_id")} | {
    "primary": column("primary_provider_id")
}
INTEGRATIONS = {
    name: column(name) for name in ("id", "tenant_id", "name", "provider", "base_url", "enabled")
} | {"user": column("kod"), "password": column("sifre")}


class Known(SchemaCache):
    """A catalogue with fixed tables that need no lookup.

    Shared data is read as usual.
    """

    def __init__(
        self,
        database: Database,
        table_config: TableConfig,
        row_writer: RowWriter,
        accounts: AccountTables | None,
    ) -> None:
        super().__init__(database, table_config)
        self._row_writer = row_writer
        self._accounts = accounts

    async def _look(self, connection: Lent) -> ShopTables:
        schema = self.table_config.schema
        key, began = (
            await digest_key(connection, schema),
            await read_mark(connection, schema, FIRST_MIGRATE),
        )
        shared = await Codes(self._row_writer.table, schema, key).shared(connection)
        logins = await self._logins_of(connection, self._accounts, key)
        row_writer = replace(
            self._row_writer, logins=logins, key=key, shared=shared, began_at=float(began or "-inf")
        )
        if self.table_config.ignore_before is not None:
            start = await read_start(connection, schema)
            before = start.ignored_before(self.table_config.ignore_before)
            row_writer = replace(row_writer, first_start=start.moment, ignored_before=before)
        return ShopTables(row_writer, self._accounts, Pauses(schema), Reviews(schema))


def layout_for(
    *,
    give_up_after: float,
    last_sync: bool,
    author: str = "daemon",
    from_shop: bool = False,
    refresh: float = 60.0,
    brake_hold: float = 0.0,
    confirm_cancelled: float = 0.0,
    give_up_unknown: bool = False,
    ignore_before: str | None = None,
    has_chains: bool = False,
) -> TableConfig:
    rules = Rules(give_up_after=give_up_after, pin_width=120, note_width=250)
    return TableConfig(
        schema="public",
        table="product_orders",
        overrides={},
        time_zone=None,
        open=OPEN,
        known=(*FINAL, "not_sent"),
        rules=replace(
            rules,
            brake_hold=brake_hold,
            confirm_cancelled=confirm_cancelled,
            give_up_unknown=give_up_unknown,
        ),
        ignore_before=ignore_before,
        record_sync=last_sync,
        await_pin=900.0,
        author=author,
        accounts_from_shop=from_shop,
        refresh=refresh,
        follows_chains=has_chains,
        credentials=None if from_shop else Credentials("znet", "https://bayi.example", "kod"),
    )


def ledger_for(table_config: TableConfig, *, last_sync: bool) -> RowWriter:
    text = Column("x", "text")
    columns = {
        name: replace(text, name=name)
        for name in (
            "external_status",
            "sent_at",
            "pin_code",
            "note",
            "provider_referans",
            "package_id",
            "provider_id",
        )
    }
    columns["id"] = Column("id", "uuid", cast="::uuid")
    columns["sent_at"] = Column("sent_at", "timestamp with time zone")
    if table_config.follows_chains:
        columns |= {
            logical: replace(text, name=name)
            for logical, name in (
                ("external_order_id", "external_order_id"),
                ("chain_path", "chain_path"),
                ("shop_status", "status"),
            )
        }
        columns["root_order_id"] = Column("root_order_id", "uuid", cast="::uuid")
    if last_sync:
        columns["last_sync_at"] = Column("last_sync_at", "timestamp with time zone")
    readable = ("external_status", "id", "package_id", "provider_id", "provider_referans")
    table = Table("public", "product_orders", columns, readable=readable, is_reference_indexed=True)
    if table_config.follows_chains:
        tenants = AccountTables("public", ROUTING, INTEGRATIONS).internal_sql()
        table = replace(table, tenants_sql=tenants)
    return RowWriter(table, table_config, table_config.rules, Logins(table_config.schema, b""))


class ModelOrders(Orders):
    """The shop's orders over the model: the real reader, recorder and ledger on the model's
    connections.
    """

    def __init__(self, pool: Pool, database: Database) -> None:
        table_config = pool.row_writer.table_config
        self._schema_cache = Known(database, table_config, pool.row_writer, pool.accounts)
        self.reader = OrderReader(database, self._schema_cache)
        self._recorder = OrderWriter(database, self._schema_cache)
        self.brake = BrakeTable(self._schema_cache)
        pool.reader = self.reader


def database_over(pool: Pool) -> Database:
    return ModelDatabase(pool)
