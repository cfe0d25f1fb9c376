"""The client of all asyncio contestants: order-monitor's own, so that they differ only in the code
around it.
"""

from __future__ import annotations

import httpx

from benchmarks.compare.load import KOD, SIFRE
from order_monitor.providers.http.resolver import Resolver
from order_monitor.providers.http.transport import FreshConnections
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock


def client(url: str) -> Znet:
    """Return a client of the provider at ``url``."""
    connections = FreshConnections(httpx.create_ssl_context(), Resolver())
    return Znet(ZnetAccount(url, KOD, SIFRE), connections, SystemClock())
