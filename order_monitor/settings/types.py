"""Types and validators of single values in the settings.

No message repeats a value, because it might be a password.
"""

from __future__ import annotations

import base64
import json
import math
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from order_monitor.core.text import visible

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FOREVER = 100 * 366 * 86_400.0
_SIZES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024 * 1024}
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\x00-\x1f\x7f]+")
_SHORTEST_KEY, _LONGEST_KEY = 8, 64
_MOST_CALLS: Final = 100_000


def parse_seconds(value: object) -> float:
    """Read seconds, or a number with a unit; a bool is not accepted."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?\s*", value)
        number = float(found[1]) * _UNITS[found[2] or "s"] if found else math.nan
    else:
        is_number = (
            isinstance(value, (int, float)) and not isinstance(value, bool) and value < _FOREVER
        )
        number = float(value) if is_number else math.nan  # type: ignore[arg-type]
    if not 0 <= number < _FOREVER:
        raise ValueError('give seconds, or a number with a unit: 90, "90s", "10m", "24h"')
    return number


def read_bytes(value: object) -> object:
    """Read a number of bytes, or a number with a unit."""
    found = (
        re.fullmatch(r"\s*([0-9]+)\s*(B|KiB|MiB|)\s*", value) if isinstance(value, str) else None
    )
    return int(found[1]) * _SIZES[found[2]] if found else value


def read_list(value: object) -> object:
    """Accept a list from the environment as ``a,b`` or as JSON."""
    if not isinstance(value, str) or value.lstrip().startswith("["):
        return read_json(value)
    return [part.strip() for part in value.split(",")]


def read_addresses(value: object) -> object:
    """Read addresses that each have a scheme: a list, a JSON list, or one text with an address per
    line or with commas between them.

    Raises:
        ValueError: one of them is not an address.
    """
    if isinstance(value, str) and not value.lstrip().startswith("["):
        # An address may itself contain commas.
        value = re.split(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)", value.strip())
    given = read_json(value)
    if isinstance(given, (list, tuple)) and all(
        isinstance(one, str) and _ADDRESS.fullmatch(one) for one in given
    ):
        return given
    raise ValueError("give addresses as Apprise takes them, like tgram://TOKEN/CHAT, in a list")


def read_time_of_day(value: object) -> object:
    """Read hours and minutes.

    Raises:
        ValueError: it is not a time of day.
    """
    if isinstance(value, time):
        value = f"{value:%H:%M}"
    given = value if isinstance(value, str) else ""
    found = re.fullmatch(r"\s*([01]?[0-9]|2[0-3]):([0-5][0-9])\s*", given)
    if found is None:
        raise ValueError('give hours and minutes, like "08:00"')
    return f"{int(found[1]):02}:{found[2]}"


def read_budget(value: object) -> object:
    """Read ``"equal"``, or a number of calls per second.

    Raises:
        ValueError: it is neither.
    """
    msg = 'give "equal", or a number of calls a second, more than 0'
    if value == "equal":
        return value
    try:
        number = read_number(value)
        if isinstance(number, (str, int, float)) and 0 < float(number) <= _MOST_CALLS:
            return float(number)
    except (ValueError, OverflowError):
        pass
    raise ValueError(msg)


def read_moment(value: object) -> str:
    """Read a point in time: a date, a date and time (UTC if it has no time zone), or a duration
    before another point in time.

    Return its canonical form: ISO 8601 in UTC, or the duration in seconds.

    Raises:
        ValueError: it is none of these.
    """
    if value == "" or value is None:
        return ""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value.strip()) if "-" in value else value
    if isinstance(value, datetime):
        with suppress(OverflowError):
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            return aware.astimezone(UTC).isoformat()
    try:
        return f"{parse_seconds(value):.6f}".rstrip("0").rstrip(".")
    except ValueError:
        raise ValueError(
            'give a date like "2026-11-29", a date and time like "2026-11-29T08:00:00Z", or a duration like "7d"'
        ) from None


def read_json(value: object) -> object:
    """Parse a text as JSON, as the environment gives it; return other values unchanged."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("is no valid JSON") from None


def read_number(value: object) -> object:
    """Reject true and false, which pydantic would accept as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("should be a number")  # noqa: TRY004 - pydantic wants a ValueError
    return value


def check_word(value: str) -> str:
    """Return a word that can be an order's status.

    Raises:
        ValueError: it has blanks around it, or an invisible character: no order's status would
            equal it.
    """
    if value != value.strip() or visible(value) != value:
        raise ValueError(
            "has a blank before or behind the word, or a character that cannot be seen; leave it out"
        )
    return value


def check_url(value: str, *, allow_http: bool) -> str:
    """Return ``value`` if it is a plain URL.

    Raises:
        ValueError: it is not; the text gives the reason without repeating it.
    """
    try:
        url = urlsplit(value.strip())
        is_address = url.port != 0
        httpx.URL(value.strip())
    except (ValueError, httpx.InvalidURL):
        url, is_address = urlsplit(""), False
    has_blank = re.search(r"[\s\x00-\x1f\x7f]", value.strip())
    if not is_address or url.scheme not in ("http", "https") or not url.hostname or has_blank:
        msg = "give the panel's address, like https://bayi.example.com"
    elif url.scheme == "http" and not allow_http:
        msg = "plain http would show the login to the network; use https, or set allow_http = true"
    elif "@" in url.netloc or "?" in value or "#" in value:
        msg = "give only the address, without login, ? or #"
    else:
        return value.strip()
    raise ValueError(msg)


def _is_web_address(value: str) -> bool:
    """Whether it is a URL, with any path and query."""
    try:
        url = urlsplit(value)
        is_complete = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        return is_complete and value.isprintable() and " " not in value
    except ValueError:
        return False


def _is_signing_secret(value: str) -> bool:
    """Whether it is a secret in the format of the Standard Webhooks specification."""
    prefix, _, coded = value.partition("whsec_")
    try:
        length = len(base64.b64decode(coded, validate=True))
    except ValueError:
        return False
    return not prefix and _SHORTEST_KEY <= length <= _LONGEST_KEY


def _has_certificates(path: str) -> bool:
    """Whether a file can be read and contains a trustable certificate (PEM).

    Only regular files: reading a pipe would block.
    """
    try:
        if not Path(path).is_file():
            return False
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError):
        return False
    return True


def _must(holds: Callable[[str], object], message: str) -> AfterValidator:
    """Refuse a text, or a secret, for which ``holds`` is false."""

    def checked(value: str | SecretStr) -> str | SecretStr:
        if not holds(value.get_secret_value() if isinstance(value, SecretStr) else value):
            raise ValueError(message)
        return value

    return AfterValidator(checked)


Integer = Annotated[int, BeforeValidator(read_number)]
Number = Annotated[float, BeforeValidator(read_number), Field(allow_inf_nan=False)]
Budget = Annotated[float | Literal["equal"], BeforeValidator(read_budget)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]
Moment = Annotated[str, BeforeValidator(read_moment)]
Size = Annotated[int, BeforeValidator(read_bytes), Field(ge=256, le=16 * 1024 * 1024)]
Status = Annotated[str, Field(min_length=1, max_length=30, pattern=r"^[^\x00-\x1f]+$")]
Word = Annotated[Status, AfterValidator(check_word)]
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\x00-\x1f]+$")]
Certificates = _must(
    _has_certificates,
    "give a readable file of CA certificates in PEM, like /etc/order-monitor/ca.pem",
)
PingAddress = _must(
    _is_web_address, "give the address to call, like https://ping.example.com/your-id"
)
PostAddress = _must(
    _is_web_address, "give the address to post to, like https://shop.example.com/hooks/orders"
)
SigningSecret = _must(
    _is_signing_secret,
    "give whsec_ and the base64 of some 32 random bytes, as from: openssl rand -base64 32",
)
