"""One question, one connection, one answer: an HTTP/1.1 transport under httpx that uses no connection twice.

An answer carries no reference, so only its connection says whose it is. On a kept connection a surplus response (a proxy's, a
server's, one glued to the last) is read as the next order's answer, and one that arrives a moment after the next question was sent
cannot be told from the real one by anybody. Here such a response dies with its connection. What arrives before the question was
sent is no answer to it either.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final, cast

import h11
import httpx

from order_monitor.providers.response_head import HeadReader

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses that may be connected to for a host and port.

Raises:
    httpx.TransportError: there is none.
"""

_ADDRESS_PATIENCE: Final = 1.0
"""Seconds given to one of several addresses: a host whose IPv6 leads nowhere is reached by IPv4."""

HEAD_LIMIT: Final = 65_536
"""Bytes a response's head may take."""

_BUFFER: Final = 131_072
_CLOSE: Final = (b"Connection", b"close")
_CERTIFICATE_REASONS: Final = {
    9: "certificate_not_yet_valid",
    10: "certificate_expired",
    18: "certificate_self_signed",
    19: "certificate_self_signed",
    2: "certificate_unknown_issuer",
    20: "certificate_unknown_issuer",
    21: "certificate_unknown_issuer",
    62: "certificate_wrong_host",
    64: "certificate_wrong_host",
    66: "certificate_key_too_small",
    67: "certificate_key_too_small",
    68: "certificate_weak_signature",
}
"""OpenSSL's verification results (X509_V_ERR_…) by what a person would do about them."""

_UNKNOWN: Final = (20, 21)
_LACKS_INTERMEDIATE: Final = "lacks_intermediate"


CERTIFICATE_WORDS: Final = {
    "certificate_not_yet_valid": "the server's certificate is not valid yet, or this machine's clock is wrong",
    "certificate_expired": "the server's certificate has expired",
    "certificate_self_signed": "the server's certificate, or its CA's, is signed by itself and not trusted here",
    "certificate_missing_intermediate": "the server sends its certificate without the intermediate one that leads to a trusted"
    " authority: it must send the whole chain",
    "certificate_unknown_issuer": "the server's certificate is signed by somebody who is not trusted here, or by an intermediate"
    " certificate that the server does not send",
    "certificate_key_too_small": "the key of the server's certificate, or of its CA's, is too small to be safe (1024 bit):"
    " it needs a new one of 2048 bit or more",
    "certificate_weak_signature": "the server's certificate, or its CA's, is signed in a way that is no longer safe (SHA-1,"
    " MD5): it needs a new one",
    "certificate_wrong_host": "the server's certificate is for another name than the one in base_url",
    "certificate_invalid": "the server's certificate is not accepted",
}
"""Each reason in words."""


class CertificateRefusedError(httpx.TransportError):
    """The server's certificate is not trusted; the text is one of `CERTIFICATE_WORDS`."""


class TlsFailedError(httpx.TransportError):
    """No TLS connection could be agreed on: often a plain server, or a very old one."""


async def addresses_of(host: str, port: int) -> list[str]:
    """Return every address of ``host``, in the system's order of preference.

    Raises:
        httpx.ConnectError: it has none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise httpx.ConnectError("the name cannot be resolved") from None
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def trusting(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that trusts the public authorities, and those in ``ca_file`` (PEM) as well.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    context = httpx.create_ssl_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class _Tls(ssl.SSLObject):
    """A TLS session that looks at the certificates that came, where they are refused: afterwards nobody can."""

    def do_handshake(self) -> None:
        """Shake hands.

        Raises:
            ssl.SSLCertVerificationError: with `_LACKS_INTERMEDIATE` set where that is what is wrong.
        """
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            setattr(error, _LACKS_INTERMEDIATE, error.verify_code in _UNKNOWN and self._came_alone())
            raise

    def _came_alone(self) -> bool:
        """Whether a certificate came alone that names a place to fetch its issuer's from, as public authorities' have to."""
        # Not public before Python 3.13, and there as bare bytes; where it is not to be had, nothing more is known.
        with suppress(Exception):
            [only] = self._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
            return bool(only.get_info().get("caIssuers"))
        return False


def _reason_of(error: ssl.SSLCertVerificationError) -> str:
    if getattr(error, _LACKS_INTERMEDIATE, False):
        return "certificate_missing_intermediate"
    return _CERTIFICATE_REASONS.get(error.verify_code, "certificate_invalid")


class FreshConnections(httpx.AsyncBaseTransport):
    """Opens a connection for each request, and closes it with the response."""

    def __init__(self, verify: ssl.SSLContext, resolve: Resolve = addresses_of) -> None:
        """Verify servers by ``verify``, which is shared because making one costs more than a request.

        Connect only to what ``resolve`` returns.
        """
        verify.sslobject_class = _Tls
        self._verify = verify
        self._resolve = resolve
        self._good: dict[str, str] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and return the response with its body unread.

        Raises:
            httpx.ConnectError: nobody is there; the request was not sent. `httpx.ConnectTimeout` likewise.
            CertificateRefusedError: the server is not who it should be.
            TlsFailedError: no TLS connection came about.
            httpx.TransportError: the exchange failed; whether the request arrived is unknown.
        """
        seconds = request.extensions.get("timeout", {}).get("connect")
        exchange = _Exchange(await self._connect(request.url, seconds))
        try:
            return await exchange.ask(request)
        except BaseException:
            exchange.close()
            raise

    async def _connect(self, url: httpx.URL, seconds: float | None) -> _Wire:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(seconds):
                return await self._first(await self._resolve(url.host, port), port, url)
        except TimeoutError:
            raise httpx.ConnectTimeout("no connection in time") from None

    async def _first(self, addresses: list[str], port: int, url: httpx.URL) -> _Wire:
        """Connect to the first of ``addresses`` that answers.

        One after the other, the last that answered first: asyncio's own racing (RFC 8305) loses a socket when it is cancelled.
        """
        *others, last = sorted(addresses, key=lambda one: one != self._good.get(url.host))
        for address in others:
            with suppress(httpx.ConnectError, TimeoutError):
                async with asyncio.timeout(_ADDRESS_PATIENCE):
                    return await self._open(address, port, url)
        return await self._open(last, port, url)

    async def _open(self, address: str, port: int, url: httpx.URL) -> _Wire:
        secure = url.scheme == "https"
        try:
            _, wire = await asyncio.get_running_loop().create_connection(
                _Wire, address, port, ssl=self._verify if secure else None, server_hostname=url.host if secure else None
            )
        except ssl.SSLCertVerificationError as error:
            raise CertificateRefusedError(_reason_of(error)) from None
        except ssl.SSLError:
            raise TlsFailedError("no TLS connection") from None
        except TimeoutError:
            raise
        except OSError as error:
            raise httpx.ConnectError(type(error).__name__) from None
        self._good[url.host] = address
        return wire


class _Wire(asyncio.Protocol):
    """The bytes of one connection, and whether any came before they were asked for."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._is_over = False
        self._lost: Exception | None = None
        self.has_asked = False
        self.spoke_first = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.spoke_first = self.spoke_first or not self.has_asked
        self._buffer += data
        if len(self._buffer) > _BUFFER and self._transport is not None:
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        self._is_over, self._lost = True, self._lost or error
        self._news.set()

    def send(self, data: bytes) -> None:
        """Send the question."""
        self.has_asked = True
        if self._transport is not None:
            self._transport.write(data)

    async def receive(self) -> bytes:
        """Return what has come; nothing at the end.

        Raises:
            httpx.ReadError: the connection broke.
        """
        await self._news.wait()
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            if not self._is_over:
                self._news.clear()
                if self._transport is not None:
                    self._transport.resume_reading()
            return data
        if self._lost is not None:
            raise httpx.ReadError(type(self._lost).__name__)
        return b""

    def close(self) -> None:
        """Leave at once: whatever else the server has to say is nobody's answer."""
        if self._transport is not None:
            self._transport.abort()


class _Exchange(httpx.AsyncByteStream):
    """One request and its response over one wire; as a stream, the response's body."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        self._head = HeadReader(HEAD_LIMIT)

    async def ask(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; return its response once the head is there."""
        # One turn of the loop hands over what the server said unasked.
        await asyncio.sleep(0)
        if self._wire.spoke_first:
            raise httpx.RemoteProtocolError("the server spoke before it was asked")
        self._wire.send(self._written(request, await request.aread()))
        event = await self._next()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next()
        if not isinstance(event, h11.Response):
            raise httpx.RemoteProtocolError("no response")
        return httpx.Response(event.status_code, headers=event.headers.raw_items(), stream=self)

    def _written(self, request: httpx.Request, body: bytes) -> bytes:
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"connection"]
        try:
            head = h11.Request(method=request.method, target=request.url.raw_path, headers=[*headers, _CLOSE])
            parts = [head, h11.Data(data=body), h11.EndOfMessage()] if body else [head, h11.EndOfMessage()]
            return b"".join(self._http.send(part) or b"" for part in parts)
        except h11.LocalProtocolError:
            raise httpx.LocalProtocolError("the request cannot be written") from None

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                await self._read_on()
        except (h11.RemoteProtocolError, ValueError):
            raise httpx.RemoteProtocolError("not HTTP, or cut short") from None
        return cast("h11.Event | type[h11.PAUSED]", event)

    async def _read_on(self) -> None:
        data = await self._wire.receive()
        ready = self._head.feed(data)
        if ready:
            self._http.receive_data(ready)
        if not data:
            self._http.receive_data(b"")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the body as it comes."""
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    async def aclose(self) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection at once."""
        self._wire.close()
