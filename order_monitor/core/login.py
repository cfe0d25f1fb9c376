"""Which dealer login an account uses: several accounts may use the same one, and then share what
belongs to the login. Pure.

A login is identified by provider, host and user name. The user name is sensitive, so only a keyed
digest of it is kept or shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final
from urllib.parse import urlsplit

IN_MEMORY: Final = b"order-monitor"
"""The key for digests that never leave this process."""

ZNET: Final = "znet"
CLIENT_API: Final = "client_api"
INTERNAL: Final = "internal"
"""The value for another tenant of the shop: its order is a child of ours."""

KIND_OF: Final = {
    "znet": ZNET,
    "barakat": CLIENT_API,
    "apstore": CLIENT_API,
    INTERNAL: INTERNAL,
}
"""The protocol for each value of the shop's ``integrations.provider``; others are not asked.

Another tenant is asked only about children that stand in another database.
"""

BY_TOKEN: Final = frozenset({CLIENT_API, INTERNAL})
"""The protocols in which a token says who asks."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is logged in where; ``user`` is a name, or a token if the provider has no user names."""

    provider: str
    base_url: str = field(repr=False)
    user: str = field(repr=False)

    def login(self, key: bytes = IN_MEMORY) -> str:
        """Return the login's identifier, the same in every process that uses the same ``key`` (at
        most 64 bytes).
        """
        digest = blake2b(
            self.user.strip().encode("utf-8", "surrogatepass"), key=key, digest_size=12
        ).hexdigest()
        return f"{self.provider} {host_of(self.base_url)} {digest}"


def host_of(url: str) -> str:
    """Return the host of a URL, with its port unless that is the scheme's default."""
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return ""
    return host if port is None or port == _PORTS.get(parts.scheme) else f"{host}:{port}"
