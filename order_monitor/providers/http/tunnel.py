"""Ask a proxy to connect to another host: HTTP CONNECT (RFC 9110, 9.3.6) and SOCKS 5 (RFC 1928,
1929).

A refusal by the proxy before the connection is established ends the call with a `ProxyFailedError`.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from order_monitor.core.proxy import Proxy
from order_monitor.providers.http.failures import (
    PROXY_FAILED,
    PROXY_LOGIN,
    PROXY_PROTOCOL,
    PROXY_REFUSED,
    ProxyFailedError,
)
from order_monitor.providers.http.response_head import head_of
from order_monitor.providers.http.wire import Wire

_HEAD_LIMIT: Final = 65_536
_HEAD_ENDS: Final = (b"\r\n\r\n", b"\n\n")
_NO_LOGIN, _BY_PASSWORD = 0, 2
_BY_NAME, _BY_IPV4, _BY_IPV6 = 3, 1, 4
_SOCKS_LOGIN: Final = 1
_SOCKS_REFUSALS: Final = {2: PROXY_REFUSED, 7: PROXY_REFUSED, 8: PROXY_REFUSED}
"""RFC 1928 replies that mean a refusal; all others mean that the proxy cannot reach the host."""

_LONGEST_NAME: Final = 255


def refusal(status: int) -> str:
    """Return the meaning of a proxy's own HTTP status."""
    if status == 407:  # noqa: PLR2004 - Proxy Authentication Required
        return PROXY_LOGIN
    return PROXY_FAILED if status >= 500 else PROXY_REFUSED  # noqa: PLR2004 - bad gateway and the like


async def ask_for_tunnel(wire: Wire, proxy: Proxy, host: str, port: int) -> None:
    """Make the ``proxy`` at the other end of ``wire`` connect to ``host``, a name or an address.
    Afterwards ``wire`` leads to that host.

    Raises:
        ProxyFailedError: the proxy does not connect.
        httpx.ReadError: the connection broke.
    """
    if proxy.is_socks:
        await _socks(wire, proxy, host, port)
    else:
        await _connect(wire, proxy, host, port)
    if not wire.begin_anew():
        raise ProxyFailedError(PROXY_PROTOCOL)


async def _connect(wire: Wire, proxy: Proxy, host: str, port: int) -> None:
    target = f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode("ascii")
    lines = [b"CONNECT " + target + b" HTTP/1.1", b"Host: " + target]
    if (login := proxy.authorization()) is not None:
        lines.append(b"Proxy-Authorization: " + login)
    wire.send(b"\r\n".join(lines) + b"\r\n\r\n")
    taken, status = 0, 100
    while status < 200:  # noqa: PLR2004 - what only announces an answer
        head = await wire.read_until(_HEAD_ENDS, _HEAD_LIMIT - taken)
        found = head_of(head.lstrip(b"\r\n"))
        if found is None:
            raise ProxyFailedError(PROXY_PROTOCOL)
        taken, status = taken + len(head), found.status
    if status >= 300:  # noqa: PLR2004 - any 2xx is a tunnel
        raise ProxyFailedError(refusal(status))


async def _socks(wire: Wire, proxy: Proxy, host: str, port: int) -> None:
    method = _NO_LOGIN if proxy.user is None else _BY_PASSWORD
    methods = bytes({_NO_LOGIN, method})
    wire.send(bytes([5, len(methods)]) + methods)
    version, chosen = await wire.read(2)
    if version != 5:  # noqa: PLR2004 - SOCKS 5
        raise ProxyFailedError(PROXY_PROTOCOL)
    if chosen == _BY_PASSWORD and proxy.user is not None:
        user, password = proxy.user.encode(), proxy.password.encode()
        wire.send(bytes([_SOCKS_LOGIN, len(user)]) + user + bytes([len(password)]) + password)
        if (await wire.read(2))[1]:
            raise ProxyFailedError(PROXY_LOGIN)
    elif chosen != _NO_LOGIN:
        raise ProxyFailedError(PROXY_LOGIN)
    wire.send(b"\x05\x01\x00" + _socks_address(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = await wire.read(4)
    if version != 5:  # noqa: PLR2004
        raise ProxyFailedError(PROXY_PROTOCOL)
    if reply:
        raise ProxyFailedError(_SOCKS_REFUSALS.get(reply, PROXY_FAILED))
    lengths = {_BY_IPV4: 4, _BY_IPV6: 16}
    length = lengths[kind] if kind in lengths else (await wire.read(1))[0]
    await wire.read(length + 2)


def _socks_address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.encode("ascii")[:_LONGEST_NAME]
        return bytes([_BY_NAME, len(name)]) + name
    return bytes([_BY_IPV4 if address.version == 4 else _BY_IPV6]) + address.packed  # noqa: PLR2004
