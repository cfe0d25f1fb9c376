"""The texts of messages to people, in the page's three languages.

They contain no PIN, no secret and no data of the shop's customers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final, Literal

from order_monitor.core.text import visible
from order_monitor.shop.notices import Figures
from order_monitor.tell.attention import NOT_READY, Cause
from order_monitor.tell.digest import MOST_A_DAY, News

Kind = Literal["info", "success", "warning", "failure"]
"""How a service shows a message. The names are Apprise's."""

_LONGEST: Final = 300
_SIZES: Final = ((86_400.0, 3), (3600.0, 2), (60.0, 1))


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send."""

    title: str
    body: str
    kind: Kind = "info"


class Messages:
    """Writes messages in one language, about the program on one host."""

    def __init__(self, language: str, host: str) -> None:
        """Write in ``language``, one of the page's languages."""
        words = resources.files("order_monitor.tell") / "page" / "words.json"
        self._words: Mapping[str, str] = json.loads(words.read_text("utf-8"))[language]
        self._host = host

    def of_news(self, news: News) -> Message:
        """Report what began, what ended, and what goes on."""
        on = (*news.begun, *news.still)
        lines = [
            *map(self.sentence, news.begun),
            *(self._say("notify_over", what=self.sentence(cause)) for cause in news.over),
            *(self._say("notify_still", what=self.sentence(cause)) for cause in news.still),
            *([self._say("notify_limit", n=MOST_A_DAY)] if news.is_last else []),
        ]
        is_dead = any(cause.kind == NOT_READY for cause in on)
        word = "not_healthy" if is_dead else "needs_a_look" if on else "healthy"
        kind: Kind = "failure" if is_dead else "warning" if on else "success"
        return self._message(word, lines, kind)

    def of_day(self, figures: Figures, waiting: int) -> Message:
        """Report the last 24 hours: completed, failed, still waiting, and how fast."""
        counts = {"completed": figures.completed, "failed": figures.failed, "waiting": waiting}
        lines = [self._say("notify_figures", **counts)]
        if figures.half is not None:
            lines.append(self._say("notify_half", t=self.duration(figures.half)))
        return self._message("notify_daily", lines)

    def of_test(self) -> Message:
        """Return the test message."""
        return self._message("notify_test", [self._say("notify_test_text")])

    def of_death(self, unit: str, why: str) -> Message:
        """Report that a unit has failed."""
        text = self._say("notify_dead", unit=unit, why=why or self._words["notify_no_cause"])
        return self._message("not_healthy", [text], "failure")

    def sentence(self, cause: Cause) -> str:
        """Return the page's sentence for a cause."""
        key = "notify_not_ready" if cause.kind == NOT_READY else f"cause_{cause.kind}"
        light = self._words.get(f"light_{cause.light}", cause.light)
        return self._say(
            key, n=cause.n, all=cause.all, t=self.duration(cause.t), why=cause.why, name=light
        )

    def duration(self, seconds: float) -> str:
        """Format a duration in the largest unit that gives at least two: ``90 min``, ``3 h``."""
        units = self._words["notify_units"].split(" ")
        size, n = next(((size, n) for size, n in _SIZES if seconds >= 2 * size), (1.0, 0))
        return f"{round(seconds / size)} {units[n]}"

    def _message(self, word: str, lines: list[str], kind: Kind = "info") -> Message:
        return Message(f"order-monitor ({self._host}): {self._words[word]}", "\n".join(lines), kind)

    def _say(self, key: str, **values: object) -> str:
        """Fill in the placeholders of a sentence.

        Inserted values are cleaned, and placeholders inside them are not expanded.
        """
        shown = {name: visible(str(value))[:_LONGEST] for name, value in values.items()}
        return re.sub(r"\{(\w+)\}", lambda place: shown.get(place[1], ""), self._words[key])
