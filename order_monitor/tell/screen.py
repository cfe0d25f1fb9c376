"""Colours and tables in a terminal, by rich; the one place that may style what is printed, after cleaning its text."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import StyleType
from rich.text import Text

from order_monitor.core.text import visible, visible_lines
from order_monitor.tell.streams import outlet


class Screen(Console):
    """A console of rich's that shows text from outside as it is: no markup in it, no links, nothing that acts on a terminal."""

    def __init__(self, *, to_stderr: bool = False, soft_wrap: bool = False, elsewhere: int | None = None) -> None:
        """Show on standard output, or ``to_stderr``; ``elsewhere`` than on a terminal so many characters wide."""
        self._outlet = outlet(sys.stderr if to_stderr else sys.stdout)
        super().__init__(
            file=cast("IO[str]", self._outlet.styled),
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=soft_wrap,
            width=None if self.is_seen else elsewhere,
        )

    @property
    def is_seen(self) -> bool:
        """Whether it is a terminal, whatever the environment says of colours."""
        return self._outlet.isatty()

    @property
    def is_lost(self) -> bool:
        """Whether nobody sees it any more."""
        return self._outlet.lost is not None

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the pieces of what is shown, whose text is harmless; what rich itself tells the terminal passes."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text, style, control) if control else Segment(visible_lines(text), style)


def styled(*parts: str | tuple[str, StyleType], style: StyleType = "") -> Text:
    """Return text of several parts as one line, each with a style of its own or with none."""
    clean = [visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts]
    return Text.assemble(*clean, style=style)
