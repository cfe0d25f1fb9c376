"""The webhook: each event is posted to the shop's own address, signed, at least once, in order for each order.

Headers and signature follow the Standard Webhooks specification; ``webhook-id`` is the event's number, by which a receiver
knows an event that it has had before.
"""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import structlog
from standardwebhooks import Webhook

from order_monitor.clock import Clock
from order_monitor.decide import Rules
from order_monitor.errors import ShopError
from order_monitor.providers.znet_answer import retry_after
from order_monitor.shop.outbox import Delivery, Outbox

PAUSE: Final = 2.0
"""Seconds between two looks into the outbox while it is empty."""

_FIRST_RETRY: Final = 5.0
_LONGEST_RETRY: Final = 3600.0
_AT_A_TIME: Final = 8
_LEASE_MARGIN: Final = 60.0
_GONE: Final = 410


class Sender:
    """Posts what stands in the outbox."""

    def __init__(  # noqa: PLR0913 - its parts and its limits
        self,
        outbox: Outbox,
        client: httpx.AsyncClient,
        url: str,
        secret: str,
        rules: Rules,
        clock: Clock,
        *,
        timeout: float = 10.0,
        max_attempts: int = 12,
        chance: random.Random | None = None,
    ) -> None:
        """Post to ``url`` within ``timeout`` seconds; after ``max_attempts`` tries in vain an event is a dead letter.

        ``client`` must follow no redirect: the receiver is the one in the settings and nobody else.
        """
        self._outbox = outbox
        self._client = client
        self._url = url
        self._signer = Webhook(secret)
        self._rules = rules
        self._clock = clock
        self._timeout = timeout
        self._max_attempts = max_attempts
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._failing = False
        self._log = structlog.get_logger("order_monitor.webhook")
        self.waiting = 0
        self.dead = 0

    async def run(self) -> None:
        """Post for ever; while the database is away, wait for it."""
        while True:
            try:
                posted = await self.post_due()
                self.waiting, self.dead = await self._outbox.counts()
            except ShopError as error:
                posted = 0
                self._log.debug("webhook.waiting", why=str(error))
            if not posted:
                await self._clock.sleep(PAUSE)

    async def drain(self) -> None:
        """Post what is due now, and what that lets through, until nothing is left or the receiver fails.

        Raises:
            ShopError: the database could not be asked.
        """
        while await self.post_due() and not self._failing:
            pass

    async def post_due(self) -> int:
        """Post what is due, a few at a time; return how many tries that took.

        Raises:
            ShopError: the database could not be asked. What was posted meanwhile is posted again later.
        """
        due = await self._outbox.claim(_AT_A_TIME, self._timeout + _LEASE_MARGIN)
        tries = [asyncio.create_task(self._deliver(d), name=f"deliver {d.event_id}") for d in due]
        if tries:
            await asyncio.wait(tries)
        for done in tries:
            done.result()
        return len(due)

    async def _deliver(self, delivery: Delivery) -> None:
        why, pause = await self._post(delivery)
        if not why:
            await self._outbox.delivered(delivery.event_id)
            self._tell_state(failing=False)
        elif pause is None or delivery.attempts >= self._max_attempts:
            await self._outbox.died(delivery.event_id, why)
            order = str(delivery.event["order_id"])
            self._log.error(
                "webhook.dead", event_id=delivery.event_id, order_id=order, why=why, attempts=delivery.attempts
            )
        else:
            await self._outbox.failed(delivery.event_id, why, pause)
            self._tell_state(failing=True, why=why)

    def _tell_state(self, *, failing: bool, why: str = "") -> None:
        """One line when it begins to fail and one when it is well again, however many events there are."""
        if failing and not self._failing:
            self._log.warning("webhook.failing", why=why)
        elif self._failing and not failing:
            self._log.info("webhook.back")
        self._failing = failing

    async def _post(self, delivery: Delivery) -> tuple[str, float | None]:
        """Try once; return what went wrong (nothing: it was taken) and after how many seconds to try again, if ever."""
        body = self.body(delivery.event)
        at = datetime.fromtimestamp(self._clock.time(), UTC)
        message = str(delivery.event_id)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "order-monitor",
            "webhook-id": message,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._signer.sign(message, at, body),
        }
        pause = self._backoff(delivery.attempts)
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream("POST", self._url, content=body.encode(), headers=headers) as response,
            ):
                status, wish = response.status_code, response.headers.get("retry-after")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            return ("timeout" if isinstance(error, TimeoutError) else type(error).__name__), pause
        if 200 <= status < 300:  # noqa: PLR2004 - the receiver has it
            return "", None
        asked = retry_after(wish, self._clock.time())
        return f"http_{status}", None if status == _GONE else max(pause, min(asked or 0.0, _LONGEST_RETRY))

    def _backoff(self, attempts: int) -> float:
        pause = min(_FIRST_RETRY * 2.0 ** min(attempts - 1, 20), _LONGEST_RETRY)
        return pause * (1 + 0.1 * self._chance.random())

    def body(self, event: dict[str, Any]) -> str:
        """Return the JSON posted for an event: its type, when it was decided, and its columns."""
        document = {"type": f"order.{self._kind(event['to_status'])}", "timestamp": event["decided_at"], "data": event}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    def _kind(self, status: str) -> str:
        rules = self._rules
        named = {rules.completed: "completed", rules.failed: "failed", rules.processing: "processing"}
        return named.get(status, "reopened")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
