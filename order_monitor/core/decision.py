"""Decide what to write. Pure: works on the locked row and the provider's answer.

The rules that money depends on: only an open row is changed; only `Completed` and `Cancelled` end
an order, or a definitive "still waiting" past the deadline if the clocks vouch for its age; a PIN
is never cut, never replaced by another or by none, never taken from a cancellation.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    NotAnswered,
    Refused,
    Unreachable,
    Waiting,
)
from order_monitor.core.outcome import Cause, Outcome
from order_monitor.core.pin import NO_PIN_WORDS, Pin, is_no_pin
from order_monitor.core.text import clean

SEPARATOR: Final = " | "


class StuckReason(StrEnum):
    """Why an answer cannot be written and a person must look; a closed set."""

    PIN_TOO_WIDE = "pin_too_wide"
    PIN_DIFFERS = "pin_differs"
    PIN_NOT_STORABLE = "pin_not_storable"
    FAILED_WITH_PIN = "failed_with_pin"
    REJECTED_BY_DATABASE = "rejected_by_database"
    CHANGED_BY_TRIGGER = "changed_by_trigger"
    UNKNOWN_STATE = "unknown_state"
    TWO_ANSWERS = "two_answers"
    PIN_UNREADABLE = "pin_unreadable"
    PIN_DUPLICATE = "pin_duplicate"
    PIN_FOR_ENDED = "pin_for_ended"
    PIN_FOR_OTHER_DISPATCH = "pin_for_other_dispatch"
    REFERENCE_TWICE = "reference_twice"
    NOT_KNOWN = "not_known"
    REPEAT_SENT_ANEW = "repeat_sent_anew"
    HELD_BY_BRAKE = "held_by_brake"


FOR_A_PERSON: Final = {
    "unknown_state": (StuckReason.UNKNOWN_STATE, 3),
    "two_answers": (StuckReason.TWO_ANSWERS, 3),
    "unreadable_pin": (StuckReason.PIN_UNREADABLE, 1),
}
"""`Garbled` answers that a person must see, and how many in a row it takes."""


PIN_KINDS: Final = frozenset(
    map(
        str,
        (
            StuckReason.PIN_TOO_WIDE,
            StuckReason.PIN_DIFFERS,
            StuckReason.PIN_NOT_STORABLE,
            StuckReason.PIN_UNREADABLE,
            StuckReason.PIN_DUPLICATE,
        ),
    )
)
"""Reasons for review where the provider sent a PIN that was not stored in the row."""


@dataclass(frozen=True, slots=True)
class Row:
    """The order's columns in the table at the moment of the decision."""

    status: str
    pin: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What is written for each outcome, and what fits.

    Widths are characters, None for no limit; ages are seconds. ``no_pin`` are the words that mean
    "no PIN", in a row too. Without ``writes_processing`` a waiting order keeps its status, because
    the column does not accept the word. A flood of failures is held back for ``brake_hold`` seconds
    before it may be believed; 0 believes each at once. A cancellation is believed when a second
    answer confirms it ``confirm_cancelled`` seconds later; with 0 the first is believed.
    """

    completed: str = "completed"
    failed: str = "failed"
    processing: str = "processing"
    writes_processing: bool = True
    give_up_after: float = 86_400.0
    give_up_blind: bool = False
    give_up_unknown: bool = False
    first_check: float = 60.0
    pin_width: int | None = None
    note_width: int | None = None
    no_pin: Collection[str] = NO_PIN_WORDS
    brake_hold: float = 0.0
    confirm_cancelled: float = 0.0

    def word(self, outcome: Outcome) -> str:
        """Return the status to write for an outcome."""
        match outcome:
            case Outcome.PROCESSING:
                return self.processing
            case Outcome.COMPLETED:
                return self.completed
            case Outcome.FAILED:
                return self.failed
            case _:
                assert_never(outcome)

    def words(self, outcome: Outcome) -> tuple[str, ...]:
        """Return every status that means an outcome, the one we write first."""
        return tuple(dict.fromkeys((self.word(outcome), *outcome.usual_words)))


@dataclass(frozen=True, slots=True)
class Write:
    """Change the row to ``status``, which means ``outcome``.

    None leaves that column unchanged.
    """

    outcome: Outcome
    status: str
    pin: Pin | None = None
    note: str | None = None
    message: str = ""
    cause: Cause = Cause.ANSWER

    @property
    def final(self) -> bool:
        """Whether it ends the order."""
        return self.outcome.is_final


@dataclass(frozen=True, slots=True)
class Nothing:
    """The row already contains everything that the answer says."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """The order stays open and is shown to a person."""

    reason: StuckReason
    detail: str = ""


Decision: TypeAlias = Write | Nothing | Stuck


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer about an order was understood for ``age`` seconds, through the order's own fault:
    the provider does not know it.

    ``others_understood``: another order of the account was understood within the hour before this
    answer.
    """

    age: float
    others_understood: bool = False


def decide(
    row: Row,
    answer: Answer,
    age: float,
    rules: Rules,
    *,
    may_expire: bool = True,
    unknown: Unknown | None = None,
) -> Decision:
    """Return what to do with an open ``row`` given ``answer``, received ``age`` seconds after
    ``sent_at``.

    Without ``may_expire`` the age ends no order, because the clocks do not agree. ``unknown`` is
    set if the provider does not know the order.
    """
    is_past = may_expire and age >= rules.give_up_after
    match answer:
        case Completed(pin=pin, message=message):
            return _complete(row, pin, message, rules)
        case Cancelled(message=message):
            return _fail(row, message, rules)
        case Waiting() if is_past:
            return _time_out(row, rules)
        case Waiting(message=message):
            return _wait(row, message, rules)
        case Refused() | Garbled() | Blocked() | Busy() | Unreachable():
            return _without_answer(
                row, answer, rules, is_past=is_past, may_expire=may_expire, unknown=unknown
            )
        case _:
            assert_never(answer)


def _without_answer(
    row: Row,
    answer: NotAnswered,
    rules: Rules,
    *,
    is_past: bool,
    may_expire: bool,
    unknown: Unknown | None,
) -> Decision:
    """Handle an answer without a state: usually do nothing, unless the settings allow giving the
    order up without an answer.
    """
    if rules.give_up_blind and is_past and not _is_approval(answer):
        return _time_out(row, rules)
    if isinstance(answer, Garbled) and answer.why in FOR_A_PERSON:
        return Stuck(FOR_A_PERSON[answer.why][0], answer.message)
    if unknown is None or unknown.age < rules.give_up_after:
        return Nothing()
    if rules.give_up_unknown and may_expire and unknown.others_understood:
        return _time_out(row, rules)
    return Stuck(StuckReason.NOT_KNOWN, clean(getattr(answer, "message", "")) or answer.outcome)


def _is_approval(answer: NotAnswered) -> bool:
    """Whether an answer that cannot be written still says that the order was delivered."""
    return isinstance(answer, Garbled) and answer.why == "unreadable_pin"


def decide_late_pin(row: Row, answer: Answer, rules: Rules) -> Decision:
    """Return what to do with a ``row`` that ended as completed without a PIN: only the PIN may
    still be added.
    """
    if (
        not isinstance(answer, Completed)
        or answer.pin is None
        or not is_no_pin(row.pin, rules.no_pin)
    ):
        return Nothing()
    return _not_fit(answer.pin, rules) or Write(
        Outcome.COMPLETED, row.status, pin=answer.pin, message=clean(answer.message)
    )


def _complete(row: Row, pin: Pin | None, message: str, rules: Rules) -> Decision:
    if pin is None or pin.is_same(row.pin or ""):
        return _end(row, Outcome.COMPLETED, message, rules)
    if not is_no_pin(row.pin, rules.no_pin):
        return Stuck(StuckReason.PIN_DIFFERS)
    return _not_fit(pin, rules) or _end(row, Outcome.COMPLETED, message, rules, pin)


def _not_fit(pin: Pin, rules: Rules) -> Stuck | None:
    """Return why a PIN cannot be stored unchanged, None if it can."""
    code = pin.reveal()
    if rules.pin_width is not None and len(code) > rules.pin_width:
        return Stuck(
            StuckReason.PIN_TOO_WIDE, f"{len(code)} characters, the column holds {rules.pin_width}"
        )
    return None if _storable(code) else Stuck(StuckReason.PIN_NOT_STORABLE)


def _time_out(row: Row, rules: Rules) -> Decision:
    return _fail(row, timeout_message(rules.give_up_after), rules, Cause.TIME_LIMIT)


def _fail(row: Row, message: str, rules: Rules, cause: Cause = Cause.ANSWER) -> Decision:
    """Fail an order, unless its row holds a PIN: the customer may already have the code that a
    refund would pay back.
    """
    if not is_no_pin(row.pin, rules.no_pin):
        return Stuck(StuckReason.FAILED_WITH_PIN)
    return _end(row, Outcome.FAILED, message, rules, cause=cause)


def _end(
    row: Row,
    outcome: Outcome,
    message: str,
    rules: Rules,
    pin: Pin | None = None,
    cause: Cause = Cause.ANSWER,
) -> Write:
    text = clean(message)
    return Write(
        outcome,
        rules.word(outcome),
        pin,
        append_note(row.note, text, rules.note_width),
        text,
        cause,
    )


def _wait(row: Row, message: str, rules: Rules) -> Decision:
    text = clean(message)
    note = append_note(row.note, text, rules.note_width)
    status = rules.processing if rules.writes_processing else row.status
    if row.status == status and note is None:
        return Nothing()
    return Write(Outcome.PROCESSING, status, note=note, message=text)


def append_note(note: str | None, message: str, width: int | None) -> str | None:
    """Append ``message`` to ``note``; cut the oldest part to fit ``width``.

    None if nothing would change.
    """
    old = note or ""
    if not message or old == message or old.endswith(SEPARATOR + message):
        return None
    fitted = _fit(old + SEPARATOR + message if old else message, width)
    return None if fitted == _fit(old, width) else fitted


def _fit(text: str, width: int | None) -> str:
    if width is None or len(text) <= width:
        return text
    kept = text[len(text) - width :]
    while kept and unicodedata.combining(kept[0]):
        kept = kept[1:]
    return kept


def _storable(code: str) -> bool:
    return "\0" not in code and not any(unicodedata.category(c) == "Cs" for c in code)


def timeout_message(seconds: float) -> str:
    """Return the time-out message in the shop's wording: ``Timeout: No response after 24h``."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"Timeout: No response after {int(seconds // size)}{unit}"
    return f"Timeout: No response after {seconds:g}s"
