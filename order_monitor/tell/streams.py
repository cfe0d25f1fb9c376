"""Standard output and standard error for the whole program: harmless to a terminal, and never a
reason for the work to fail.

Text is cleaned in the stream and not where it is printed, so that no command can forget it: an
`Outlet` replaces ``sys.stdout`` and ``sys.stderr``, and escapes everything that could act on a
terminal. Colours pass only through its `styled`, which only `tell.screen` uses, after cleaning its
own text.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import Final, TextIO

from order_monitor.core.text import escaped, visible, visible_lines

ESCAPED: Final = "order_monitor.escaped"
"""The error handler for characters that an encoding lacks: escape them, as JSON does."""


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return escaped(error.object[error.start : error.end]), error.end


codecs.register_error(ESCAPED, _escape)


class Outlet(io.TextIOBase):
    """A stream that shows control characters instead of passing them on.

    Characters that its encoding lacks are escaped too. If the reader has gone or a disk is full,
    further output is lost and the work goes on: see `loss`.
    """

    def __init__(self, stream: TextIO, *, cleans: bool = True) -> None:
        """Write to ``stream``, unchanged unless ``cleans``."""
        super().__init__()
        self.stream = stream
        self.loss: OSError | None = None
        self._cleans = cleans
        self._styled: Outlet | None = None if cleans else self

    @property
    def styled(self) -> Outlet:
        """The same stream without cleaning, for text that is already cleaned and styled."""
        if self._styled is None:
            self._styled = Outlet(self.stream, cleans=False)
        return self._styled

    @property
    def lost(self) -> OSError | None:
        """Why output was lost, None if none was."""
        return self.loss or self.styled.loss

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding."""
        return self.stream.encoding or "utf-8"

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Return the stream's file descriptor."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """Return True, even after a loss."""
        return True

    def write(self, text: str) -> int:
        """Write a text, or drop it after a loss."""
        if not isinstance(text, str):
            raise TypeError(f"a text, not {type(text).__name__}")
        shown = visible_lines(text) if self._cleans else text
        if self.loss is None:
            try:
                self.stream.write(shown.encode(self.encoding, ESCAPED).decode(self.encoding))
            except OSError as error:
                self.loss = error
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        if self.loss is None and not self.stream.closed:
            try:
                self.stream.flush()
            except OSError as error:
                self.loss = error


def outlet(stream: TextIO | Outlet) -> Outlet:
    """Wrap a stream in an `Outlet`, unless it is one."""
    return stream if isinstance(stream, Outlet) else Outlet(stream)


def guard() -> None:
    """Send everything that the program prints from now on through outlets."""
    sys.stdout, sys.stderr = outlet(sys.stdout), outlet(sys.stderr)


def settle(code: int) -> int:
    """Flush the streams and return the exit code: 1 instead of 0 if output was lost for another
    reason than a closed pipe.
    """
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
    """Redirect the stream to the null device, because Python would fail on its remaining output at
    exit.
    """
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        return


def say(*lines: str) -> None:
    """Print lines on stderr, each as a single line even if it contains line breaks, or characters
    that the stream cannot encode.
    """
    _print(outlet(sys.stderr), lines)


def show(*lines: str) -> None:
    """Print lines on stdout, as `say` does on stderr."""
    _print(outlet(sys.stdout), lines)


def show_json(document: object) -> None:
    """Print a JSON document on stdout, as one line."""
    show(json.dumps(document, ensure_ascii=False))


def _print(stream: Outlet, lines: Iterable[str]) -> None:
    stream.write("".join(f"{visible(line)}\n" for line in lines))
    stream.flush()
