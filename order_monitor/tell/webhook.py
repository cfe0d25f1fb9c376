"""The webhook: each event is posted to the shop's own address, signed, at least once, in order for each order.

Headers and signature follow the Standard Webhooks specification; ``webhook-id`` is the event's number, by which a receiver
knows an event that it has had before.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import structlog
from standardwebhooks import Webhook

from order_monitor.core.clock import Clock
from order_monitor.core.decision import Rules
from order_monitor.core.errors import ShopError
from order_monitor.providers.znet_parser import retry_after
from order_monitor.shop.outbox import Delivery, Outbox

PAUSE: Final = 2.0
"""Seconds between two looks into the outbox while it is empty."""

_FIRST_RETRY: Final = 5.0
_LONGEST_RETRY: Final = 3600.0
_AT_A_TIME: Final = 8
_LEASE_MARGIN: Final = 60.0
_GONE: Final = 410
_START: Final = 4096
_BEFORE_A_TAG: Final = re.compile(
    r"(?:[\s\ufeff]|<!--.*?(?:-->|\Z)|<\?.*?(?:\?>|\Z)|<!(?!--)[^>]*(?:>|\Z))*", re.DOTALL
)
_A_PAGES_TAG: Final = re.compile(
    r"<(?:html|head|body|meta|script|title|link|style|base|frameset|noscript)(?=[\s/>]|\Z)", re.IGNORECASE
)
_INSIDE: Final = re.compile(r"<!doctype\s+html\b|<html(?=[\s/>]|\Z)", re.IGNORECASE)
_PAGE_TYPES: Final = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True, slots=True)
class Receiver:
    """The shop's own address for events, and how patient we are with it; times are seconds.

    ``rules`` are the shop's words for statuses, for events that do not say what they mean. ``pause`` is how long to wait before
    the next look into an empty outbox; after ``max_attempts`` tries in vain an event is a dead letter.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)
    rules: Rules = field(default_factory=Rules)
    timeout: float = 10.0
    max_attempts: int = 12
    pause: float = PAUSE


class Sender:
    """Posts what stands in the outbox."""

    def __init__(
        self,
        outbox: Outbox,
        client: httpx.AsyncClient,
        receiver: Receiver,
        clock: Clock,
        chance: random.Random | None = None,
        *,
        is_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """Post to ``receiver`` while ``is_ours``.

        ``client`` must follow no redirect: the receiver is the one in the settings and nobody else.
        """
        self._outbox = outbox
        self._client = client
        self._to = receiver
        self._signer = Webhook(receiver.secret)
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._failing = False
        self._is_ours = is_ours
        self._log = structlog.get_logger("order_monitor.webhook")
        self.waiting = 0
        self.dead = 0

    async def run(self) -> None:
        """Post for ever; while the database is away, wait for it."""
        while True:
            try:
                posted = await self.post_due() if self._is_ours() else 0
                self.waiting, self.dead = await self._outbox.counts()
            except ShopError as error:
                posted = 0
                self._log.debug("webhook.waiting", why=str(error))
            if not posted:
                await self._clock.sleep(self._to.pause)

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
        due = await self._outbox.claim(_AT_A_TIME, self._to.timeout + _LEASE_MARGIN)
        tries = [asyncio.create_task(self._deliver(d), name=f"deliver {d.event_id}") for d in due]
        if tries:
            await asyncio.wait(tries)
        failures = [error for done in tries if (error := done.exception()) is not None]
        if failures:
            raise failures[0]
        return len(due)

    async def _deliver(self, delivery: Delivery) -> None:
        why, pause = await self._post(delivery)
        if not why:
            await self._outbox.delivered(delivery.event_id)
            self._tell_state(failing=False)
        elif pause is None or delivery.attempts >= self._to.max_attempts:
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
                asyncio.timeout(self._to.timeout),
                self._client.stream("POST", self._to.url, content=body.encode(), headers=headers) as response,
            ):
                status, wish = response.status_code, response.headers.get("retry-after")
                is_page = await _is_page(response)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            return ("timeout" if isinstance(error, TimeoutError) else type(error).__name__), pause
        if 200 <= status < 300:  # noqa: PLR2004 - the receiver has it, unless somebody else answered in its place
            return ("html_answer", pause) if is_page else ("", None)
        asked = retry_after(wish, self._clock.time())
        return f"http_{status}", None if status == _GONE else max(pause, min(asked or 0.0, _LONGEST_RETRY))

    def _backoff(self, attempts: int) -> float:
        pause = min(_FIRST_RETRY * 2.0 ** min(attempts - 1, 20), _LONGEST_RETRY)
        return pause * (1 + 0.1 * self._chance.random())

    def body(self, event: dict[str, Any]) -> str:
        """Return the JSON posted for an event: its type, when it was decided, and its columns."""
        kind = event.get("outcome") or self._kind(event["to_status"])
        document = {"type": f"order.{kind}", "timestamp": event["decided_at"], "data": event}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    def _kind(self, status: str) -> str:
        rules = self._to.rules
        named = {rules.completed: "completed", rules.failed: "failed", rules.processing: "processing"}
        return named.get(status, "reopened")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _is_page(response: httpx.Response) -> bool:
    """Whether a web page came back: a login or a maintenance page says 200 to everything, and has not taken the event."""
    start = b""
    async for chunk in response.aiter_bytes():
        start += chunk
        if len(start) >= _START:
            break
    return looks_like_page(start[:_START], response.headers.get("content-type", ""))


def looks_like_page(start: bytes, content_type: str) -> bool:
    """Whether a body that begins with ``start`` is a web page, whatever stands before its first tag; JSON is none."""
    # What is UTF-16 is read by its letters alone.
    text = start.replace(b"\0", b"").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff").decode("utf-8", "replace")
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[", '"'):
        return False
    found = _BEFORE_A_TAG.match(text)
    first = text[found.end() if found else 0 :]
    if _A_PAGES_TAG.match(first) or _INSIDE.search(text):
        return True
    return content_type.partition(";")[0].strip().lower() in _PAGE_TYPES and re.match(r"<[A-Za-z]", first) is not None
