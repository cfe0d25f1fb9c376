"""One question, one connection, one answer: an HTTP/1.1 transport for httpx that uses no connection
twice.

An answer contains no reference, so only its connection shows which order it is about. On a reused
connection a surplus response (from a proxy or server, or appended to the last one) would be read as
the next order's answer, and one that arrives just after the next question cannot be distinguished
from the real answer. Here such a response is dropped with its connection. Data that arrives before
the question was sent is not an answer to it either.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple
from urllib.parse import urlencode

import h11
import httpx

from order_monitor.core.proxy import Proxy
from order_monitor.providers.http.address_guard import is_loopback
from order_monitor.providers.http.failures import (
    PROXY_FAILED,
    PROXY_UNREACHABLE,
    RESOLVER_FAILED,
    ExhaustedError,
    NotResolvedInTimeError,
    ProxyFailedError,
    exhausted,
)
from order_monitor.providers.http.resolver import Resolve, addresses_of
from order_monitor.providers.http.response_head import Head, ResponseReader
from order_monitor.providers.http.tunnel import ask_for_tunnel, refusal
from order_monitor.providers.http.wire import Wire

RACE_DELAY: Final = 0.25
"""Seconds after which the next of several addresses is tried in parallel with the earlier ones (RFC
8305, 5).
"""

HEAD_LIMIT: Final = 65_536
"""Maximum bytes of a response's head together with the interim heads before it."""

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
"""OpenSSL's verification results (X509_V_ERR_…), grouped by what a person would do about them."""

_UNKNOWN: Final = (20, 21)
_LACKS_INTERMEDIATE: Final = "lacks_intermediate"


CERTIFICATE_WORDS: Final = {
    "certificate_not_yet_valid": "the server's certificate is not valid yet, or this machine's clock is wrong",
    "certificate_expired": "the server's certificate has expired",
    "certificate_self_signed": "the server's certificate, or its CA's, is signed by itself and not trusted here",
    "certificate_missing_intermediate": "the server sends its certificate without the intermediate one that leads to a trusted"
    " authority: it must send the whole chain",
    "certificate_unknown_issuer": "the server's certificate is signed by an authority that is not trusted here, or by an"
    " intermediate certificate that the server does not send",
    "certificate_key_too_small": "the key of the server's certificate, or of its CA's, is too small to be safe (1024 bit):"
    " it needs a new one of 2048 bit or more",
    "certificate_weak_signature": "the server's certificate, or its CA's, is signed in a way that is no longer safe (SHA-1,"
    " MD5): it needs a new one",
    "certificate_wrong_host": "the server's certificate is for another name than the one in base_url",
    "certificate_invalid": "the server's certificate is not accepted",
}
"""Each reason in words."""


class CertificateRefusedError(httpx.TransportError):
    """The server's certificate is not trusted; the text is a key of `CERTIFICATE_WORDS`."""


class TlsFailedError(httpx.TransportError):
    """The TLS handshake failed: often a server without TLS, or a very old one."""


def trusting(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that trusts the public authorities and those in ``ca_file`` (PEM).

    Raises:
        OSError: the file cannot be read, or contains no certificate.
    """
    context = httpx.create_ssl_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class _Tls(ssl.SSLObject):
    """A TLS session that inspects the received certificates when they are rejected; afterwards they
    are no longer available.
    """

    def do_handshake(self) -> None:
        """Perform the handshake.

        Raises:
            ssl.SSLCertVerificationError: with the attribute `_LACKS_INTERMEDIATE` true if the
                intermediate certificate is missing.
        """
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            setattr(
                error, _LACKS_INTERMEDIATE, error.verify_code in _UNKNOWN and self._came_alone()
            )
            raise

    def _came_alone(self) -> bool:
        """Whether the server sent a single certificate that names a URL for its issuer's, as
        certificates of public authorities must.
        """
        # Not public before Python 3.13, where it returns raw bytes. If it is not available, the
        # reason stays unknown.
        with suppress(Exception):
            [only] = self._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
            return bool(only.get_info().get("caIssuers"))
        return False


def _reason_of(error: ssl.SSLCertVerificationError) -> str:
    if getattr(error, _LACKS_INTERMEDIATE, False):
        return "certificate_missing_intermediate"
    return _CERTIFICATE_REASONS.get(error.verify_code, "certificate_invalid")


@dataclass(frozen=True, slots=True)
class ProxyRoute:
    """The route through a proxy. ``resolve`` finds the proxy's own address.

    With ``takes_names`` the proxy gets the provider's host name; otherwise an address that was
    resolved, and checked, here.
    """

    proxy: Proxy
    resolve: Resolve = addresses_of
    takes_names: bool = True


class Page:
    """What many questions have in common, prepared once: to check and write it costs as much as the
    rest of a question's way to the socket. It may hold a login, which its `repr` does not show.
    """

    def __init__(
        self,
        url: httpx.URL,
        headers: Mapping[str, str],
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        """Ask ``url`` with these headers, and with these parameters in place of its query."""
        self.url = url.copy_with(query=None)
        self.headers = headers
        self.parameters = parameters or {}

    def question(self, parameters: Mapping[str, str], forwarding: Proxy | None = None) -> bytes:
        """Return the request with further ``parameters``.

        ``forwarding`` is the proxy that gets the request itself.

        Raises:
            httpx.LocalProtocolError: a header cannot be written.
            ValueError: a header is not ASCII, or a parameter no text.
        """
        query = b"&".join(filter(None, (self._query, _encoded(parameters))))
        target = self._path + b"?" + query if query else self._path
        lines = self._lines
        if forwarding is not None:
            target, login = _forwarded(forwarding, self.url, target)
            lines += b"".join(b"%b: %b\r\n" % pair for pair in login)
        return b"GET " + target + b" HTTP/1.1\r\n" + lines + b"\r\n"

    @cached_property
    def _path(self) -> bytes:
        return self.url.raw_path

    @cached_property
    def _query(self) -> bytes:
        return _encoded(self.parameters)

    @cached_property
    def _lines(self) -> bytes:
        raw = httpx.Request("GET", self.url, headers=self.headers).headers.raw
        head = _written(b"GET", self._path, raw)
        return head.partition(b"\r\n")[2].removesuffix(b"\r\n")


class Fetched(NamedTuple):
    """A response with the beginning of its body.

    ``is_forwarded``: it came through a proxy which could have written it itself.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    is_forwarded: bool


class FreshConnections(httpx.AsyncBaseTransport):
    """Opens a connection for each request and closes it with the response.

    It is a transport for httpx's client; `get` asks without the objects of httpx, which cost more
    than the connection.
    """

    def __init__(
        self,
        verify: ssl.SSLContext,
        resolve: Resolve = addresses_of,
        proxy_route: ProxyRoute | None = None,
    ) -> None:
        """Verify servers with ``verify``, which is shared because creating one costs more than a
        request.

        Connect only to what ``resolve`` returns; use the ``proxy_route``, if given, for any host
        other than this machine.
        """
        verify.sslobject_class = _Tls
        self._verify = verify
        self._resolve = resolve
        self._proxy_route = proxy_route
        self._good: dict[str, str] = {}
        self._bad: dict[str, str] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and return the response with its body unread.

        Raises:
            httpx.ConnectError: no server answers; the request was not sent.
            httpx.ConnectTimeout: the same.
            NamedFailureError: the resolver or the proxy failed, or this machine has run out of
                something.
            CertificateRefusedError: the server's certificate is not trusted.
            TlsFailedError: the TLS handshake failed.
            httpx.TransportError: the exchange failed; whether the request arrived is unknown.
        """
        seconds = request.extensions.get("timeout", {}).get("connect")
        exchange = await self._exchange(request.url, seconds)
        try:
            return await exchange.ask(request)
        except BaseException:
            exchange.close()
            raise

    async def get(
        self, page: Page, parameters: Mapping[str, str], seconds: float | None, most: int
    ) -> Fetched:
        """Ask for ``page`` with further ``parameters``, over a connection made within ``seconds``;
        return the response with at most ``most`` bytes of its body.

        Raises:
            As `handle_async_request`.
            ValueError: a header is not ASCII, or a parameter no text.
        """
        exchange = await self._exchange(page.url, seconds)
        try:
            head = await exchange.send(page.question(parameters, exchange.forwarding))
            body = bytearray()
            async for piece in exchange:
                body += piece
                if len(body) >= most:
                    break
        finally:
            exchange.close()
        is_forwarded = exchange.forwarding is not None
        return Fetched(head.status, head.headers, bytes(body[:most]), is_forwarded)

    async def _exchange(self, url: httpx.URL, seconds: float | None) -> WireExchange:
        wire = await self.connect(url, seconds)
        route = self._proxy_route
        return WireExchange(wire, route.proxy if route and self._is_forwarded(url) else None)

    async def connect(self, url: httpx.URL, seconds: float | None) -> Wire:
        """Open a connection to the server of ``url`` within ``seconds``, None for as long as it
        takes.

        Raises:
            As `handle_async_request`, before the request is sent.
        """
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        if self._proxy_route is not None and not is_loopback(url.host):
            return await self._through_proxy(self._proxy_route, url, deadline)
        return await self._direct(url, deadline)

    async def _direct(
        self, url: httpx.URL, deadline: float | None, addresses: list[str] | None = None
    ) -> Wire:
        """Connect to one of ``addresses``, or of those that the host resolves to."""
        try:
            async with asyncio.timeout_at(deadline):
                if addresses is None:
                    addresses = await self._resolve(url.host, _port_of(url))
                wire = await self._first(url.host, _port_of(url), addresses)
                if url.scheme == "https":
                    try:
                        await self._secured(wire, url.host)
                    except BaseException:
                        # A host that accepts connections but then stays silent must not remain
                        # the first choice.
                        self._bad[url.host] = self._good.pop(url.host, "")
                        raise
                return wire
        except TimeoutError:
            if addresses is None:
                raise NotResolvedInTimeError(RESOLVER_FAILED) from None
            raise httpx.ConnectTimeout("no connection in time") from None

    async def _addresses(self, url: httpx.URL, deadline: float | None) -> list[str]:
        async with _until(deadline, NotResolvedInTimeError(RESOLVER_FAILED)):
            return await self._resolve(url.host, _port_of(url))

    # --- through a proxy

    def _is_forwarded(self, url: httpx.URL) -> bool:
        """Whether the proxy gets the request itself, not a tunnel, as is usual without TLS."""
        proxy_route = self._proxy_route
        is_plain = url.scheme == "http" and not is_loopback(url.host)
        return (
            proxy_route is not None
            and is_plain
            and not proxy_route.proxy.is_socks
            and proxy_route.takes_names
        )

    async def _through_proxy(
        self, proxy_route: ProxyRoute, url: httpx.URL, deadline: float | None
    ) -> Wire:
        hosts = [url.raw_host.decode("ascii")]
        if not proxy_route.takes_names:
            # IPv4 first: every proxy has it, and whether this one has IPv6 is not known here.
            hosts = sorted(await self._addresses(url, deadline), key=lambda address: ":" in address)
            if all(map(is_loopback, hosts)):
                return await self._direct(url, deadline, hosts)
        *others, last = hosts
        for host in others:
            with suppress(ProxyFailedError):
                return await self._tunnel(proxy_route, url, host, deadline)
        return await self._tunnel(proxy_route, url, last, deadline)

    async def _tunnel(
        self, proxy_route: ProxyRoute, url: httpx.URL, host: str, deadline: float | None
    ) -> Wire:
        """Return a wire to ``host`` through the proxy, or to the proxy if it gets the request
        itself.
        """
        wire = await self._to_proxy(proxy_route, deadline)
        if self._is_forwarded(url):
            return wire
        try:
            async with _until(deadline, ProxyFailedError(PROXY_FAILED)):
                await ask_for_tunnel(wire, proxy_route.proxy, host, _port_of(url))
            async with _until(deadline, httpx.ConnectTimeout("no connection in time")):
                return await self._secured(wire, url.host) if url.scheme == "https" else wire
        except BaseException as error:
            wire.close()
            if isinstance(error, httpx.ReadError):
                raise ProxyFailedError(PROXY_FAILED) from None
            raise

    async def _to_proxy(self, proxy_route: ProxyRoute, deadline: float | None) -> Wire:
        proxy = proxy_route.proxy
        async with _until(deadline, ProxyFailedError(PROXY_UNREACHABLE)):
            try:
                addresses = await proxy_route.resolve(proxy.host, proxy.port)
                wire = await self._first(proxy.host, proxy.port, addresses)
                return await self._secured(wire, proxy.host) if proxy.scheme == "https" else wire
            except ExhaustedError:
                raise
            except (
                httpx.ConnectError,
                httpx.ConnectTimeout,
                CertificateRefusedError,
                TlsFailedError,
            ):
                raise ProxyFailedError(PROXY_UNREACHABLE) from None

    # --- one connection

    async def _first(self, host: str, port: int, addresses: Sequence[str]) -> Wire:
        """Connect to the first of ``addresses`` that answers: the one that answered last time, then
        the families in turn (RFC 8305).
        """
        if len(addresses) == 1:
            wire = await _open(addresses[0], port)
            self._good[host] = addresses[0]
            return wire
        good, bad = self._good.get(host), self._bad.get(host)
        ordered = sorted(_in_turn(addresses), key=lambda address: (address == bad, address != good))
        address, wire = await _raced(ordered, lambda one: _open(one, port))
        self._good[host] = address
        return wire

    async def _secured(self, wire: Wire, host: str) -> Wire:
        """Return ``wire`` with TLS; close it if the handshake fails."""
        try:
            await wire.secure(self._verify, host)
        except BaseException as error:
            wire.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise CertificateRefusedError(_reason_of(error)) from None
            if isinstance(error, ssl.SSLError):
                raise TlsFailedError("no TLS connection") from None
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise exhausted(error) or httpx.ConnectError(type(error).__name__) from None
            raise
        return wire


@asynccontextmanager
async def _until(deadline: float | None, error: httpx.TransportError) -> AsyncIterator[None]:
    """Raise ``error`` if the block has not ended by ``deadline`` (seconds of the loop's clock)."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise error from None


def _port_of(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _in_turn(addresses: Sequence[str]) -> list[str]:
    """Return the addresses with the families alternating, starting with the first one's family."""
    kinds = [":" in address for address in addresses]
    families = [
        [a for a, kind in zip(addresses, kinds, strict=True) if kind is is_first]
        for is_first in (kinds[0], not kinds[0])
    ]
    return [
        address
        for pair in itertools.zip_longest(*families)
        for address in pair
        if address is not None
    ]


async def _open(address: str, port: int) -> Wire:
    """Connect to one address.

    Raises:
        httpx.ConnectError: nothing listens there.
        httpx.ConnectTimeout: the connection took too long.
        ExhaustedError: this machine has run out of something.
    """
    try:
        _, wire = await asyncio.get_running_loop().create_connection(Wire, address, port)
    except TimeoutError:
        raise httpx.ConnectTimeout("no connection in time") from None
    except OSError as error:
        raise exhausted(error, address) or httpx.ConnectError(type(error).__name__) from None
    return wire


async def _raced(
    addresses: Sequence[str], connect: Callable[[str], Awaitable[Wire]]
) -> tuple[str, Wire]:
    """Return the first connection that succeeds, and its address.

    Each address gets a head start before the next. asyncio's own race loses a socket when it is
    cancelled.
    """
    waiting, errors = list(addresses), list[BaseException]()
    tries: dict[asyncio.Future[Wire], str] = {}
    try:
        while waiting or tries:
            if waiting:
                address = waiting.pop(0)
                tries[asyncio.ensure_future(connect(address))] = address
            done, _ = await asyncio.wait(
                tries, timeout=RACE_DELAY if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                if (error := one.exception()) is None:
                    return tries.pop(one), one.result()
                errors.append(error)
                del tries[one]
    finally:
        for late in tries:
            late.add_done_callback(_close_late)
            late.cancel()
    raise next((error for error in errors if not isinstance(error, ExhaustedError)), errors[0])


def _close_late(done: asyncio.Future[Wire]) -> None:
    if not done.cancelled() and done.exception() is None:
        done.result().close()


_PROXY_SIGNS: Final = frozenset({b"proxy-authenticate", b"x-squid-error"})


class WireExchange(httpx.AsyncByteStream):
    """One request and its response over one wire; iterating it yields the response's body."""

    def __init__(self, wire: Wire, forwarding: Proxy | None = None) -> None:
        """Use ``wire`` alone; ``forwarding`` is the proxy at its other end that gets the request
        itself.
        """
        self._wire = wire
        self.forwarding = forwarding
        self._reader = ResponseReader(HEAD_LIMIT)
        self._piece = b""

    async def ask(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``, any but a HEAD; return its response as soon as the head is complete."""
        headers = [pair for pair in request.headers.raw if pair[0].lower() != b"connection"]
        target = request.url.raw_path
        if self.forwarding is not None:
            target, login = _forwarded(self.forwarding, request.url, target)
            headers += login
        body = await request.aread()
        head = await self.send(_written(request.method.encode("ascii"), target, headers, body))
        return httpx.Response(head.status, headers=head.headers, stream=self)

    async def send(self, question: bytes) -> Head:
        """Send a request as it is written; return the response's head as soon as it is complete.

        Raises:
            ProxyFailedError: a proxy answered it itself.
            httpx.TransportError: the exchange failed.
        """
        # One iteration of the loop delivers anything the server sent unasked.
        await asyncio.sleep(0)
        if self._wire.spoke_first:
            raise httpx.RemoteProtocolError("the server spoke before it was asked")
        self._wire.send(question)
        while (head := self._reader.head) is None:
            self._piece = await self._next()
        if self.forwarding is not None and _is_the_proxys(head.status, head.headers):
            raise ProxyFailedError(refusal(head.status))
        return head

    async def _next(self) -> bytes:
        data = await self._wire.receive()
        try:
            return self._reader.feed(data)
        except ValueError:
            raise httpx.RemoteProtocolError("not HTTP, or cut short") from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        piece = self._piece
        while True:
            if piece:
                yield piece
            if self._reader.is_over:
                return
            piece = await self._next()

    async def aclose(self) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection at once."""
        self._wire.close()


def _forwarded(
    proxy: Proxy, url: httpx.URL, target: bytes
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return what a ``proxy`` that gets the request itself is to ask for, and its login's header."""
    login = proxy.authorization()
    headers = [] if login is None else [(b"Proxy-Authorization", login)]
    return b"http://" + url.netloc + target, headers


def _written(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes = b""
) -> bytes:
    """Return a request that asks to close the connection.

    Raises:
        httpx.LocalProtocolError: it cannot be written.
    """
    http = h11.Connection(h11.CLIENT)
    try:
        head = h11.Request(method=method, target=target, headers=[*headers, _CLOSE])
        parts = [head, h11.Data(data=body)] if body else [head]
        return b"".join(http.send(part) or b"" for part in (*parts, h11.EndOfMessage()))
    except h11.LocalProtocolError:
        raise httpx.LocalProtocolError("the request cannot be written") from None


def _encoded(parameters: Mapping[str, str]) -> bytes:
    return urlencode(parameters).encode("ascii")


def _is_the_proxys(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a proxy that got the request answered it itself, as far as the answer shows.

    An error status alone does not show it. Such an answer counts as the proxy's: then it is a
    network failure and nothing is read from it. Only a provider's 429 is believed.
    """
    if status not in (200, 429):
        return True
    names = {name.lower(): value.lower() for name, value in headers}
    return bool(_PROXY_SIGNS & names.keys()) or b"error=" in names.get(b"proxy-status", b"")
