"""The bytes of one connection, and whether any arrived before a question was sent."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, cast

import httpx

from order_monitor.providers.http.failures import (
    PROXY_PROTOCOL,
    PROXY_REFUSED,
    ProxyFailedError,
    exhausted,
)

_BUFFER: Final = 131_072
_AT_ONCE: Final = 16_384
"""Bytes returned in one iteration of the event loop, because parsing them takes time."""


class Wire(asyncio.Protocol):
    """One connection: to a provider, to a proxy, or through a proxy to a provider."""

    def __init__(self) -> None:
        """Start without a connection; asyncio provides it."""
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._is_over = False
        self._lost: Exception | None = None
        self.has_asked = False
        self.spoke_first = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Store received bytes."""
        self.spoke_first = self.spoke_first or not self.has_asked
        self._buffer += data
        if len(self._buffer) > _BUFFER and self._transport is not None:
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> None:
        """Record that no more will arrive."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that the connection is gone, and why."""
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        self._is_over, self._lost = True, self._lost or error
        self._news.set()

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Switch to TLS with ``host``.

        Raises:
            ssl.SSLError: the handshake failed, or the other side sent data before it.
            OSError: the connection broke.
        """
        if self._buffer:
            raise ssl.SSLError("spoke before the handshake")
        if self._is_over or self._transport is None:
            raise ConnectionResetError
        loop = asyncio.get_running_loop()
        secured = await loop.start_tls(self._transport, self, context, server_hostname=host)
        if secured is None:
            raise ConnectionResetError
        self._transport = secured

    def send(self, data: bytes) -> None:
        """Send a question."""
        self.has_asked = True
        if self._transport is not None:
            self._transport.write(data)

    def begin_anew(self) -> bool:
        """Reset ``has_asked``: everything up to now was a conversation with a proxy.

        Return whether all of its data was read.
        """
        self.has_asked = False
        return not self._buffer

    async def receive(self) -> bytes:
        """Return what has arrived, at most 64 KiB at a time; empty at the end of the stream.

        Raises:
            httpx.ReadError: the connection broke.
            ExhaustedError: it broke because this machine has run out of something.
        """
        await self._news.wait()
        if self._buffer:
            data = bytes(self._buffer[:_AT_ONCE])
            del self._buffer[:_AT_ONCE]
            if self._buffer:
                # More is already there; let the event loop do other work first.
                await asyncio.sleep(0)
            elif not self._is_over:
                self._news.clear()
                if self._transport is not None:
                    self._transport.resume_reading()
            return data
        if self._lost is not None:
            raise exhausted(self._lost) or httpx.ReadError(type(self._lost).__name__)
        return b""

    async def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes from a proxy.

        Raises:
            ProxyFailedError: the proxy closed the connection before that.
            httpx.ReadError: the connection broke.
        """
        while len(self._buffer) < count and not self._is_over:
            self._news.clear()
            await self._news.wait()
        return self._take(count if len(self._buffer) >= count else 0)

    async def read_until(self, ends: tuple[bytes, ...], limit: int) -> bytes:
        """Return the bytes from a proxy up to and including the first of ``ends``.

        Raises:
            ProxyFailedError: none of them is within the next ``limit`` bytes.
            httpx.ReadError: the connection broke.
        """
        looked_at = 0
        while True:
            found = [
                at + len(end)
                for end in ends
                if (at := self._buffer.find(end, max(0, looked_at - len(end)), limit)) >= 0
            ]
            if found or len(self._buffer) >= limit or self._is_over:
                return self._take(min(found, default=0))
            looked_at = len(self._buffer)
            self._news.clear()
            await self._news.wait()

    def _take(self, count: int) -> bytes:
        if count == 0:
            if self._lost is not None:
                raise exhausted(self._lost) or httpx.ReadError(type(self._lost).__name__)
            # Some proxies refuse by closing the connection without an answer.
            raise ProxyFailedError(PROXY_PROTOCOL if self._buffer else PROXY_REFUSED)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        if not self._buffer and not self._is_over:
            self._news.clear()
        return data

    def close(self) -> None:
        """Close the connection at once: anything else the server sends is not an answer."""
        if self._transport is not None:
            self._transport.abort()
