"""Connect only to public addresses: a ``base_url`` read from a table is untrusted input.

The check is made on the address that is then connected to, so a name that resolves differently a
moment later cannot bypass it.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from typing import Final

import httpx

from order_monitor.providers.http.resolver import Resolve, addresses_of

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""The range of all assigned public IPv6 addresses.

Everything outside it is special, deprecated or reserved.
"""

_SPECIAL: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            *(
                "0.0.0.0/8",
                "10.0.0.0/8",
                "100.64.0.0/10",
                "127.0.0.0/8",
                "169.254.0.0/16",
                "172.16.0.0/12",
            ),
            *(
                "192.0.0.0/24",
                "192.0.2.0/24",
                "192.31.196.0/24",
                "192.52.193.0/24",
                "192.88.99.0/24",
                "192.168.0.0/16",
            ),
            *(
                "192.175.48.0/24",
                "198.18.0.0/15",
                "198.51.100.0/24",
                "203.0.113.0/24",
                "224.0.0.0/4",
                "240.0.0.0/4",
            ),
            *("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20"),
        ),
    )
)
"""IANA's registries of special addresses, limited to ranges in which no panel can be.

Not taken from the standard library, because its tables differ between Python versions.
"""


_HERE: Final = (
    "localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "ip6-loopback",
    "localdomain",
)
_NEAR: Final = (
    ".localhost",
    ".local",
    ".internal",
    ".localdomain",
    ".home.arpa",
    ".in-addr.arpa",
    ".ip6.arpa",
)
"""Names that always lead to this machine or its network (RFC 6761, 6762, 8375, and the defaults of
common systems).
"""


class ForbiddenHostError(httpx.TransportError):
    """The host resolves to a private, loopback, link-local or otherwise special address."""


@lru_cache(maxsize=1024)
def is_public(address: str) -> bool:
    """Whether an IP address is public, including one that is embedded in another address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _UNICAST:
            return False
    return not any(ip in network for network in _SPECIAL)


def is_forbidden_host(host: str) -> bool:
    """Whether a host is forbidden without a look-up: a special IP address, or a name for this
    machine or its network.
    """
    try:
        return not is_public(host.strip("[]"))
    except ValueError:
        name = host.rstrip(".").lower()
        return name in _HERE or name.endswith(_NEAR)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself: by its address in any notation (``127.1``), or by a
    name for it.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:
            ip = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, ValueError):
            return False
    ip = (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
    return ip.is_loopback or ip.is_unspecified


async def public_addresses(host: str, port: int, resolve: Resolve = addresses_of) -> list[str]:
    """Return what ``resolve`` finds for ``host``, with each address checked, cached ones too. Only
    these may be connected to.

    Raises:
        ForbiddenHostError: any of its addresses is not public.
        httpx.ConnectError: it cannot be resolved.
    """
    addresses = await resolve(host, port)
    if not addresses or not all(is_public(address) for address in addresses):
        raise ForbiddenHostError("not a public address")
    return addresses
