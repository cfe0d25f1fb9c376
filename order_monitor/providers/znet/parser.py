"""Parse znet's answers: pure, from (HTTP status, headers, body bytes) to a typed answer.

Never raises. znet answers ``OK|<state>|<pin>|<message>``, or ``<code>|<message>`` if it refuses the
question itself. A refused question is never the order's failure, although its code may be 3, which
as a state means cancelled.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping
from typing import Final

from order_monitor.core.amount import LONGEST_AMOUNT, amount_of
from order_monitor.core.answer import (
    Answer,
    Blocked,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Waiting,
)
from order_monitor.core.pin import NO_PIN_WORDS, NoPin, Pin, Unreadable, read_pin
from order_monitor.core.text import clean, plain, shown, undamaged, without_codes
from order_monitor.providers.http.body import (
    AROUND,
    BEFORE,
    GAP,
    behind_notices,
    decode,
    decompressed,
    not_ok,
)
from order_monitor.providers.provider import Balance, NoBalance

ACCOUNT_REFUSED: Final = "8"
"""Login, API permission or address allow-list: the only refusal that concerns the whole account."""


_REFUSAL: Final = re.compile(rf"(-?[0-9]{{1,6}}){GAP}\|(.*)", re.DOTALL)


_BEGINS: Final = rf"OK{GAP}\|{GAP}[0-9]{{1,3}}{GAP}\|"
_ANSWER: Final = re.compile(_BEGINS, re.IGNORECASE)
_LINE_OF_ITS_OWN: Final = re.compile(rf"(?:[\s{BEFORE}]|<[^<>]*>)*{_BEGINS}", re.IGNORECASE)
_NEW_LINE: Final = re.compile(
    r"[\r\n\v\f\x85\u2028\u2029]|<(?:br|/?p|/?div|/?li|/?tr|/?td)\b[^<>]*>", re.IGNORECASE
)
_FIELD: Final = re.compile(r"[^|\s](?:[^|]*[^|\s])?")
_BALANCE: Final = re.compile(
    rf"OK{GAP}\|\s*([^|]{{1,200}}?)\s*(?:\|.*)?", re.IGNORECASE | re.DOTALL
)
_OK: Final = 200
_FIELDS: Final = 4


def parse(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    max_body: int = 65_536,
    no_pin: Collection[str] = NO_PIN_WORDS,
) -> Answer:
    """Return what a complete HTTP response says.

    Args:
        status: the response's status.
        headers: with lower-case names.
        body: undecoded.
        now: epoch seconds, for ``Retry-After``.
        max_body: maximum length of a body that is accepted, in bytes.
        no_pin: words in the PIN field that mean "no PIN" (`order_monitor.core.pin.read_pin`).
    """
    if status != _OK:
        return not_ok(status, headers, now, body)
    if len(body) > max_body:
        return Garbled("too_long")
    plain_body = decompressed(headers.get("content-encoding", ""), body, max_body)
    if plain_body is None:
        return Garbled("bad_encoding")
    return parse_text(decode(plain_body, headers.get("content-type", "")), no_pin)


def parse_text(text: str, no_pin: Collection[str] = NO_PIN_WORDS) -> Answer:
    """Return what the text of an answer says."""
    text = _without_notices(text)
    if not text:
        return Blocked("empty_answer")
    if text.startswith("<"):
        return Blocked("html_answer", shown(text))
    if _has_lines_of_two(text):
        # It is unknown which of them is this order's answer, and the other one's PIN must not get
        # into a note.
        return Garbled("two_answers", shown(text))
    refusal = _REFUSAL.fullmatch(text)
    if refusal:
        code, message = refusal[1], _message(refusal[2])
        return (
            Blocked("refused_8", message)
            if code.lstrip("0") == ACCOUNT_REFUSED
            else Refused(code, message)
        )
    fields = text.split("|", _FIELDS - 1)
    if not _is_ok(fields[0]) or (fields[1:2] and _is_ok(fields[1])):
        return Garbled("not_understood", shown(text))
    if len(fields) < _FIELDS:
        # Without its third "|" the answer may have been cut anywhere, even within the PIN.
        return Garbled("cut_short", shown(text))
    another = _ANSWER.search(text, 2)
    if another and another.start() < len(text) - len(fields[3]):
        # The first answer was cut before its message: its PIN field holds part of a PIN, followed
        # by a second answer.
        return Garbled("two_answers", shown(text))
    return _state(fields[1].strip(BEFORE), fields[2], _message(fields[3]), no_pin) or Garbled(
        "unknown_state", shown(text)
    )


def _is_ok(field: str) -> bool:
    return field.strip(BEFORE).upper() == "OK"


def _has_lines_of_two(text: str) -> bool:
    """Whether a second answer begins on a line of its own.

    Within a line it does not count: ``TIKTOK|100|Coin`` is a product.
    """
    lines = _NEW_LINE.split(html.unescape(text) if "&" in text else text)
    return any(map(_LINE_OF_ITS_OWN.match, lines[1:]))


def _message(text: str) -> str:
    """Return a message as plain text.

    After anything in it that looks like an answer, possible codes are masked.
    """
    message = undamaged(plain(text))
    found = _ANSWER.search(message)
    if found is None:
        return message
    return message[: found.end()] + _FIELD.sub(
        lambda field: without_codes(field[0]), message[found.end() :]
    )


def _without_notices(text: str) -> str:
    """Remove invisible characters around an answer, and PHP output if an answer follows it."""
    text = text.rstrip(AROUND).lstrip(BEFORE)
    rest = behind_notices(text)
    return rest if rest[:2].upper() == "OK" or _REFUSAL.fullmatch(rest) else text


def parse_balance(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, max_body: int = 65_536
) -> Balance | NoBalance:
    """Return the balance in ``OK|<balance>`` or ``OK|<balance>|<debt>``, or why there is none.

    An amount with digits that cannot be parsed (`order_monitor.core.amount.amount_of`) still counts
    as a balance, because the account answers. ``max_body`` is in bytes.
    """
    if status != _OK:
        failed = not_ok(status, headers, now, body)
        return NoBalance(failed.why, failed.message)
    plain_body = decompressed(headers.get("content-encoding", ""), body, max_body)
    if plain_body is None:
        return NoBalance("bad_encoding")
    text = _without_notices(decode(plain_body, headers.get("content-type", "")))
    found = _BALANCE.fullmatch(text)
    amount = clean(undamaged(plain(found[1]))).strip(BEFORE) if found else ""
    if amount_of(amount) is not None:
        return Balance(amount)
    if (
        text.count("|") < _FIELDS - 1
        and len(amount) <= LONGEST_AMOUNT
        and any(map(str.isdecimal, amount))
    ):
        return Balance(without_codes(amount))
    answer = parse_text(text)
    why = (
        f"refused_{answer.code}"
        if isinstance(answer, Refused)
        else getattr(answer, "why", "not_understood")
    )
    return NoBalance(why, getattr(answer, "message", ""))


def _state(state: str, third: str, message: str, no_pin: Collection[str]) -> Answer | None:
    match state:
        case "1":
            return Waiting(message or _reason(third, no_pin))
        case "2":
            pin = read_pin(third, no_pin)
            if isinstance(pin, Unreadable):
                return Garbled("unreadable_pin", f"OK|2|… ({pin.holds} in the PIN's place)")
            return Completed(pin if isinstance(pin, Pin) else None, message)
        case "3":
            # The PIN field may hold a reason here: it is text, never a PIN.
            return Cancelled(" ".join(part for part in (_reason(third, no_pin), message) if part))
        case _:
            return None


def _reason(third: str, no_pin: Collection[str]) -> str:
    """Return the text of the PIN field of an answer that cannot have a PIN."""
    return "" if isinstance(read_pin(third, no_pin), NoPin) else undamaged(plain(third))
