"""The client that every asyncio contestant asks with: order-monitor's own, so that only what is around it differs."""

from __future__ import annotations

import httpx

from benchmarks.compare.load import KOD, SIFRE
from order_monitor.providers.transport import FreshConnections
from order_monitor.providers.znet import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock


def client(url: str) -> Znet:
    """Return a client of the provider at ``url``."""
    return Znet(ZnetAccount(url, KOD, SIFRE), FreshConnections(httpx.create_ssl_context()), SystemClock())
