"""What to send to a service, given what it has already received: pure, so that every process
decides the same.

Times are epoch seconds. All of it is kept as JSON in one row of the shop's database, so that a
restart sends nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from order_monitor.tell.attention import Cause

HOUR: Final = 3600.0
"""For each kind, a service hears of a beginning at most once in this time, and of an end at most
once.
"""

MOST_A_DAY: Final = 20
"""How many messages a service gets per day (UTC), not counting the daily line."""

LEASE: Final = 120.0
"""How many seconds a claimed message is reserved for the process that claimed it."""

SEEN_FOR: Final = 180.0
"""Seconds after which a process's observation expires unless it is repeated."""

_SETTLED_EACH: Final = ("reviews", "dead")
"""Kinds of which a person settles one by one: those that come after some were settled are news."""

_FIRST_RETRY: Final = 60.0
_LONGEST_RETRY: Final = 3600.0
_WORSE: Final = 2.0
"""A lasting problem is reported again when it has become twice as long."""


@dataclass(slots=True)
class Topic:
    """What a service received about one kind: the cause as reported, when its beginning and its end
    were reported, and whether it is on.
    """

    cause: Cause
    began: float = 0.0
    ended: float = 0.0
    is_on: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """The contents of one message: what began or grew, what ended, and what goes on.

    ``is_last`` marks the day's last message.
    """

    begun: tuple[Cause, ...]
    over: tuple[Cause, ...]
    still: tuple[Cause, ...]
    is_last: bool = False


@dataclass(slots=True)
class SentNotices:
    """What one service has received.

    ``sent`` messages went out on ``day`` (UTC); ``daily`` is the day of the last daily line.
    """

    topics: dict[str, Topic] = field(default_factory=dict)
    day: str = ""
    sent: int = 0
    daily: str = ""
    retry_at: float = 0.0
    tries: int = 0
    by: str = ""
    until: float = 0.0

    def may_be_tried(self, me: str, now: float) -> bool:
        """Whether no other process is sending, and the pause after a failure is over."""
        is_others = self.by not in ("", me) and 0 < self.until - now <= LEASE
        return not is_others and not 0 < self.retry_at - now <= _LONGEST_RETRY

    def lacks_daily(self, today: str) -> bool:
        """Whether the line of this day (an ISO date) is still to be sent.

        A process in another time zone may be a day ahead. A later day was sent by a clock that was
        wrong.
        """
        tomorrow = (date.fromisoformat(today) + timedelta(days=1)).isoformat()
        return not today <= self.daily <= tomorrow

    def lower(self, causes: Mapping[str, Cause]) -> None:
        """Take note of how many are left of what is settled one by one."""
        for kind in _SETTLED_EACH:
            topic, cause = self.topics.get(kind), causes.get(kind)
            if topic is not None and cause is not None and cause.n < topic.cause.n:
                topic.cause = cause

    def news(self, causes: Mapping[str, Cause], over: set[str], now: float) -> News | None:
        """Return what to report of ``causes``, by topic, and of the topics that are ``over``.

        None if there is nothing to report.
        """
        sent = self.sent if self.day == _day(now) else 0
        if sent >= MOST_A_DAY:
            return None
        begun = tuple(cause for kind, cause in causes.items() if self._is_new(kind, cause, now))
        gone = tuple(
            topic.cause
            for kind, topic in self.topics.items()
            if topic.is_on and kind in over and kind not in causes and _is_past(topic.ended, now)
        )
        if not begun and not gone:
            return None
        still = tuple(cause for cause in causes.values() if cause not in begun)
        return News(begun, gone, still, is_last=sent == MOST_A_DAY - 1)

    def _is_new(self, kind: str, cause: Cause, now: float) -> bool:
        topic = self.topics.get(kind)
        if topic is None:
            return True
        is_worse = cause.n > topic.cause.n or (cause.t > 0 and cause.t >= _WORSE * topic.cause.t)
        return (not topic.is_on or is_worse) and _is_past(topic.began, now)

    def claim(self, me: str, now: float) -> None:
        """Reserve the sending for ``me``."""
        self.by, self.until = me, now + LEASE

    def was_told(self, news: News, now: float) -> None:
        """Record that ``news`` was delivered."""
        for cause in news.begun:
            before = self.topics.get(cause.topic)
            self.topics[cause.topic] = Topic(
                cause, now, before.ended if before else 0.0, is_on=True
            )
        for cause in news.over:
            before = self.topics.get(cause.topic)
            self.topics[cause.topic] = Topic(cause, before.began if before else 0.0, now)
        today = _day(now)
        self.day, self.sent = today, (self.sent if self.day == today else 0) + 1

    def went_through(self) -> None:
        """Record that the service accepted the message."""
        self.retry_at, self.tries, self.by, self.until = 0.0, 0, "", 0.0

    def failed(self, now: float) -> None:
        """Record a failure: the next attempt comes after a pause that grows to an hour."""
        self.tries += 1
        self.retry_at = now + min(_FIRST_RETRY * 2.0 ** min(self.tries - 1, 10), _LONGEST_RETRY)
        self.by, self.until = "", 0.0

    def learn(self, other: SentNotices) -> None:
        """Merge what another process has sent since, or what this one sent while the database was
        unavailable.
        """
        for kind, theirs in other.topics.items():
            ours = self.topics.get(kind)
            if ours is None or max(theirs.began, theirs.ended) > max(ours.began, ours.ended):
                self.topics[kind] = theirs
        self.day, self.sent = max((self.day, self.sent), (other.day, other.sent))
        self.daily = max(self.daily, other.daily)


@dataclass(slots=True)
class Shared:
    """Everything that the processes of a shop share: what each of them saw and when, and what each
    service has received.
    """

    seen: dict[str, tuple[float, list[Cause]]] = field(default_factory=dict)
    services: dict[str, SentNotices] = field(default_factory=dict)

    def service(self, key: str) -> SentNotices:
        """Return what the service with this key has received."""
        return self.services.setdefault(key, SentNotices())

    def see(self, me: str, causes: list[Cause], now: float) -> None:
        """Record what ``me`` sees, and drop processes whose last observation has expired."""
        self.seen = {name: one for name, one in self.seen.items() if 0 <= now - one[0] < SEEN_FOR}
        self.seen[me] = (now, causes)

    def causes(self) -> dict[str, Cause]:
        """Return the causes of all processes, by topic; if several report one, the largest
        counts.
        """
        found: dict[str, Cause] = {}
        for _, causes in self.seen.values():
            for cause in causes:
                before = found.get(cause.topic)
                if before is None or (cause.n, cause.t) > (before.n, before.t):
                    found[cause.topic] = cause
        return found

    def written(self) -> str:
        """Return it as the JSON that is stored."""
        return json.dumps(asdict(self), separators=(",", ":"))


def read_shared(text: str) -> Shared:
    """Parse the stored JSON.

    Empty if it is not in our format: then some messages are sent a second time.
    """
    try:
        kept = json.loads(text)
        seen = {
            str(name): (float(at), [Cause(**one) for one in causes])
            for name, (at, causes) in kept["seen"].items()
        }
        services = {str(key): _told(one) for key, one in kept["services"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return Shared()
    return Shared(seen, services)


def _told(kept: dict[str, Any]) -> SentNotices:
    topics = {
        kind: Topic(**{**one, "cause": Cause(**one["cause"])})
        for kind, one in kept["topics"].items()
    }
    return SentNotices(**{**kept, "topics": topics})


def _is_past(at: float, now: float) -> bool:
    """Whether it is at least an hour ago.

    A time in the future comes from a clock that was ahead, and counts as long ago.
    """
    return not 0 <= now - at < HOUR


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).date().isoformat()
