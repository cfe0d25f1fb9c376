"""Logging: what a line shows and hides, and that no line ever stops or breaks the program."""

import io
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

import httpx
import pytest
import structlog

from order_monitor.tell.logs import LineSink, Repeats, origin, set_up
from order_monitor.tell.redactor import Redactor

pytestmark = pytest.mark.outside

CANARY: Final = "p@s/s?#%[x] CANARY"
PIN: Final = "PIN-CANARY-1234"
LIBRARIES: Final = (
    "",
    "httpx",
    "httpcore",
    "aiohttp.access",
    "aiohttp.server",
    "asyncpg",
    "library",
)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Give the standard library's loggers back as they were."""
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Log:
    """A log set up on a stream in memory."""

    def __init__(
        self,
        level: str = "debug",
        form: str = "json",
        *,
        terminal: bool = False,
        environ: dict[str, str] | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self.bytes = io.BytesIO()
        stream = (Terminal if terminal else io.TextIOWrapper)(self.bytes, encoding)
        self.sink, self.redact = set_up(level, form, stream, environ or {})
        self.log = structlog.get_logger("test")

    def raw(self) -> bytes:
        self.sink.close()
        return self.bytes.getvalue()

    def text(self) -> str:
        return self.raw().decode()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


def test_one_event_is_one_line_of_json() -> None:
    log = Log()
    log.log.info("order.completed", order_id="1", note="iki\nsatır", pin=None)
    log.log.warning("second")
    first, second = log.lines()
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "order.completed",
        "level": "info",
        "order_id": "1",
        "note": "iki\nsatır",
        "pin": None,
    }
    assert (second["event"], second["level"]) == ("second", "warning")


@pytest.mark.parametrize(
    ("form", "terminal", "environ", "is_json", "is_colored"),
    [
        ("json", False, {}, True, False),
        ("json", True, {}, True, False),
        ("console", False, {}, False, False),
        ("console", True, {}, False, True),
        ("console", True, {"NO_COLOR": "1"}, False, False),
        ("console", True, {"NO_COLOR": ""}, False, True),
        ("auto", False, {}, True, False),
        ("auto", True, {}, False, True),
        ("auto", True, {"NO_COLOR": "1"}, False, False),
    ],
)
def test_the_form(
    form: str, *, terminal: bool, environ: dict[str, str], is_json: bool, is_colored: bool
) -> None:
    log = Log(form=form, terminal=terminal, environ=environ)
    log.log.info("the.event", key="value")
    text = log.text()
    assert text.startswith("{") is is_json
    assert ("\x1b[" in text) is is_colored
    assert "the.event" in text
    assert "value" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level(level: str, told: list[str]) -> None:
    log = Log(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log.log, name)(name)
    assert [line["event"] for line in log.lines()] == told


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "secret",
    [
        CANARY,
        'quo"te\\CANARY',
        "şifre CANARY",
        "it's CANARY",
        "a\nb\tCANARY",
        "plainCANARY",
        """'"\\CANARY""",
    ],
)
def test_known_secrets_are_blotted_out_wherever_they_stand(form: str, secret: str) -> None:
    """C7: nested, inside a URL, inside a longer text, as a key, and as the form of the log escapes
    them.
    """
    log = Log(form=form)
    log.redact.learn([secret])
    log.log.info(
        "deep",
        nested={"list": [{"sifre": secret}, (secret,)], secret: 1},
        text=f"before {secret} after",
        url=f"https://x/?sifre={quote(secret, safe='')}&kod={quote_plus(secret)}&path={quote(secret)}",
        httpx=str(httpx.URL("https://x/", params={"sifre": secret})),
        error=repr(ValueError(secret)),
    )
    log.log.info(secret)
    text = log.text()
    assert "CANARY" not in text
    assert text.count("****") >= 9
    assert "after" in text
    if form == "json":
        assert all(json.loads(line) for line in text.splitlines()), "and it is still JSON"


def test_secrets_shorter_than_four_characters_do_not_blot_out_the_log() -> None:
    redact = Redactor()
    redact.learn(["", "a", "abc", "abcd"])
    assert redact("a abc abcd xabcdx") == "a abc **** x****x"
    redact.learn(["other"])
    assert redact("abcd other") == "**** ****", "what was learned before stays known"
    redact.learn(["abcd-longer"])
    assert redact("abcd-longer") == "****", "the longest first, or its end would be left"
    redact.follow({"a": ("abc", "kod1")})
    assert redact("abc kod1") == "abc ****"


def fail_with_a_local() -> None:
    secret_local = "LOCAL-CANARY"
    raise ValueError(f"TEXT-CANARY {len(secret_local)}")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("form_of_call", ["exception", "exc_info", "error"])
def test_no_exception_of_a_library_shows_its_text_or_its_locals(
    form: str, form_of_call: str
) -> None:
    """C1, C4: only what it was and where it came from.

    A PostgreSQL error's text holds the row, PIN and all.
    """
    log = Log(form=form)
    try:
        fail_with_a_local()
    except ValueError as error:
        if form_of_call == "exception":
            logging.getLogger("library").exception("MESSAGE-CANARY %s", error)  # noqa: TRY401
        elif form_of_call == "exc_info":
            logging.getLogger("library").warning("MESSAGE-CANARY %s", error, exc_info=True)
        else:
            logging.getLogger("library").error("MESSAGE-CANARY", exc_info=error)  # noqa: TRY400
    text = log.text()
    assert "CANARY" not in text
    assert "ValueError at test_logs.py:" in text
    assert "fail_with_a_local" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_exception_of_ours_shows_locals(form: str) -> None:
    """C1: the pretty tracebacks of structlog and rich print every frame's variables."""
    log = Log(form=form)
    try:
        fail_with_a_local()
    except ValueError:
        log.log.exception("ours")
    assert "LOCAL-CANARY" not in log.text()


def test_the_origin_of_an_error() -> None:
    """C4: never its text."""
    with pytest.raises(ValueError, match="TEXT-CANARY") as caught:
        fail_with_a_local()
    assert origin(caught.value).startswith("ValueError at test_logs.py:")
    assert "CANARY" not in origin(caught.value)
    assert os.sep not in origin(caught.value)
    assert origin(KeyError(PIN)) == "KeyError"


def test_a_librarys_warning_is_passed_on() -> None:
    log = Log()
    log.redact.learn([CANARY])
    logging.getLogger("library").warning("pool of %s is full, %s", "x", CANARY)
    logging.getLogger("library").info("chatter")
    [line] = log.lines()
    assert line["event"] == "library.message"
    assert (line["library"], line["message"], line["level"]) == (
        "library",
        "pool of x is full, ****",
        "warning",
    )


@pytest.mark.parametrize(
    ("number", "level"),
    [(1, "debug"), (10, "debug"), (25, "info"), (35, "warning"), (50, "error"), (99, "error")],
)
def test_a_librarys_own_level_is_one_of_ours(number: int, level: str) -> None:
    log = Log()
    logging.getLogger("library").setLevel(1)
    logging.getLogger("library").log(number, "x")
    [line] = log.lines()
    assert line["level"] == level


async def test_the_libraries_never_log_a_url() -> None:
    """C3: httpx tells each full URL at INFO, password and all."""
    log = Log("debug")
    logging.getLogger().setLevel(logging.DEBUG)

    async def ask() -> None:
        transport = httpx.MockTransport(
            lambda _: httpx.Response(302, headers={"location": "https://x/?pin=CANARY"})
        )
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get("https://x/pin_kontrol.php", params={"kod": "CANARY", "sifre": CANARY})

    await ask()
    for name in ("httpx", "httpcore.connection", "aiohttp.access", "aiohttp.server", "asyncpg"):
        logging.getLogger(name).info("GET /?sifre=%s", CANARY)
        logging.getLogger(name).debug("GET /?sifre=%s", CANARY)
    logging.getLogger("httpx").warning("heard")
    logging.getLogger("httpx").setLevel(logging.DEBUG)
    await ask()
    lines = log.lines()
    assert lines[0]["message"] == "heard", "nothing before it"
    assert "CANARY" in lines[1]["message"], (
        "this test can fail: that is what httpx says if it is let"
    )


class Broken:
    secret = "REPR-CANARY"

    def __repr__(self) -> str:
        raise RuntimeError(self.secret)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("value", [Broken(), {"deep": [Broken()]}])
def test_a_value_that_cannot_be_shown_never_reaches_the_caller(form: str, value: object) -> None:
    """D10: a mistake in a log call must not break the work it tells of."""
    log = Log(form=form)
    log.log.error("x", value=value)
    log.log.info("next")
    failed, following = log.text().splitlines()
    assert json.loads(failed) == {"event": "log.failed", "error": "RuntimeError"}
    assert "next" in following


def test_a_circle_never_reaches_the_caller() -> None:
    """D10."""
    log = Log()
    circle: dict[str, object] = {}
    circle["self"] = circle
    log.log.info("x", circle=circle)
    assert log.lines() == [{"event": "log.failed", "error": "ValueError"}]


def test_a_librarys_broken_message_never_reaches_the_caller() -> None:
    """D10."""
    log = Log()
    logging.getLogger("library").warning("%d", "CANARY")
    logging.getLogger("library").warning("%s", Broken())
    first, second = log.lines()
    assert (first["library"], second["library"]) == ("library", "library")
    assert "CANARY" not in str(first) + str(second)


def test_a_stream_of_ascii_gets_every_character() -> None:
    """F11: UTF-8 whatever the stream thinks of itself, and what even that cannot say is escaped."""
    log = Log(encoding="ascii")
    log.log.info("şifre ✓ \ud800")
    raw = log.raw()
    assert "şifre ✓ \\ud800".encode() in raw
    assert json.loads(raw)["event"] == "şifre ✓ \ud800"


def pipe() -> tuple[int, io.TextIOWrapper]:
    """Return a real pipe's reading end, and its writing end as a stream like stderr."""
    reading, writing = os.pipe()
    return reading, open(writing, "w", encoding="utf-8")  # noqa: PTH123


def test_a_full_pipe_stalls_nobody_and_what_is_lost_is_counted() -> None:
    """D10: nobody reads; 20,000 lines must neither wait nor pile up for ever."""
    reading, stream = pipe()
    threads = set(threading.enumerate())
    sink, _ = set_up("info", "json", stream, {})
    log = structlog.get_logger("test")
    began = time.monotonic()
    for n in range(20_000):
        log.info("x" * 100, n=n)
    spent = time.monotonic() - began
    lost = sink.dropped
    assert spent < 10, "some microseconds a line, but nothing like for ever"
    assert 5_000 < lost < 10_000, "what neither the queue nor the pipe could hold"
    began = time.monotonic()
    sink.close(0.01)
    assert time.monotonic() - began < 1, "nor does the end wait"
    os.close(reading)
    sink.close(5)
    assert set(threading.enumerate()) <= threads, (
        "a reader that goes away ends the wait, and all that was left"
    )
    assert sink.dropped > lost
    close_broken(stream)


def test_a_closed_pipe_never_raises() -> None:
    """D10: not from the log call, not from the close, and every line is counted as lost."""
    reading, stream = pipe()
    os.close(reading)
    threads = set(threading.enumerate())
    sink, _ = set_up("info", "json", stream, {})
    for _ in range(100):
        structlog.get_logger("test").info("x")
    sink.close()
    assert set(threading.enumerate()) <= threads
    assert sink.dropped > 0
    close_broken(stream)


def close_broken(stream: io.TextIOWrapper) -> None:
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_stream_that_fails_once_is_written_to_again() -> None:
    """D10: whatever it raises."""

    class Failing(io.BytesIO):
        calls = 0

        def write(self, data: Any) -> int:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError(data)
            return super().write(data)

    target = Failing()
    sink = LineSink(io.TextIOWrapper(target, "utf-8"))
    sink.put("first")
    sink.put("second")
    sink.close()
    assert target.getvalue() == b"second\n"
    assert sink.dropped == 1


def test_what_was_told_before_the_close_is_written() -> None:
    reading, stream = pipe()
    sink = LineSink(stream)
    for n in range(1000):
        sink.put(str(n))
    sink.close()
    os.set_blocking(reading, False)
    assert os.read(reading, 65_536).split() == [str(n).encode() for n in range(1000)], (
        "to the last line"
    )
    assert sink.dropped == 0
    stream.close()
    os.close(reading)


def test_stderr_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    sink, _ = set_up("info", "auto")
    structlog.get_logger("test").info("hello")
    sink.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "hello"
    assert sys.stderr is not None


def test_the_journal_learns_each_lines_level(tmp_path: Path) -> None:
    """And nobody else does: elsewhere the prefix would be no JSON."""
    path = tmp_path / "journal"
    for is_journal in (True, False):
        with path.open("w", encoding="utf-8") as stream:
            status = path.stat()
            name = f"{status.st_dev}:{status.st_ino}" if is_journal else "1:2"
            sink, _ = set_up("debug", "json", stream, {"JOURNAL_STREAM": name})
            log = structlog.get_logger("test")
            log.debug("a")
            log.info("b")
            log.warning("c")
            log.error("d")
            log.critical("e")
            sink.close()
        lines = path.read_text("utf-8").splitlines()
        assert [line[:3] for line in lines] == (
            ["<7>", "<6>", "<4>", "<3>", "<2>"] if is_journal else ['{"e'] * 5
        )
        assert all(json.loads(line[3:] if is_journal else line)["level"] for line in lines)


def test_a_library_that_says_one_thing_ten_thousand_times_says_it_once_a_minute() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    key = ("asyncio", "socket.accept() out of system resource")
    told = [repeats.count(key) for _ in range(10_000)]
    assert told == [0, *[None] * 9_999]
    assert repeats.count(("asyncio", "something else")) == 0
    now = 60.0
    assert repeats.count(key) == 9_999
    assert repeats.count(key) is None
    for n in range(1000):
        repeats.count(("library", f"message {n}"))
    assert repeats.count(("library", "message 800")) is None, "the last two hundred are known"
    assert repeats.count(("library", "message 799")) == 0


def test_a_message_that_cannot_be_written_is_nobodys_failure() -> None:
    """D10."""

    class Broken:
        def __str__(self) -> str:
            raise ValueError("broken")

    log = Log()
    logging.getLogger("some.library").warning(Broken())
    assert b"some.library" in log.raw()


HOSTILE = "\x1b]0;pwned\x07\x1b[31mred\u202e\u200b\x9b2J\r\x08\x7f\u2028\ud800\u3164"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("form", ["json", "console"])
def test_what_acts_on_a_terminal_is_written_out(form: str, *, terminal: bool) -> None:
    """In an event, a key, a value, deep in one, a library's message and an exception.

    Our own colours pass.
    """
    log = Log(form=form, terminal=terminal)
    log.log.info(
        HOSTILE,
        **{HOSTILE: HOSTILE},
        short="\x9b",
        deep=[{HOSTILE: (HOSTILE,)}],
        n=1,
        none=None,
        flag=True,
    )
    logging.getLogger(f"lib{HOSTILE}").warning("%s", HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.log.exception("ours")
    text = log.text()
    is_colored = form == "console" and terminal
    assert bool(re.search(r"\x1b\[[0-9;]*m", text)) is is_colored
    assert "\x1b[31mred" not in text
    rest = re.sub(r"\x1b\[[0-9;]*m", "", text) if is_colored else text
    assert not {c for c in rest if c != "\n" and (not c.isprintable() or c == "\u3164")}
    assert rest.count("pwned") >= (7 if form == "json" else 8)
    if form == "json":
        first = json.loads(text.splitlines()[0])
        assert (first["event"], first[HOSTILE], first["deep"]) == (
            HOSTILE,
            HOSTILE,
            [{HOSTILE: [HOSTILE]}],
        )
    else:
        assert "n=1" in rest
        assert "none=None" in rest
        assert "flag=True" in rest


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_with_something_unseen_in_it_is_blotted_out(form: str) -> None:
    """C7."""
    log = Log(form=form)
    log.redact.learn(["CAN\u200bARY\x1b1"])
    log.log.info(
        "x", alone="CAN\u200bARY\x1b1", said="it is CAN\u200bARY\x1b1", deep=["CAN\u200bARY\x1b1"]
    )
    text = log.text()
    assert "ARY" not in text
    assert text.count("****") == 3


def test_a_terminal_gets_its_own_encoding() -> None:
    """Bytes of UTF-8 would be controls to it: the second of two is often one of C1."""
    log = Log(form="json", terminal=True, encoding="iso8859-9")
    log.log.info("şifre ✓ ś")
    raw = log.raw()
    assert "şifre".encode("iso8859-9") in raw
    assert rb"\u2713 \u015b" in raw
    assert json.loads(raw.decode("iso8859-9"))["event"] == "şifre ✓ ś"
