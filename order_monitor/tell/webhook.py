"""The webhook: each event is posted to the shop's own address, signed, at least once, in order for each order.

Headers and signature follow the Standard Webhooks specification; ``webhook-id`` is the event's own ``uid``, by which a receiver
knows an event that it has had before. Where to is for the mark in the database to say: who has another address posts nothing.
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
from order_monitor.providers.failures import NamedFailureError
from order_monitor.shop.outbox import Delivery, Outbox
from order_monitor.shop.webhook_mark import Mark, address_of
from order_monitor.watch.board import Board

PAUSE: Final = 2.0
"""Seconds between two looks into the outbox while it is empty."""

LOOK: Final = 60.0
"""Seconds between two looks at the mark that says where events are posted to."""

OTHER_ADDRESS: Final = "events are posted to another address, and not from here until: order-monitor webhook adopt"

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

_PACE: Final = 20.0
"""How many events a second are tried again when a receiver is back."""

_OUTAGE_FACTOR: Final = 1.2
_OUTAGE_MARGIN: Final = 6.0
"""A pause that began in an outage is hardly longer than the outage: each is as long as all before it, and one of the first."""


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
        board: Board | None = None,
    ) -> None:
        """Post to ``receiver`` while ``is_ours``, and no faster than ``board`` lets calls go while this machine runs short.

        ``client`` must follow no redirect: the receiver is the one in the settings and nobody else.
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
        self._is_ours = is_ours
        self._board = board
        self._log = structlog.get_logger("order_monitor.webhook")
        self.waiting = 0
        self.dead = 0
        self.problem = ""

    async def run(self) -> None:
        """Post for ever; while the database is away, wait for it."""
        while True:
            try:
                is_ours = self._is_ours()
                await self._look(is_ours=is_ours)
                posted = await self.post_due() if is_ours else 0
                self.waiting, self.dead = await self._outbox.counts()
            except ShopError as error:
                posted = 0
                self._log.debug("webhook.waiting", why=str(error))
            if not posted:
                await self._clock.sleep(self._to.pause)

    async def begin(self) -> None:
        """Say in the database, before any event is written, that they are posted.

        Where a table is missing, whoever writes events says so, and writes none.

        Raises:
            ShopError: the database could not be asked: nothing is to be written before it was.
        """
        with suppress(ShopMisfitError):
            await self._look(is_ours=True)

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
        mark = await self._look(is_ours=True)
        places = self._places()
        if mark is None or self.problem or not places:
            return 0
        due = await self._outbox.claim(places, self._to.timeout + _LEASE_MARGIN, mark)
        tries = [asyncio.create_task(self._deliver(d), name=f"deliver {d.event_id}") for d in due]
        if tries:
            await asyncio.wait(tries)
        failures = [error for done in tries if (error := done.exception()) is not None]
        # One after the other: each more at a time would need a connection more.
        for delivery, done in zip(due, tries, strict=True):
            if done.exception() is None and not done.result():
                await self._outbox.not_tried(delivery.event_id, self._backoff(1))
        if failures:
            raise failures[0]
        return len(due)

    def _places(self) -> int:
        """Return how many events may be posted at a time just now."""
        if self._board is None:
            return _AT_A_TIME
        now, easing = self._clock.monotonic(), self._board.easing
        return next((count for count in range(_AT_A_TIME) if not easing.has_room(now, count)), _AT_A_TIME)

    async def _look(self, *, is_ours: bool) -> Mark | None:
        """See now and then where events are posted to, and put up those that nobody has; return the mark.

        Only who posts for all sets it where it is missing, and puts events up.
        """
        now = self._clock.monotonic()
        if self._looked is not None and self._looked[1] == is_ours and now - self._looked[0] < LOOK:
            return self._mark
        mark = await self._outbox.mark()
        if mark is None and is_ours:
            mark = await self._outbox.set_first(self._address)
            self._log.info("webhook.begins", event_id=mark.since)
        self._tell_address(mark)
        if is_ours and mark is not None and not self.problem:
            await self._outbox.sweep(mark.since)
        self._mark, self._looked = mark, (now, is_ours)
        return mark

    def _tell_address(self, mark: Mark | None) -> None:
        """One line when another address is posted to, and one when it is ours again."""
        is_other = mark is not None and mark.address != self._address
        if is_other and not self.problem:
            self._log.error("webhook.other_address", why=OTHER_ADDRESS)
        elif self.problem and not is_other:
            self._log.info("webhook.own_address")
        self.problem = OTHER_ADDRESS if is_other else ""

    async def _deliver(self, delivery: Delivery) -> bool:
        """Try once, and note what came of it; return whether it could be tried at all."""
        why, pause = await self._post(delivery)
        if not why:
            await self._outbox.delivered(delivery.event_id)
            self._tell_state(failing=False)
            await self._let_go()
        elif why in EXHAUSTED:
            # Neither the receiver's fault nor the event's: no try of its own is used up.
            if self._board is not None:
                self._board.ran_out(why)
            return False
        elif pause is None or delivery.attempts >= self._to.max_attempts:
            await self._outbox.died(delivery.event_id, why)
            order = str(delivery.event["order_id"])
            self._log.error(
                "webhook.dead", event_id=delivery.event_id, order_id=order, why=why, attempts=delivery.attempts
            )
        else:
            if self._failing_since is None:
                self._failing_since = self._clock.monotonic()
            await self._outbox.failed(delivery.event_id, why, pause)
            self._tell_state(failing=True, why=why)
        return True

    async def _let_go(self) -> None:
        """With the first success after failures, let go what was kept back by them; at a start, whatever had failed before."""
        since, self._failing_since = self._failing_since, None
        if since is None:
            return
        try:
            outage = self._clock.monotonic() - since
            await self._outbox.let_go(_OUTAGE_FACTOR * outage + _OUTAGE_MARGIN, _PACE)
        except ShopError:
            self._failing_since = since
            raise

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
        # An event of an older version has no uid, and was posted by its number before.
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
                self._client.stream("POST", self._to.url, content=body.encode(), headers=headers) as response,
            ):
                status, wish = response.status_code, response.headers.get("retry-after")
                is_page = await _is_page(response)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            return _reason_of(error), pause
        if 200 <= status < 300:  # noqa: PLR2004 - the receiver has it, unless somebody else answered in its place
            return ("html_answer", pause) if is_page else ("", None)
        asked = retry_after(wish, self._clock.time())
        return f"http_{status}", None if status == _GONE else max(pause, min(asked or 0.0, _LONGEST_RETRY))

    def _backoff(self, attempts: int) -> float:
        pause = min(_FIRST_RETRY * 2.0 ** min(attempts - 1, 20), _LONGEST_RETRY)
        return pause * (1 + 0.1 * self._chance.random())

    def body(self, event: dict[str, Any]) -> str:
        """Return the JSON posted for an event: its type, when it was decided, and its columns with the digest of its dispatch."""
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
