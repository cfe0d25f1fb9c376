"""Acts on each event once: the handler's work and the event's mark as consumed are one transaction.

A second connection counts attempts, in a table of this app, before the handler runs: an event that
kills its consumer is counted too. The mark is also written before the handler runs, so that a
handler that commits on its own commits the mark as well: even then its money moves only once.
"""

from __future__ import annotations

import enum
import logging
import re
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Any, Final

from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction

from order_monitor.contrib.django.conf import Config, Handler
from order_monitor.contrib.django.event import CHANNEL, SELECTED, Event, event_of
from order_monitor.core.pin import Pin

log = logging.getLogger("order_monitor.consumer")

BROKEN_AFTER: Final = 5
"""The number of different orders that must fail in succession before the handler counts as
broken.
"""

_LONGEST_BROKEN: Final = 60.0
_LONGEST_ERROR: Final = 2000
_GRACE: Final = 10.0
"""Seconds after its time limit at which a handler that cannot be stopped ends the process."""

_SLICE: Final = 0.25
_CRASHED: Final = "its consumer ended before it was done"
_GONE: Final = "its order is not in the table any more"
_NO_OUTCOME: Final = (
    "it has no outcome: an older version wrote it; run order-monitor migrate, and then retry it"
)
_COMMITTED: Final = (
    "the handler ended the transaction by itself and then failed: what it did until then is committed, and the event counts as "
    "consumed; see whether all of it was done"
)
_IS_ASIDE: Final = "is set aside after %s attempts: %s. Its order's later events wait; manage.py order_events_in_trouble shows it."
_ENDS_TRANSACTION: Final = re.compile(
    r"\s*(?:COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:\w+\s+)?TO\b))\b", re.IGNORECASE
)
_WRITES: Final = re.compile(
    r"\s*(?:INSERT|UPDATE|DELETE|MERGE|COPY|CALL|TRUNCATE|WITH\b.*\b(?:INSERT|UPDATE|DELETE))\b",
    re.IGNORECASE | re.DOTALL,
)

OVERLAP: Final = 10_000
"""How far below the first event a start looks for numbers that are not in the table yet: the
transaction of such an event may still commit.
"""

_BORN_LOOK: Final = 60.0
"""Seconds between two looks for events that were written as consumed."""

_SINCE: Final = "(SELECT since FROM order_monitor_consumer WHERE id = 1)"
_LATE: Final = "((SELECT late FROM order_monitor_consumer WHERE id = 1)::bigint[])"


def _is_wanted(event: str, since: str = _SINCE, late: str = _LATE) -> str:
    """SQL condition that a consumer is to act on an event: it is not before the start.

    The start is read from the table in every query: a consumer that runs notices when it moves. If
    none is stored, no event is wanted.
    """
    return (
        f"{event}.id >= least({since}, ({late})[1]) "
        f"AND ({event}.id >= {since} OR {event}.id = ANY({late}))"
    )


_IS_POSTED: Final = (
    "(EXISTS (SELECT FROM order_monitor_deliveries d WHERE d.event_id = p.id AND d.delivered_at IS NULL) "
    "OR EXISTS (SELECT FROM order_monitor_attempts t WHERE t.event_id = p.id))"
)
"""An earlier event that is to be posted, or that the handler has failed on."""


def _is_oldest(is_wanted: str) -> str:
    """SQL condition that no earlier event ``p`` of the order of ``e`` waits: a blocked event blocks
    the later ones of its order, and no other order's.
    """
    return (
        "(SELECT p.id FROM order_monitor_events p WHERE p.order_id = e.order_id AND p.id < e.id "  # noqa: S608 - parts of our own
        f"AND p.consumed_at IS NULL AND {is_wanted} LIMIT 1) IS NULL"
    )


_IS_WAITING: Final = (
    f"e.consumed_at IS NULL AND {_is_wanted('e')} AND {_is_oldest(_is_wanted('p'))}"
)
_IS_POSTED_NOW: Final = f"e.consumed_at IS NULL AND {_is_oldest(_IS_POSTED)}"
"""For the receiver: the daemon knows which events it posts, and each is to be acted on."""

_GIVEN: Final = ("%(since)s::bigint", "%(late)s::bigint[]")
"""A start that is not stored, for ``--dry-run``."""

_IS_PAUSING: Final = "(a.next_at > clock_timestamp() AND a.last_at <= clock_timestamp())"
"""Not if its last attempt is yet to come: then the database's clock has gone back since."""

_IS_DUE: Final = (
    "NOT EXISTS (SELECT FROM order_monitor_attempts a WHERE a.event_id = e.id "
    f"AND (a.set_aside_at IS NOT NULL OR {_IS_PAUSING}))"
)

_AHEAD: Final = 100
"""The number of events fetched per query: with a long backlog, a query costs more than an event."""

_DUE: Final = (
    "SELECT e.id FROM (SELECT DISTINCT ON (order_id) id FROM order_monitor_events w "  # noqa: S608 - parts of our own
    f"WHERE consumed_at IS NULL AND {_is_wanted('w')} ORDER BY order_id, id) e "
    f"WHERE {_IS_DUE} ORDER BY e.id LIMIT {_AHEAD}"
)
"""The same for all events in one query.

One query per row would take minutes, planned before any statistics exist.
"""

_IS_UNDER_WAY: Final = (
    "WITH begun AS (SELECT e.id, a.event_id IS NULL AS is_new FROM order_monitor_events e "  # noqa: S608 - parts of our own
    "LEFT JOIN order_monitor_attempts a ON a.event_id = e.id "
    f"WHERE {_IS_WAITING} AND e.id <= %(newest)s AND (a.event_id IS NULL OR a.unfinished > 0) ORDER BY e.id LIMIT {_AHEAD}), "
    "free AS (SELECT e.id FROM order_monitor_events e JOIN begun b ON b.id = e.id FOR SHARE OF e SKIP LOCKED) "
    "SELECT EXISTS (SELECT FROM begun WHERE is_new OR id NOT IN (SELECT id FROM free))"
)
"""Whether one of the events up to ``newest`` waits that was not tried yet, or that another
consumer is working on.
"""

_RECENT: Final = "(SELECT * FROM order_monitor_events ORDER BY id DESC LIMIT 1000)"

BORN: Final = (
    "SELECT e.id, e.order_id::text, e.decided_by FROM {} e "  # noqa: S608 - parts of our own
    f"WHERE e.consumed_at = e.decided_at AND ({_is_wanted('e')}{{}}) ORDER BY e.id DESC"
)
"""Events that were written as consumed: no consumer that waits for the commit can have that
time.

Those before the start are not meant.
"""

BORN_POSTED: Final = " OR EXISTS (SELECT FROM order_monitor_deliveries d WHERE d.event_id = e.id)"


def born_sql(config: Config, *, among: str = _RECENT) -> str:
    """Return `BORN` for the events ``among`` which to look, with the posted ones if there is a
    receiver.
    """
    return BORN.format(among, BORN_POSTED if config.webhook_secret else "")


def born_words(event_id: int, decided_by: str) -> str:
    """Return what is wrong with an event that was written as consumed."""
    return (
        f'Event {event_id} was written as consumed by {decided_by}, as a process with events.consumer = "none" does: '
        "unless a trigger of the shop did, it was not acted on."
    )


BORN_HINT: Final = (
    "Correct events.consumer in that process's settings, and restart it. Then look at the order, and mark the event with manage.py "
    "order_events_in_trouble --done if it has been acted on, or have it acted on with --retry."
)

# No stronger lock: the transaction that queues the event for the webhook holds a weaker one on it.
_CLAIM: Final = (
    "WITH next AS (SELECT e.id FROM order_monitor_events e "  # noqa: S608 - parts of our own
    f"WHERE e.id = %(id)s AND {{}} AND {_IS_DUE} FOR NO KEY UPDATE OF e SKIP LOCKED) "
    "UPDATE order_monitor_events e SET consumed_at = clock_timestamp() FROM next WHERE e.id = next.id "
    f"RETURNING {SELECTED}, CASE current_setting('statement_timeout') WHEN '0' "
    "THEN set_config('statement_timeout', %(timeout)s, true) END"
)
"""The time limit that the server enforces on a handler's statement if no other limit is set."""

_CLAIM_NEXT: Final = _CLAIM.format(_IS_WAITING)
_CLAIM_POSTED: Final = _CLAIM.format(_IS_POSTED_NOW)

_PAUSE: Final = "make_interval(secs => least(%(longest)s, %(first)s * 2 ^ least({}, 40)))"

# An attempt that ended with its consumer counts as a failure at the next one: until then it may
# still be under way.
_COUNT: Final = (
    "INSERT INTO order_monitor_attempts AS a (event_id, order_id, attempts, unfinished, first_at, last_at, next_at, error) "  # noqa: S608 - parts of our own
    f"VALUES (%(id)s, %(order_id)s, 1, 1, clock_timestamp(), clock_timestamp(), clock_timestamp() + {_PAUSE.format('0')}, "
    "%(error)s) "
    "ON CONFLICT (event_id) DO UPDATE SET attempts = a.attempts + 1, unfinished = a.unfinished + 1, "
    "failing = a.failing OR a.unfinished > 0, last_at = clock_timestamp(), "
    f"next_at = clock_timestamp() + {_PAUSE.format('a.attempts')} "
    f"WHERE a.set_aside_at IS NULL AND NOT {_IS_PAUSING} RETURNING unfinished"
)

_FAILING: Final = "SELECT count(DISTINCT order_id) FROM order_monitor_attempts WHERE failing"
"""How many orders failed since the handler's last success, in all processes together."""

_FAILED: Final = (
    "WITH before AS (SELECT count(DISTINCT order_id) AS orders, "
    "count(DISTINCT order_id) FILTER (WHERE order_id = %(order_id)s) AS own FROM order_monitor_attempts WHERE failing), "
    "now AS (SELECT orders, orders + (own = 0 AND NOT %(aside)s)::int AS failing FROM before) "
    "UPDATE order_monitor_attempts a SET error = %(error)s, unfinished = 0, failing = a.failing OR NOT %(aside)s, "
    "next_at = least(next_at, clock_timestamp() + make_interval(secs => CASE WHEN now.failing >= %(broken)s "
    "THEN %(soon)s ELSE %(longest)s END)), "
    "set_aside_at = CASE WHEN %(aside)s OR (now.failing < %(broken)s AND a.attempts >= %(max)s) THEN clock_timestamp() END "
    "FROM now WHERE a.event_id = %(id)s RETURNING a.attempts, a.set_aside_at IS NOT NULL, now.orders, now.failing"
)
"""When every order fails, no event is at fault: none is set aside, and the backlog is retried soon.
"""

_SOON: Final = (
    "UPDATE order_monitor_attempts SET next_at = least(next_at, clock_timestamp() + make_interval(secs => %(soon)s)) "
    "WHERE event_id IN (SELECT event_id FROM order_monitor_attempts WHERE failing AND set_aside_at IS NULL FOR UPDATE SKIP LOCKED)"
)

_DONE: Final = (
    "WITH gone AS (DELETE FROM order_monitor_attempts WHERE event_id = %(id)s) "  # noqa: S608 - parts of our own
    f"{_FAILING}"
)
"""It still sees the row that it deletes."""

# After an outage that ended every consumer, each event is to be tried once more.
_WORKS: Final = (
    "UPDATE order_monitor_attempts SET failing = false, "
    "unfinished = CASE WHEN %(broken)s THEN least(unfinished, 1) ELSE unfinished END WHERE event_id IN "
    "(SELECT event_id FROM order_monitor_attempts WHERE failing FOR UPDATE SKIP LOCKED)"
)


_STORE: Final = (
    "INSERT INTO order_monitor_consumer (id, since, late, set_at) "
    "VALUES (1, %(since)s, %(late)s::bigint[], clock_timestamp()) ON CONFLICT (id)"
)


class Taken(enum.Enum):
    """The outcome of a query for an event."""

    DONE = "done"
    FAILED = "failed"
    NOTHING = "nothing"
    """There is none, or another consumer has locked it."""


class HandlerTimeoutError(BaseException):
    """The handler exceeded its time limit.

    Not an ``Exception``: a handler that catches those must not catch this one.
    """


class LostError(Exception):
    """There is no connection to the database."""


class _NotDueError(Exception):
    """Another consumer has handled the event in the meantime."""


class _SetAsideError(Exception):
    """Another attempt is useless."""


class _HandlerError(Exception):
    """The handler broke a rule."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where the consumers begin: with the event ``since``, and with those of ``late``.

    The numbers in ``late`` are lower, and were not in the table yet when the start was set: their
    transactions may commit later.
    """

    since: int
    late: list[int]

    @property
    def values(self) -> dict[str, Any]:
        """The values for a query."""
        return {"since": self.since, "late": self.late}


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that is not consumed, and the reason: for ``--dry-run``."""

    event: Event
    why: str


@dataclass(slots=True)
class _Work:
    """What has become of an event so far.

    ``failing`` is how many orders failed since the last success.
    """

    event: Event | None = None
    order: Any = None
    failing: int = 0
    is_committed: bool = False


class Side:
    """A second connection to the events' database: it listens, and counts attempts outside the
    events' transactions.
    """

    def __init__(self, alias: str) -> None:
        """Connect on first use."""
        self._alias = alias
        self._connection: Any = None
        self._listens = False
        self._has_said = False

    def run(self, sql: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement, committed at once, and return its rows.

        Raises:
            LostError: there is no connection.
            DatabaseError: the database refused the statement.
        """
        try:
            if self._connection is None:
                self._connection = connections.create_connection(self._alias)
            with self._connection.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall() if cursor.description else []
        except (OperationalError, InterfaceError) as error:
            if self._connection is not None and is_usable(self._connection):
                raise
            self.close()
            raise LostError(str(error)) from error

    def listen(self) -> None:
        """Subscribe to notifications; if they cannot arrive, log that once."""
        if self._listens:
            return
        ((backend,),) = self.run("SELECT pg_backend_pid()")
        raw = self._connection.connection
        why = None
        if not callable(getattr(raw, "notifies", None)):
            why = "the driver is not psycopg 3"
        elif raw.info.backend_pid != backend:
            # A pooler in transaction mode accepts LISTEN, but no notification ever arrives.
            why = "there is a pooler before the database"
        else:
            try:
                self.run(f"LISTEN {CHANNEL}")
            except DatabaseError as error:
                why = str(error).strip()
        self._listens = why is None
        if why and not self._has_said:
            self._has_said = True
            log.warning("No notifications (%s): new events are found only by polling.", why)

    def wait(self, seconds: float, is_stopping: Callable[[], bool]) -> None:
        """Return at a notification, after this many seconds, or when it is time to stop."""
        end = time.monotonic() + seconds
        while not is_stopping() and (left := end - time.monotonic()) > 0:
            if not self._listens:
                time.sleep(min(_SLICE, left))
                continue
            try:
                if list(
                    self._connection.connection.notifies(timeout=min(_SLICE, left), stop_after=1)
                ):
                    return
            except (
                Exception
            ) as error:  # the driver's own classes, which Django has not wrapped here
                self.close()
                raise LostError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._listens = False
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None


def is_usable(connection: Any) -> bool:
    """Whether a connection exists and answers; one inside a broken transaction counts."""
    if connection.connection is None or connection.connection.closed:
        return False
    with suppress(Exception):
        info = connection.connection.info
        # A failed transaction would refuse the query, but its connection is not lost.
        if info.transaction_status.name in ("INERROR", "INTRANS"):
            return True
    return bool(connection.is_usable())


class Consumer:
    """Takes one event after the other; any number of consumers can share the work, in any number of
    processes.
    """

    def __init__(self, config: Config, handler: Handler, *, has_alarm: bool = True) -> None:
        """Act with ``handler``.

        Without ``has_alarm`` its time is not limited: only a process's main thread has an alarm.
        """
        self._config = config
        self._handler = handler
        self._has_alarm = has_alarm and threading.current_thread() is threading.main_thread()
        self.side = Side(config.alias)
        self.is_stopping = False
        self._failing = 0
        """How many orders failed since the last success, by the last look at the table."""
        self._in_a_row: set[str] = set()
        """The orders that failed here, one after the other."""
        self._is_running = False
        self._ahead: deque[int] = deque()
        self._born_at = -_BORN_LOOK
        self._born = 0
        """The newest event that was written as consumed, and was logged."""

    @property
    def is_broken(self) -> bool:
        """Whether the handler fails on one order after the other, in any process."""
        return self._failing >= BROKEN_AFTER

    # --- from where

    def start(self) -> Start | None:
        """Return the stored start, None before the first one."""
        rows = self.side.run("SELECT since, late FROM order_monitor_consumer WHERE id = 1")
        return Start(int(rows[0][0]), list(rows[0][1])) if rows else None

    def start_from(self, where: int | datetime | str) -> Start:
        """Set the start to a number, a time, ``all``, or ``now``, and return it."""
        self.side.run(
            f"{_STORE} DO UPDATE SET since = excluded.since, late = excluded.late, set_at = excluded.set_at",
            self.start_of(where).values,
        )
        return self._stored()

    def start_first(self, where: int | datetime | str) -> Start:
        """As ``start_from``, unless a start is stored: of consumers that start together, the first
        one decides for all.
        """
        self.side.run(f"{_STORE} DO NOTHING", self.start_of(where).values)
        return self._stored()

    def _stored(self) -> Start:
        found = self.start()
        if found is None:
            raise LostError("the start that was just stored is gone")
        return found

    def start_of(self, where: int | datetime | str) -> Start:
        """Return the start that a number, a time, ``all``, or ``now`` means, and store nothing."""
        if isinstance(where, int):
            return Start(where, [])
        if where == "all":
            return Start(1, [])
        condition = "false" if where == "now" else "decided_at >= %(at)s"
        # One statement, so that all of it sees the same table.
        rows = self.side.run(
            "WITH start AS (SELECT COALESCE((SELECT min(id) FROM order_monitor_events "  # noqa: S608 - parts of our own
            f"WHERE {condition}), (SELECT max(id) + 1 FROM order_monitor_events), 1) AS since) "
            "SELECT since, ARRAY(SELECT g FROM generate_series(greatest(since - %(overlap)s, 1), since - 1) g "
            "WHERE NOT EXISTS (SELECT FROM order_monitor_events e WHERE e.id = g) ORDER BY g) FROM start",
            {"at": where, "overlap": OVERLAP},
        )
        return Start(int(rows[0][0]), list(rows[0][1]))

    def left_alone(self, start: Start) -> int:
        """Return how many earlier events are not consumed."""
        ((count,),) = self.side.run(
            "SELECT count(*) FROM order_monitor_events e WHERE e.consumed_at IS NULL AND e.id < %(since)s "
            "AND e.id <> ALL(%(late)s::bigint[])",
            start.values,
        )
        return int(count)

    def newest(self) -> int:
        """Return the number of the newest event, 0 if there is none."""
        ((newest,),) = self.side.run("SELECT COALESCE(max(id), 0) FROM order_monitor_events")
        return int(newest)

    def count_waiting(self, newest: int) -> tuple[int, int]:
        """Return how many events up to ``newest`` are not consumed, and how many of those are set
        aside.
        """
        rows = self.side.run(
            "SELECT count(*), count(a.set_aside_at) FROM order_monitor_events e "  # noqa: S608 - parts of our own
            "LEFT JOIN order_monitor_attempts a ON a.event_id = e.id "
            f"WHERE e.consumed_at IS NULL AND e.id <= %(newest)s AND {_is_wanted('e')}",
            {"newest": newest},
        )
        return int(rows[0][0]), int(rows[0][1])

    def waiting(self, start: Start, limit: int = 1000) -> list[Waiting]:
        """Return the events that are not consumed, oldest first, with the reason for each.

        It changes nothing.
        """
        rows = self.side.run(
            f"SELECT {SELECTED}, CASE WHEN a.set_aside_at IS NOT NULL THEN 'set aside: ' || a.error "  # noqa: S608 - parts of our own
            f"WHEN {_IS_PAUSING} THEN 'failed, tried again at ' "
            "|| to_char(a.next_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"') || ': ' || a.error "
            f"WHEN NOT ({_is_oldest(_is_wanted('p', *_GIVEN))}) THEN 'an earlier event of its order waits' ELSE '' END "
            "FROM order_monitor_events e LEFT JOIN order_monitor_attempts a ON a.event_id = e.id "
            f"WHERE e.consumed_at IS NULL AND {_is_wanted('e', *_GIVEN)} ORDER BY e.id LIMIT %(limit)s",
            {**start.values, "limit": limit},
        )
        return [Waiting(event_of(row[:-1]), row[-1]) for row in rows]

    # --- the loop

    def run_once(self, newest: int) -> int:
        """Act on the backlog; wait for other consumers that work on an event up to ``newest``, up
        to the handler's time limit.

        Return how many events failed.

        Raises:
            LostError: the connection was lost.
        """
        self._tell_born()
        failed, idle = 0, 0.0
        while not self.is_stopping:
            done, more = self._drain(once=True)
            failed += more
            idle = 0.0 if done else idle + _SLICE
            if self._has_given_up() or idle > self._config.handler_timeout + _GRACE:
                break
            if not self.side.run(_IS_UNDER_WAY, {"newest": newest})[0][0]:
                break
            self._sleep(_SLICE)
        return failed

    def run(self) -> None:
        """Act on the backlog and on new events, until ``is_stopping``.

        While the database cannot be reached, wait for it.
        """
        pause = 0.0
        while not self.is_stopping:
            try:
                self.side.listen()
                self._tell_born()
                self._drain(once=False)
                if pause:
                    log.warning("The database is reached again.")
                pause = 0.0
                self.side.wait(self._config.poll, lambda: self.is_stopping)
            except (LostError, DatabaseError) as error:
                if not pause:
                    log.warning(
                        "The database cannot be reached; trying again: %s", str(error).strip()
                    )
                pause = min(max(0.5, pause * 2), 10.0)
                self._sleep(pause)

    def _has_given_up(self) -> bool:
        return self.is_broken and len(self._in_a_row) >= BROKEN_AFTER

    def _drain(self, *, once: bool) -> tuple[int, int]:
        """Act on what is due; return how many events that were, and how many of them failed."""
        done = failed = 0
        while not self.is_stopping:
            taken = self.take()
            if taken is Taken.NOTHING:
                break
            done += 1
            if taken is Taken.FAILED:
                failed += 1
                if once and self._has_given_up():
                    break
                if self.is_broken and not once:
                    self._sleep(min(self._failing / BROKEN_AFTER, _LONGEST_BROKEN))
        return done, failed

    def _tell_born(self) -> None:
        """Log it if an event was written as consumed, or if no start is stored any more."""
        if time.monotonic() - self._born_at < _BORN_LOOK:
            return
        self._born_at = time.monotonic()
        clean_up(self.side)
        if self.start() is None:
            log.error("No start is stored any more, so no event is acted on: start again.")
        born = [row for row in self.side.run(born_sql(self._config)) if row[0] > self._born]
        if born:
            self._born, _, decided_by = born[0]
            others = f" So were {len(born) - 1} before it." if len(born) > 1 else ""
            log.error("%s%s %s", born_words(self._born, decided_by), others, BORN_HINT)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.is_stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(_SLICE, left))

    # --- one event

    def take(self) -> Taken:
        """Act on the oldest due event that no other consumer holds; as ``take_one``."""
        for is_fresh in (False, True):
            if is_fresh:
                self._ahead.extend(row[0] for row in self.side.run(_DUE))
            while self._ahead:
                if (taken := self.take_one(self._ahead.popleft())) is not Taken.NOTHING:
                    return taken
        return Taken.NOTHING

    def take_one(self, event_id: int, *, is_posted: bool = False) -> Taken:
        """Act on an event and mark it as consumed, both or neither.

        ``NOTHING`` if it is not due, or another consumer holds it. If it ``is_posted``, the start
        does not matter, and it waits only for earlier events of its order that are posted too.

        Raises:
            LostError: the connection was lost; only the database knows whether the event was acted
                on, and it is not acted on twice.
        """
        connection = connections[self._config.alias]
        work = _Work()
        try:
            _refresh(connection)
            # The time limit of what follows the commit ends after the transaction.
            with ExitStack() as after, transaction.atomic(using=self._config.alias, durable=True):
                work.event = self._claim(connection, event_id, is_posted=is_posted)
                if work.event is None:
                    return Taken.NOTHING
                self._do(connection, work.event, work, after)
        except _NotDueError:
            return Taken.NOTHING
        except LostError:
            connection.close()
            raise
        except (Exception, HandlerTimeoutError) as error:
            if work.event is None:
                if isinstance(error, (OperationalError, InterfaceError)):
                    connection.close()
                    raise LostError(str(error)) from error
                raise
            return self._broke_off(connection, work.event, work, error)
        return self._succeeded(work.event, work)

    def _do(self, connection: Any, event: Event, work: _Work, after: ExitStack) -> None:
        """Act on a claimed event, inside its transaction."""

        def follow() -> None:
            work.is_committed = True
            after.enter_context(self._limited("what was to follow the commit"))

        # The first of all on-commit hooks: the handler's own hooks may fail or hang, and that rolls
        # nothing back.
        transaction.on_commit(follow, using=self._config.alias)
        self._count(event)
        if event.outcome is None and not event.repeat:
            raise _SetAsideError(_NO_OUTCOME)
        work.order = self._order(event)
        self._act(connection, event, work.order)
        with connection.cursor() as cursor:
            cursor.execute(_DONE, {"id": event.id})
            work.failing = cursor.fetchone()[0]

    def _broke_off(self, connection: Any, event: Event, work: _Work, error: BaseException) -> Taken:
        """See what an error means for the event: a failure, or none if it came after the commit."""
        if isinstance(error, HandlerTimeoutError):
            # The driver may be in the middle of a statement.
            connection.close()
        if work.is_committed:
            # Not with exc_info: it could contain the PIN.
            log.error(
                "Event %s is consumed, but what was to follow its commit failed.\n%s",
                event.id,
                _trace(error, work.order),
            )
            return self._succeeded(event, work)
        if not isinstance(error, HandlerTimeoutError):
            self._tell_lost(connection, error)
        return self._failed(event, work.order, error)

    def _tell_lost(self, connection: Any, error: BaseException) -> None:
        if isinstance(error, (OperationalError, InterfaceError)) and not is_usable(connection):
            connection.close()
            raise LostError(str(error)) from error

    def _claim(self, connection: Any, event_id: int, *, is_posted: bool) -> Event | None:
        """Lock a due event, and mark it as consumed."""
        with connection.cursor() as cursor:
            timeout = str(int(self._config.handler_timeout * 1000))
            sql = _CLAIM_POSTED if is_posted else _CLAIM_NEXT
            cursor.execute(sql, {"id": event_id, "timeout": timeout})
            row = cursor.fetchone()
        return None if row is None else event_of(row[:-1])

    def _count(self, event: Event) -> None:
        """Count this attempt, committed immediately.

        Raises:
            _NotDueError: another consumer has failed on it since it was claimed.
            _SetAsideError: it has killed its consumer too often.
        """
        config = self._config
        values = {"id": event.id, "order_id": event.order_id, "error": _CRASHED}
        rows = self.side.run(
            _COUNT, {**values, "first": config.first_pause, "longest": config.longest_pause}
        )
        if not rows:
            raise _NotDueError
        if rows[0][0] > config.max_attempts:
            self._failing = self.side.run(_FAILING)[0][0]
            if self.is_broken:
                return
            raise _SetAsideError(f"{_CRASHED}, {rows[0][0] - 1} times")

    def _order(self, event: Event) -> Any:
        """Return the order with its row locked, so that it cannot change while the handler works.

        None if it is gone and the event moves no money.

        Raises:
            _SetAsideError: it is gone, and the event moves money.
        """
        orders = self._config.model._base_manager.using(self._config.alias)
        try:
            return orders.select_for_update(no_key=True, of=("self",)).get(pk=event.order_id)
        except ObjectDoesNotExist:
            if event.moves_money:
                raise _SetAsideError(_GONE) from None
            return None

    def _act(self, connection: Any, event: Event, order: Any) -> None:
        """Run the handler in a savepoint, up to its time limit."""
        if order is None:
            log.info(
                "Event %s is consumed without being acted on: %s, and it moves no money.",
                event.id,
                _GONE,
            )
            return
        with (
            transaction.atomic(using=self._config.alias),
            self._guarded(),
            self._limited("the handler"),
        ):
            self._handler(event, order)
            if connection.needs_rollback:
                raise _HandlerError(
                    "the handler asked for a rollback and returned: it must raise instead"
                )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Refuse statements that would separate the handler's work from the mark."""
        alias, others = self._config.alias, self._config.other_databases

        def keep(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
            if _ENDS_TRANSACTION.match(str(sql)):
                raise _HandlerError(
                    "the handler must not end the transaction: its work and the mark are one"
                )
            return execute(sql, params, many, context)

        def keep_out(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
            if _WRITES.match(str(sql)):
                name = context["connection"].alias
                raise _HandlerError(
                    f"the handler writes into the database {name!r}, and the events are in {alias!r}: no transaction spans "
                    "both, so it could be done twice; ORDER_MONITOR['OTHER_DATABASES'] allows it all the same"
                )
            return execute(sql, params, many, context)

        with ExitStack() as guards:
            guards.enter_context(connections[alias].execute_wrapper(keep))
            for one in connections.all():
                if one.alias not in (alias, *others):
                    guards.enter_context(one.execute_wrapper(keep_out))
            yield

    @contextmanager
    def _limited(self, what: str) -> Iterator[None]:
        """Stop the handler, or what follows its commit, at the handler's time limit.

        What cannot be stopped ends the process; a handler's attempt then counts as failed.
        """
        if not self._has_alarm:
            yield
            return
        seconds = self._config.handler_timeout

        def ring(number: int, frame: FrameType | None) -> None:
            if self._is_running:
                raise HandlerTimeoutError(f"{what} took longer than {seconds:g} s")

        before = signal.signal(signal.SIGALRM, ring)
        last = threading.Timer(seconds + _GRACE, _leave, (seconds,))
        last.daemon = True
        last.start()
        self._is_running = True
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            self._is_running = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            last.cancel()

    # --- what became of it

    def _succeeded(self, event: Event, work: _Work) -> Taken:
        """Note that the handler works, unless it had nothing to do with the event."""
        self._in_a_row.clear()
        if work.failing and work.order is not None and (event.moves_money or event.has_pin):
            was_broken = work.failing >= BROKEN_AFTER
            if was_broken:
                log.warning("The handler works again.")
                self.side.run(_SOON, {"soon": 0})
            self.side.run(_WORKS, {"broken": was_broken})
            self._failing = 0
        return Taken.DONE

    def _failed(self, event: Event, order: Any, error: BaseException) -> Taken:
        """Record the error, and the time of the next attempt."""
        is_aside = isinstance(error, _SetAsideError)
        text = _told(error, order)
        rows = self.side.run(
            "SELECT consumed_at IS NOT NULL FROM order_monitor_events WHERE id = %(id)s",
            {"id": event.id},
        )
        if rows and rows[0][0]:
            is_aside, text = True, f"{_COMMITTED}: {text}"
        changed = self.side.run(
            _FAILED,
            {
                "id": event.id,
                "order_id": event.order_id,
                "error": text[:_LONGEST_ERROR],
                "soon": _LONGEST_BROKEN,
                "longest": self._config.longest_pause,
                "aside": is_aside,
                "max": self._config.max_attempts,
                "broken": BROKEN_AFTER,
            },
        )
        attempts, aside, before, self._failing = changed[0] if changed else (0, False, 0, 0)
        if not is_aside:
            self._in_a_row.add(event.order_id)
        trace = "" if is_aside else _trace(error, order)
        what = _IS_ASIDE if aside else "failed (attempt %s): %s"
        values = (event.id, event.order_id, attempts, text, trace)
        log.error(f"Event %s of order %s {what}\n%s", *values)  # noqa: G004 - two texts of our own
        if self.is_broken and before < BROKEN_AFTER:
            log.error(
                "The handler fails for one order after the other: nothing is set aside until it works again."
            )
            self.side.run(_SOON, {"soon": _LONGEST_BROKEN})
        return Taken.FAILED


def clean_up(side: Side) -> None:
    """Forget attempts at consumed events, except those where a person must check that all was
    done.

    An attempt at a consumed event that has not finished is that of a handler that committed by
    itself and then ended with its consumer: it is set aside.
    """
    side.run(
        "DELETE FROM order_monitor_attempts a USING order_monitor_events e "
        "WHERE e.id = a.event_id AND e.consumed_at IS NOT NULL AND a.set_aside_at IS NULL AND a.unfinished = 0"
    )
    side.run(
        "UPDATE order_monitor_attempts a SET set_aside_at = clock_timestamp(), error = %(error)s FROM order_monitor_events e "
        "WHERE e.id = a.event_id AND e.consumed_at IS NOT NULL AND a.set_aside_at IS NULL AND a.next_at < clock_timestamp()",
        {"error": f"{_COMMITTED}: {_CRASHED}"},
    )


def try_again(side: Side, event_ids: list[int] | None) -> int:
    """Allow all attempts again for some events, or for all that are in trouble, starting now.

    An event that was written as consumed is acted on too, if its number is given. Return the number
    of events.
    """
    rows = side.run(
        "WITH born AS (UPDATE order_monitor_events SET consumed_at = NULL "  # noqa: S608 - parts of our own
        "WHERE id = ANY(%(ids)s::bigint[]) AND consumed_at = decided_at "
        f"AND ({_is_wanted('order_monitor_events')} OR EXISTS (SELECT FROM order_monitor_deliveries d "
        "WHERE d.event_id = order_monitor_events.id)) RETURNING id), "
        "again AS (UPDATE order_monitor_attempts SET attempts = 0, unfinished = 0, next_at = clock_timestamp(), "
        "set_aside_at = NULL "
        "WHERE (%(ids)s::bigint[] IS NULL OR event_id = ANY(%(ids)s::bigint[])) "
        "AND EXISTS (SELECT FROM order_monitor_events e WHERE e.id = event_id AND e.consumed_at IS NULL) RETURNING event_id) "
        "SELECT id FROM born UNION SELECT event_id FROM again",
        {"ids": event_ids},
    )
    side.run(f"SELECT pg_notify('{CHANNEL}', '')")
    return len(rows)


def say_done(side: Side, event_id: int, reason: str, by: str) -> bool:
    """Mark an event that is set aside, or that was written as consumed, as consumed now, because a
    person has handled it.

    Return whether it was marked. No handler can be working on it: consumers skip such events.
    """
    rows = side.run(
        "WITH gone AS (DELETE FROM order_monitor_attempts WHERE event_id = %(id)s AND set_aside_at IS NOT NULL RETURNING event_id) "
        "UPDATE order_monitor_events e SET consumed_at = CASE WHEN e.consumed_at IS NULL OR e.consumed_at = e.decided_at "
        "THEN clock_timestamp() ELSE e.consumed_at END WHERE e.id = %(id)s "
        "AND (e.consumed_at = e.decided_at OR EXISTS (SELECT FROM gone)) RETURNING e.id",
        {"id": event_id},
    )
    if rows:
        log.warning("Event %s was marked as done by %s: %s", event_id, by, reason)
        side.run(f"SELECT pg_notify('{CHANNEL}', '')")
    return bool(rows)


def _refresh(connection: Any) -> None:
    """Close a connection that cannot be used any more: the next query opens a new one.

    Django's own rule would also close it after every event, because CONN_MAX_AGE is 0 by default.
    """
    raw = connection.connection
    if raw is None or connection.in_atomic_block:
        return
    status = getattr(raw.info, "transaction_status", None)
    is_idle = getattr(status, "name", "IDLE") == "IDLE"
    is_ours = connection.get_autocommit() == connection.settings_dict["AUTOCOMMIT"]
    if not (is_idle and is_ours and is_usable(connection)):
        connection.close()


def _leave(seconds: float) -> None:
    import os  # noqa: PLC0415 - for the last thing that this process does

    log.critical(
        "The handler, or what follows its commit, hangs, %g s past its time limit of %g s: this process ends.",
        _GRACE,
        seconds,
    )
    logging.shutdown()
    os._exit(70)


def _told(error: BaseException, order: Any) -> str:
    is_ours = isinstance(error, (_SetAsideError, _HandlerError, HandlerTimeoutError))
    name = "" if is_ours else f"{type(error).__name__}: "
    return _blotted(f"{name}{error}".strip(), order).replace("\x00", "")


def _trace(error: BaseException, order: Any) -> str:
    return _blotted("".join(traceback.format_exception(error)), order)


def _blotted(text: str, order: Any) -> str:
    """Return a text without the order's PIN, which an exception may contain."""
    for field in order._meta.concrete_fields if order is not None else ():
        if field.column in ("pin_code", "pinCode") and (value := order.__dict__.get(field.attname)):
            text = Pin(str(value)).masked(text)
    return text
