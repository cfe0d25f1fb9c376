"""Connections to the shop's PostgreSQL, and what its failures mean.

Safe behind a pooler in transaction mode: no prepared statement outlives its transaction, nothing is set for longer than one, no
advisory lock. Every unit of work has a deadline of its own, because a frozen network answers no timeout of the server's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from order_monitor.errors import RowRejectedError, ShopError, ShopMisfitError, ShopUnavailableError
from order_monitor.shop.dsn import Address

_CLOSING: Final = 5.0
_BEGIN: Final = """
BEGIN;
SELECT set_config('statement_timeout', '{limit}', true), set_config('lock_timeout', '{limit}', true),
       set_config('idle_in_transaction_session_timeout', '{idle}', true), set_config('timezone', 'UTC', true),
       set_config('row_security', 'off', true), set_config('standard_conforming_strings', 'on', true)
"""
"""With ``row_security = off`` a policy that would hide orders is an error, instead of silence."""

_ROW_CLASSES: Final = ("22", "23", "44", "P0", "09", "27")
_TRANSIENT_CLASSES: Final = ("08", "25", "28", "40", "53", "55", "57", "58", "XX", "3D")
_MISPLACED: Final = "25006"

Connection = PoolConnectionProxy  # what a pool lends


class Pool(Protocol):
    """The part of `asyncpg.Pool` used here."""

    def acquire(self, *, timeout: float | None = None) -> Any: ...  # noqa: ANN401, D102 - asyncpg's own type is private

    async def release(self, connection: Any, *, timeout: float | None = None) -> None: ...  # noqa: ANN401, ASYNC109, D102

    async def expire_connections(self) -> None: ...  # noqa: D102

    async def close(self) -> None: ...  # noqa: D102

    def terminate(self) -> None: ...  # noqa: D102


def classify(error: BaseException) -> ShopError:
    """Say what a driver's failure means to us. Only its class, SQLSTATE and the names in it are kept: the text may hold a PIN."""
    if isinstance(error, asyncpg.PostgresError):
        state = getattr(error, "sqlstate", None) or "?????"
        text = _describe(error, state)
        if state.startswith(_ROW_CLASSES):
            return RowRejectedError(text)
        return ShopUnavailableError(text) if state.startswith(_TRANSIENT_CLASSES) else ShopMisfitError(text)
    if isinstance(error, asyncpg.DataError):
        return RowRejectedError(type(error).__name__)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return ShopUnavailableError("the server is read-only, or a standby")
    kind = "timeout" if isinstance(error, TimeoutError) else type(error).__name__
    number = getattr(error, "errno", None)
    return ShopUnavailableError(f"{kind} ({errno_name(number)})" if number else kind)


def errno_name(number: int) -> str:
    """Return the system's words for an error number (``OSError.strerror`` is asyncpg's, with the address in it)."""
    import os  # noqa: PLC0415

    return os.strerror(number) if number > 0 else "name not resolved"


def _describe(error: asyncpg.PostgresError, state: str) -> str:
    names = [("table", "table_name"), ("column", "column_name"), ("constraint", "constraint_name")]
    found = [f"{label} {value}" for label, name in names if (value := getattr(error, name, None))]
    return ", ".join([f"{type(error).__name__} [{state}]", *found])


_FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError)


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
    ) -> None:
        """Connect to ``address``; no statement may take longer than ``statement_timeout`` seconds.

        ``margin`` is how many seconds more a whole unit of work may take: a frozen network obeys no server's timeout.
        """
        self._address = address
        self._timeout = statement_timeout
        milliseconds = int(statement_timeout * 1000)
        self._begin = _BEGIN.format(limit=milliseconds, idle=2 * milliseconds)
        self._size = pool_size
        self._connect_timeout = connect_timeout
        self._margin = margin
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        self._log = structlog.get_logger("order_monitor.database")
        self.problem: str | None = None
        self.reached = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction that ends with the block.

        Raises:
            ShopUnavailableError: also where the commit's outcome is unknown.
            ShopMisfitError: a table, column or right is missing.
            RowRejectedError: a value was refused.
        """
        try:
            async with asyncio.timeout(self._timeout + self._margin):
                pool = await self._opened()
                connection = await pool.acquire(timeout=self._connect_timeout + self._margin)
                try:
                    await connection.execute(self._begin)
                    yield connection
                    await connection.execute("COMMIT")
                except BaseException as error:
                    await _abandon(connection, error)
                    raise
                finally:
                    await pool.release(connection, timeout=self._margin)
        except _FAILURES as error:
            failure = classify(error)
            if getattr(error, "sqlstate", None) == _MISPLACED and self._pool is not None:
                await self._pool.expire_connections()
            if isinstance(failure, ShopUnavailableError):
                self._lost(str(failure))
            raise failure from None
        self._back()

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
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            **self._address.connect_arguments(),
            timeout=self._connect_timeout,
            statement_cache_size=0,
            connection_class=given.get("connection_class", asyncpg.Connection),
            record_class=given.get("record_class", asyncpg.Record),
        )
        _keep_alive(connection)
        return connection

    async def close(self, seconds: float = 5.0) -> None:
        """Close the pool, by force after ``seconds``."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await _bounded(pool.close(), pool.terminate, seconds)

    def _lost(self, why: str) -> None:
        if self.problem is None:
            self._log.error("database.lost", why=why)
        self.problem = why
        self.reached = False

    def _back(self) -> None:
        if self.problem is not None:
            self._log.info("database.back")
        self.problem = None
        self.reached = True


async def _abandon(connection: Connection, error: BaseException) -> None:
    """Undo what was not committed. A cancelled connection is cut: a rollback over a frozen network would never return."""
    if not isinstance(error, asyncio.CancelledError) and not connection.is_closed():
        try:
            await connection.execute("ROLLBACK")
        except _FAILURES:
            pass
        else:
            return
    if not connection.is_closed():
        connection.terminate()


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
