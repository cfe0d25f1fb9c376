"""The text of a response's body: pure, from headers and bytes.

Encodings are undone and guessed, compression that was not requested is undone, and what PHP writes
before an answer is passed over, for any provider.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from encodings.aliases import aliases
from typing import Final

from order_monitor.core.answer import Blocked, Busy, Garbled
from order_monitor.core.retry_after import retry_after
from order_monitor.core.text import shown

AROUND: Final = "\ufeff \t\r\n\0"
BEFORE: Final = (
    AROUND
    + "\v\f\x85\xa0\xad\u061c\u1680\u180e\u3000"
    + "".join(map(chr, (*range(0x2000, 0x2010), *range(0x2028, 0x2030), *range(0x205F, 0x2070))))
    + "ï»¿"
)
"""What may precede an answer or surround its first fields: blanks, invisible characters, and a
wrongly decoded byte order mark.
"""
GAP: Final = rf"[\s{BEFORE}]*"
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
_KIND: Final = r"(?:Notice|Warning|Deprecated|Strict Standards)"
_INNER: Final = rf"(?:(?![Oo][Kk]{GAP}\|)[\s\S])*?"
_NOTICE_BEFORE: Final = re.compile(
    rf"(?:(?:<br\s*/?>\s*)?(?:\[[0-9A-Za-z:/ +_-]{{10,50}}\] )?(?:<b>\s*{_KIND}\s*</b>|(?:PHP )?{_KIND})"
    rf"\s*:{_INNER} on line (?:<b>)?[0-9]+(?:</b>)?(?:\s*<br\s*/?>)?"
    r"|(?:PHP )?Stack trace:|PHP +[0-9]+\. [^\r\n|]*"
    rf"|(?:<br\s*/?>\s*)?<font size=.1.><table class=.xdebug-error{_INNER}</table></font>"
    rf"|<!--{_INNER}-->"
    r"|(?:(?:Content-Type|X-Powered-By|Set-Cookie|Expires|Cache-Control|Pragma):[^\r\n|]*\r?\n)+\r?\n"
    rf"){GAP}",
    re.IGNORECASE,
)
"""Output of PHP, or of what runs before it, that may precede an answer.

Text inside it that looks like an answer is not one.
"""
_MARKS: Final = re.compile(rb"(?:[\s\0]*\xef\xbb\xbf)+")
_SAID: Final = 8192
_BAD_URL: Final = frozenset({404, 405, 410})
_NOT_ALLOWED: Final = frozenset({401, 402, 403, 407, 451})
_TOO_MANY: Final = 429
_TIMEOUT: Final = 408


def body_text(headers: Mapping[str, str], body: bytes, max_body: int) -> str | None:
    """Return a body's text, without invisible characters around it.

    None if its encoding cannot be undone. PHP output before a JSON document is removed too.
    """
    plain_body = decompressed(headers.get("content-encoding", ""), body, max_body)
    if plain_body is None:
        return None
    text = decode(plain_body, headers.get("content-type", "")).rstrip(AROUND).lstrip(BEFORE)
    rest = behind_notices(text)
    return rest if rest.startswith(("{", "[")) else text


def is_page(headers: Mapping[str, str], body: bytes, max_body: int) -> bool:
    """Whether a response is a web page.

    Its ``content-type`` does not show this: PHP sends ``text/html`` with everything.
    """
    plain_body = decompressed(headers.get("content-encoding", ""), body, max_body) or b""
    text = decode(plain_body, headers.get("content-type", "")).lstrip(BEFORE)
    return (behind_notices(text) or text).startswith("<")


def behind_notices(text: str) -> str:
    """Return what follows the output of PHP at the beginning of a text."""
    at = 0
    while notice := _NOTICE_BEFORE.match(text, at):
        at = notice.end()
    return text[at:]


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
            return body.decode("utf-8", "replace").rstrip(AROUND + "\ufffd")
    return body.decode("windows-1254", "replace")


def _declared(content_type: str) -> str | None:
    """Return the codec that a header names, None if it names none or UTF-8."""
    named = (_charset(name) for name in _DECLARED.findall(content_type))
    return next((codec for codec in named if codec not in (None, "utf_8", "utf_8_sig")), None)


def is_as_declared(headers: Mapping[str, str], body: bytes, max_body: int) -> bool:
    """Whether a body is UTF-8, unless it declares another encoding: otherwise `decode` guesses."""
    plain_body = decompressed(headers.get("content-encoding", ""), body, max_body)
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
    """Whether nearly all non-ASCII bytes of a body that is not valid UTF-8 are valid.

    In text of another charset hardly any are.
    """
    text = body.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    good = len(text) - bad - sum(map(str.isascii, text))
    return good >= (_FEW if bad == 1 else _MOST * bad)


def _layers(encoding: str) -> list[str]:
    """Return the compressions applied to a body, in that order.

    Words that are not compressions (``none``, ``UTF-8``) are skipped.
    """
    names = (name.strip().lower() for name in encoding.split(","))
    return [name for name in names if name in _ZIPPED or name in _NOT_UNDONE]


def decompressed(encoding: str, body: bytes, limit: int) -> bytes | None:
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
