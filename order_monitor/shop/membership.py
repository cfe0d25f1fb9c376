"""Several processes over one database: who is there, and which account is whose, held as PostgreSQL's session advisory locks.

A lock lives as long as the connection that took it, so a process that dies gives up its accounts with no word from it. One that
only stands still, or is cut off, is shown out by the server after `IDLE_LIMIT` seconds without a query; its own lease has run
out long before (watch/cluster.py), so that it asks nothing that is another's by then.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import asyncpg

from order_monitor.core.errors import SettingsError
from order_monitor.shop.database import Connection, Database

IDLE_LIMIT: Final = 15.0
"""Seconds without a query after which the server ends a member's connection (PostgreSQL 14 and later)."""

QUERY_LIMIT: Final = 3.0
"""Seconds that one query about the membership may take."""

LEADER: Final = "the leader"
"""The lock of whoever does what only one may do for all."""

_MEMBER: Final = "a member, by logins"
_OLD_MEMBER: Final = "a member"
"""The mark of versions that locked accounts by their names: of what they hold, nothing can be told."""

_BEHIND: Final = "behind with "
_APPLICATION: Final = "order-monitor "
_LONGEST_NAME: Final = 63
_SPARE: Final = 100
_IDLE_TIMEOUT_SINCE: Final = 140_000
_TURNS: Final = 20
_OTHERS: Final = 3
_AT_A_TIME: Final = 100
_TOKEN_BITS: Final = 31

POOLED: Final = (
    "cluster.enabled: the database is reached through a pooler that gives each statement another connection (transaction mode); "
    "locks need a connection of their own: give database.dsn the server itself, or a pooler in session mode"
)

OLDER_VERSION: Final = (
    "a process of version 0.1 works on the same table: stop all of that version, migrate, start this one"
)

_ANNOUNCE: Final = "SELECT set_config('application_name', $1, false)"
_IS_OLDER: Final = """
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $1
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
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
    """One process: its name, unlike any other's, the mark of its schedule, and the accounts it holds by their keys.

    ``behind`` are those of which it has not asked what was due: closed, paused, or more due than their pace lets through.
    """

    name: str
    mark: str
    keys: frozenset[str]
    leads: bool
    behind: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class View:
    """Who is there, at one moment."""

    me: Member
    members: tuple[Member, ...]

    def names(self) -> frozenset[str]:
        """Return who they are."""
        return frozenset(member.name for member in self.members)


class LostMembershipError(Exception):
    """The process is no member any more: its locks are gone, whatever its connection says."""


class OlderVersionError(LostMembershipError):
    """A process of a version that locked accounts by their names is at work on the same table."""


@dataclass(slots=True)
class Session:
    """A member's own connection."""

    connection: Connection
    space: str
    token: int
    numbers: dict[str, int] = field(default_factory=dict)
    known: dict[int, str] = field(default_factory=dict)
    is_full: bool = False

    def number_of(self, key: str) -> int:
        """Return the lock of an account, and remember whose it is."""
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = _number(self.space, key)
            self.known[number] = key
        return number

    async def look(self, keys: Collection[str]) -> View:
        """Return who is there and holds which of ``keys``; that this process still is a member is seen by it too.

        Raises:
            LostMembershipError: it is not.
            OlderVersionError: a process is there whose locks are not ours.
            ShopError: as `Database.plain`.
        """
        for key in (*keys, *map(behind, keys), LEADER):
            self.number_of(key)
        async with asyncio.timeout(QUERY_LIMIT):
            rows = await self.connection.fetch(_LOOK, _half(self.space), _half(self.space, _OLD_MEMBER))
        members = {row["pid"]: self._member(row) for row in rows}
        mine = next((row for row in rows if row["is_me"]), None)
        # Where others' statements reach the same server process, their marks stand beside ours.
        if mine is None or mine["tokens"] != [self.token]:
            raise LostMembershipError
        if mine["has_older"]:
            raise OlderVersionError
        view = View(members[mine["pid"]], tuple(members.values()))
        self._forget(keys, view)
        return view

    def _forget(self, keys: Collection[str], view: View) -> None:
        """Forget the locks of accounts that are gone and that nobody holds, once they are as many as the others' twofold."""
        if len(self.numbers) <= _SPARE + 4 * len(keys):
            return
        held = {key for member in view.members for key in (*member.keys, *member.behind)}
        kept = {LEADER, *keys, *held, *map(behind, keys), *map(behind, held)}
        self.numbers = {key: number for key, number in self.numbers.items() if key in kept}
        self.known = {number: key for key, number in self.numbers.items()}

    def _member(self, row: asyncpg.Record) -> Member:
        name, _, mark = (row["name"] or "").removeprefix(_APPLICATION).rpartition(" ")
        held = {self.known.get(number, f"?{number}") for number in row["keys"] or ()}
        late = {key for key in held if key.startswith(_BEHIND)}
        keys = frozenset(held - late - {LEADER})
        return Member(
            f"{name}/{row['pid']}", mark, keys, LEADER in held, frozenset(key.removeprefix(_BEHIND) for key in late)
        )

    async def take(self, keys: Collection[str]) -> frozenset[str]:
        """Try to take ``keys``; return those that are ours now. Where the server has no room for more, ``is_full`` says so.

        Raises:
            ShopError: as `Database.plain`.
        """
        numbers = [self.number_of(key) for key in keys]
        sql = "SELECT n FROM unnest($1::bigint[]) AS n WHERE pg_try_advisory_lock(n)"
        taken: set[str] = set()
        for start in range(0, len(numbers), _AT_A_TIME):
            try:
                async with asyncio.timeout(QUERY_LIMIT):
                    rows = await self.connection.fetch(sql, numbers[start : start + _AT_A_TIME])
            except asyncpg.OutOfMemoryError:
                # The server's table of locks is full; what was taken is seen at the next look.
                self.is_full = True
                break
            taken.update(self.known[row["n"]] for row in rows)
        return frozenset(taken)

    async def announce(self, application: str) -> None:
        """Show another name or mark from now on.

        Raises:
            ShopError: as `Database.plain`.
        """
        async with asyncio.timeout(QUERY_LIMIT):
            await self.connection.fetchval(_ANNOUNCE, application)

    async def give(self, keys: Collection[str]) -> None:
        """Give ``keys`` up.

        Raises:
            ShopError: as `Database.plain`.
        """
        numbers = [self.number_of(key) for key in keys]
        async with asyncio.timeout(QUERY_LIMIT):
            await self.connection.fetch("SELECT pg_advisory_unlock(n) FROM unnest($1::bigint[]) AS n", numbers)


class Membership:
    """The way into the membership of all that work on one orders table."""

    def __init__(self, database: Database, table: str, name: str, mark: str) -> None:
        """Be known as ``name``; ``table`` (with its schema) is what the members work on together.

        Members who show another ``mark`` have another schedule; it may be changed.
        """
        self._database = database
        self._space = table
        self._name = name
        self.mark = mark

    @property
    def application(self) -> str:
        """What the server knows a member by: its name, cut to what is kept, and its mark."""
        room = _LONGEST_NAME - len(_APPLICATION) - len(self.mark) - 1
        return f"{_APPLICATION}{self._name.encode('ascii', 'replace').decode()[:room]} {self.mark}"

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[Session]:
        """Be a member for as long as the block lasts.

        Raises:
            SettingsError: a pooler stands in between that makes locks worthless.
            ShopError: the database could not be asked, or the connection is lost.
            LostMembershipError: the locks are lost, whatever the connection says.
        """
        async with self._database.plain() as connection:
            # First of all: what is set on a connection that is not ours alone would be set for the shop.
            await self._refuse_pooler(connection)
            async with asyncio.timeout(QUERY_LIMIT):
                await self._introduce(connection)
                token = secrets.randbits(_TOKEN_BITS)
                await connection.fetchval("SELECT pg_advisory_lock($1::int4, $2::int4)", _half(self._space), token)
            yield Session(connection, self._space, token)

    async def _introduce(self, connection: Connection) -> None:
        await connection.fetchval(_ANNOUNCE, self.application)
        await connection.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        # A machine that vanished: the server must notice, as it does where a process stands still.
        await connection.execute(
            "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 2"
        )
        if int(await connection.fetchval("SHOW server_version_num")) >= _IDLE_TIMEOUT_SINCE:
            await connection.execute(f"SET idle_session_timeout = '{IDLE_LIMIT:g}s'")

    async def _refuse_pooler(self, connection: Connection) -> None:
        """See whether the connection stays with one server process, while another wants one too.

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
        """Whether the connection has a server process to itself, as far as can be seen; each look sees more."""
        ask = "SELECT pg_backend_pid()"
        async with asyncio.timeout(QUERY_LIMIT):
            mine = await connection.fetchval(ask)
            if mine == connection.get_server_pid():
                return True
        async with AsyncExitStack() as held, asyncio.timeout(QUERY_LIMIT):
            # Each holds a server process for itself; sooner or later one gets ours, if it is not ours alone.
            for _ in range(_OTHERS):
                if {await connection.fetchval(ask) for _ in range(_TURNS)} != {mine}:
                    return False
                other = await held.enter_async_context(self._database.plain())
                await held.enter_async_context(other.transaction())
                if await other.fetchval(ask) == mine:
                    return False
            return {await connection.fetchval(ask) for _ in range(_TURNS)} == {mine}


async def is_older_there(connection: Connection, table: str) -> bool:
    """Whether a member of a version that locked accounts by their names is at work on ``table`` (with its schema)."""
    return bool(await connection.fetchval(_IS_OLDER, _half(table, _OLD_MEMBER)))


def behind(key: str) -> str:
    """Return the lock by which an account's holder says that it is behind."""
    return f"{_BEHIND}{key}"


def _half(space: str, mark: str = _MEMBER) -> int:
    """Return the 31 bits that the members' marks share."""
    return _number(space, mark) & 0x7FFFFFFF


def _number(space: str, key: str) -> int:
    """Return the 64 bits that PostgreSQL knows a lock by; two of a million accounts share one with a chance of 1 in 30 million."""
    return int.from_bytes(blake2b(f"order-monitor\0{space}\0{key}".encode(), digest_size=8).digest(), signed=True)
