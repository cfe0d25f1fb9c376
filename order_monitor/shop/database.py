"""Connections to the shop's PostgreSQL, and what its failures mean.

Safe behind a pooler in transaction mode: no prepared statement outlives its transaction, nothing is set for longer than one, no
advisory lock. Every unit of work has a deadline of its own, because a frozen network answers no timeout of the server's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from order_monitor.core.easing import SHORTAGE_REMEDIES, SHORTAGE_WORDS, shortage_of
from order_monitor.core.errors import RowRejectedError, ShopError, ShopMisfitError, ShopUnavailableError
from order_monitor.shop.dsn import Address
from order_monitor.shop.refusals import OUTSIDE, outside, raised, sentence

_CLOSING: Final = 5.0
_BEGIN: Final = """
BEGIN;
SELECT set_config('statement_timeout', '{limit}', true), set_config('lock_timeout', '{lock}', true),
       set_config('idle_in_transaction_session_timeout', '{idle}', true), set_config('timezone', 'UTC', true),
       set_config('row_security', 'off', true), set_config('standard_conforming_strings', 'on', true)
"""
"""With ``row_security = off`` a policy that would hide orders is an error, instead of silence."""

_PASSING: Final = ("55P03", "57014", "40001", "40P01")
_LANGUAGES: Final = ("pl_exec.c", "plpy_elog.c", "plperl.c", "pltcl.c")
"""Where a procedural language raises what a function tells it to: any code may come from there."""

_QUEUE: Final = ("54000", "async.c")
"""By which code, and from which of the server's files, a full queue of notifications is told: at the commit, for all alike."""

_ROW_CLASSES: Final = ("22", "23", "44", "P0", "09", "27")
_TRANSIENT_CLASSES: Final = ("08", "25", "28", "40", "53", "55", "57", "58", "XX", "3D")
_MISPLACED: Final = "25006"

_TO_IPV4: Final = re.compile(r"'[0-9]+(?:\.[0-9]+){3}'")
"""The address in the text of a failed connection, as asyncio writes it."""

Connection = PoolConnectionProxy  # what a pool lends


_ANSWERS: Final = (asyncpg.PostgresError, asyncpg.PostgresWarning)
"""What the server says. A trigger may raise the codes of warnings too, which are no `asyncpg.PostgresError`."""


class Pool(Protocol):
    """The part of `asyncpg.Pool` used here."""

    def acquire(self, *, timeout: float | None = None) -> Any:  # noqa: ANN401 - asyncpg's own type is private
        """Lend a connection."""

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:  # noqa: ANN401, ASYNC109
        """Take a connection back."""

    async def expire_connections(self) -> None:
        """Open each connection anew before it is lent again."""

    async def close(self) -> None:
        """Wait for all connections, and close them."""

    def terminate(self) -> None:
        """Cut all connections."""


def classify(error: BaseException) -> ShopError:
    """Say what a driver's failure means to us. Only its SQLSTATE and the names in it are kept: the text may hold a PIN."""
    if isinstance(error, _ANSWERS):
        state = getattr(error, "sqlstate", None) or "?????"
        text = _describe(error, state)
        if state.startswith(_ROW_CLASSES):
            return RowRejectedError(text, state, is_inner=_is_raised(error) or bool(getattr(error, "context", None)))
        return ShopUnavailableError(text) if state.startswith(_TRANSIENT_CLASSES) else ShopMisfitError(text)
    if isinstance(error, asyncpg.DataError):
        return RowRejectedError("a value is of a kind that cannot be sent; run order-monitor check")
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return ShopUnavailableError("the server is read-only, or a standby; set database.dsn to the primary")
    if short_of := _short_of(error):
        text = f"{short_of}: {SHORTAGE_WORDS[short_of]}, so it cannot be connected to; {SHORTAGE_REMEDIES[short_of]}"
        return ShopUnavailableError(text, short_of)
    if isinstance(error, ConnectionError) and str(error).endswith("rejected SSL upgrade"):
        # asyncpg tells it by its text alone.
        return ShopUnavailableError(f"the server speaks no TLS, which sslmode demands; {OUTSIDE['NoTLS']}")
    kind = "timeout" if isinstance(error, TimeoutError) else type(error).__name__
    number = getattr(error, "errno", None)
    return ShopUnavailableError(outside(kind, errno_name(number) if number else ""))


def _short_of(error: BaseException) -> str:
    """Return what has run out on this machine or in this process, where that is why there is no connection."""
    if isinstance(error, _NoThreadError):
        return "no_threads"
    if isinstance(error, socket.gaierror):
        # The resolver does not say why it could not ask anybody.
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        except OSError as why:
            return shortage_of(why)
        return ""
    found = shortage_of(error)
    # Where there is no IPv6, the same error comes for its addresses, "localhost" being one.
    return "" if found == "no_local_ports" and not _TO_IPV4.search(str(error)) else found


def refusal(error: BaseException) -> RowRejectedError:
    """Say the same of what a server refused about some rows, while it and the connection are well."""
    state = getattr(error, "sqlstate", None) or ""
    is_raised = _is_raised(error)
    return RowRejectedError(
        str(classify(error)),
        state,
        is_passing=state in _PASSING and not is_raised,
        is_inner=is_raised or bool(getattr(error, "context", None)),
        is_servers=(state, getattr(error, "server_source_filename", None)) == _QUEUE,
    )


def errno_name(number: int) -> str:
    """Return the system's words for an error number (``OSError.strerror`` is asyncpg's, with the address in it)."""
    return os.strerror(number) if number > 0 else "name not resolved"


def _describe(error: BaseException, state: str) -> str:
    """Put the error into words. What a function raises may carry anything as a name, a PIN too: then none is told."""
    names = [("table", "table_name"), ("column", "column_name"), ("constraint", "constraint_name")]
    found = [f"{label} {value}" for label, name in names if (value := getattr(error, name, None))]
    return raised(state) if _is_raised(error) else sentence(state, found)


def _is_raised(error: BaseException) -> bool:
    return getattr(error, "server_source_filename", None) in _LANGUAGES


_FAILURES: Final = (*_ANSWERS, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError)


class _NoThreadError(OSError):
    """No thread could be started to look the server's name up in."""


class UndoError(Exception):
    """Raised inside a transaction whose statements are only tried: it rolls them back."""


async def now_of(connection: Connection) -> float:
    """Return the database's clock, epoch seconds."""
    return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))


class Database:
    """A pool that connects when it is first needed, and says when the server goes away and when it is back."""

    def __init__(
        self,
        address: Address,
        *,
        statement_timeout: float = 30.0,
        pool_size: int = 4,
        connect_timeout: float = 5.0,
        margin: float = 5.0,
        pool: Pool | None = None,
    ) -> None:
        """Connect to ``address``; no statement may take longer than ``statement_timeout`` seconds.

        ``margin`` is how many seconds more a whole unit of work may take: a frozen network obeys no server's timeout. With ``pool``
        its connections are used, and none is opened.
        """
        self._address = address
        self._timeout = statement_timeout
        self._size = pool_size
        self._connect_timeout = connect_timeout
        self._margin = margin
        self._pool = pool
        self._opening = asyncio.Lock()
        self._log = structlog.get_logger("order_monitor.database")
        self.problem: str | None = None
        self.reached = False

    def _begin(self, lock_wait: float | None) -> str:
        limit = int(self._timeout * 1000)
        lock = limit if lock_wait is None else max(1, min(limit, int(lock_wait * 1000)))
        return _BEGIN.format(limit=limit, lock=lock, idle=2 * limit)

    @asynccontextmanager
    async def transaction(self, *, of_rows: bool = False, lock_wait: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction that ends with the block.

        A lock is waited for ``lock_wait`` seconds at most, None for as long as a statement may take. With ``of_rows`` whatever
        the server refuses over a connection that lives on is taken for a matter of the rows, whatever its code.

        Raises:
            ShopUnavailableError: also where the commit's outcome is unknown.
            ShopMisfitError: a table, column or right is missing.
            RowRejectedError: a value was refused.
        """
        lives = False
        try:
            async with asyncio.timeout(self._timeout + self._margin):
                pool = await self._opened()
                connection = await pool.acquire(timeout=self._connect_timeout + self._margin)
                try:
                    await connection.execute(self._begin(lock_wait))
                    yield connection
                    await connection.execute("COMMIT")
                except BaseException as error:
                    lives = await _abandon(connection, error)
                    raise
                finally:
                    await pool.release(connection, timeout=self._margin)
        except _FAILURES as error:
            await self._leave_if_misplaced(error)
            if of_rows and lives and isinstance(error, _ANSWERS):
                raise refusal(error) from None
            raise self._failed(error) from None
        self._back()

    async def _leave_if_misplaced(self, error: BaseException) -> None:
        """Open every connection anew where the server has become a standby: it may keep the old ones alive for ever."""
        if getattr(error, "sqlstate", None) == _MISPLACED and self._pool is not None:
            await self._pool.expire_connections()

    def _failed(self, error: BaseException) -> ShopError:
        failure = classify(error)
        if isinstance(failure, ShopUnavailableError):
            self._lost(str(failure), failure.short_of)
        return failure

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[Any]:
        """Lend a connection of its own, outside any transaction and without time limits; for `migrate`.

        Raises:
            ShopError: as `transaction` does.
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
                self._pool = await asyncpg.create_pool(
                    min_size=0,
                    max_size=self._size,
                    connect=self._connect,
                    reset=_nothing,
                    max_inactive_connection_lifetime=300,
                )
            return self._pool

    async def _connect(self, *_: object, **given: Any) -> asyncpg.Connection[asyncpg.Record]:  # noqa: ANN401
        """Open a connection. ``given`` is what the pool passes on to `asyncpg.connect`."""
        try:
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                **self._address.connect_arguments(),
                timeout=self._connect_timeout,
                statement_cache_size=0,
                connection_class=given.get("connection_class", asyncpg.Connection),
                record_class=given.get("record_class", asyncpg.Record),
            )
        except RuntimeError as error:
            # What the loop's pool of threads raises; asyncpg has none of its own.
            if "thread" not in str(error):
                raise
            raise _NoThreadError(errno.EAGAIN, "no thread") from None
        _keep_alive(connection)
        return connection

    async def close(self, seconds: float = 5.0) -> None:
        """Close the pool, by force after ``seconds``."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await _bounded(pool.close(), pool.terminate, seconds)

    def _lost(self, why: str, short_of: str) -> None:
        if self.problem is None:
            if short_of:
                self._log.error("database.not_connected", why=why)
            else:
                self._log.error("database.lost", why=why)
        self.problem = why
        self.reached = False

    def _back(self) -> None:
        if self.problem is not None:
            self._log.info("database.back")
        self.problem = None
        self.reached = True


async def _abandon(connection: Connection, error: BaseException) -> bool:
    """Undo what was not committed, and return whether the connection lives on.

    A cancelled connection is cut: a rollback over a frozen network would never return.
    """
    if not isinstance(error, asyncio.CancelledError) and not connection.is_closed():
        try:
            await connection.execute("ROLLBACK")
        except _FAILURES:
            pass
        else:
            return True
    if not connection.is_closed():
        connection.terminate()
    return False


async def _nothing(_: object) -> None:
    """Reset nothing when a connection is given back: nothing outlived its transaction."""


async def _bounded(closing: Any, terminate: Any, seconds: float = 5.0) -> None:  # noqa: ANN401 - any awaitable
    try:
        async with asyncio.timeout(seconds):
            await closing
    except (*_FAILURES, TimeoutError):
        terminate()


def _keep_alive(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Let the kernel notice a dead peer: asyncpg sets no keep-alive of its own."""
    transport = getattr(connection, "_transport", None)
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
    for name, value in options.items():
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        if hasattr(socket, name):
            sock.setsockopt(level, getattr(socket, name), value)
