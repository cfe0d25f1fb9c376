"""The fuzz targets: guarantees that hold for any bytes."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from order_monitor.core.answer import Cancelled, Completed
from order_monitor.core.errors import SettingsError
from order_monitor.core.folding import letters
from order_monitor.core.pin import read_pin
from order_monitor.providers.http.body import decode
from order_monitor.providers.http.response_head import Head, ResponseReader
from order_monitor.providers.znet.parser import parse, parse_balance
from order_monitor.settings.loading import load
from tests.corpus import ENTRIES, Entry, body_of, response_of

NOW = 1_790_000_000.0
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"content-type": "text/html; charset=utf-8"},
    {"content-type": "text/html; charset=windows-1254"},
    {"content-encoding": "gzip"},
    {"content-encoding": "deflate", "content-type": "text/plain"},
    {"retry-after": "120"},
)
STATUSES = (200, 200, 200, 302, 403, 429, 503)


def answers(data: bytes) -> None:
    """No bytes make the parser raise.

    Only a 200 ends an order, and every reported PIN was sent.
    """
    choice, body = (data[0], data[1:]) if data else (0, b"")
    headers, status = HEADERS[choice % len(HEADERS)], STATUSES[choice // 16 % len(STATUSES)]
    answer = parse(status, headers, body, now=NOW, max_body=4096)
    parse_balance(status, headers, body, now=NOW)
    if isinstance(answer, Completed | Cancelled):
        assert status == 200
    is_plain = "content-encoding" not in headers and not body.startswith(b"\x1f\x8b")
    if isinstance(answer, Completed) and answer.pin is not None and is_plain:
        # Markup is decoded and invisible characters are removed, but every reported letter was
        # sent.
        code, text = answer.pin.reveal(), decode(body, headers.get("content-type", ""))
        assert read_pin(code) == answer.pin
        assert "&" in text or all(line in _bare(text) for line in map(_bare, code.split("\n")))
        assert code not in repr(answer.pin) or len(code) < 8


def _bare(text: str) -> str:
    return letters(re.sub(r"</?[A-Za-z][^<>|]*>", "", text))


def responses(data: bytes) -> None:
    """A head and its chunks give the same result however they are split, or are refused.

    Nothing else is raised.
    """
    size, response = 1 + (data[0] if data else 0), data[1:]
    assert _handed_on(response, size) == _handed_on(response, max(1, len(response)))


def _handed_on(response: bytes, size: int) -> tuple[Head | None, bytes] | None:
    reader, ready = ResponseReader(4096), b""
    try:
        for at in range(0, len(response), size):
            ready += reader.feed(response[at : at + size])
        return reader.head, ready + reader.feed(b"")
    except ValueError:
        return None


def settings_file(data: bytes) -> None:
    """A file is loaded, or every mistake in it is reported; nothing else happens."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "monitor.toml"
        path.write_bytes(data)
        problems = ["none"]
        try:
            load(path, {}, need=("database", "provider"))
        except SettingsError as error:
            problems = error.problems
        assert problems
        assert all(problem.strip() for problem in problems)


def _chosen(entry: Entry) -> bytes:
    """Return an answer of the corpus as `answers` takes it: with the headers of its kind that there
    are.
    """
    wanted = "".join(entry.get("headers", ())).lower()
    choices = [
        n
        for n, headers in enumerate(HEADERS)
        if headers and all(value in wanted for value in headers.values())
    ]
    return bytes([choices[0] if choices else 0]) + body_of(entry)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "answers": answers,
    "responses": responses,
    "settings": settings_file,
}

SEEDS: dict[str, tuple[bytes, ...]] = {
    "answers": (
        b"\x00OK|2|ABCD-1234|tamam",
        b"\x00OK|3| |iptal",
        b"\x00OK|1| |bekleniyor",
        b"\x008|Hata",
        b"\x003|bulunamadi",
        b"\x00<html>Bakim</html>",
        b"\x00OK|2|PIN|a|bOK|2|PIN2|x",
        b"\x00OK|2|<b>AB12</b><br>CD&amp;34|x",
        b"\x01OK|1523,40|0",
        b"\x40OK|2|X|y",
        *(_chosen(entry) for entry in ENTRIES.values() if "body" in entry),
    ),
    "responses": tuple(b"\x06" + response_of(entry) for entry in ENTRIES.values()),
    "settings": (
        b'[database]\ndsn = "postgresql://u:p@h/d"\n[provider]\nbase_url = "https://x.example"\nkod = "k"\nsifre = "s"\n',
        b'[schedule]\nfirst_check = "60s"\njitter = 0.1\ngive_up_after = "24h"\n',
        b'[statuses]\nopen = ["sent", "processing"]\n[health]\nhosts = ["a"]\nport = 0\n',
        b'[database.columns]\nid = "order_id"\n[webhook]\nurl = "https://x.example"\nsecret = "whsec_AAAA"\n',
        b"[limits]\nconcurrency = 1e400\ncalls_per_second = nan\n",
    ),
}
