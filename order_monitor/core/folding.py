"""Fold text the way people compare it: ignore case, accents and the Turkish dotted and dotless i.
Pure.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

_FILLERS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_SELECTORS: Final = frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0x180B, 0x1810), *range(0xE0100, 0xE01F0)))
)


@lru_cache(maxsize=8192)
def is_invisible(char: str) -> bool:
    """Whether a character is invisible and takes no space: joiners, direction marks, a soft hyphen,
    variation selectors.
    """
    return unicodedata.category(char) == "Cf" or char in _FILLERS or char in _SELECTORS


@lru_cache(maxsize=8192)
def letters_of(char: str) -> str:
    """Return the folded letters and digits that one character stands for.

    Empty for a space, a sign or an accent. Usually one, sometimes more: ``ß`` gives ``ss``, ``½``
    gives ``12``.
    """
    if is_invisible(char):
        return ""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join("i" if c == "ı" else c for c in folded if unicodedata.category(c)[0] in "LN")


def letters(text: str) -> str:
    """Return only the folded letters and digits of a text."""
    return "".join(map(letters_of, text))


def words(text: str) -> str:
    """Return the folded words of a text, separated by one space: ``"N/A!"`` gives ``n a``, ``PİN
    YOK`` gives ``pin yok``.
    """
    return " ".join("".join(letters_of(c) or ("" if _joins(c) else " ") for c in text).split())


def _joins(char: str) -> bool:
    return is_invisible(char) or unicodedata.category(char)[0] == "M"
