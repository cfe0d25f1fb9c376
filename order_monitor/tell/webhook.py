"""The webhook: each event is posted to the shop's address, signed, at least once, and in order for
each order.

Headers and signature follow the Standard Webhooks specification. ``webhook-id`` is the event's
``uid``, by which a receiver recognizes an event that it already has. A mark in the database sets
the address: a process with another address posts nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import structlog
from standardwebhooks import Webhook

from order_monitor.core.answer import EXHAUSTED
from order_monitor.core.clock import Clock
from order_monitor.core.decision import Rules
from order_monitor.core.errors import ShopError, ShopMisfitError
from order_monitor.core.outcome import Outcome
from order_monitor.core.retry_after import retry_after
from order_monitor.providers.http.failures import NamedFailureError
from order_monitor.shop.outbox import LONGEST_RETRY, Delivery, Outbox
from order_monitor.shop.webhook_mark import Mark, address_of
from order_monitor.watch.context import Context

PAUSE: Final = 2.0
"""Seconds between two looks into an empty outbox."""

LOOK: Final = 60.0
"""Seconds between two looks at the mark that sets the address to post to."""

OTHER_ADDRESS: Final = (
    "events are posted to another address, and not from here until: order-monitor webhook adopt"
)

FIRST_RETRY: Final = 5.0
_AT_A_TIME: Final = 8
_LEASE_MARGIN: Final = 60.0
_GONE: Final = 410
_START: Final = 4096
_BEFORE_A_TAG: Final = re.compile(
    r"(?:[\s\ufeff]|<!--.*?(?:-->|\Z)|<\?.*?(?:\?>|\Z)|<!(?!--)[^>]*(?:>|\Z))*", re.DOTALL
)
_A_PAGES_TAG: Final = re.compile(
    r"<(?:html|head|body|meta|script|title|link|style|base|frameset|noscript)(?=[\s/>]|\Z)",
    re.IGNORECASE,
)
_INSIDE: Final = re.compile(r"<!doctype\s+html\b|<html(?=[\s/>]|\Z)", re.IGNORECASE)
_PAGE_TYPES: Final = ("text/html", "application/xhtml+xml")

_PACE: Final = 20.0
"""How many events per second are retried after a receiver has recovered."""

_OUTAGE_FACTOR: Final = 1.2
_OUTAGE_MARGIN: Final = 6.0
"""A pause that began in an outage is hardly longer than the outage: each is as long as all previous
pauses together, plus one first pause.
"""


@dataclass(frozen=True, slots=True)
class Receiver:
    """The shop's address for events, with timeouts and retries; times are seconds.

    ``rules`` are the shop's words for statuses, for events without an outcome. ``pause`` is the
    pause before the next look into an empty outbox; after ``max_attempts`` failed attempts an event
    becomes a dead letter.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)
    rules: Rules = field(default_factory=Rules)
    timeout: float = 10.0
    max_attempts: int = 12
    pause: float = PAUSE


class Sender:
    """Posts the events in the outbox."""

    def __init__(
        self,
        outbox: Outbox,
        client: httpx.AsyncClient,
        receiver: Receiver,
        clock: Clock,
        chance: random.Random | None = None,
        *,
        is_ours: Callable[[], bool] = lambda: True,
        context: Context | None = None,
    ) -> None:
        """Post to ``receiver`` while ``is_ours``, and while this machine is short of resources only
        as fast as ``context`` allows.

        ``client`` must not follow redirects: events go only to the receiver in the settings.
        """
        self._outbox = outbox
        self._client = client
        self._to = receiver
        self._signer = Webhook(receiver.secret)
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._address = address_of(receiver.url)
        self._mark: Mark | None = None
        self._looked: tuple[float, bool] | None = None
        self._failing = False
        self._failing_since: float | None = -math.inf
        self.is_ours = is_ours
        self._context = context
        self._log = structlog.get_logger("order_monitor.webhook")
        self.waiting = 0
        self.dead = 0
        self.problem = ""

    async def run(self) -> None:
        """Post until cancelled; while the database is unavailable, wait for it."""
        while True:
            try:
                is_ours = self.is_ours()
                await self._look(is_ours=is_ours)
                posted = await self.post_due() if is_ours else 0
                self.waiting, self.dead = await self._outbox.counts()
            except ShopError as error:
                posted = 0
                self._log.debug("webhook.waiting", why=str(error))
            if not posted:
                await self._clock.sleep(self._to.pause)

    async def begin(self) -> None:
        """Record in the database that events are posted, before any event is written.

        If a table is missing, do nothing: the code that writes events reports it, and writes none.

        Raises:
            ShopError: the database is not available; no event may be written before it is.
        """
        with suppress(ShopMisfitError):
            await self._look(is_ours=True)

    async def drain(self) -> None:
        """Post what is due, and what becomes due through that, until nothing is left or the
        receiver fails.

        Raises:
            ShopError: the database is not available.
        """
        while await self.post_due() and not self._failing:
            pass

    async def post_due(self) -> int:
        """Post what is due, a few at a time; return the number of attempts.

        Raises:
            ShopError: the database is not available. Events posted in the meantime are posted again
                later.
        """
        mark = await self._look(is_ours=True)
        places = self._places()
        if mark is None or self.problem or not places:
            return 0
        due = await self._outbox.claim(places, self._to.timeout + _LEASE_MARGIN, mark)
        tries = [asyncio.create_task(self._deliver(d), name=f"deliver {d.event_id}") for d in due]
        if tries:
            await asyncio.wait(tries)
        failures = [error for done in tries if (error := done.exception()) is not None]
        # One after the other: doing them at once would need more connections.
        for delivery, done in zip(due, tries, strict=True):
            if done.exception() is None and not done.result():
                await self._outbox.not_tried(delivery.event_id, self._backoff(1))
        if failures:
            raise failures[0]
        return len(due)

    def _places(self) -> int:
        """Return how many events may be posted at the same time at the moment."""
        if self._context is None:
            return _AT_A_TIME
        now, easing = self._clock.monotonic(), self._context.easing
        return next(
            (count for count in range(_AT_A_TIME) if not easing.has_room(now, count)), _AT_A_TIME
        )

    async def _look(self, *, is_ours: bool) -> Mark | None:
        """Check from time to time which address is posted to, and queue events that no process has
        queued.

        Return the mark. Only the process that posts for all sets a missing mark and queues events.
        """
        now = self._clock.monotonic()
        if self._looked is not None and self._looked[1] == is_ours and now - self._looked[0] < LOOK:
            return self._mark
        mark = await self._outbox.mark()
        if mark is None and is_ours:
            known = self._mark.since if self._mark is not None else None
            mark = await self._outbox.set_first(self._address, known)
            self._log.info("webhook.begins", event_id=mark.since)
        self._tell_address(mark)
        if is_ours and mark is not None and not self.problem:
            await self._outbox.sweep(mark.since)
        self._mark, self._looked = mark, (now, is_ours)
        return mark

    def _tell_address(self, mark: Mark | None) -> None:
        """Log one line when another address is in force, and one when it is ours again."""
        is_other = mark is not None and mark.address != self._address
        if is_other and not self.problem:
            self._log.error("webhook.other_address", why=OTHER_ADDRESS)
        elif self.problem and not is_other:
            self._log.info("webhook.own_address")
        self.problem = OTHER_ADDRESS if is_other else ""

    async def _deliver(self, delivery: Delivery) -> bool:
        """Try once, and record the result; return False if no attempt could be made."""
        why, pause = await self._post(delivery)
        if not why:
            await self._outbox.delivered(delivery.event_id)
            self._tell_state(failing=False)
            await self._let_go()
        elif why in EXHAUSTED:
            # Neither the receiver's fault nor the event's: it does not count as an attempt.
            if self._context is not None:
                self._context.ran_out(why)
            return False
        elif pause is None or delivery.attempts >= self._to.max_attempts:
            await self._outbox.died(delivery.event_id, why)
            order = str(delivery.event["order_id"])
            self._log.error(
                "webhook.dead",
                event_id=delivery.event_id,
                order_id=order,
                why=why,
                attempts=delivery.attempts,
            )
        else:
            if self._failing_since is None:
                self._failing_since = self._clock.monotonic()
            await self._outbox.failed(delivery.event_id, why, pause)
            self._tell_state(failing=True, why=why)
        return True

    async def _let_go(self) -> None:
        """After the first success, release the events that earlier failures delayed.

        After a start these are all events that had failed before.
        """
        since, self._failing_since = self._failing_since, None
        if since is None:
            return
        try:
            outage = self._clock.monotonic() - since
            await self._outbox.let_go(_OUTAGE_FACTOR * outage + _OUTAGE_MARGIN, _PACE, FIRST_RETRY)
        except ShopError:
            self._failing_since = since
            raise

    def _tell_state(self, *, failing: bool, why: str = "") -> None:
        """Log one line when posting starts to fail and one when it works again, however many events
        there are.
        """
        if failing and not self._failing:
            self._log.warning("webhook.failing", why=why)
        elif self._failing and not failing:
            self._log.info("webhook.back")
        self._failing = failing

    async def _post(self, delivery: Delivery) -> tuple[str, float | None]:
        """Try once; return what went wrong (empty: it was accepted) and after how many seconds to
        retry, None for never.
        """
        body = self.body(delivery.event)
        at = datetime.fromtimestamp(self._clock.time(), UTC)
        # An event of an older version has no uid, and was posted under its number before.
        message = delivery.event.get("uid") or str(delivery.event_id)
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
                self._client.stream(
                    "POST", self._to.url, content=body.encode(), headers=headers
                ) as response,
            ):
                status, wish = response.status_code, response.headers.get("retry-after")
                is_page = await _is_page(response)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            return _reason_of(error), pause
        if 200 <= status < 300:  # noqa: PLR2004 - the receiver has it, unless something else answered in its place
            return ("html_answer", pause) if is_page else ("", None)
        asked = retry_after(wish, self._clock.time())
        return f"http_{status}", None if status == _GONE else max(
            pause, min(asked or 0.0, LONGEST_RETRY)
        )

    def _backoff(self, attempts: int) -> float:
        pause = min(FIRST_RETRY * 2.0 ** min(attempts - 1, 20), LONGEST_RETRY)
        return pause * (1 + 0.1 * self._chance.random())

    def body(self, event: dict[str, Any]) -> str:
        """Return the JSON body of an event: its type, the time of the decision, and its columns
        with the digest of its dispatch.
        """
        kind = event.get("outcome") or self._kind(event["to_status"])
        document = {"type": f"order.{kind}", "timestamp": event["decided_at"], "data": event}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    def _kind(self, status: str) -> str:
        named = {self._to.rules.word(outcome): outcome for outcome in Outcome}
        return named.get(status, "reopened")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _reason_of(error: Exception) -> str:
    if isinstance(error, NamedFailureError):
        return str(error)
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__


async def _is_page(response: httpx.Response) -> bool:
    """Whether the response is a web page: a login or maintenance page answers 200 to everything,
    and has not accepted the event.
    """
    start = b""
    async for chunk in response.aiter_bytes():
        start += chunk
        if len(start) >= _START:
            break
    return looks_like_page(start[:_START], response.headers.get("content-type", ""))


def looks_like_page(start: bytes, content_type: str) -> bool:
    """Whether a body that begins with ``start`` is a web page, whatever precedes its first tag;
    JSON is not.
    """
    # UTF-16 is recognized by its ASCII letters.
    plain = start.replace(b"\0", b"").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    text = plain.decode("utf-8", "replace")
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[", '"'):
        return False
    found = _BEFORE_A_TAG.match(text)
    first = text[found.end() if found else 0 :]
    if _A_PAGES_TAG.match(first) or _INSIDE.search(text):
        return True
    is_page_type = content_type.partition(";")[0].strip().lower() in _PAGE_TYPES
    return is_page_type and re.match(r"<[A-Za-z]", first) is not None
