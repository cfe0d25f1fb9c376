"""Standard output and standard error, as the whole program sees them: harmless to a terminal, and never a failure of the work.

They are cleaned where they end and not where something is printed, so that no command can forget it: an `Outlet` stands in the
place of ``sys.stdout`` and ``sys.stderr``, and writes out whatever in a text could act on a terminal. Colours pass by its
`styled` alone, which only `tell.screen` uses, after cleaning its own text.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import Final, TextIO

from order_monitor.core.text import escaped, visible, visible_lines

ESCAPED: Final = "order_monitor.escaped"
"""What to do with a character that an encoding does not have: write it out, as JSON does."""


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return escaped(error.object[error.start : error.end]), error.end


codecs.register_error(ESCAPED, _escape)


class Outlet(io.TextIOBase):
    """A stream that shows everything and does nothing; what its encoding does not have is written out too.

    Where nobody reads any more, or a disk is full, what follows is lost, and the work goes on: `loss` tells.
    """

    def __init__(self, stream: TextIO, *, cleans: bool = True) -> None:
        """Write to ``stream``, as it stands unless this ``cleans``."""
        super().__init__()
        self.stream = stream
        self.loss: OSError | None = None
        self._cleans = cleans
        self._styled: Outlet | None = None if cleans else self

    @property
    def styled(self) -> Outlet:
        """The same without cleaning, for a text that has been cleaned and styled."""
        if self._styled is None:
            self._styled = Outlet(self.stream, cleans=False)
        return self._styled

    @property
    def lost(self) -> OSError | None:
        """Why something was lost, None where nothing was."""
        return self.loss or self.styled.loss

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the stream's."""
        return self.stream.encoding or "utf-8"

    def isatty(self) -> bool:
        """As the stream's."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """As the stream's."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """Whatever becomes of it."""
        return True

    def write(self, text: str) -> int:
        """Take a text."""
        if not isinstance(text, str):
            msg = f"a text, not {type(text).__name__}"
            raise TypeError(msg)
        shown = visible_lines(text) if self._cleans else text
        if self.loss is None:
            try:
                self.stream.write(shown.encode(self.encoding, ESCAPED).decode(self.encoding))
            except OSError as error:
                self.loss = error
        return len(text)

    def flush(self) -> None:
        """Let go of what was taken."""
        if self.loss is None and not self.stream.closed:
            try:
                self.stream.flush()
            except OSError as error:
                self.loss = error


def outlet(stream: TextIO | Outlet) -> Outlet:
    """Return a stream as one of ours."""
    return stream if isinstance(stream, Outlet) else Outlet(stream)


def guard() -> None:
    """Let all that the program prints from now on go through outlets."""
    sys.stdout, sys.stderr = outlet(sys.stdout), outlet(sys.stderr)


def settle(code: int) -> int:
    """Write what is left and return the exit code: 1 in place of 0 where something was lost to more than a reader who left."""
    for stream, name in ((sys.stdout, "standard output"), (sys.stderr, "standard error")):
        kept = outlet(stream)
        kept.flush()
        lost = kept.lost
        if lost is None:
            continue
        _abandon(kept.stream)
        if lost.errno != errno.EPIPE:
            say(f"order-monitor: {name} takes nothing: {lost.strerror or type(lost).__name__}")
            code = code or 1
    return code


def _abandon(stream: TextIO) -> None:
    """Let what the stream still holds go nowhere, or Python would fail over it at the very end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        return


def say(*lines: str, to_stdout: bool = False) -> None:
    """Print lines, each of them as one whatever stands in it, also where the stream cannot show its characters."""
    stream = outlet(sys.stdout if to_stdout else sys.stderr)
    stream.write("".join(f"{visible(line)}\n" for line in lines))
    stream.flush()
