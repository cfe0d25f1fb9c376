"""What is written, and above all what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Unreachable,
    Waiting,
)
from order_monitor.core.check_result import CheckResult
from order_monitor.core.decision import (
    Nothing,
    Row,
    Rules,
    Stuck,
    StuckReason,
    Unknown,
    Write,
    append_note,
    decide,
    decide_late_pin,
    timeout_message,
)
from order_monitor.core.order import Order, Route, SkipReason
from order_monitor.core.outcome import Cause, Outcome
from order_monitor.core.pin import Pin
from order_monitor.core.text import clean

DAY = 86_400.0
SENT = Row("sent", None, None)
SAYS_NOTHING: list[Answer] = [
    Refused("3", "Açıklama"),
    Garbled("cut_short"),
    Blocked("html_answer"),
    Busy("http_503", 3.0),
    Unreachable("timeout"),
]


def test_completed_with_a_pin() -> None:
    decision = decide(SENT, Completed(Pin("P-1"), "Yüklendi"), 10, Rules())
    assert decision == Write(
        Outcome.COMPLETED, "completed", pin=Pin("P-1"), note="Yüklendi", message="Yüklendi"
    )


def test_the_shop_chooses_the_words() -> None:
    rules = Rules(completed="done", failed="rejected", processing="queued")
    assert decide(SENT, Completed(None), 10, rules) == Write(Outcome.COMPLETED, "done")
    assert decide(SENT, Cancelled("x"), 10, rules) == Write(
        Outcome.FAILED, "rejected", note="x", message="x"
    )
    assert decide(SENT, Waiting(), 10, rules) == Write(Outcome.PROCESSING, "queued")


def test_a_word_is_the_shops_own_first_and_then_each_usual_one_once() -> None:
    rules = Rules(completed="done", failed="failed", processing="queued")
    assert rules.words(Outcome.COMPLETED)[0] == "done"
    assert set(rules.words(Outcome.COMPLETED)) == {"done", *Outcome.COMPLETED.usual_words}
    assert sorted(rules.words(Outcome.FAILED)) == sorted({"failed", *Outcome.FAILED.usual_words})
    assert rules.word(Outcome.PROCESSING) == "queued"


def test_cancelled_never_brings_a_pin() -> None:
    decision = decide(SENT, Cancelled("Oyuncu bulunamadı"), 10, Rules())
    assert isinstance(decision, Write)
    assert decision.pin is None
    assert decision.status == "failed"


@pytest.mark.parametrize("answer", SAYS_NOTHING)
@pytest.mark.parametrize("age", [10.0, DAY - 1, DAY, 30 * DAY])
def test_what_says_nothing_of_the_order_changes_nothing(answer: Answer, age: float) -> None:
    assert decide(SENT, answer, age, Rules()) == Nothing()


@pytest.mark.parametrize("answer", [*SAYS_NOTHING, Waiting("bekleniyor")])
def test_the_plain_rule_gives_up_blind(answer: Answer) -> None:
    rules = Rules(give_up_blind=True)
    decision = decide(SENT, answer, DAY, rules)
    assert decision == Write(
        Outcome.FAILED,
        "failed",
        note="Timeout: No response after 24h",
        message="Timeout: No response after 24h",
        cause=Cause.TIME_LIMIT,
    )
    assert not isinstance(decide(SENT, answer, DAY - 1, rules), Write) or isinstance(
        answer, Waiting
    )


def test_waiting_past_the_deadline_fails_the_order() -> None:
    assert decide(SENT, Waiting("bekleniyor"), DAY, Rules()) == Write(
        Outcome.FAILED,
        "failed",
        note="Timeout: No response after 24h",
        message="Timeout: No response after 24h",
        cause=Cause.TIME_LIMIT,
    )
    assert decide(SENT, Completed(Pin("P")), 9 * DAY, Rules()) == Write(
        Outcome.COMPLETED, "completed", pin=Pin("P")
    )


@pytest.mark.parametrize(
    "answer", [*SAYS_NOTHING, Waiting("w"), Cancelled("c"), Completed(Pin("P")), Completed(None)]
)
@pytest.mark.parametrize("blind", [False, True])
def test_an_age_that_nobody_vouches_for_is_as_none(answer: Answer, blind: bool) -> None:  # noqa: FBT001
    rules = Rules(give_up_blind=blind)
    assert decide(SENT, answer, 9 * DAY, rules, may_expire=False) == decide(
        SENT, answer, 10.0, rules
    )


def test_a_person_is_told_what_the_provider_said_of_an_order_it_does_not_know() -> None:
    unknown = Unknown(DAY)
    said: list[tuple[Answer, str]] = [
        (Refused("3", " Kayıt\tyok "), "Kayıt yok"),
        (Garbled("cut_short", "a a"), "a a"),
        (Refused("3"), "refused"),
        (Busy("http_500"), "busy"),
        (Unreachable("timeout"), "unreachable"),
    ]
    for answer, told in said:
        assert decide(SENT, answer, DAY, Rules(), unknown=unknown) == Stuck(
            StuckReason.NOT_KNOWN, told
        )


ODD = [
    Refused("3", "yok"),
    Garbled("not_understood", "a a"),
    Blocked("empty_answer"),
    Busy("http_500"),
]


@pytest.mark.parametrize("answer", ODD)
def test_what_the_provider_does_not_know_is_for_a_person(answer: Answer) -> None:
    found = decide(SENT, answer, 9 * DAY, Rules(), unknown=Unknown(DAY, others_understood=True))
    assert isinstance(found, Stuck)
    assert found.reason is StuckReason.NOT_KNOWN
    assert found.detail
    assert (
        decide(SENT, answer, 9 * DAY, Rules(), unknown=Unknown(DAY - 1, others_understood=True))
        == Nothing()
    )


@pytest.mark.parametrize("answer", ODD)
def test_or_it_is_failed_where_others_are_understood_and_the_clocks_agree(answer: Answer) -> None:
    rules = Rules(give_up_unknown=True)
    told = timeout_message(DAY)
    known, alone = Unknown(DAY, others_understood=True), Unknown(DAY)
    assert decide(SENT, answer, DAY, rules, unknown=known) == Write(
        Outcome.FAILED, "failed", note=told, message=told, cause=Cause.TIME_LIMIT
    )
    for found in (
        decide(SENT, answer, DAY, rules, unknown=alone),
        decide(SENT, answer, DAY, rules, unknown=known, may_expire=False),
    ):
        assert isinstance(found, Stuck)
        assert found.reason is StuckReason.NOT_KNOWN


@pytest.mark.parametrize("why", ["unknown_state", "two_answers", "unreadable_pin"])
def test_what_only_a_person_can_read_is_never_failed_as_unknown(why: str) -> None:
    rules = Rules(give_up_unknown=True)
    found = decide(SENT, Garbled(why), DAY, rules, unknown=Unknown(9 * DAY, others_understood=True))
    assert isinstance(found, Stuck)
    assert found.reason is not StuckReason.NOT_KNOWN


def test_waiting_is_written_once() -> None:
    first = decide(SENT, Waiting("bekleniyor"), 10, Rules())
    assert first == Write(Outcome.PROCESSING, "processing", note="bekleniyor", message="bekleniyor")
    assert (
        decide(Row("processing", None, "bekleniyor"), Waiting("bekleniyor"), 20, Rules())
        == Nothing()
    )
    assert (
        decide(Row("processing", None, "x | bekleniyor"), Waiting("bekleniyor"), 20, Rules())
        == Nothing()
    )
    assert decide(Row("processing", None, "bekleniyor"), Waiting("sırada"), 20, Rules()) == Write(
        Outcome.PROCESSING, "processing", note="bekleniyor | sırada", message="sırada"
    )


@pytest.mark.parametrize(
    ("row", "answer", "reason"),
    [
        (Row("sent", "OLD", None), Completed(Pin("NEW")), StuckReason.PIN_DIFFERS),
        (SENT, Completed(Pin("X" * 121)), StuckReason.PIN_TOO_WIDE),
        (SENT, Completed(Pin("A\0B")), StuckReason.PIN_NOT_STORABLE),
        (SENT, Completed(Pin("A\ud800B")), StuckReason.PIN_NOT_STORABLE),
        (Row("sent", "OLD", None), Cancelled("iptal"), StuckReason.FAILED_WITH_PIN),
        (Row("sent", "OLD", None), Waiting(), StuckReason.FAILED_WITH_PIN),
    ],
)
def test_what_a_person_must_see_stays_open(row: Row, answer: Answer, reason: StuckReason) -> None:
    decision = decide(row, answer, 2 * DAY, Rules(pin_width=120))
    assert isinstance(decision, Stuck)
    assert decision.reason is reason
    assert "OLD" not in repr(decision)
    assert "NEW" not in repr(decision)


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("unknown_state", StuckReason.UNKNOWN_STATE),
        ("two_answers", StuckReason.TWO_ANSWERS),
        ("unreadable_pin", StuckReason.PIN_UNREADABLE),
    ],
)
def test_what_only_a_person_can_read_is_shown_as_it_looks(why: str, reason: StuckReason) -> None:
    answer = Garbled(why, "OK|7|…")
    assert decide(SENT, answer, 10, Rules()) == Stuck(reason, "OK|7|…")
    assert decide(SENT, answer, 2 * DAY, Rules()) == Stuck(reason, "OK|7|…"), (
        "nobody said that it failed"
    )
    past = decide(SENT, answer, DAY, Rules(give_up_blind=True))
    assert isinstance(past, Stuck if why == "unreadable_pin" else Write), (
        "a PIN that cannot be read was delivered"
    )
    assert isinstance(decide(SENT, answer, DAY - 1, Rules(give_up_blind=True)), Stuck)


def test_a_person_is_told_by_how_much_a_pin_is_too_wide() -> None:
    decision = decide(SENT, Completed(Pin("X" * 121)), 1, Rules(pin_width=120))
    assert decision == Stuck(StuckReason.PIN_TOO_WIDE, "121 characters, the column holds 120")


ENDED = Row("done", None, "x")


@pytest.mark.parametrize("stored", ["", "  ", None, "-", "NULL", "Pin Yok"])
def test_a_pin_that_comes_late_goes_in_and_changes_nothing_else(stored: str | None) -> None:
    decision = decide_late_pin(
        Row("done", stored, "x"), Completed(Pin("P"), " Yüklendi\n"), Rules()
    )
    assert decision == Write(Outcome.COMPLETED, "done", pin=Pin("P"), note=None, message="Yüklendi")


@pytest.mark.parametrize(
    "answer", [*SAYS_NOTHING, Waiting("w"), Cancelled("c"), Completed(None, "ok")]
)
def test_an_order_that_ended_is_changed_by_nothing_but_a_pin(answer: Answer) -> None:
    assert decide_late_pin(ENDED, answer, Rules(give_up_blind=True)) == Nothing()


@pytest.mark.parametrize("pin", ["OLD", "NEW"])
def test_a_pin_that_comes_late_replaces_none(pin: str) -> None:
    assert decide_late_pin(Row("done", "OLD", None), Completed(Pin(pin)), Rules()) == Nothing()


@pytest.mark.parametrize(
    ("pin", "reason"), [("X" * 9, StuckReason.PIN_TOO_WIDE), ("A\0B", StuckReason.PIN_NOT_STORABLE)]
)
def test_a_pin_that_comes_late_and_does_not_fit_is_for_a_person(
    pin: str, reason: StuckReason
) -> None:
    decision = decide_late_pin(ENDED, Completed(Pin(pin)), Rules(pin_width=8))
    assert isinstance(decision, Stuck)
    assert decision.reason is reason


@pytest.mark.parametrize(
    "answer", [Completed(None, "\ta\nb"), Cancelled("\ta\nb"), Waiting("\ta\nb")]
)
def test_what_the_provider_said_is_told_whole_and_noted_as_far_as_it_fits(answer: Answer) -> None:
    decision = decide(Row("sent", None, "old"), answer, 10, Rules(note_width=5))
    assert isinstance(decision, Write)
    assert (decision.note, decision.message) == ("| a b", "a b")


def test_waiting_for_the_first_time_is_written_though_its_message_stands_there() -> None:
    assert decide(Row("sent", None, "bekleniyor"), Waiting("bekleniyor"), 10, Rules()) == Write(
        Outcome.PROCESSING, "processing", note=None, message="bekleniyor"
    )


@pytest.mark.parametrize("stored", ["", "  ", None, "-", "null", "PİN YOK"])
def test_a_mark_of_nothing_in_a_row_is_no_pin(stored: str | None) -> None:
    decision = decide(Row("sent", stored, None), Completed(Pin("P")), 1, Rules())
    assert isinstance(decision, Write)
    assert decision.pin == Pin("P")
    assert decide(Row("sent", stored, None), Cancelled("x"), 1, Rules()) == Write(
        Outcome.FAILED, "failed", note="x", message="x"
    )


def test_what_marks_nothing_in_a_row_is_the_setting() -> None:
    zero, rules = Row("sent", "0", None), Rules(no_pin=("0",))
    assert decide(zero, Completed(Pin("P")), 1, Rules()) == Stuck(StuckReason.PIN_DIFFERS)
    assert decide(zero, Completed(Pin("P")), 1, rules) == Write(
        Outcome.COMPLETED, "completed", pin=Pin("P")
    )
    assert decide_late_pin(Row("done", "0", None), Completed(Pin("P")), rules) != Nothing()
    assert isinstance(decide(zero, Cancelled("x"), 1, rules), Write)
    assert decide(zero, Cancelled("x"), 1, Rules()) == Stuck(StuckReason.FAILED_WITH_PIN)


def test_the_same_pin_and_no_pin_leave_the_stored_one() -> None:
    row = Row("sent", "P", None)
    assert decide(row, Completed(Pin("P")), 1, Rules()) == Write(Outcome.COMPLETED, "completed")
    assert decide(row, Completed(None), 1, Rules()) == Write(Outcome.COMPLETED, "completed")
    assert decide(Row("sent", " P ", None), Completed(Pin("P")), 1, Rules()) == Write(
        Outcome.COMPLETED, "completed"
    )
    assert decide(Row("sent", "P\r\nQ\r\n", None), Completed(Pin("P\nQ")), 1, Rules()) == Write(
        Outcome.COMPLETED, "completed"
    )
    assert decide(Row("sent", "p", None), Completed(Pin("P")), 1, Rules()) == Stuck(
        StuckReason.PIN_DIFFERS
    )


def test_a_pin_as_wide_as_its_column_fits() -> None:
    assert isinstance(decide(SENT, Completed(Pin("X" * 120)), 1, Rules(pin_width=120)), Write)


def test_messages_are_appended_unless_repeated() -> None:
    assert append_note(None, "a", None) == "a"
    assert append_note("", "a", None) == "a"
    assert append_note("a", "b", None) == "a | b"
    assert append_note("a", "a", None) is None
    assert append_note("a | b", "b", None) is None
    assert append_note("b | a", "b", None) == "b | a | b"
    assert append_note("a", "", None) is None
    assert append_note("xa", "a", None) == "xa | a"


def test_the_note_is_cut_from_its_old_end() -> None:
    assert append_note("0123456789", "new", 10) == "6789 | new"[-10:]
    assert append_note("a", "0123456789X", 10) == "123456789X"
    assert append_note("123456789X", "0123456789X", 10) is None, (
        "the same message, cut the same way"
    )
    assert append_note("a", "b", 0) is None
    assert append_note("e\u0301" * 5, "z", 8) == "e\u0301e\u0301 | z"
    assert append_note("e\u0301" * 5, "z", 7) == "e\u0301 | z", "not inside a character"
    assert append_note(None, "\u0301" * 5, 3) is None, "nothing is left of it"
    assert append_note("0123456789", "new", 13) == "123456789 | new"[-13:]
    assert append_note("0123", "new", 10) == "0123 | new"
    assert append_note(None, "\u0301ab", 3) == "\u0301ab", "what fits stays as it is"


@given(st.text(), st.text(), st.integers(1, 60))
def test_a_note_fits_and_ends_with_its_message(note: str, message: str, width: int) -> None:
    result = append_note(note, clean(message), width)
    if result is not None:
        assert len(result) <= width
        assert (note + " | " + clean(message)).endswith(result)


@given(st.text())
def test_clean_text_can_be_stored(text: str) -> None:
    cleaned = clean(text)
    assert "\0" not in cleaned
    assert "\n" not in cleaned
    cleaned.encode("utf-8")
    assert clean(cleaned) == cleaned


def test_what_cannot_be_stored_is_left_out_and_a_line_break_is_a_blank() -> None:
    assert clean(" a\tb\r\nX\0d\x07e\x85f\ud800g ") == "a b  Xdefg"


ANSWERS = st.sampled_from(
    [*SAYS_NOTHING, Waiting("w"), Cancelled("c"), Completed(None, "ok"), Completed(Pin("P"), "ok")]
)


@given(
    row=st.builds(
        Row,
        st.sampled_from(["sent", "pending", "processing"]),
        st.sampled_from([None, "", "P", "Q"]),
        st.none(),
    ),
    answer=ANSWERS,
    age=st.floats(-400, 10 * DAY),
    blind=st.booleans(),
)
def test_the_rules_money_hangs_on(row: Row, answer: Answer, age: float, blind: bool) -> None:  # noqa: FBT001
    decision = decide(row, answer, age, Rules(give_up_blind=blind))
    if isinstance(decision, Write):
        if decision.final and decision.status == "completed":
            assert isinstance(answer, Completed)
        if decision.final and decision.status == "failed":
            assert isinstance(answer, Cancelled) or age >= DAY
            assert not row.pin, "an order with a PIN is never failed"
            assert isinstance(answer, Cancelled | Waiting) or blind
        if decision.pin is not None:
            assert isinstance(answer, Completed)
            assert not row.pin


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86_400, "24h"), (3600, "1h"), (5400, "90m"), (90, "90s"), (0.5, "0.5s"), (600, "10m")],
)
def test_the_timeout_says_how_long(seconds: float, text: str) -> None:
    assert timeout_message(seconds) == f"Timeout: No response after {text}"


@pytest.mark.parametrize(
    ("sent_at", "reference", "reason"),
    [
        (1000.0 + 9e8, "1", None),
        (1000.0 + 9e8, "", SkipReason.NO_REFERENCE),
        (1000.0 + 9e8, "  ", SkipReason.NO_REFERENCE),
        (None, "1", SkipReason.NO_SENT_AT),
        (0.0, "1", SkipReason.NO_SENT_AT),
        (float("-inf"), "1", SkipReason.NO_SENT_AT),
        (float("nan"), "1", SkipReason.NO_SENT_AT),
        (float("inf"), "1", SkipReason.SENT_IN_FUTURE),
        (1e9 + 301, "1", SkipReason.SENT_IN_FUTURE),
        (1e9 + 299, "1", None),
    ],
)
def test_orders_that_cannot_be_asked_about(
    sent_at: float | None, reference: str, reason: SkipReason | None
) -> None:
    """B3, B4: a time that is no time decides no deadline."""
    shifted = sent_at + 1e8 if sent_at == 1000.0 + 9e8 else sent_at
    assert (
        Order("a", "sent", shifted, reference).skip_reason(
            1e9 + 1000 if sent_at == 1000.0 + 9e8 else 1e9
        )
        is reason
    )


def test_no_date_is_older_than_2000() -> None:
    assert Order("a", "sent", 946_684_800.0, "1").skip_reason(1e9) is None
    assert Order("a", "sent", 946_684_799.9, "1").skip_reason(1e9) is SkipReason.NO_SENT_AT
    assert Order("a", "sent", 1e9 + 300, "1").skip_reason(1e9) is None


def test_only_an_order_that_ended_awaits_its_pin() -> None:
    assert not Order("a", "sent", 1e9, "1").awaits_pin
    assert Order("a", "sent", 1e9, "1").route is Route.ONE
    assert Order("a", "completed", 1e9, "1", ended_at=0.0).awaits_pin


def test_an_answers_age_counts_from_when_the_order_was_sent() -> None:
    assert CheckResult(Order("a", "sent", 1e9, "1"), Waiting(), 1e9 + 5).age == 5
    assert CheckResult(Order("a", "sent", 0.0, "1"), Waiting(), 5.0).age == 5
    assert CheckResult(Order("a", "sent", None, "1"), Waiting(), 1e9).age == 0


def test_where_the_column_does_not_take_the_word_an_order_that_waits_keeps_its_status() -> None:
    rules = Rules(writes_processing=False)
    row = Row("sent", None, None)
    assert decide(row, Waiting("sirada"), 100.0, rules) == Write(
        Outcome.PROCESSING, "sent", note="sirada", message="sirada"
    )
    assert decide(Row("sent", None, "sirada"), Waiting("sirada"), 100.0, rules) == Nothing()
    ended = decide(row, Waiting("sirada"), 90_000.0, rules)
    assert isinstance(ended, Write)
    assert (ended.status, ended.final) == ("failed", True)
