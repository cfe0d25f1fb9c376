"""Understand znet's answers: pure, from (HTTP status, headers, body bytes) to a typed answer. Never raises.

znet answers ``OK|<state>|<pin>|<message>`` or, where it refuses the question itself, ``<code>|<message>``. A refused question
is never the order's failure, although its code may be 3, which as a state means cancelled.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from order_monitor.answer import (
    AboutOrder,
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Waiting,
)
from order_monitor.order import Pin
from order_monitor.providers.seam import Balance

ACCOUNT_REFUSED: Final = "8"
"""Login, API permission or address allow-list: the only refusal that concerns the whole account."""

_REFUSAL: Final = re.compile(r"(-?[0-9]{1,6})\s*\|(.*)", re.DOTALL)
_TURKISH: Final = re.compile(r"charset\s*=\s*[\"']?(windows-1254|cp1254|iso-8859-9|latin-?5)", re.IGNORECASE)
_NO_PIN: Final = frozenset(" \t\r\n\u00a0-‐‑‒–—―−")
_OK: Final = 200
_FIELDS: Final = 4
_BAD_URL: Final = frozenset({404, 405, 410})
_NOT_ALLOWED: Final = frozenset({401, 402, 403, 407, 451})
_TOO_MANY: Final = 429
_TIMEOUT: Final = 408


def parse(status: int, headers: Mapping[str, str], body: bytes, *, now: float, max_body: int = 65_536) -> Answer:
    """Return what a whole HTTP response says. ``headers`` has lower-case names; ``now`` is epoch seconds (for ``Retry-After``)."""
    if status != _OK:
        return _not_ok(status, headers, now)
    if len(body) > max_body:
        return Garbled("too_long")
    plain = _decompressed(headers.get("content-encoding", ""), body, max_body)
    if plain is None:
        return Garbled("bad_encoding")
    return parse_text(decode(plain, headers.get("content-type", "")))


def parse_text(text: str) -> Answer:
    """Return what the text of an answer says."""
    text = text.strip("\ufeff \t\r\n\0")
    if not text:
        return Blocked("empty_answer")
    if text.startswith("<"):
        return Blocked("html_answer")
    refusal = _REFUSAL.fullmatch(text)
    if refusal:
        code, message = refusal[1], refusal[2].strip()
        return Blocked("refused_8", message) if code == ACCOUNT_REFUSED else Refused(code, message)
    fields = text.split("|", _FIELDS - 1)
    if fields[0].strip().upper() != "OK":
        return Garbled("not_understood")
    if len(fields) < _FIELDS:
        # Without its third "|" the answer may have been cut anywhere, in the middle of the PIN too.
        return Garbled("cut_short")
    return _state(fields[1].strip(), fields[2].strip(), fields[3].strip())


def parse_balance(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> Balance | str:
    """Return the balance that ``OK|<balance>`` or ``OK|<balance>|<debt>`` states, or the failure's name."""
    if status != _OK:
        return _not_ok(status, headers, now).why
    text = decode(body, headers.get("content-type", "")).strip("\ufeff \t\r\n\0")
    found = re.fullmatch(r"OK\s*\|\s*(-?[0-9][0-9.,]*)\s*(?:\|.*)?", text, re.IGNORECASE | re.DOTALL)
    if found:
        return Balance(found[1])
    answer = parse_text(text)
    return f"refused_{answer.code}" if isinstance(answer, Refused) else getattr(answer, "why", "not_understood")


def _state(state: str, third: str, message: str) -> Answer:
    pin = None if all(c in _NO_PIN for c in third) else third
    match state:
        case "1":
            return Waiting(message or (pin or ""))
        case "2":
            if pin is not None and not _readable(pin):
                return Garbled("unreadable_pin")
            return Completed(Pin(pin) if pin is not None else None, message)
        case "3":
            # A reason may stand where a PIN would: it is text, never a PIN.
            return Cancelled(" ".join(part for part in (pin, message) if part))
        case _:
            return Garbled("unknown_state")


def _readable(pin: str) -> bool:
    return "\ufffd" not in pin and all(c >= " " and c != "\x7f" for c in pin)


def decode(body: bytes, content_type: str) -> str:
    """Decode as UTF-8, or windows-1254 where the header says so or the bytes are no UTF-8."""
    if not _TURKISH.search(content_type):
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return body.decode("windows-1254", "replace")


def render(answer: AboutOrder) -> str:
    """Write an answer as znet would; `parse_text` reads it back. Used by the stand-in."""
    if isinstance(answer, Completed):
        return f"OK|2|{answer.pin.reveal() if answer.pin else ' '}|{answer.message}"
    return f"OK|{3 if isinstance(answer, Cancelled) else 1}| |{answer.message}"


def _not_ok(status: int, headers: Mapping[str, str], now: float) -> Busy | Blocked | Garbled:
    if status in (_TOO_MANY, _TIMEOUT) or status >= 500:  # noqa: PLR2004 - the server's failures
        return Busy(f"http_{status}", retry_after(headers.get("retry-after"), now))
    if 300 <= status < 400:  # noqa: PLR2004 - redirects, which are never followed
        return Blocked("redirect")
    if status in _NOT_ALLOWED or status in _BAD_URL:
        return Blocked(f"http_{status}")
    return Garbled("unexpected_http_status")


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3): a number or a date."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,10}", text, re.ASCII):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.fromtimestamp(now, UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, seconds.total_seconds())


def _decompressed(encoding: str, body: bytes, limit: int) -> bytes | None:
    """Undo one gzip or deflate that was not asked for, never beyond ``limit`` bytes; None where that cannot be."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        return None
    unzip = zlib.decompressobj(wbits=47 if "gzip" in name else 15)
    try:
        plain = unzip.decompress(body, limit + 1)
    except zlib.error:
        return None
    return plain if unzip.eof and len(plain) <= limit else None
