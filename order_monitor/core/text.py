"""Make text from outside plain, storable, and safe to show. Pure.

Every function is linear in the length of its text, because a provider may send anything.
"""

from __future__ import annotations

import html
import re
import unicodedata
from contextlib import suppress
from typing import Final

SHOWN: Final = 120
"""Maximum number of characters shown of a provider's text."""

_LOOKED_AT: Final = 8192
_TAG: Final = re.compile(r"</?[A-Za-z][^<>]*>|<[!?][^<>]*>")
_BREAKING: Final = re.compile(
    r"</?(?:br|p|div|li|ul|ol|tr|td|th|table|h[1-6]|hr|title|head|body)\b", re.IGNORECASE
)
_KIND: Final = r"(?:Notice|Warning|Deprecated|Strict Standards|(?:Catchable |Recoverable )?[Ff]atal error|Parse error)"
_NOTICE: Final = re.compile(
    rf"(?:<br\s*/?>\s*)?<b>\s*{_KIND}\s*</b>\s*:|(?:^|[\r\n])[ \t]*(?:PHP )?{_KIND}: [^\r\n]* on line "
)
_HIDDEN: Final = re.compile(r"<(script|style)\b", re.IGNORECASE)
_TITLE: Final = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_CODE: Final = re.compile(r"[^\W_]+(?:[-_][^\W_]+)*")
_DIGITS_OF_A_CODE: Final = 4
_UNSEEN: Final = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that act on a terminal, change the reading order or break a line, and all invisible
ones.
"""

_HARMFUL: Final = re.compile(f"[{_UNSEEN}]")
_HARMFUL_IN_LINES: Final = re.compile(f"(?![\n\t])[{_UNSEEN}]")
_WRITTEN_TWICE: Final = re.compile(
    "(?:[\xc2-\xc5\xd8-\xdb]{0}|\xe2[\x80-\x82\u20ac\u201a]{0})".format(
        "[\x80-\xbf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d\u2018\u2019\u201c\u201d\u2022"
        "\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]"
    )
)
"""UTF-8 that was decoded as windows-1252 or -1254 and encoded again: ``ÅŸ`` for ``ş``.

Covers Turkish and Arabic letters and punctuation.
"""

_SHORT: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_LAST_OF_FOUR_DIGITS: Final = 0xFFFF


def clean(text: str) -> str:
    """Return text on one line that can be stored: no NUL, control characters or lone surrogates."""
    spaced = "".join(" " if c in "\t\r\n" else c for c in text)
    return "".join(c for c in spaced if unicodedata.category(c) not in {"Cc", "Cs"}).strip()


def visible(text: str) -> str:
    r"""Return a text as one line that is safe to show anywhere: invisible characters and those that
    act on a terminal are escaped.

    ``\n``, ``\u001b``: as in JSON, so that a JSON document keeps its meaning.
    """
    return text if text.isascii() and text.isprintable() else _HARMFUL.sub(_written_out, text)


def visible_lines(text: str) -> str:
    """Do the same for text of several lines; line breaks and tabs stay."""
    return _HARMFUL_IN_LINES.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    return escaped(found[0])


def escaped(text: str) -> str:
    """Escape every character of a text as JSON does: those above U+FFFF as two surrogates."""
    return "".join(_SHORT.get(c) or _by_number(ord(c)) for c in text)


def _by_number(number: int) -> str:
    if number <= _LAST_OF_FOUR_DIGITS:
        return f"\\u{number:04x}"
    above = number - _LAST_OF_FOUR_DIGITS - 1
    return f"\\u{0xD800 + (above >> 10):04x}\\u{0xDC00 + (above & 0x3FF):04x}"


def plain(text: str) -> str:
    """Return a provider's message without markup: entities decoded, tags removed, a trailing PHP
    notice cut off.

    A text without markup is only stripped.
    """
    if notice := _NOTICE.search(text):
        text = text[: notice.start()]
    if "&" in text:
        text = html.unescape(text)
    return _untagged(text).strip() if _TAG.search(text) else text.strip()


def undamaged(text: str) -> str:
    """Return a text as it was before it was decoded with a wrong charset and encoded again:
    ``Ä°ÅŸlem`` gives ``İşlem``.

    Only for words: a code is never guessed.
    """
    for charset in ("windows-1252", "windows-1254", "latin-1") if was_written_twice(text) else ():
        with suppress(UnicodeError):
            return text.encode(charset).decode("utf-8")
    return text


def was_written_twice(text: str) -> bool:
    """Whether a text contains UTF-8 that was decoded with another charset and encoded again."""
    return not text.isascii() and _WRITTEN_TWICE.search(text) is not None


def _untagged(text: str) -> str:
    spaced = _TAG.sub(lambda tag: " " if _BREAKING.match(tag[0]) else "", text)
    return re.sub(r"[ \t]{2,}", " ", spaced)


def shown(text: str) -> str:
    """Describe an answer that cannot be used, in a form that is safe for a log and a page.

    At most `SHOWN` characters, and no code in it. For a page its title or first words, for text
    with fields their shape, for other text its words.
    """
    text = text[:_LOOKED_AT].strip("\ufeff \t\r\n\0")
    if text.startswith("<"):
        return _words(_page(text))
    if "|" in text or text[:1] in ("{", "["):
        return _shape(text)
    return _words(_untagged(html.unescape(text)))


def without_codes(text: str) -> str:
    """Mask anything that could be a code: four or more digits in a word, capitals joined by dashes,
    a single word that is the whole text.
    """
    masked = _CODE.sub(lambda word: "****" if _could_be_code(word[0]) else word[0], text)
    alone = _CODE.fullmatch(text)
    return "****" if alone and not text.isalpha() else masked


def _could_be_code(word: str) -> bool:
    return sum(c.isdigit() for c in word) >= _DIGITS_OF_A_CODE or (
        "-" in word and word.upper() == word
    )


def _words(text: str) -> str:
    words = without_codes(" ".join(clean(text).split()))
    return words if len(words) <= SHOWN else words[: SHOWN - 1] + "…"


def _page(text: str) -> str:
    """Return a page's title; its words if it has none."""
    title = _TITLE.search(text)
    if title and title[1].strip():
        return html.unescape(title[1])
    while hidden := _HIDDEN.search(text):
        end = text.lower().find(f"</{hidden[1].lower()}", hidden.end())
        text = text[: hidden.start()] + (text[end:].partition(">")[2] if end >= 0 else "")
    return html.unescape(_TAG.sub(" ", text))


def _shape(text: str) -> str:
    """Return the structure of the fields without their values: ``OK|?|…``."""
    lines = text.count("\n") + 1
    more = f" ({lines} lines)" if lines > 1 else ""
    if text[:1] in ("{", "["):
        return text[: 1 + (text[1:2] in ('"', "{", "["))] + "…" + more
    first, _, rest = text.partition("|")
    head = first.strip() if first.strip().upper() == "OK" else "?"
    second = rest.partition("|")[0].strip()
    state = second if second.isascii() and second.isdigit() and len(second) <= 2 else "?"  # noqa: PLR2004 - a state, no code
    return f"{head}|{state}|…{more}" if "|" in rest else f"{head}|…{more}"
