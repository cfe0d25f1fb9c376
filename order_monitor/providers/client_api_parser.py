"""Understand the answers of a client API (barakat, apstore): JSON about many orders, each named by its id. Pure; never raises.

An answer is matched by the id it names, never by its place. What is not certain is not understood: a word nobody documents, a PIN
that came as a number (its zeros may be lost), one order answered twice in two ways. Whole answers are
``{"status": "OK", "data": [...]}`` or a bare list, failures ``{"status": "ERROR", ...}`` or ``{"code": ..., "message": ...}``
under status 200 too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from order_monitor.core.answer import Answer, Blocked, Busy, Cancelled, Completed, Garbled, Refused, Waiting
from order_monitor.core.pin import NO_PIN_WORDS, NoPin, Pin, Unreadable, read_pin
from order_monitor.core.text import plain, shown, undamaged, without_codes
from order_monitor.providers.provider import Balance, NoBalance
from order_monitor.providers.znet_parser import body_text, not_ok

Replay: TypeAlias = Literal["hold", "pin", "message"]
"""What ``replay_api`` is, where an order was accepted and has no PIN: nobody knows (`hold`), its PIN, or a message."""

MISSING: Final = "missing"
"""The code of the refusal that stands for an order which the answer does not name."""

_COMPLETED: Final = frozenset({"accept", "success", "ok", "done", "complete", "completed"})
_FAILED: Final = frozenset({"reject", "rejected", "failed", "fail", "error", "cancelled", "canceled"})
_WAITING: Final = frozenset({"wait", "pending", "processing", "inprogress", "queued", "queue"})
_IDS: Final = ("order_id", "id", "orderId")
_UUIDS: Final = ("order_uuid", "orderId", "id", "order_id")
_PINS: Final = ("pin", "code", "voucher", "serial")
_MESSAGES: Final = ("note", "message")
_OK: Final = 200
_ACCOUNT: Final = frozenset({"120", "121", "122", "123", "130"})
_BUSY: Final = frozenset({"429", "500"})


class _Number(str):
    """A JSON number as it was written: ``007`` is none, and ``7`` may have been one."""

    __slots__ = ()


class _TwiceError(ValueError):
    """An object names one key twice."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one call says: an answer for each order that was asked about, and how many entries were about others."""

    answers: Mapping[str, Answer]
    strangers: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    """One order's entry, as a dictionary whose values are JSON's."""

    fields: Mapping[str, Any] = field(repr=False)

    def id(self, names: Sequence[str]) -> str | None:
        """Return the id that it names, as it was written."""
        return next((str(v).strip() for n in names if isinstance(v := self.fields.get(n), str) and v.strip()), None)


def parse_check(  # noqa: PLR0913 - all that a whole response and its question are
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
) -> Check | Answer:
    """Return what a whole HTTP response says of each of ``references``, or the one answer that concerns them all.

    Args:
        status: the response's status.
        headers: with lower-case names.
        body: as it came, undecoded.
        references: the ids that were asked about.
        now: epoch seconds, for ``Retry-After``.
        max_body: the longest body that is believed, in bytes.
        by_uuid: whether the ids are the shop's own (``uuid=1``).
        replay: what ``replay_api`` is where there is no PIN.
        no_pin: words in a PIN's place that mean there is none.
    """
    document = _document(status, headers, body, now, max_body)
    if not isinstance(document, _Whole):
        return document
    entries = _entries(document.value)
    if not isinstance(entries, list):
        return entries
    wanted, found, strangers = set(references), dict[str, Answer](), 0
    for fields in entries:
        entry = _Entry(fields) if isinstance(fields, dict) else None
        name = entry.id(_UUIDS if by_uuid else _IDS) if entry is not None else None
        if entry is None or name not in wanted:
            strangers += 1
            continue
        answer = _answer(entry.fields, replay, no_pin)
        if name in found and found[name] != answer:
            answer = Garbled("two_answers", "the order stands twice in the answer, in two ways")
        found[name] = answer
    missing = {name: Refused(MISSING, "the answer does not name the order") for name in wanted - found.keys()}
    return Check({**found, **missing}, strangers)


def parse_profile(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, max_body: int
) -> Balance | NoBalance:
    """Return the balance that ``{"balance": "43.55", …}`` states, or why there is none."""
    document = _document(status, headers, body, now, max_body)
    if not isinstance(document, _Whole):
        why = (
            f"refused_{document.code}" if isinstance(document, Refused) else getattr(document, "why", "not_understood")
        )
        return NoBalance(why, getattr(document, "message", ""))
    value = document.value
    inner = value.get("data") if isinstance(value, dict) else None
    for place in (value, inner):
        if isinstance(place, dict) and isinstance(amount := place.get("balance"), str) and amount.strip():
            return Balance(amount.strip(), is_json=True)
    return NoBalance("not_understood")


@dataclass(frozen=True, slots=True)
class _Whole:
    """A document that is no failure."""

    value: Any = field(repr=False)


def _document(
    status: int, headers: Mapping[str, str], body: bytes, now: float, max_body: int
) -> _Whole | Blocked | Busy | Garbled | Refused:
    text = body_text(headers, body, max_body) if len(body) <= max_body else None
    value = _json(text) if text is not None else None
    if isinstance(value, _Whole) and (failed := _failure(value.value)) is not None and (status == _OK or status < 500):  # noqa: PLR2004
        return failed
    if status != _OK:
        return not_ok(status, headers, now, body)
    if text is None:
        return Garbled("too_long" if len(body) > max_body else "bad_encoding")
    if not text:
        return Blocked("empty_answer")
    if text.startswith("<"):
        return Blocked("html_answer", shown(text))
    return value if isinstance(value, _Whole) else Garbled("not_json", shown(text))


def _json(text: str) -> _Whole | None:
    """Return what a JSON document says, None where it is none: cut short, two at once, one key twice, nested without end."""
    try:
        value = json.loads(
            text, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant, object_pairs_hook=_once_each
        )
    except (ValueError, RecursionError):
        return None
    return _Whole(value)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _TwiceError
    return found


def _failure(value: object) -> Blocked | Busy | Refused | None:
    """Return the failure that a document states, None where it states none."""
    if not isinstance(value, dict) or isinstance(value.get("data"), list):
        return None
    word = value.get("status")
    is_error = isinstance(word, str) and word.strip().casefold() not in ("ok", "success", "true", "200")
    code, inner = value.get("code"), value.get("error")
    if not is_error and code is None and not inner:
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


def _answer(entry: Mapping[str, Any], replay: Replay, no_pin: Collection[str]) -> Answer:
    """Return what one entry says of its order."""
    word = entry.get("status")
    state = word.strip().casefold() if isinstance(word, str) and not isinstance(word, _Number) else ""
    message = " ".join(
        undamaged(plain(v))
        for n in _MESSAGES
        if isinstance(v := entry.get(n), str) and not isinstance(v, _Number) and v.strip()
    )
    if state in _WAITING:
        return Waiting(without_codes(message))
    if state in _FAILED:
        return Cancelled(without_codes(message))
    if state not in _COMPLETED:
        return Garbled("unknown_state", f"status {without_codes(state)[:40]!r}")
    pin = _pin(entry, no_pin)
    if isinstance(pin, NoPin):
        return _replayed(entry, message, replay, no_pin)
    if isinstance(pin, Unreadable):
        return Garbled("unreadable_pin", f"accepted ({pin.holds} in the PIN's place)")
    return Completed(pin, without_codes(pin.blotted(message)))


def _pin(entry: Mapping[str, Any], no_pin: Collection[str]) -> Pin | NoPin | Unreadable:
    """Return the one PIN that the fields for it hold; two different ones are for a person."""
    found: set[Pin] = set()
    for name in _PINS:
        value = entry.get(name)
        if value is None or value is False or value in ("", [], {}):
            continue
        if not isinstance(value, str) or isinstance(value, _Number):
            return Unreadable("a number" if isinstance(value, _Number) else "no text")
        pin = read_pin(value, no_pin)
        if isinstance(pin, Unreadable):
            return pin
        if isinstance(pin, Pin):
            found.add(pin)
    if len(found) > 1:
        return Unreadable("two codes")
    return found.pop() if found else NoPin()


def _replayed(entry: Mapping[str, Any], message: str, replay: Replay, no_pin: Collection[str]) -> Answer:
    """Return what an accepted order without a PIN's field is, by what its replay holds: a message or the code."""
    texts = _texts(entry.get("replay_api"))
    if texts is None:
        return Garbled("unreadable_pin", "accepted (no text in the replay)")
    said = "\n".join(texts)
    if replay == "message" or not said.strip():
        return Completed(None, without_codes(" ".join(part for part in (message, plain(said)) if part)))
    pin = read_pin(said, no_pin)
    if isinstance(pin, NoPin):
        return Completed(None, without_codes(message))
    if replay == "pin":
        if isinstance(pin, Unreadable):
            return Garbled("unreadable_pin", f"accepted ({pin.holds} in the replay)")
        return Completed(pin, without_codes(pin.blotted(message)))
    if without_codes(said) != said:
        return Garbled("unreadable_pin", "accepted (the replay may hold the code)")
    return Completed(None, without_codes(" ".join(part for part in (message, plain(said)) if part)))


def _texts(value: object) -> list[str] | None:
    """Return the texts of a replay: strings, or objects whose ``replay`` holds them; None where there is anything else."""
    if value is None:
        return []
    found: list[str] = []
    for item in value if isinstance(value, list) else [value]:
        inner = item.get("replay") if isinstance(item, dict) else item
        for text in inner if isinstance(inner, list) else [inner]:
            if text is None:
                continue
            if not isinstance(text, str) or isinstance(text, _Number):
                return None
            found.append(text)
    return found
