"""Logging: one line per event on stderr, written by a separate thread, with known secrets redacted.

A full or closed pipe loses lines, which are counted; it never blocks or breaks the program.
"""

from __future__ import annotations

import io
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from order_monitor.core.text import visible, visible_lines
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.streams import ESCAPED, Outlet

_QUEUE: Final = 10_000
_REPEAT_EVERY: Final = 60.0
_REPEATS_KNOWN: Final = 200
_REPEAT_KEY: Final = 200
_PRIORITIES: Final = {
    "critical": "<2>",
    "error": "<3>",
    "exception": "<3>",
    "warning": "<4>",
    "info": "<6>",
    "debug": "<7>",
}
_QUIET: Final = (
    "httpx",
    "httpcore",
    "aiohttp.access",
    "aiohttp.server",
    "asyncpg",
    "urllib3",
    "opentelemetry",
    "pydantic_settings",
)
"""Libraries whose log lines may contain a URL or a value, whatever our log level."""


class LineSink:
    """Writes lines to a stream from a thread, and never blocks its caller.

    `logging.handlers.QueueListener` would wait without limit for a stream that is stuck, when it is
    stopped.
    """

    def __init__(self, stream: TextIO) -> None:
        """Write to ``stream``."""
        # Lines arrive cleaned, and with our own colours.
        self._stream = stream.stream if isinstance(stream, Outlet) else stream
        # A log collector reads UTF-8; a terminal shows what its encoding allows.
        self._encoding = stream.encoding if stream.isatty() else "utf-8"
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUE)
        self.dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue a line, or count it as dropped."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float = 1.0) -> None:
        """Write the remaining lines, for at most ``seconds``."""
        try:
            self._lines.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _write(self) -> None:
        line: str | None = ""
        while line is not None:
            line = self._lines.get()
            try:
                if line is not None:
                    self._stream.buffer.write((line + "\n").encode(self._encoding, ESCAPED))
                if line is None or self._lines.empty():
                    self._stream.flush()
            except Exception:  # noqa: BLE001 - whatever ails the stream, the next line gets its chance
                self.dropped += 1


class _Logger:
    """The logger to which structlog passes finished lines."""

    def __init__(self, sink: LineSink) -> None:
        self._sink = sink

    def msg(self, line: str) -> None:
        self._sink.put(line)

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _Chain:
    """All structlog processors as one that cannot fail: a mistake in a log call must not reach the
    code that logs.
    """

    def __init__(
        self,
        processors: list[structlog.typing.Processor],
        redact: Redactor,
        *,
        for_journal: bool,
        is_clean: bool,
    ) -> None:
        self._processors = processors
        self._redact = redact
        self._for_journal = for_journal
        self._is_clean = is_clean

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        try:
            has_traceback = bool(event.get("exc_info"))
            done: Any = self._redact.fields(event)
            for processor in self._processors:
                done = processor(logger, method, done)
            priority = _PRIORITIES.get(method, "") if self._for_journal else ""
            line = self._redact(str(done)) if has_traceback else self._redact.line(str(done))
            return priority + (line if self._is_clean else visible(line))
        except Exception as error:  # noqa: BLE001 - see above
            return f'{{"event": "log.failed", "error": "{type(error).__name__}"}}'


class _Visible:
    """A value made safe for the console: its ``repr`` without control characters."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return visible(repr(self._value))


def _cleaned(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Clean an event before it is coloured: afterwards our colours could not be distinguished from
    escape sequences in foreign text.
    """
    said = visible(str(event.pop("event", "")))
    fields = {visible(key): _shown(key, value) for key, value in event.items()}
    return {**fields, "event": said}


def _shown(key: str, value: object) -> object:
    if key == "exc_info" or value is None or isinstance(value, int | float):
        return value
    is_plain = isinstance(value, str) and visible(value) == value
    return value if is_plain else _Visible(value)


def _traceback(to: TextIO, exc_info: Any) -> None:  # noqa: ANN401 - structlog's
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    to.write(visible_lines(text.getvalue()))


class Repeats:
    """Lets the same message through once a minute, and counts the rest: a library may repeat one
    message ten thousand times.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """Measure time with ``monotonic``, in seconds."""
        self._monotonic = monotonic
        self._said: OrderedDict[tuple[str, str], list[float]] = OrderedDict()

    def count(self, key: tuple[str, str]) -> int | None:
        """Return how many times ``key`` was suppressed since it was last let through.

        None if it is suppressed again.
        """
        now = self._monotonic()
        known = self._said.get(key)
        if known is not None and now - known[0] < _REPEAT_EVERY:
            known[1] += 1
            return None
        self._said.pop(key, None)
        self._said[key] = [now, 0]
        while len(self._said) > _REPEATS_KNOWN:
            self._said.popitem(last=False)
        return int(known[1]) if known is not None else 0


class _FromStdlib(logging.Handler):
    """Forwards the records of libraries; of an exception only its type and where it was raised."""

    def __init__(self, repeats: Repeats) -> None:
        super().__init__()
        self._repeats = repeats

    def emit(self, record: logging.LogRecord) -> None:
        repeated = self._repeats.count(_key(record))
        if repeated is None:
            return
        log = structlog.get_logger("library")
        try:
            fields: dict[str, Any] = {"library": record.name, "message": record.getMessage()}
        except Exception:  # noqa: BLE001 - a library's broken format string
            fields = {"library": record.name}
        if record.exc_info and record.exc_info[1]:
            fields = {"library": record.name, "error": origin(record.exc_info[1])}
        if repeated:
            fields["repeated"] = repeated
        # structlog has only the five standard levels; a library may use others in between.
        level = max(logging.DEBUG, min(record.levelno // 10 * 10, logging.ERROR))
        log.log(level, "library.message", **fields)


def _key(record: logging.LogRecord) -> tuple[str, str]:
    """Return what identifies a message: its template, and where its error was raised."""
    template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
    error = origin(record.exc_info[1]) if record.exc_info and record.exc_info[1] else ""
    return record.name, f"{template[:_REPEAT_KEY]} {error}"


def origin(error: BaseException) -> str:
    """Return an exception's type and its traceback's locations.

    Never its text, which may contain anything.
    """
    places = [
        f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)
    ]
    name = type(error).__name__
    return f"{name} at {' > '.join(places[-8:])}" if places else name


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether systemd's journal reads the stream: then each line starts with its level
    (sd-daemon(3)), so that `journalctl -p` works.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def set_level(level: str) -> None:
    """Set the minimum log level, effective at once."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper()))
    )


def set_up(
    level: str,
    form: str,
    stream: TextIO | None = None,
    environ: MutableMapping[str, str] | None = None,
) -> tuple[LineSink, Redactor]:
    """Configure structlog and the standard library's logging.

    Args:
        level: the minimum level.
        form: ``console``, ``json`` or ``auto`` (console on a terminal).
        stream: stderr by default.
        environ: read for ``NO_COLOR`` and ``JOURNAL_STREAM``.
    """
    stream = sys.stderr if stream is None else stream
    environ = os.environ if environ is None else environ
    is_terminal = stream.isatty()
    sink, redact = LineSink(stream), Redactor()
    renderers: list[structlog.typing.Processor] = [
        structlog.processors.JSONRenderer(ensure_ascii=False)
    ]
    is_console = form == "console" or (form == "auto" and is_terminal)
    if is_console:
        colors = is_terminal and not environ.get("NO_COLOR")
        renderers = [
            _cleaned,
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_traceback),
        ]
    chain = _Chain(
        [
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        redact,
        for_journal=_is_journal(stream, environ),
        is_clean=is_console,
    )
    structlog.configure(
        processors=[chain],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Logger(sink),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_FromStdlib(Repeats(time.monotonic))]
    root.setLevel(logging.WARNING)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return sink, redact
