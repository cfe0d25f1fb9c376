"""Which dealer login stands behind an account: several accounts may hold one, and what is the login's they share. Pure.

Its provider, host and user name it. The user is a secret of sorts, so only a keyed digest of it is ever kept or shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final
from urllib.parse import urlsplit

IN_MEMORY: Final = b"order-monitor"
"""The key of digests that never leave this process."""

ZNET: Final = "znet"
CLIENT_API: Final = "client_api"
KINDS: Final = {"znet": ZNET, "barakat": CLIENT_API, "apstore": CLIENT_API}
"""What each word in the shop's ``integrations.provider`` speaks; others are not asked."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is logged in where; ``user`` is a name, or a token where the provider knows no names."""

    provider: str
    base_url: str = field(repr=False)
    user: str = field(repr=False)

    def login(self, key: bytes = IN_MEMORY) -> str:
        """Return the login's own name, the same in every process that digests by ``key`` (at most 64 bytes)."""
        digest = blake2b(self.user.strip().encode("utf-8", "surrogatepass"), key=key, digest_size=12).hexdigest()
        return f"{self.provider} {host_of(self.base_url)} {digest}"


def host_of(url: str) -> str:
    """Return the host of an address, with its port where that is not the usual one."""
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return ""
    return host if port is None or port == _PORTS.get(parts.scheme) else f"{host}:{port}"
