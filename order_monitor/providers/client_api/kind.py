"""The client API as a kind of provider: what an account needs, and advice for its failures."""

from __future__ import annotations

from typing import Final

import httpx

from order_monitor.core.clock import Clock
from order_monitor.providers.client_api.client import ClientApi, ClientApiAccount
from order_monitor.providers.client_api.dialect import ZDK, Dialect
from order_monitor.providers.client_api.settings import ClientApiSettings
from order_monitor.providers.http.exchange import CallLimits
from order_monitor.providers.kind import AccountAccess, ClientOptions, Kind
from order_monitor.providers.secret import plain

_LOGIN: Final = "check the token, and that the provider allows this machine's address"


def open_client(
    access: AccountAccess,
    options: ClientOptions,
    transport: httpx.AsyncBaseTransport,
    clock: Clock,
    *,
    dialect: Dialect = ZDK,
) -> ClientApi:
    """Return the client of one account, which speaks ``dialect``.

    Raises:
        ValueError: the account has no token.
    """
    if not access.token.strip():
        msg = "it has no token: see the column api_token of integrations, or provider.token"
        raise ValueError(msg)
    batch = min(options.batch, dialect.most)
    # An answer about many orders is longer.
    longest = options.max_body * (1 + batch // 8)
    limits = CallLimits(options.connect_timeout, options.timeout, longest, options.user_agent)
    own: ClientApiSettings = options.own
    account = ClientApiAccount(
        access.base_url, access.token, limits, options.no_pin, own.replay, batch, dialect
    )
    return ClientApi(account, transport, clock)


ADVICE: Final = {
    "empty_answer": _LOGIN,
    **{f"refused_{code}": _LOGIN for code in (120, 121, 122, 123, 130)},
}
"""What to do about a failure, by its name."""


def _configured(base_url: str, given: ClientApiSettings) -> AccountAccess:
    return AccountAccess(base_url, token=plain(given.token))


CLIENT_API_KIND: Final = Kind(
    "the client API", open_client, ADVICE, _configured, ("base_url", "token")
)
