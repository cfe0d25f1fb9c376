"""znet as a kind of provider: what an account needs, and advice for its failures."""

from __future__ import annotations

from typing import Final

import httpx

from order_monitor.core.clock import Clock
from order_monitor.providers.kind import AccountAccess, ClientOptions, Kind
from order_monitor.providers.secret import plain
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.providers.znet.settings import ZnetSettings

_LOGIN: Final = "check kod and sifre, and that znet allows this machine's address"


def _open(
    access: AccountAccess, options: ClientOptions, transport: httpx.AsyncBaseTransport, clock: Clock
) -> Znet:
    if not access.user.strip() or not access.password.strip():
        msg = "kod or sifre is empty"
        raise ValueError(msg)
    own: ZnetSettings = options.own
    account = ZnetAccount(
        access.base_url,
        access.user,
        access.password,
        own.status_path,
        options.connect_timeout,
        options.timeout,
        options.max_body,
        options.user_agent,
        options.no_pin,
    )
    return Znet(account, transport, clock)


def _configured(base_url: str, given: ZnetSettings) -> AccountAccess:
    return AccountAccess(base_url, plain(given.kod), plain(given.sifre))


ZNET_KIND: Final = Kind(
    "znet",
    _open,
    {"empty_answer": _LOGIN, "refused_8": _LOGIN},
    _configured,
    ("base_url", "kod", "sifre"),
)
