"""Parse znet's answers: pure, from (HTTP status, headers, body bytes) to a typed answer.

Never raises. znet answers ``OK|<state>|<pin>|<message>``, or ``<code>|<message>`` if it refuses the
question itself. A refused question is never the order's failure, although its code may be 3, which
as a state means cancelled.
"""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from encodings.aliases import aliases
from typing import Final, assert_never

from order_monitor.core.amount import LONGEST_AMOUNT, amount_of
from order_monitor.core.answer import (
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
from order_monitor.core.pin import NO_PIN_WORDS, NoPin, Pin, Unreadable, read_pin
from order_monitor.core.retry_after import retry_after
from order_monitor.core.text import clean, plain, shown, undamaged, without_codes
from order_monitor.providers.provider import Balance, NoBalance

ACCOUNT_REFUSED: Final = "8"
"""Login, API permission or address allow-list: the only refusal that concerns the whole account."""

_AROUND: Final = "\ufeff \t\r\n\0"
_BEFORE: Final = (
    _AROUND
    + "\v\f\x85\xa0\xad\u061c\u1680\u180e\u3000"
    + "".join(map(chr, (*range(0x2000, 0x2010), *range(0x2028, 0x2030), *range(0x205F, 0x2070))))
    + "ï»¿"
)
"""What may precede an answer or surround its first fields: blanks, invisible characters, and a
wrongly decoded byte order mark.
"""

_GAP: Final = rf"[\s{_BEFORE}]*"
_REFUSAL: Final = re.compile(rf"(-?[0-9]{{1,6}}){_GAP}\|(.*)", re.DOTALL)
_DECLARED: Final = re.compile(
    r"charset\s*[=:]\s*[\"']?\s*([a-z0-9_.:+\-]{1,40}(?: [0-9]{1,5})?)", re.IGNORECASE
)
_NO_CHARSETS: Final = frozenset(
    {
        "base64_codec",
        "bz2_codec",
        "hex_codec",
        "idna",
        "mbcs",
        "oem",
        "punycode",
        "quopri_codec",
        "raw_unicode_escape",
    }
    | {"rot_13", "undefined", "unicode_escape", "utf_7", "uu_codec", "zlib_codec"}
)
"""Python codecs that are not charsets of pages, or that turn plain letters into other ones."""

_WITHOUT_ALIAS: Final = (
    *("big5", "cp1006", "cp720", "cp737", "cp856", "cp874", "cp875", "koi8_r", "koi8_t", "koi8_u"),
    *("mac_arabic", "mac_croatian", "mac_farsi", "mac_romanian", "palmos", "utf_8_sig"),
)
CHARSETS: Final = {
    **{name: name for name in _WITHOUT_ALIAS},
    **{name: name for name in aliases.values() if name not in _NO_CHARSETS},
    **{alias: name for alias, name in aliases.items() if name not in _NO_CHARSETS},
}
"""Every charset that Python knows, by each of its names.

Not looked up with `codecs.lookup`, which would keep every wrong name in memory permanently.
"""

_BY_LETTERS: Final = {re.sub("[^a-z0-9]", "", name): codec for name, codec in CHARSETS.items()}
_CODE_PAGE: Final = re.compile(r"(?:windows|win|ansi|dos|oem|ms|cp)?([0-9]{3,4})")

_AS_MEANT: Final = {
    **dict.fromkeys(("ascii", "latin_1", "iso8859_9"), "cp1254"),
    "iso8859_11": "cp874",
    "tis_620": "cp874",
}
"""Charsets that are decoded as larger ones, which the sender means.

A Turkish panel that declares latin-1 has not changed its server's default: windows-1254 has the
same letters except for six that no other language of its customers needs.
"""

_FEW: Final = 2
_MOST: Final = 8
"""Number of UTF-8 characters required next to a single invalid one, and next to each of several.
"""

_WIDE: Final = ("utf_16", "utf_32")
_WIDE_MARKS: Final = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_ZIPPED: Final = ("gzip", "x-gzip", "deflate", "x-deflate")
_NOT_UNDONE: Final = (
    "br",
    "zstd",
    "compress",
    "x-compress",
    "dcb",
    "dcz",
    "exi",
    "pack200-gzip",
    "aes128gcm",
)
LAYERS: Final = 5
_MEMBERS: Final = 64
_GZIP_MARK: Final = b"\x1f\x8b"
_EITHER_HEADER: Final = 47
_NO_HEADER: Final = -15
_BEGINS: Final = rf"OK{_GAP}\|{_GAP}[0-9]{{1,3}}{_GAP}\|"
_ANSWER: Final = re.compile(_BEGINS, re.IGNORECASE)
_LINE_OF_ITS_OWN: Final = re.compile(rf"(?:[\s{_BEFORE}]|<[^<>]*>)*{_BEGINS}", re.IGNORECASE)
_NEW_LINE: Final = re.compile(
    r"[\r\n\v\f\x85\u2028\u2029]|<(?:br|/?p|/?div|/?li|/?tr|/?td)\b[^<>]*>", re.IGNORECASE
)
_FIELD: Final = re.compile(r"[^|\s](?:[^|]*[^|\s])?")
_KIND: Final = r"(?:Notice|Warning|Deprecated|Strict Standards)"
_INNER: Final = rf"(?:(?![Oo][Kk]{_GAP}\|)[\s\S])*?"
_NOTICE_BEFORE: Final = re.compile(
    rf"(?:(?:<br\s*/?>\s*)?(?:\[[0-9A-Za-z:/ +_-]{{10,50}}\] )?(?:<b>\s*{_KIND}\s*</b>|(?:PHP )?{_KIND})"
    rf"\s*:{_INNER} on line (?:<b>)?[0-9]+(?:</b>)?(?:\s*<br\s*/?>)?"
    r"|(?:PHP )?Stack trace:|PHP +[0-9]+\. [^\r\n|]*"
    rf"|(?:<br\s*/?>\s*)?<font size=.1.><table class=.xdebug-error{_INNER}</table></font>"
    rf"|<!--{_INNER}-->"
    r"|(?:(?:Content-Type|X-Powered-By|Set-Cookie|Expires|Cache-Control|Pragma):[^\r\n|]*\r?\n)+\r?\n"
    rf"){_GAP}",
    re.IGNORECASE,
)
"""Output of PHP, or of what runs before it, that may precede an answer.

Text inside it that looks like an answer is not one.
"""
_BALANCE: Final = re.compile(
    rf"OK{_GAP}\|\s*([^|]{{1,200}}?)\s*(?:\|.*)?", re.IGNORECASE | re.DOTALL
)
_MARKS: Final = re.compile(rb"(?:[\s\0]*\xef\xbb\xbf)+")
_OK: Final = 200
_FIELDS: Final = 4
_SAID: Final = 8192
_BAD_URL: Final = frozenset({404, 405, 410})
_NOT_ALLOWED: Final = frozenset({401, 402, 403, 407, 451})
_TOO_MANY: Final = 429
_TIMEOUT: Final = 408


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
    plain_body = _decompressed(headers.get("content-encoding", ""), body, max_body)
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
    return _state(fields[1].strip(_BEFORE), fields[2], _message(fields[3]), no_pin) or Garbled(
        "unknown_state", shown(text)
    )


def _is_ok(field: str) -> bool:
    return field.strip(_BEFORE).upper() == "OK"


def body_text(headers: Mapping[str, str], body: bytes, max_body: int) -> str | None:
    """Return a body's text, without invisible characters around it.

    None if its encoding cannot be undone. PHP output before a JSON document is removed too.
    """
    plain_body = _decompressed(headers.get("content-encoding", ""), body, max_body)
    if plain_body is None:
        return None
    text = decode(plain_body, headers.get("content-type", "")).rstrip(_AROUND).lstrip(_BEFORE)
    rest = _behind_notices(text)
    return rest if rest.startswith(("{", "[")) else text


def is_page(headers: Mapping[str, str], body: bytes, max_body: int) -> bool:
    """Whether a response is a web page.

    Its ``content-type`` does not show this: PHP sends ``text/html`` with everything.
    """
    plain_body = _decompressed(headers.get("content-encoding", ""), body, max_body) or b""
    return parse_text(decode(plain_body, headers.get("content-type", ""))) == Blocked("html_answer")


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
    text = text.rstrip(_AROUND).lstrip(_BEFORE)
    rest = _behind_notices(text)
    return rest if rest[:2].upper() == "OK" or _REFUSAL.fullmatch(rest) else text


def _behind_notices(text: str) -> str:
    at = 0
    while notice := _NOTICE_BEFORE.match(text, at):
        at = notice.end()
    return text[at:]


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
    plain_body = _decompressed(headers.get("content-encoding", ""), body, max_body)
    if plain_body is None:
        return NoBalance("bad_encoding")
    text = _without_notices(decode(plain_body, headers.get("content-type", "")))
    found = _BALANCE.fullmatch(text)
    amount = clean(undamaged(plain(found[1]))).strip(_BEFORE) if found else ""
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


def decode(body: bytes, content_type: str) -> str:
    """Decode by content: valid UTF-8, otherwise the charset in the header, otherwise windows-1254.

    A byte order mark takes precedence over all of them. Text that is UTF-8 except for a truncated
    or foreign character is decoded as UTF-8 with U+FFFD in that place: any other charset would
    damage all of it without a visible sign.
    """
    for mark, wide in _WIDE_MARKS:
        if body.startswith(mark):
            return body.decode(wide, "replace")
    if marks := _MARKS.match(body):
        body = body[marks.end() :]
    declared = _declared(content_type)
    # Plain letters in UTF-16 are valid UTF-8 as well, with a NUL next to each.
    is_wide = declared is not None and declared.startswith(_WIDE) and b"\0" in body
    ways = [_AS_MEANT.get(declared, declared), declared] if declared is not None else []
    for codec in [*ways, "utf_8"] if is_wide else ["utf_8", *ways]:
        with suppress(UnicodeError):
            return body.decode(codec)
        if codec == "utf_8" and _is_nearly_utf_8(body):
            return body.decode("utf-8", "replace").rstrip(_AROUND + "\ufffd")
    return body.decode("windows-1254", "replace")


def _declared(content_type: str) -> str | None:
    """Return the codec that a header names, None if it names none or UTF-8."""
    named = (_charset(name) for name in _DECLARED.findall(content_type))
    return next((codec for codec in named if codec not in (None, "utf_8", "utf_8_sig")), None)


def is_as_declared(headers: Mapping[str, str], body: bytes, max_body: int) -> bool:
    """Whether a body is UTF-8, unless it declares another encoding: otherwise `decode` guesses."""
    plain_body = _decompressed(headers.get("content-encoding", ""), body, max_body)
    if plain_body is None or _declared(headers.get("content-type", "")) is not None:
        return True
    if any(plain_body.startswith(mark) for mark, _ in _WIDE_MARKS):
        return True
    try:
        plain_body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _charset(name: str) -> str | None:
    """Return the codec for a charset name in any spelling: ``Windows1256``, ``x-cp-1256``,
    ``iso-8859-6-i``. None if unknown.
    """
    letters = re.sub("[^a-z0-9]", "", name.lower())
    for spelt in (
        letters,
        letters.removeprefix("x").removeprefix("cs"),
        letters.removesuffix("i").removesuffix("e"),
    ):
        if spelt in _BY_LETTERS:
            return _BY_LETTERS[spelt]
    page = _CODE_PAGE.fullmatch(letters.removeprefix("x"))
    return _BY_LETTERS.get(f"cp{page[1]}") if page else None


def _is_nearly_utf_8(body: bytes) -> bool:
    """Whether nearly all non-ASCII bytes are valid UTF-8.

    In text of another charset hardly any are.
    """
    text = body.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    good = len(text) - bad - sum(map(str.isascii, text)) if bad else 0
    return bad > 0 and good >= (_FEW if bad == 1 else _MOST * bad)


def render(answer: AboutOrder) -> str:
    """Write an answer as znet would; `parse_text` reads it back. Used by the stand-in."""
    match answer:
        case Waiting(message=message):
            return f"OK|1| |{message}"
        case Completed(pin=pin, message=message):
            return f"OK|2|{pin.reveal() if pin else ' '}|{message}"
        case Cancelled(message=message):
            return f"OK|3| |{message}"
        case _:
            assert_never(answer)


def not_ok(
    status: int, headers: Mapping[str, str], now: float, body: bytes
) -> Busy | Blocked | Garbled:
    """Return the answer for a response whose status is not 200, for any provider."""
    said = (
        ""
        if _layers(headers.get("content-encoding", "")) or body.startswith(_GZIP_MARK)
        else shown(decode(body[:_SAID], headers.get("content-type", "")))
    )
    if status in (_TOO_MANY, _TIMEOUT) or status >= 500:  # noqa: PLR2004 - the server's failures
        return Busy(f"http_{status}", retry_after(headers.get("retry-after"), now), said)
    if 300 <= status < 400:  # noqa: PLR2004 - redirects, which are never followed
        return Blocked("redirect", said)
    if status in _NOT_ALLOWED or status in _BAD_URL:
        return Blocked(f"http_{status}", said)
    return Garbled("unexpected_http_status", said)


def _layers(encoding: str) -> list[str]:
    """Return the compressions applied to a body, in that order.

    Words that are not compressions (``none``, ``UTF-8``) are skipped.
    """
    names = (name.strip().lower() for name in encoding.split(","))
    return [name for name in names if name in _ZIPPED or name in _NOT_UNDONE]


def _decompressed(encoding: str, body: bytes, limit: int) -> bytes | None:
    """Undo compression that was not requested, up to ``limit`` bytes.

    None if that is not possible.
    """
    names = _layers(encoding) if body else []
    if len(names) > LAYERS or not set(names) <= set(_ZIPPED):
        return None
    plain: bytes | None = body
    while names and plain is not None:
        # Data that was compressed twice may be a little larger in between.
        plain = _undone(names.pop(), plain, 2 * limit if names else limit)
    if plain is not None and plain.startswith(_GZIP_MARK):
        # The header that announces gzip was lost, because PHP had already written a notice.
        plain = _undone("gzip", plain, limit)
    return plain


def _undone(name: str, body: bytes, limit: int) -> bytes | None:
    plain = _unzipped(body, _EITHER_HEADER, limit)
    # Servers have long disagreed about whether "deflate" has a header.
    return _unzipped(body, _NO_HEADER, limit) if plain is None and "deflate" in name else plain


def _unzipped(body: bytes, header: int, limit: int) -> bytes | None:
    """Unpack all members of a body; anything after them is padding."""
    plain = b""
    for _ in range(_MEMBERS):
        unzip = zlib.decompressobj(header)
        try:
            plain += unzip.decompress(body, limit + 1 - len(plain))
        except zlib.error:
            return None
        if not unzip.eof or len(plain) > limit:
            return None
        body = unzip.unused_data
        if not body.startswith(_GZIP_MARK) or header == _NO_HEADER:
            return plain
    return None
