"""Parse amounts as people and panels write them, with either decimal separator. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from order_monitor.core.folding import is_invisible

LONGEST_AMOUNT: Final = 40
"""Maximum length of an amount in characters, currency included."""

_CURRENCY: Final = (
    r"(?:TL|TRY|TRL|YTL|LIRA|USD|EUR|EURO|GBP|AZN|MANAT|RUB|SAR|AED|EGP|\$|€|£|₺|₼|₽)"
)
_WRITTEN: Final = re.compile(
    rf"(?:{_CURRENCY} ?)?([-+]?) ?(?:{_CURRENCY} ?)?([0-9][0-9., ']*[.,]?|[.,][0-9]+)(?: ?{_CURRENCY})?",
    re.IGNORECASE,
)
_GROUPED: Final = re.compile(r"[0-9]{1,3}(?:([., '])[0-9]{3})(?:\1[0-9]{3})*")
_ONE_GROUP: Final = re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}")
_AS_WRITTEN_HERE: Final = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2019\u02bc\uff07", "'"),
        **dict.fromkeys("\u066b\uff0e", "."),
        **dict.fromkeys("\u066c\uff0c", ","),
    }
)


def amount_of(text: str) -> float | None:
    """Return an amount as a number: ``1.234,50``, ``1,234.50``, ``12.345``, ``1234``.

    None when the amount is ambiguous. The last separator is the decimal one, unless it occurs more
    than once, or is the only one and stands before three digits, as between thousands. Spaces of
    any width and apostrophes only separate thousands. A currency may precede or follow the number.
    """
    if len(text) > LONGEST_AMOUNT:
        return None
    seen = "".join(c for c in text.translate(_AS_WRITTEN_HERE) if not is_invisible(c))
    found = _WRITTEN.fullmatch("".join(map(_character, seen)).strip())
    number = None if found is None else _plain(found[2].strip())
    if found is None or number is None:
        return None
    return -float(number) if found[1] == "-" else float(number)


def _character(c: str) -> str:
    digit = unicodedata.decimal(c, None)
    if digit is not None:
        return str(digit)
    return " " if c.isspace() else c


def _plain(digits: str) -> str | None:
    """Return the number without thousands separators and with a decimal point."""
    last = max(digits.rfind("."), digits.rfind(","))
    if last < 0 or digits.count(digits[last]) > 1 or _ONE_GROUP.fullmatch(digits):
        return _whole(digits)
    whole, decimals = _whole(digits[:last] or "0"), digits[last + 1 :]
    return (
        None
        if whole is None or (not decimals.isdigit() and decimals)
        else f"{whole}.{decimals or 0}"
    )


def _whole(digits: str) -> str | None:
    if digits.isdigit():
        return digits
    grouped = _GROUPED.fullmatch(digits)
    return None if grouped is None else digits.replace(grouped[1], "")
