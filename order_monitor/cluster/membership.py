"""Membership of several processes on one database: who is there, and who holds which account. Held
as PostgreSQL session advisory locks.

A lock lives as long as the connection that took it, so a process that dies releases its accounts
without doing anything. If a process hangs or is cut off, the server closes its connection after
`IDLE_LIMIT` seconds without a query. Its own lease has ended long before (cluster/members.py), so
it does not ask accounts that belong to another process by then.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from order_monitor.core.errors import SettingsError
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.locks import OLD_MEMBER, lock_class, lock_number

IDLE_LIMIT: Final = 15.0
"""Seconds without a query after which the server closes a member's connection."""

QUERY_LIMIT: Final = 3.0
"""Maximum seconds for one membership query."""

LEADER: Final = "the leader"
"""The lock of the process that does the work one process does for all."""

_MEMBER: Final = "a member, by logins"

BEHIND: Final = "behind with "
CUT_OFF: Final = "cut off from "
REACHES: Final = "reaches "
_MARKS: Final = (BEHIND, CUT_OFF, REACHES)
"""Prefixes of the locks with which a member says something of an account: its holder is behind, or
cannot reach its provider; another process can.
"""

_APPLICATION: Final = "order-monitor "
_LONGEST_NAME: Final = 63
_MARK: Final = 8
_SPARE: Final = 100
_TURNS: Final = 20
_OTHERS: Final = 3
_AT_A_TIME: Final = 100
_TOKEN_BITS: Final = 31

POOLED: Final = (
    "cluster.enabled: the database is reached through a pooler that gives each statement another connection (transaction mode); "
    "locks need a connection of their own: give database.dsn the server itself, or a pooler in session mode"
)

_ANNOUNCE: Final = "SELECT set_config('application_name', $1, false)"
_MEMBERS: Final = """
SELECT a.application_name AS name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid::bigint = $1
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_LOOK: Final = """
WITH held AS MATERIALIZED (
    SELECT pid, classid::bigint AS high, objid::bigint AS low, objsubid FROM pg_locks
    WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())),
members AS (SELECT pid, array_agg(low) AS tokens FROM held WHERE objsubid = 2 AND high = $1 GROUP BY pid)
SELECT m.pid, m.pid = pg_backend_pid() AS is_me, m.tokens, a.application_name AS name,
    (SELECT array_agg((h.high << 32) | h.low) FROM held h WHERE h.pid = m.pid AND h.objsubid = 1) AS keys,
    EXISTS (SELECT FROM held WHERE objsubid = 2 AND high = $2) AS has_older
FROM members m LEFT JOIN pg_stat_activity a ON a.pid = m.pid ORDER BY m.pid
"""


@dataclass(frozen=True, slots=True)
class Member:
    """One process: its unique name, the mark of its schedule, and the keys of its accounts.

    ``behind`` are the accounts for which it has not asked about all due orders: closed, paused, or
    with more due than their pace allows. ``cut_off`` are those of its own whose provider it cannot
    reach, ``reaches`` those of others that it could.
    """

    name: str
    mark: str
    keys: frozenset[str]
    leads: bool
    behind: frozenset[str] = frozenset()
    cut_off: frozenset[str] = frozenset()
    reaches: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class View:
    """The members at one moment."""

    me: Member
    members: tuple[Member, ...]

    def names(self) -> frozenset[str]:
        """Return the members' names."""
        return frozenset(member.name for member in self.members)


class LostMembershipError(Exception):
    """The process is no longer a member: its locks are gone, even if its connection is not."""


class OlderVersionError(LostMembershipError):
    """A process of an older version, which locks accounts by name, works on the same table."""


@dataclass(slots=True)
class Session:
    """A member's own connection. Each method raises what `Database.plain` does."""

    connection: Connection
    space: str
    token: int
    numbers: dict[str, int] = field(default_factory=dict)
    known: dict[int, str] = field(default_factory=dict)
    is_full: bool = False

    def number_of(self, key: str) -> int:
        """Return the lock number of an account, and remember which account it belongs to."""
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = lock_number(self.space, key)
            self.known[number] = key
        return number

    async def see(self, keys: Collection[str]) -> View:
        """Return who is there and who holds which of ``keys``.

        This also checks that this process is still a member.

        Raises:
            LostMembershipError: it is not.
            OlderVersionError: an older version's process is there, with different locks.
        """
        for key in keys:
            for name in (key, *_marks(key)):
                self.number_of(name)
        self.number_of(LEADER)
        async with asyncio.timeout(QUERY_LIMIT):
            rows = await self.connection.fetch(
                _LOOK, lock_class(self.space, _MEMBER), lock_class(self.space, OLD_MEMBER)
            )
        members = {row["pid"]: self._member(row) for row in rows}
        mine = next((row for row in rows if row["is_me"]), None)
        # If other sessions' statements reach the same server process, their tokens appear too.
        if mine is None or mine["tokens"] != [self.token]:
            raise LostMembershipError
        if mine["has_older"]:
            raise OlderVersionError
        view = View(members[mine["pid"]], tuple(members.values()))
        self._forget(keys, view)
        return view

    def _forget(self, keys: Collection[str], view: View) -> None:
        """Forget the locks of removed accounts that no process holds, once there are more than
        twice as many locks as the current accounts need.
        """
        if len(self.numbers) <= _SPARE + 2 * (1 + len(_MARKS)) * len(keys):
            return
        held = set(keys)
        for member in view.members:
            held |= member.keys | member.behind | member.cut_off | member.reaches
        kept = {LEADER, *held, *(mark for key in held for mark in _marks(key))}
        self.numbers = {key: number for key, number in self.numbers.items() if key in kept}
        self.known = {number: key for key, number in self.numbers.items()}

    def _member(self, row: asyncpg.Record) -> Member:
        name, _, mark = (row["name"] or "").removeprefix(_APPLICATION).rpartition(" ")
        held = {self.known.get(number, f"?{number}") for number in row["keys"] or ()}
        marked = [
            frozenset(key.removeprefix(prefix) for key in held if key.startswith(prefix))
            for prefix in _MARKS
        ]
        keys = frozenset(key for key in held if not key.startswith(_MARKS)) - {LEADER}
        return Member(f"{name}/{row['pid']}", mark, keys, LEADER in held, *marked)

    async def acquire(self, keys: Collection[str]) -> frozenset[str]:
        """Try to take ``keys``; return what is ours. ``is_full``: the server has no more locks."""
        numbers = [self.number_of(key) for key in keys]
        sql = "SELECT n FROM unnest($1::bigint[]) AS n WHERE pg_try_advisory_lock(n)"
        taken: set[str] = set()
        for start in range(0, len(numbers), _AT_A_TIME):
            try:
                async with asyncio.timeout(QUERY_LIMIT):
                    rows = await self.connection.fetch(sql, numbers[start : start + _AT_A_TIME])
            except asyncpg.OutOfMemoryError:
                # The server's lock table is full; locks already taken are seen at the next look.
                self.is_full = True
                break
            taken.update(self.known[row["n"]] for row in rows)
        return frozenset(taken)

    async def announce(self, application: str) -> None:
        """Publish another name or mark."""
        async with asyncio.timeout(QUERY_LIMIT):
            await self.connection.fetchval(_ANNOUNCE, application)

    async def give(self, keys: Collection[str]) -> None:
        """Release ``keys``."""
        numbers = [self.number_of(key) for key in keys]
        async with asyncio.timeout(QUERY_LIMIT):
            await self.connection.fetch(
                "SELECT pg_advisory_unlock(n) FROM unnest($1::bigint[]) AS n", numbers
            )


class Membership:
    """Joins the processes that work on one orders table."""

    def __init__(self, database: Database, table: str, name: str, mark: str) -> None:
        """Join as ``name`` the members that share ``table`` (with its schema). A different
        ``mark``, which may change later, tells of a different schedule.
        """
        self._database = database
        self._space = table
        self._name = name
        self.mark = mark

    @property
    def application(self) -> str:
        """What the server knows a member by: its name, cut to what is kept, and its mark."""
        return f"{_APPLICATION}{announced(self._name)} {self.mark}"

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[Session]:
        """Be a member for the duration of the block.

        Raises:
            SettingsError: a connection pooler makes the locks worthless.
            ShopError: the database could not be asked, or the connection is lost.
            LostMembershipError: the locks are lost, even if the connection is not.
        """
        async with self._database.plain() as connection:
            # This comes first: settings made on a connection shared with the shop would affect the
            # shop.
            await self._refuse_pooler(connection)
            async with asyncio.timeout(QUERY_LIMIT):
                await self._introduce(connection)
                token = secrets.randbits(_TOKEN_BITS)
                await connection.fetchval(
                    "SELECT pg_advisory_lock($1::int4, $2::int4)",
                    lock_class(self._space, _MEMBER),
                    token,
                )
            yield Session(connection, self._space, token)

    async def _introduce(self, connection: Connection) -> None:
        await connection.fetchval(_ANNOUNCE, self.application)
        await connection.execute(
            "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"
        )
        # If a machine vanishes, the server must notice it, as it does for a process that hangs.
        await connection.execute(
            "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 2"
        )
        await connection.execute(f"SET idle_session_timeout = '{IDLE_LIMIT:g}s'")

    async def _refuse_pooler(self, connection: Connection) -> None:
        """Check that the connection keeps its server process while others want one too.

        Raises:
            SettingsError: it does not.
        """
        try:
            is_own = await self._stays(connection)
        except asyncpg.InvalidSQLStatementNameError:
            is_own = False
        if not is_own:
            raise SettingsError([POOLED])

    async def _stays(self, connection: Connection) -> bool:
        """Whether the connection has a server process to itself: each round detects more."""
        ask = "SELECT pg_backend_pid()"
        async with asyncio.timeout(QUERY_LIMIT):
            mine = await connection.fetchval(ask)
            if mine == connection.get_server_pid():
                return True
        async with AsyncExitStack() as held, asyncio.timeout(QUERY_LIMIT):
            # Each of these connections occupies a server process; if ours is shared, one of them
            # gets it sooner or later.
            for _ in range(_OTHERS):
                if {await connection.fetchval(ask) for _ in range(_TURNS)} != {mine}:
                    return False
                other = await held.enter_async_context(self._database.plain())
                await held.enter_async_context(other.transaction())
                if await other.fetchval(ask) == mine:
                    return False
            return {await connection.fetchval(ask) for _ in range(_TURNS)} == {mine}


def announced(name: str) -> str:
    """Return a member's name as others see it: the server keeps 63 characters with the mark's 8."""
    return name.encode("ascii", "replace").decode()[: _LONGEST_NAME - len(_APPLICATION) - _MARK - 1]


def member_name(host: str, pid: int) -> str:
    """Return what a process is known as among the members."""
    return f"{host}-{pid}"


async def members_of(connection: Connection, table: str) -> frozenset[str]:
    """Return the `announced` names of the members on ``table`` (with its schema)."""
    rows = await connection.fetch(_MEMBERS, lock_class(table, _MEMBER))
    return frozenset(
        row["name"].removeprefix(_APPLICATION).rpartition(" ")[0] for row in rows if row["name"]
    )


def _marks(key: str) -> list[str]:
    return [f"{prefix}{key}" for prefix in _MARKS]
