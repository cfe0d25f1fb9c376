"""Limits the connections to the health endpoint, and how long one may stay silent.

aiohttp limits neither, and each connection uses a file descriptor: silent ones would take those
that the database and the provider need.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, cast

import structlog

HEAD_TIMEOUT: Final = 10.0
"""Seconds within which a connection must have sent the complete head of a request.

Bytes that arrive slowly do not extend them.
"""

IDLE_TIMEOUT: Final = 15.0
"""The same, between two requests."""

MOST: Final = 128
_LEAST: Final = 8
_SHARE: Final = 4
_GATHER: Final = 1.0
_TELL_EVERY: Final = 60.0


def files_limit() -> int | None:
    """Return how many files this process may have open, None for any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def room_for(files: int | None) -> int:
    """Return how many connections stay well below a limit of ``files``."""
    return MOST if files is None else max(_LEAST, min(MOST, files // _SHARE))


class ConnectionLimiter:
    """Accepts a limited number of connections, and cuts silent ones."""

    def __init__(
        self, most: int, *, head: float = HEAD_TIMEOUT, idle: float = IDLE_TIMEOUT
    ) -> None:
        """Hold at most ``most`` connections.

        A request's head must arrive within ``head`` seconds, and within ``idle`` seconds after a
        response.
        """
        self.most = most
        self._head = head
        self._idle = idle
        self._guests: dict[asyncio.BaseTransport, _Connection] = {}
        self._refused = 0
        self._quiet_until = float("-inf")
        self._telling: asyncio.TimerHandle | None = None
        self._log = structlog.get_logger("order_monitor.health")

    def before(self, factory: Callable[[], asyncio.BaseProtocol]) -> Callable[[], asyncio.Protocol]:
        """Return a protocol factory that puts the limit in front of ``factory``."""
        return lambda: _Connection(self, cast("asyncio.Protocol", factory()))

    @contextmanager
    def answering(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """Stop the timer while a request is being answered: a response may be an endless stream."""
        guest = self._guests.get(transport) if transport is not None else None
        if guest is not None:
            guest.wait_for_answer()
        try:
            yield
        finally:
            if guest is not None:
                self._seat(transport, guest)
                guest.wait_for_head(self._idle)

    def enter(self, transport: asyncio.BaseTransport, guest: _Connection) -> bool:
        """Accept a connection; return False if there is no room.

        When full, the connection that has been silent longest is cut, so that silent connections
        lock out no client.
        """
        if len(self._guests) >= self.most:
            self._count()
            silent = next((other for other in self._guests.values() if other.is_silent), None)
            if silent is None:
                return False
            silent.show_out()
        self._guests[transport] = guest
        guest.wait_for_head(self._head)
        return True

    def _seat(self, transport: asyncio.BaseTransport | None, guest: _Connection) -> None:
        """Move a connection that was just answered to the end: its silence starts again."""
        if transport is not None and self._guests.pop(transport, None) is not None:
            self._guests[transport] = guest

    def leave(self, transport: asyncio.BaseTransport) -> None:
        """Forget a connection."""
        self._guests.pop(transport, None)

    def close(self) -> None:
        """Log the refusals that are not yet logged."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell()

    def _count(self) -> None:
        """Count refusals into one log line, at most once a minute."""
        self._refused += 1
        if self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_later(
                max(_GATHER, self._quiet_until - loop.time()), self._tell
            )

    def _tell(self) -> None:
        self._telling = None
        self._quiet_until = asyncio.get_running_loop().time() + _TELL_EVERY
        self._log.warning("health.crowded", refused=self._refused, connections=self.most)
        self._refused = 0


class _Connection(asyncio.Protocol):
    """One connection: once accepted, everything is passed to the protocol behind."""

    def __init__(self, door: ConnectionLimiter, behind: asyncio.Protocol) -> None:
        self._door = door
        self._behind = behind
        self._transport: asyncio.Transport | None = None
        self._is_in = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_silent(self) -> bool:
        """Whether none of its requests is being answered."""
        return self._timer is not None

    def wait_for_head(self, seconds: float) -> None:
        """Cut the connection unless a complete request head arrives within ``seconds``."""
        self.wait_for_answer()
        if self._is_in or self._transport is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.show_out)

    def wait_for_answer(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def show_out(self) -> None:
        """Cut the connection."""
        self.wait_for_answer()
        if self._transport is not None:
            self._door.leave(self._transport)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._is_in = self._door.enter(transport, self)
        if self._is_in:
            self._behind.connection_made(transport)
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_in:
            self._behind.data_received(data)

    def eof_received(self) -> bool | None:
        return self._behind.eof_received() if self._is_in else None

    def pause_writing(self) -> None:
        if self._is_in:
            self._behind.pause_writing()

    def resume_writing(self) -> None:
        if self._is_in:
            self._behind.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.wait_for_answer()
        if self._transport is not None:
            self._door.leave(self._transport)
        if self._is_in:
            self._behind.connection_lost(exc)
        self._transport = None
        self._is_in = False
