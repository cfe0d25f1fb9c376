"""How kinds of provider differ: how a client is made, and what to advise about failures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from order_monitor.core.clock import Clock
from order_monitor.providers.provider import Provider


@dataclass(frozen=True, slots=True)
class AccountAccess:
    """How an account is reached: an address, and its credentials at the provider."""

    base_url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """The settings for every client; each kind uses the ones it needs. Times are seconds.

    ``own`` has the keys of the kind's own settings.
    """

    connect_timeout: float
    timeout: float
    max_body: int
    user_agent: str
    no_pin: Collection[str]
    batch: int
    own: Any = field(repr=False)


OpenClient = Callable[[AccountAccess, ClientOptions, httpx.AsyncBaseTransport, Clock], Provider]
"""Makes the client of one account.

Raises:
    ValueError: the account is incomplete.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of provider.

    ``title`` is its name for people; ``advice`` is what to do about a failure, by its name.
    ``configured`` reads the login of the account in the settings' ``provider``, at an address;
    ``needed`` are the keys that it must have. Both None if only the shop's tables hold such
    accounts.
    """

    title: str
    open: OpenClient
    advice: Mapping[str, str]
    configured: Callable[[str, Any], AccountAccess] | None = None
    needed: tuple[str, ...] | None = None
