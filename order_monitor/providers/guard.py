"""Connect only to public addresses: a ``base_url`` read from a table is other people's input.

The check is made on the address that is then connected to, so a name that resolves differently a moment later cannot slip by.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any, Final

import httpcore

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class ForbiddenAddressError(httpcore.ConnectError):
    """The name leads to a private, loopback, link-local or otherwise special address."""


def is_public(address: str) -> bool:
    """Whether an IP address is somebody's on the open internet, also when it is wrapped in another one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def is_forbidden_host(host: str) -> bool:
    """Whether a host can be told to be forbidden without asking anybody: a special IP address, or a name for this machine."""
    try:
        return not is_public(host.strip("[]"))
    except ValueError:
        name = host.rstrip(".").lower()
        return name == "localhost" or name.endswith((".localhost", ".local", ".internal"))


class PublicOnly(httpcore.AsyncNetworkBackend):
    """Resolves, checks every address, and connects to one that was checked."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend | None = None) -> None:
        """Connect through ``inner``."""
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to ``host``.

        Raises:
            ForbiddenAddressError: any of its addresses is not public.
            httpcore.ConnectError: it cannot be resolved or connected to.
        """
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        except OSError:
            raise httpcore.ConnectError("the name cannot be resolved") from None
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        if not addresses or not all(is_public(address) for address in addresses):
            raise ForbiddenAddressError("not a public address")
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 - httpcore's signature
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise ForbiddenAddressError("not a public address")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)
