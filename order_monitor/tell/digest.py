"""What is still to be said to a service, from what it was told before: pure, so that every process decides alike.

Times are epoch seconds. All of it is kept in one row of the shop's database as JSON, so that a restart says nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from order_monitor.tell.attention import Cause

HOUR: Final = 3600.0
"""Of one kind a service hears of its begin at most once in this time, and of its end at most once."""

MOST_A_DAY: Final = 20
"""How many messages a service gets in a day (UTC); the daily line is not counted."""

LEASE: Final = 120.0
"""For how many seconds a process that has taken a message upon itself keeps the others from sending it."""

SEEN_FOR: Final = 180.0
"""After how many seconds what a process saw counts no more, unless it says so again."""

_FIRST_RETRY: Final = 60.0
_LONGEST_RETRY: Final = 3600.0
_WORSE: Final = 2.0
"""What lasts is told again when it has become twice as long."""


@dataclass(slots=True)
class Topic:
    """What was told of one kind: the cause as it was, when its begin and its end were told, and whether it is on."""

    cause: Cause
    began: float = 0.0
    ended: float = 0.0
    is_on: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """What is to be said: what began or grew, what is over, and what goes on; whether this is the day's last message."""

    begun: tuple[Cause, ...]
    over: tuple[Cause, ...]
    still: tuple[Cause, ...]
    is_last: bool = False


@dataclass(slots=True)
class Told:
    """What one service was told. ``day`` is the day (UTC) on which ``sent`` messages went out, ``daily`` that of the daily line."""

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

    def news(self, causes: Mapping[str, Cause], over: set[str], now: float) -> News | None:
        """Return what to say of ``causes``, by topic, and of the topics that are ``over``; None where there is nothing to say."""
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
        """Take the sending upon ``me``."""
        self.by, self.until = me, now + LEASE

    def was_told(self, news: News, now: float) -> None:
        """Note that it was said."""
        for cause in news.begun:
            before = self.topics.get(cause.topic)
            self.topics[cause.topic] = Topic(cause, now, before.ended if before else 0.0, is_on=True)
        for cause in news.over:
            before = self.topics.get(cause.topic)
            self.topics[cause.topic] = Topic(cause, before.began if before else 0.0, now)
        today = _day(now)
        self.day, self.sent = today, (self.sent if self.day == today else 0) + 1

    def went_through(self) -> None:
        """Note that the service took what it was sent."""
        self.retry_at, self.tries, self.by, self.until = 0.0, 0, "", 0.0

    def failed(self, now: float) -> None:
        """Note that it did not: it is tried again after a pause that grows to an hour."""
        self.tries += 1
        self.retry_at = now + min(_FIRST_RETRY * 2.0 ** min(self.tries - 1, 10), _LONGEST_RETRY)
        self.by, self.until = "", 0.0

    def learn(self, other: Told) -> None:
        """Take over what another process told since, or what this one did while the database was away."""
        for kind, theirs in other.topics.items():
            ours = self.topics.get(kind)
            if ours is None or max(theirs.began, theirs.ended) > max(ours.began, ours.ended):
                self.topics[kind] = theirs
        self.day, self.sent = max((self.day, self.sent), (other.day, other.sent))
        self.daily = max(self.daily, other.daily)


@dataclass(slots=True)
class Shared:
    """All that the processes of a shop share: what each of them saw, and when; what each service was told."""

    seen: dict[str, tuple[float, list[Cause]]] = field(default_factory=dict)
    services: dict[str, Told] = field(default_factory=dict)

    def service(self, key: str) -> Told:
        """Return what the service of this key was told."""
        return self.services.setdefault(key, Told())

    def see(self, me: str, causes: list[Cause], now: float) -> None:
        """Note what ``me`` sees, and forget whoever has said nothing for a while."""
        self.seen = {name: one for name, one in self.seen.items() if 0 <= now - one[0] < SEEN_FOR}
        self.seen[me] = (now, causes)

    def causes(self) -> dict[str, Cause]:
        """Return what anybody sees, by topic: of several the one who sees most is believed."""
        found: dict[str, Cause] = {}
        for _, causes in self.seen.values():
            for cause in causes:
                before = found.get(cause.topic)
                if before is None or (cause.n, cause.t) > (before.n, before.t):
                    found[cause.topic] = cause
        return found

    def written(self) -> str:
        """Return it as it is kept."""
        return json.dumps(asdict(self), separators=(",", ":"))


def read_shared(text: str) -> Shared:
    """Return what is kept; nothing where it is not as we write it: then something is told once more."""
    try:
        kept = json.loads(text)
        seen = {str(name): (float(at), [Cause(**one) for one in causes]) for name, (at, causes) in kept["seen"].items()}
        services = {str(key): _told(one) for key, one in kept["services"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return Shared()
    return Shared(seen, services)


def _told(kept: dict[str, Any]) -> Told:
    topics = {kind: Topic(**{**one, "cause": Cause(**one["cause"])}) for kind, one in kept["topics"].items()}
    return Told(**{**kept, "topics": topics})


def _is_past(at: float, now: float) -> bool:
    """Whether it is an hour ago; a time in the future is of a clock that was ahead, and does not count."""
    return not 0 <= now - at < HOUR


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).date().isoformat()
