"""Which dealer login an account uses: several accounts may use the same one, and then share what
belongs to the login. Pure.

A login is identified by provider, host and user name. The user name is sensitive, so only a keyed
digest of it is kept or shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Self
from urllib.parse import urlsplit

IN_MEMORY: Final = b"order-monitor"
"""The key for digests that never leave this process."""

ZNET: Final = "znet"
CLIENT_API: Final = "client_api"
INTERNAL: Final = "internal"
"""The value for another tenant of the shop: its order is a child of ours."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What the program outside `order_monitor.providers` knows of a kind of provider.

    ``words`` are the values of the shop's ``integrations.provider`` for it. ``by_token``: a token
    says who asks, and no user name. ``knows_own_ids``: it also knows an order by the shop's own id.
    """

    words: tuple[str, ...]
    by_token: bool
    knows_own_ids: bool


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    ZNET: Protocol(("znet",), by_token=False, knows_own_ids=False),
    CLIENT_API: Protocol(("barakat", "apstore"), by_token=True, knows_own_ids=True),
    # Another tenant is asked only about children that stand in another database.
    INTERNAL: Protocol((INTERNAL,), by_token=True, knows_own_ids=False),
}

KIND_OF: Final = {word: kind for kind, protocol in PROTOCOLS.items() for word in protocol.words}
"""The kind for each value of the shop's ``integrations.provider``; others are not asked."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is logged in where; ``user`` is a name, or a token if the provider has no user names."""

    provider: str
    base_url: str = field(repr=False)
    user: str = field(repr=False)

    @classmethod
    def of(cls, kind: str, base_url: str, user: str, token: str) -> Self:
        """Return who is logged in at a provider of this kind: its protocol says by what."""
        protocol = PROTOCOLS.get(kind)
        return cls(kind, base_url, token if protocol and protocol.by_token else user)

    def login(self, key: bytes = IN_MEMORY) -> str:
        """Return the login's identifier, the same in every process that uses the same ``key`` (at
        most 64 bytes).
        """
        digest = blake2b(
            self.user.strip().encode("utf-8", "surrogatepass"), key=key, digest_size=12
        ).hexdigest()
        return f"{self.provider} {host_of(self.base_url)} {digest}"


def knows_own_ids(kind: str) -> bool:
    """Whether a provider of this kind also knows an order by the shop's own id."""
    protocol = PROTOCOLS.get(kind)
    return protocol is not None and protocol.knows_own_ids


def host_of(url: str) -> str:
    """Return the host of a URL, with its port unless that is the scheme's default."""
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return ""
    return host if port is None or port == _PORTS.get(parts.scheme) else f"{host}:{port}"
