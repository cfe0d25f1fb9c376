"""A dead man's switch: pings an outside service every minute while all is well; it raises the alarm
when the pings stop.
"""

from __future__ import annotations

import asyncio
from typing import Final

import httpx
import structlog

from order_monitor.core.clock import Clock
from order_monitor.providers.http.failures import NamedFailureError
from order_monitor.tell.readiness import Readiness

PING_TIMEOUT: Final = 10.0
_MINUTE: Final = 60.0


class Ping:
    """A dead man's switch: an outside service notices when the pings stop."""

    def __init__(self, client: httpx.AsyncClient, url: str, clock: Clock) -> None:
        """Call ``url`` when all is well, ``url``/fail otherwise."""
        self._client = client
        self._url = url.rstrip("/")
        self._clock = clock
        self._failed = False
        self._log = structlog.get_logger("order_monitor.ping")

    async def run(self, probe: Readiness) -> None:
        """Report the judgement of ``probe`` every minute."""
        while True:
            await self._clock.sleep(_MINUTE)
            await self.tell(is_good=not probe.reasons())

    async def tell(self, *, is_good: bool) -> None:
        """Ping once; a failure is logged and does not affect the orders."""
        why = ""
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                url = self._url if is_good else f"{self._url}/fail"
                async with self._client.stream("GET", url) as answer:
                    why = "" if answer.is_success else f"http_{answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            why = str(error) if isinstance(error, NamedFailureError) else type(error).__name__
        if why and not self._failed:
            self._log.warning("ping.failed", why=why)
        self._failed = bool(why)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
