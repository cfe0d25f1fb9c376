"""Parse the answers of a client API (barakat, apstore): JSON about many orders, each identified by
its id. Pure; never raises.

An entry is matched by its id, never by its position. What is not certain is not understood: an
undocumented status word, a PIN that came as a number (leading zeros may be lost), one order with
two different answers. Complete answers are ``{"status": "OK", "data": [...]}`` or a bare list.
Failures are ``{"status": "ERROR", ...}`` or ``{"code": ..., "message": ...}``, also with HTTP
status 200.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Waiting,
)
from order_monitor.core.pin import (
    NO_PIN_WORDS,
    NoPin,
    Pin,
    Unreadable,
    guarded_code,
    is_given_as_code,
    may_hold_code,
    read_pin,
)
from order_monitor.core.retry_after import retry_after
from order_monitor.core.text import plain, shown, undamaged, without_codes
from order_monitor.providers.client_api.dialect import ZDK, Dialect
from order_monitor.providers.http.body import body_text, is_as_declared, not_ok
from order_monitor.providers.http.json_document import Document, Number, read_json
from order_monitor.providers.provider import Balance, NoBalance

Replay: TypeAlias = Literal["hold", "pin", "message"]
"""What ``replay_api`` contains if an order was accepted and has no PIN: unknown (`hold`), its PIN,
or a message.
"""

MISSING: Final = "missing"
"""The code of the refusal that we make for an order missing from the answer."""

_ERRORS: Final = frozenset({"error", "fail", "failed"})
_FINE: Final = frozenset({"ok", "success", "true", "200"})
_OK: Final = 200
_ABOUT_THE_QUESTION: Final = frozenset({400, 404, 409, 413, 414, 422})
"""Statuses with which a document's own error code says more: the others are about the account."""

_SERVER_ERROR: Final = 500
_ACCOUNT: Final = frozenset({"120", "121", "122", "123", "130"})
_BUSY: Final = frozenset({"429", "500"})


@dataclass(frozen=True, slots=True)
class Check:
    """The content of one call: an answer for each order asked about, and the number of entries
    about other orders.
    """

    answers: Mapping[str, Answer]
    strangers: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    """One order's entry: a dictionary with JSON values."""

    fields: Mapping[str, Any] = field(repr=False)

    def id(self, names: Sequence[str], *, is_strict: bool) -> str | None:
        """Return the entry's id as it was written, None if it has none, or with ``is_strict`` two
        different ones.
        """
        found = [
            str(v).strip() for n in names if isinstance(v := self.fields.get(n), str) and v.strip()
        ]
        return None if not found or (is_strict and len(set(found)) > 1) else found[0]


def parse_check(  # noqa: PLR0913 - a complete response and its question
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    references: Collection[str],
    *,
    now: float,
    max_body: int,
    by_uuid: bool = False,
    replay: Replay = "hold",
    no_pin: Collection[str] = NO_PIN_WORDS,
    dialect: Dialect = ZDK,
) -> Check | Answer:
    """Return what a complete HTTP response says about each of ``references``, or the single answer
    that concerns all of them.

    Args:
        status: the response's status.
        headers: with lower-case names.
        body: undecoded.
        references: the ids that were asked about.
        now: epoch seconds, for ``Retry-After``.
        max_body: maximum length of a body that is accepted, in bytes.
        by_uuid: whether the ids are the shop's own (``uuid=1``).
        replay: what ``replay_api`` contains if there is no PIN.
        no_pin: words in the PIN field that mean "no PIN".
        dialect: how the software that answered speaks.
    """
    document = _document(status, headers, body, now, max_body)
    if not isinstance(document, Document):
        return document
    entries = _entries(document.value)
    if not isinstance(entries, list):
        return entries
    wanted, found, strangers, has_names = set(references), dict[str, Answer](), 0, False
    for fields in entries:
        entry = _Entry(fields) if isinstance(fields, dict) else None
        names = dialect.own_ids if by_uuid else dialect.ids
        name = entry.id(names, is_strict=dialect.is_strict) if entry is not None else None
        has_names = has_names or name is not None
        if entry is None or name not in wanted:
            strangers += 1
            continue
        answer = _answer(entry.fields, dialect, replay, no_pin)
        if name in found and found[name] != answer:
            answer = Garbled(
                "two_answers", "the answer contains the order twice, with different values"
            )
        found[name] = answer
    # Entries that name no order at all say nothing of whether these are known.
    absent = (
        Garbled("not_understood", "the answer names no order")
        if entries and not has_names
        else Refused(MISSING, "the answer does not name the order")
    )
    missing = dict.fromkeys(wanted - found.keys(), absent)
    return Check({**found, **missing}, strangers)


def parse_profile(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, max_body: int
) -> Balance | NoBalance:
    """Return the balance in ``{"balance": "43.55", …}``, or why there is none."""
    document = _document(status, headers, body, now, max_body)
    if not isinstance(document, Document):
        why = (
            f"refused_{document.code}"
            if isinstance(document, Refused)
            else getattr(document, "why", "not_understood")
        )
        return NoBalance(why, getattr(document, "message", ""))
    value = document.value
    inner = value.get("data") if isinstance(value, dict) else None
    for place in (value, inner):
        if (
            isinstance(place, dict)
            and isinstance(amount := place.get("balance"), str)
            and amount.strip()
        ):
            return Balance(amount.strip(), is_json=True)
    return NoBalance("not_understood")


def _document(
    status: int, headers: Mapping[str, str], body: bytes, now: float, max_body: int
) -> Document | Blocked | Busy | Garbled | Refused:
    text = body_text(headers, body, max_body) if len(body) <= max_body else None
    value = read_json(text) if text is not None else None
    failed = _failure(value.value) if isinstance(value, Document) else None
    if failed is not None and (
        status == _OK
        or (isinstance(failed, Blocked) and status < _SERVER_ERROR)
        or status in _ABOUT_THE_QUESTION
    ):
        if isinstance(failed, Busy):
            return replace(failed, retry_after=retry_after(headers.get("retry-after"), now))
        return failed
    if status != _OK:
        return not_ok(status, headers, now, body)
    if isinstance(value, Document) and not is_as_declared(headers, body, max_body):
        # A guessed encoding would change a PIN without a sign.
        return Garbled("bad_encoding")
    if text is None:
        return Garbled("too_long" if len(body) > max_body else "bad_encoding")
    if not text:
        return Blocked("empty_answer")
    if text.startswith("<"):
        return Blocked("html_answer", shown(text))
    return value if isinstance(value, Document) else Garbled("not_json", shown(text))


def _failure(value: object) -> Blocked | Busy | Garbled | Refused | None:
    """Return the failure that a document reports, None if it reports none.

    One that reports a failure and orders too contradicts itself.
    """
    if not isinstance(value, dict):
        return None
    word, orders = value.get("status"), value.get("data")
    state = word.strip().casefold() if isinstance(word, str) else ""
    code, inner = value.get("code"), value.get("error")
    if isinstance(orders, list):
        if state not in _ERRORS and str(code).strip() not in _ACCOUNT | _BUSY and not inner:
            return None
        if orders:
            return Garbled("not_understood", "an error and orders in one answer")
    elif (not state or state in _FINE) and code is None and not inner:
        return None
    code = str(code).strip() if isinstance(code, str) and str(code).strip() else "error"
    said = next((v for n in ("message", "error", "msg") if isinstance(v := value.get(n), str)), "")
    said = without_codes(plain(said))
    if code in _ACCOUNT or (isinstance(inner, str) and inner.strip().upper() == "UNAUTHORIZED"):
        return Blocked(f"refused_{code}" if code in _ACCOUNT else "http_401", said)
    return Busy(f"http_{code}", message=said) if code in _BUSY else Refused(code[:20], said)


def _entries(value: object) -> list[Any] | Garbled:
    if isinstance(value, dict):
        value = value.get("data")
    return value if isinstance(value, list) else Garbled("not_understood", "no list of orders")


def _answer(
    entry: Mapping[str, Any], dialect: Dialect, replay: Replay, no_pin: Collection[str]
) -> Answer:
    """Return what one entry says about its order."""
    word = entry.get("status")
    state = (
        word.strip().casefold() if isinstance(word, str) and not isinstance(word, Number) else ""
    )
    message = " ".join(
        undamaged(plain(v))
        for n in dialect.messages
        if isinstance(v := entry.get(n), str) and not isinstance(v, Number) and v.strip()
    )
    if state in dialect.waiting | dialect.failed:
        if _has_code(entry, dialect, no_pin):
            return Garbled("unreadable_pin", f"status {state!r}, and a code in the PIN's place")
        said = without_codes(message)
        return Waiting(said) if state in dialect.waiting else Cancelled(said)
    if state not in dialect.completed:
        return Garbled("unknown_state", f"status {without_codes(state)[:40]!r}")
    pin = _pin(entry, dialect, no_pin)
    if isinstance(pin, Unreadable):
        return Garbled("unreadable_pin", f"accepted ({pin.holds} in the PIN's place)")
    if isinstance(pin, Pin):
        return Completed(pin, without_codes(pin.masked(message)))
    if dialect.has_replay:
        return _replayed(entry, message, replay, no_pin)
    if dialect.is_strict and may_hold_code(message):
        return Garbled("unreadable_pin", "accepted (its texts may hold the code)")
    return Completed(None, without_codes(message))


def _has_code(entry: Mapping[str, Any], dialect: Dialect, no_pin: Collection[str]) -> bool:
    """Whether an order that has not been accepted has a code all the same.

    A word there, or the number of an error, is none.
    """
    if dialect.is_strict and not isinstance(_pin(entry, dialect, no_pin), NoPin):
        return True
    found = (entry.get(name) for name in dialect.pins)
    return any(
        isinstance(v, str) and not isinstance(v, Number) and guarded_code(v) is not None
        for v in found
    )


def _pin(
    entry: Mapping[str, Any], dialect: Dialect, no_pin: Collection[str]
) -> Pin | NoPin | Unreadable:
    """Return the one PIN in the PIN fields; two different ones are for a person."""
    found: set[Pin] = set()
    inner = entry.get("data")
    if entry.get("pins") or entry.get("codes"):
        return Unreadable("a list")
    if isinstance(inner, dict) and any(inner.get(name) for name in dialect.pins):
        return Unreadable("another object")
    for name in dialect.pins:
        value = entry.get(name)
        if value is None or value is False or value in ("", [], {}):
            continue
        if not isinstance(value, str) or isinstance(value, Number):
            return Unreadable("a number" if isinstance(value, Number) else "no text")
        pin = read_pin(value, no_pin)
        if isinstance(pin, Unreadable):
            return pin
        if isinstance(pin, Pin):
            found.add(pin)
    if len(found) > 1:
        return Unreadable("two codes")
    return found.pop() if found else NoPin()


def _replayed(
    entry: Mapping[str, Any], message: str, replay: Replay, no_pin: Collection[str]
) -> Answer:
    """Return the answer for an accepted order without a PIN field, depending on what its replay
    contains: a message or the code.
    """
    texts = _texts(entry.get("replay_api"))
    if texts is None:
        return Garbled("unreadable_pin", "accepted (no text in the replay)")
    said = "\n".join(texts)
    if replay != "message" and is_given_as_code(message):
        return Garbled("unreadable_pin", "accepted (its message may hold the code)")
    if replay == "message" or not said.strip():
        return Completed(
            None, without_codes(" ".join(part for part in (message, plain(said)) if part))
        )
    pin = read_pin(said, no_pin)
    if isinstance(pin, NoPin):
        return Completed(None, without_codes(message))
    if replay == "pin":
        if isinstance(pin, Unreadable):
            return Garbled("unreadable_pin", f"accepted ({pin.holds} in the replay)")
        return Completed(pin, without_codes(pin.masked(message)))
    if may_hold_code(said):
        return Garbled("unreadable_pin", "accepted (the replay may hold the code)")
    return Completed(None, without_codes(" ".join(part for part in (message, plain(said)) if part)))


def _texts(value: object) -> list[str] | None:
    """Return the texts of a replay: strings, or objects with a ``replay`` key that holds them.

    None if it contains anything else.
    """
    if value is None:
        return []
    found: list[str] = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict) and item and "replay" not in item:
            return None
        inner = item.get("replay") if isinstance(item, dict) else item
        for text in inner if isinstance(inner, list) else [inner]:
            if text is None:
                continue
            if not isinstance(text, str) or isinstance(text, Number):
                return None
            found.append(text)
    return found
