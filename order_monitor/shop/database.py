"""Connections to the shop's PostgreSQL, and the meaning of its failures.

Works behind a pooler in transaction mode: no setting outlives its transaction, and the pool takes
no session advisory locks. Statements stay prepared only on a connection that is proven to lead
straight to a server process: through a pooler, another client's statement of the same name could be
run in place of ours. Every unit of work has its own deadline, because on a frozen network the
server's timeouts have no effect.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, Self

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from order_monitor.core.easing import SHORTAGE_REMEDIES, SHORTAGE_WORDS, shortage_of
from order_monitor.core.errors import (
    RowRejectedError,
    ShopError,
    ShopMisfitError,
    ShopUnavailableError,
)
from order_monitor.shop.dsn import Address
from order_monitor.shop.primaries import Lineage, Server, server_of, two_primaries
from order_monitor.shop.refusals import OUTSIDE, outside, raised, sentence

_BEGIN: Final = """
BEGIN;
SELECT set_config('statement_timeout', '{limit}', true), set_config('lock_timeout', '{lock}', true),
       set_config('idle_in_transaction_session_timeout', '{idle}', true), set_config('timezone', 'UTC', true),
       set_config('row_security', 'off', true), set_config('standard_conforming_strings', 'on', true),
       set_config('plan_cache_mode', '{plans}', true)
"""
"""With ``row_security = off``, a policy that would hide orders raises an error instead.

A statement that reads many rows is planned each time, for the values it has; one that writes a
batch finds its rows by key, and keeps its plan.
"""

_PREPARED: Final = 100
"""Statements that a connection keeps prepared, if it leads straight to the server."""

_DIRECT: Final = "SELECT pg_backend_pid() AS pid, inet_client_port() AS port"

_CREDENTIALS: Final = struct.Struct("3i")
"""A peer's process, user and group."""

_STALE: Final = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
"""A prepared statement no longer fits the table, or is not on this connection."""

_PASSING: Final = ("55P03", "57014", "40001", "40P01")
_LANGUAGES: Final = ("pl_exec.c", "plpy_elog.c", "plperl.c", "pltcl.c")
"""Where a procedural language raises a function's own errors: any code may come from there."""

_QUEUE: Final = ("54000", "async.c")
"""Code and server source file by which a full notification queue is recognized: it fails the
commit, for every transaction alike.
"""

_ROW_CLASSES: Final = ("22", "23", "44", "P0", "09", "27")
_TRANSIENT_CLASSES: Final = ("08", "25", "28", "40", "53", "55", "57", "58", "XX", "3D")
_MISPLACED: Final = "25006"

_TO_IPV4: Final = re.compile(r"'[0-9]+(?:\.[0-9]+){3}'")
"""The address in the text of a failed connection, in asyncio's format."""

Connection = PoolConnectionProxy  # what a pool lends


_ANSWERS: Final = (asyncpg.PostgresError, asyncpg.PostgresWarning)
"""Errors that the server reports; a trigger may raise a warning's code, which is no PostgresError.
"""


class Pool(Protocol):
    """The part of `asyncpg.Pool` used here."""

    def acquire(self, *, timeout: float | None = None) -> Any:  # noqa: ANN401 - asyncpg's own type is private
        """Lend a connection."""

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:  # noqa: ANN401, ASYNC109
        """Take a connection back."""

    async def expire_connections(self) -> None:
        """Replace each connection before it is lent again."""

    async def close(self) -> None:
        """Wait until all connections are returned, and close them."""

    def terminate(self) -> None:
        """Close all connections at once."""


def classify(error: BaseException) -> ShopError:
    """Return our error for a driver's failure, by SQLSTATE and names: its text may hold a PIN."""
    if isinstance(error, _ANSWERS):
        state = getattr(error, "sqlstate", None) or "?????"
        text = _describe(error, state)
        if state.startswith(_ROW_CLASSES):
            return RowRejectedError(text, state, is_inner=_is_inner(error))
        is_transient = state.startswith(_TRANSIENT_CLASSES)
        return ShopUnavailableError(text) if is_transient else ShopMisfitError(text)
    if isinstance(error, asyncpg.DataError):
        return RowRejectedError("a value is of a kind that cannot be sent; run order-monitor check")
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return ShopUnavailableError(
            "the server is read-only, or a standby; set database.dsn to the primary"
        )
    if isinstance(error, _WrongServerError):
        return ShopUnavailableError(str(error))
    if short_of := _short_of(error):
        text = f"{short_of}: {SHORTAGE_WORDS[short_of]}, so it cannot be connected to; {SHORTAGE_REMEDIES[short_of]}"
        return ShopUnavailableError(text, short_of)
    if isinstance(error, ConnectionError) and str(error).endswith("rejected SSL upgrade"):
        # asyncpg identifies this error only by its text.
        return ShopUnavailableError(
            f"the server speaks no TLS, which sslmode demands; {OUTSIDE['NoTLS']}"
        )
    kind = "timeout" if isinstance(error, TimeoutError) else type(error).__name__
    number = getattr(error, "errno", None)
    return ShopUnavailableError(outside(kind, errno_name(number) if number else ""))


def _short_of(error: BaseException) -> str:
    """Return this machine's or process's shortage that prevented the connection, or nothing."""
    if isinstance(error, _NoThreadError):
        return "no_threads"
    if isinstance(error, socket.gaierror):
        # The resolver does not report why it could not send its query.
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        except OSError as why:
            return shortage_of(why)
        return ""
    found = shortage_of(error)
    # Without IPv6, its addresses (such as "localhost") fail with the same error.
    return "" if found == "no_local_ports" and not _TO_IPV4.search(str(error)) else found


def refusal(error: BaseException) -> RowRejectedError:
    """Return our error for a refusal of some rows while the server and the connection are fine."""
    state = getattr(error, "sqlstate", None) or ""
    is_raised = _is_raised(error)
    return RowRejectedError(
        str(classify(error)),
        state,
        is_passing=state in _PASSING and not is_raised,
        is_inner=_is_inner(error),
        is_servers=(state, getattr(error, "server_source_filename", None)) == _QUEUE,
    )


def errno_name(number: int) -> str:
    """Return the system's text of an error number; asyncpg's own contains the address."""
    return os.strerror(number) if number > 0 else "name not resolved"


def _describe(error: BaseException, state: str) -> str:
    """Put the error into words, without names if a function raised it: they may be a PIN."""
    names = [("table", "table_name"), ("column", "column_name"), ("constraint", "constraint_name")]
    found = [f"{label} {value}" for label, name in names if (value := getattr(error, name, None))]
    return raised(state) if _is_raised(error) else sentence(state, found)


def _is_inner(error: BaseException) -> bool:
    """Whether a function or trigger of the shop's failed, which can raise any code."""
    return _is_raised(error) or bool(getattr(error, "context", None))


def _is_raised(error: BaseException) -> bool:
    return getattr(error, "server_source_filename", None) in _LANGUAGES


_FAILURES: Final = (
    *_ANSWERS,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    ValueError,
)


HOST_TIMEOUT: Final = 3.0
"""Seconds for one of several hosts to accept a connection, and to begin a transaction."""

COMPARE_EVERY: Final = 10.0
"""Seconds between two looks at which of several hosts accept writes."""

_KEPT: Final = 60.0
_GONE_AFTER: Final = 6.0
"""Seconds without an acknowledgement until a connection is given up if there is another host."""

_SAYS_LITTLE: Final = (TimeoutError, asyncpg.exceptions.TargetServerAttributeNotMatched)
"""Failures that say less than any other host's."""


def _says_little(error: BaseException) -> int:
    """Return a key by which the most telling of several hosts' failures comes first."""
    return -1 if isinstance(error, _WrongServerError) else isinstance(error, _SAYS_LITTLE)


class _WrongServerError(ConnectionError):
    """The server can be reached, and must not be used; the text says why."""


class _CutError(ConnectionError):
    """A connection was cut between two steps of a statement, where asyncpg raises an
    `AttributeError`.
    """


class _NoThreadError(OSError):
    """No thread could be started to resolve the server's host name."""


class UndoError(Exception):
    """Raised inside a transaction whose statements are only tried, to roll them back."""


async def now_of(connection: Connection) -> float:
    """Return the database's clock, epoch seconds."""
    return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))


class Database:
    """A pool that connects on first use, and logs when the server goes away and comes back."""

    def __init__(
        self,
        address: Address,
        *,
        statement_timeout: float = 30.0,
        pool_size: int = 4,
        connect_timeout: float = 5.0,
        margin: float = 5.0,
        keeps_statements: bool = False,
        pool: Pool | None = None,
    ) -> None:
        """Connect to ``address``; no statement may take longer than ``statement_timeout`` seconds.

        ``margin`` is the additional time in seconds for a whole unit of work, because on a frozen
        network the server's timeouts have no effect. With ``keeps_statements`` they stay prepared
        where no pooler can be in between, which halves the time of a write, and costs a connection
        more at the start. With ``pool`` its connections are used, and none is opened.
        """
        self._address = address
        self._timeout = statement_timeout
        self.pool_size = pool_size
        self._connect_timeout = connect_timeout
        self._margin = margin
        self._pool = pool
        self._opening = asyncio.Lock()
        self._lent: dict[Connection, asyncio.Timeout] = {}
        self._good = 0
        self._keeps_statements = keeps_statements
        self._is_direct: dict[int, bool] = {}
        """By the place of a host: whether its connections lead straight to the server."""
        self._lineage = Lineage()
        self._split = ""
        self._comparing: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("order_monitor.database")
        self.problem: str | None = None
        self.reached = False

    def _begin(self, lock_wait: float | None, plans: str) -> str:
        limit = int(self._timeout * 1000)
        lock = limit if lock_wait is None else max(1, min(limit, int(lock_wait * 1000)))
        return _BEGIN.format(limit=limit, lock=lock, idle=2 * limit, plans=plans)

    @asynccontextmanager
    async def transaction(
        self, *, of_rows: bool = False, lock_wait: float | None = None
    ) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction that ends with the block.

        A lock is waited for up to ``lock_wait`` seconds, None for as long as a statement may take.
        With ``of_rows``, any refusal by the server counts as a problem of the rows, whatever its
        code, if the connection survives.

        Raises:
            ShopUnavailableError: also if the commit's outcome is unknown.
            ShopMisfitError: a table, column or right is missing.
            RowRejectedError: a value was refused.
        """
        lives = False
        try:
            async with asyncio.timeout(self._timeout + self._margin) as deadline:
                pool = await self._opened()
                if self._split:
                    raise _WrongServerError(self._split)
                connection = await pool.acquire(timeout=self._connect_timeout + self._margin)
                self._lent[connection] = deadline
                try:
                    plans = "auto" if of_rows else "force_custom_plan"
                    await self._start(connection, self._begin(lock_wait, plans))
                    yield connection
                    await connection.execute("COMMIT")
                except BaseException as error:
                    was_cut = isinstance(error, AttributeError) and connection.is_closed()
                    lives = await _abandon(connection, error)
                    if was_cut:
                        raise _CutError("the connection was cut") from None
                    raise
                finally:
                    self._lent.pop(connection, None)
                    await pool.release(connection, timeout=self._margin)
        except _FAILURES as error:
            # At most once for a code that something else gives: none is kept after that.
            is_stale = self._keeps_statements and isinstance(error, _STALE)
            if is_stale and not _is_inner(error):
                await self._prepare_again(error)
                raise ShopUnavailableError("a statement has to be prepared again") from None
            if getattr(error, "sqlstate", None) == _MISPLACED:
                await self._expire()  # A standby may keep the old connections open indefinitely.
            if of_rows and lives and isinstance(error, _ANSWERS):
                raise refusal(error) from None
            raise self._failed(error) from None
        self._back()

    def progressed(self, connection: Connection) -> None:
        """Give a lent connection the time of one more statement: a part of what it reads came."""
        deadline = self._lent.get(connection)
        if deadline is not None and not deadline.expired():
            deadline.reschedule(asyncio.get_running_loop().time() + self._timeout + self._margin)

    async def _start(self, connection: Connection, begin: str) -> None:
        """Begin a transaction.

        Where there is another server to turn to, one that does not even begin in time may have
        gone. Every other connection is replaced when its owner is done: the next one that is opened
        finds out whether it has.
        """
        if len(self._address.hosts) == 1:
            await connection.execute(begin)
            return
        try:
            async with asyncio.timeout(HOST_TIMEOUT):
                await connection.execute(begin)
        except TimeoutError:
            _terminate(connection)
            await self._expire()
            raise

    async def _expire(self) -> None:
        """Lend none of the connections again that are there now."""
        if self._pool is not None:
            await self._pool.expire_connections()

    async def _cut_off(self) -> None:
        """End what waits for a server that has gone: its connections may stay open for ever."""
        await self._expire()
        for connection in self._lent:
            _terminate(connection)

    async def _prepare_again(self, error: BaseException) -> None:
        """Use no prepared statement of the present connections again. If one was not there, or was
        there already, something stands before the server after all: keep none from now on.
        """
        if not isinstance(error, asyncpg.InvalidCachedStatementError):
            self._keeps_statements = False
        await self._expire()

    def _failed(self, error: BaseException) -> ShopError:
        failure = classify(error)
        if isinstance(failure, ShopUnavailableError):
            why = str(failure)
            if self.problem is None and failure.short_of:
                self._log.error("database.not_connected", why=why)
            elif self.problem is None:
                self._log.error("database.lost", why=why)
            self.problem, self.reached = why, False
        return failure

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[Any]:
        """Lend a separate connection, outside any transaction and without time limits.

        For `migrate`, and for cluster membership.

        Raises:
            ShopError: as `transaction`.
        """
        try:
            connection = await self._connect()
            try:
                yield connection
            finally:
                await asyncio.shield(_bounded(connection.close(), connection.terminate))
        except _FAILURES as error:
            raise classify(error) from None

    async def _opened(self) -> Pool:
        async with self._opening:
            if self._pool is None:
                if len(self._address.hosts) > 1:
                    await self._compare()
                    self._comparing = asyncio.create_task(self._keep_comparing())
                self._pool = await asyncpg.create_pool(
                    min_size=0,
                    max_size=self.pool_size,
                    connect=self._connect,
                    reset=_nothing,
                    max_inactive_connection_lifetime=300,
                )
            return self._pool

    async def _keep_comparing(self) -> None:
        while True:
            await asyncio.sleep(COMPARE_EVERY)
            await self._compare()

    async def _compare(self) -> None:
        """Look which hosts accept writes, and use none while different servers do. At the start,
        one that does is tried first.
        """
        places = range(len(self._address.hosts))
        servers = await asyncio.gather(*map(self._server_at, places))
        names = [f"{h}:{p}" for h, p in zip(self._address.hosts, self._address.ports, strict=True)]
        self._split = two_primaries(
            {name: server for name, server in zip(names, servers, strict=True) if server}
        )
        for server in sorted(filter(None, servers), key=lambda one: one.timeline or 0):
            self._lineage.refuses(server)  # The newest one that was seen is remembered.
        writable = [place for place, server in zip(places, servers, strict=True) if server]
        if self._split:
            await self._cut_off()
        elif writable and self._pool is None and self._good not in writable:
            self._good = writable[0]

    async def _server_at(self, place: int) -> Server | None:
        """Return the server at one host, None if it accepts no writes or cannot be asked."""
        arguments = self._address.connect_arguments(place) | {"target_session_attrs": "any"}
        try:
            async with asyncio.timeout(HOST_TIMEOUT):
                connection = await asyncpg.connect(**arguments, statement_cache_size=0)
                try:
                    return await server_of(connection)
                finally:
                    _terminate(connection)
        except (*_FAILURES, RuntimeError):
            return None

    async def _connect(self, *_: object, **given: Any) -> asyncpg.Connection[asyncpg.Record]:  # noqa: ANN401
        """Open a connection. ``given`` is what the pool passes on to `asyncpg.connect`.

        asyncpg's timeout spans all hosts, and one that is frozen would use it up: each has its own
        here, the last one that could be used comes first.
        """
        hosts = range(len(self._address.hosts))
        many = len(hosts) > 1
        errors: list[BaseException] = []
        for place in sorted(hosts, key=lambda n: n != self._good):
            try:
                connection = await self._connect_to(place, many=many, given=given)
                if many:
                    await self._check(connection)
            except _FAILURES as error:
                errors.append(error)
                continue
            if place != self._good:
                self._good = place
                await self._cut_off()
            _keep_alive(connection, _GONE_AFTER if many else _KEPT)
            return connection
        raise min(errors, key=_says_little)

    async def _check(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Raise an error if the server of a new connection must not be used."""
        try:
            async with asyncio.timeout(HOST_TIMEOUT):
                server = await server_of(connection)
            if why := self._split or (self._lineage.refuses(server) if server else ""):
                raise _WrongServerError(why)
        except BaseException:
            _terminate(connection)
            raise

    async def _connect_to(
        self, place: int, *, many: bool, given: dict[str, Any]
    ) -> asyncpg.Connection[asyncpg.Record]:
        """Connect to one host: with statements that stay prepared if every connection to it was
        direct so far, this one too.

        The first one shows whether they are, and is then replaced.
        """
        while True:
            keeps = self._keeps_statements and bool(given) and self._is_direct.get(place, False)
            prepared = _PREPARED if keeps else 0
            connection = await self._connect_once(place, prepared, many=many, given=given)
            if not (self._keeps_statements and given) or self._is_direct.get(place) is False:
                return connection
            is_direct = await self._leads_straight(connection)
            if is_direct and keeps:
                return connection
            self._is_direct[place] = is_direct
            if not (is_direct or keeps or connection.is_closed()):
                return connection
            await _bounded(connection.close(), connection.terminate, HOST_TIMEOUT)

    @staticmethod
    async def _leads_straight(connection: asyncpg.Connection[asyncpg.Record]) -> bool:
        """Whether nothing stands between a connection and its server process.

        That process must have the number that the server gave when the connection began. A pooler
        may pass that on, so the process must also see our own port, or be a child of the one that
        listens on our Unix socket. Address translation changes the port, and a container hides the
        process: then a direct connection is not recognised.
        """
        try:
            async with asyncio.timeout(HOST_TIMEOUT):
                row = await connection.fetchrow(_DIRECT)
        except TimeoutError:
            # A pooler lets it wait for a free server.
            _terminate(connection)
            return False
        except BaseException:
            _terminate(connection)
            raise
        assert row is not None
        sock, pid = _socket_of(connection), row["pid"]
        if sock is None or pid != connection.get_server_pid():
            return False
        if sock.family == socket.AF_UNIX:
            return _listener_of(sock) == _parent_of(pid)
        return bool(row["port"] == sock.getsockname()[1])

    async def _connect_once(
        self, place: int, prepared: int, *, many: bool, given: dict[str, Any]
    ) -> asyncpg.Connection[asyncpg.Record]:
        timeout = min(HOST_TIMEOUT, self._connect_timeout) if many else self._connect_timeout
        try:
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                **self._address.connect_arguments(place),
                timeout=timeout,
                statement_cache_size=prepared,
                connection_class=given.get("connection_class", asyncpg.Connection),
                record_class=given.get("record_class", asyncpg.Record),
            )
        except RuntimeError as error:
            # Raised by the event loop's thread pool; asyncpg has none of its own.
            if "thread" not in str(error):
                raise
            raise _NoThreadError(errno.EAGAIN, "no thread") from None
        return connection

    async def __aenter__(self) -> Self:
        """Connect on first use, not here: a command may print something first."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the pool."""
        await self.close()

    async def close(self, seconds: float = 5.0) -> None:
        """Close the pool, by force after ``seconds``."""
        if self._comparing is not None:
            self._comparing.cancel()
            self._comparing = None
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await _bounded(pool.close(), pool.terminate, seconds)

    def _back(self) -> None:
        if self.problem is not None:
            self._log.info("database.back")
        self.problem = None
        self.reached = True


async def _abandon(connection: Connection, error: BaseException) -> bool:
    """Roll back what was not committed; return whether the connection survives. A cancelled one is
    cut: a rollback over a frozen network would never return.
    """
    if not isinstance(error, asyncio.CancelledError):
        try:
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
                return True
        except _FAILURES:
            pass
    _terminate(connection)
    return False


def _terminate(connection: Connection | asyncpg.Connection[Any]) -> None:
    """Cut a connection. One that the server has closed is the pool's, and must not be touched."""
    with suppress(asyncpg.InterfaceError):
        if not connection.is_closed():
            connection.terminate()


async def _nothing(_: object) -> None:
    """Reset nothing when a connection is returned: nothing outlived its transaction."""


async def _bounded(closing: Any, terminate: Any, seconds: float = 5.0) -> None:  # noqa: ANN401 - any awaitable
    try:
        async with asyncio.timeout(seconds):
            await closing
    except (*_FAILURES, TimeoutError):
        terminate()


def _socket_of(connection: asyncpg.Connection[asyncpg.Record]) -> Any:  # noqa: ANN401 - asyncio's wrapper
    """Return a connection's socket, None if it is closed."""
    transport = getattr(connection, "_transport", None)
    return transport.get_extra_info("socket") if transport is not None else None


def _listener_of(sock: Any) -> int | None:  # noqa: ANN401 - asyncio's wrapper
    """Return the process that listens on a Unix socket, None if that is not known here."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[0]) or None


def _parent_of(pid: int) -> int:
    """Return the parent of a process, 0 if that is not known here."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _keep_alive(connection: asyncpg.Connection[asyncpg.Record], gone_after: float) -> None:
    """Let the kernel notice a dead peer, after ``gone_after`` seconds at the latest where it owes
    an acknowledgement: asyncpg sets no keep-alive of its own.
    """
    sock = _socket_of(connection)
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = {
        "SO_KEEPALIVE": 1,
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPINTVL": 10,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": int(gone_after * 1000),
    }
    for name, value in options.items():
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        if hasattr(socket, name):
            sock.setsockopt(level, getattr(socket, name), value)
