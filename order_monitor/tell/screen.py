"""Colours and tables in a terminal, with rich.

The only module that may style output, after cleaning its text.
"""

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
    """A rich console that shows text from outside unchanged: without markup, links or anything that
    acts on a terminal.
    """

    def __init__(
        self, *, to_stderr: bool = False, soft_wrap: bool = False, elsewhere: int | None = None
    ) -> None:
        """Write to standard output, or ``to_stderr``.

        ``elsewhere`` is the width in characters if the output is not a terminal.
        """
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
        """Whether the output is a terminal, whatever the environment says about colours."""
        return self._outlet.isatty()

    @property
    def is_lost(self) -> bool:
        """Whether the output has no reader any more."""
        return self._outlet.lost is not None

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments to show, with their text made harmless.

        Control segments from rich itself pass unchanged.
        """
        for text, style, control in super().render(renderable, options):
            yield Segment(text, style, control) if control else Segment(visible_lines(text), style)


def styled(*parts: str | tuple[str, StyleType], style: StyleType = "") -> Text:
    """Return one line of text built from several parts, each with or without its own style."""
    clean = [
        visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts
    ]
    return Text.assemble(*clean, style=style)
