"""A client API's answers: matched by the id they name, believed only where they are certain."""

import gzip
import json
from typing import Any

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
    Waiting,
)
from order_monitor.core.pin import Pin
from order_monitor.providers.client_api.parser import Check, Replay, parse_check, parse_profile
from order_monitor.providers.provider import Balance, NoBalance
from order_monitor.providers.tenant.dialect import TENANT

NOW = 1_790_000_000.0
UNKNOWN: list[Any] = ["accepted", "approved", "unknown", "", "refunded", None, 1, True, [], {}]
KEYS = st.sampled_from(["order_id", "status", "data", "pin", "code", "replay_api", "x"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=9)
DOCUMENTS = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


def read(
    body: bytes | str | Any,
    *references: str,
    status: int = 200,
    by_uuid: bool = False,
    replay: Replay = "hold",
    headers: dict[str, str] | None = None,
) -> Check | Answer:
    raw = (
        body
        if isinstance(body, bytes)
        else (body if isinstance(body, str) else json.dumps(body)).encode()
    )
    asked = references or ("A-1",)
    return parse_check(
        status, headers or {}, raw, asked, now=NOW, max_body=65_536, by_uuid=by_uuid, replay=replay
    )


def one(replay: Replay = "hold", /, **entry: Any) -> Answer:
    """Return what one entry is read as."""
    found = read({"status": "OK", "data": [{"order_id": "A-1", **entry}]}, replay=replay)
    assert isinstance(found, Check)
    return found.answers["A-1"]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *(
            (w, Completed)
            for w in ("accept", "ACCEPT", " success ", "ok", "done", "complete", "completed")
        ),
        *(
            (w, Cancelled)
            for w in ("reject", "rejected", "failed", "fail", "error", "cancelled", "canceled")
        ),
        *((w, Waiting) for w in ("wait", "pending", "processing", "inprogress", "queued", "queue")),
        *((word, Garbled) for word in UNKNOWN),
    ],
)
def test_a_word_that_is_contested_or_unknown_is_not_understood(
    word: Any, kind: type[Answer]
) -> None:
    assert isinstance(one(status=word), kind)


@pytest.mark.parametrize(
    ("entry", "pin"),
    [
        ({"pin": "0012-34"}, "0012-34"),
        ({"code": "AB12"}, "AB12"),
        ({"voucher": "V-99887"}, "V-99887"),
        ({"serial": "S1 2345"}, "S1 2345"),
        ({"pin": "0012", "code": "0012"}, "0012"),
        ({"pin": "", "code": "X-1234"}, "X-1234"),
        ({"pin": "yok", "code": None, "serial": False}, None),
        ({}, None),
    ],
)
def test_a_pin_is_its_text(entry: dict[str, Any], pin: str | None) -> None:
    assert one(status="accept", **entry) == Completed(None if pin is None else Pin(pin))


@pytest.mark.parametrize(
    "entry",
    [
        {"pin": 12345678},
        {"pin": 1e3},
        {"code": ["AB12"]},
        {"voucher": {"code": "AB12"}},
        {"pin": True},
        {"pin": "AB12", "code": "CD34"},
        {"pin": "A<script>"},
    ],
)
def test_a_pin_that_is_not_certain_is_for_a_person(entry: dict[str, Any]) -> None:
    answer = one(status="accept", **entry)
    assert isinstance(answer, Garbled)
    assert answer.why == "unreadable_pin"
    assert not {"AB12", "CD34", "12345678"} & set(answer.message.replace("'", " ").split())


@pytest.mark.parametrize(
    "shape", [["AB12-9988-7766"], [{"replay": ["AB12-9988-7766"]}], "AB12-9988-7766"]
)
def test_a_replay_that_looks_like_a_code_goes_by_the_setting(shape: Any) -> None:
    held = one(status="accept", replay_api=shape)
    assert isinstance(held, Garbled)
    assert "9988" not in held.message
    assert one("pin", status="accept", replay_api=shape) == Completed(Pin("AB12-9988-7766"))
    said = one("message", status="accept", replay_api=shape)
    assert isinstance(said, Completed)
    assert (said.pin, "9988" in said.message) == (None, False)


def test_a_replay_of_words_is_a_message_and_a_pins_field_goes_first() -> None:
    assert one(status="accept", replay_api=["loaded"]) == Completed(None, "loaded")
    assert one(status="accept", replay_api=None) == Completed(None)
    assert one(status="accept", pin="P-4567", replay_api=["AB12-9988"]) == Completed(Pin("P-4567"))
    assert isinstance(one(status="accept", replay_api=[12345678]), Garbled)
    assert one(status="wait", replay_api=["AB12-9988-7766"]) == Waiting("")


def test_no_message_holds_a_code() -> None:
    for status in ("accept", "reject", "wait"):
        answer = one(status=status, note="your code is AB12-9988-7766", message="12345678")
        assert isinstance(answer, (Completed, Cancelled, Waiting))
        assert "9988" not in answer.message
        assert "12345678" not in answer.message


def test_orders_are_told_apart_by_their_ids_alone() -> None:
    entries = [
        {"order_id": "B-2", "status": "accept", "pin": "PIN-B2222"},
        {"order_id": "Z-9", "status": "accept", "pin": "PIN-Z9999"},
        {"order_id": "A-1", "status": "reject"},
        "nonsense",
        None,
    ]
    found = read(entries, "A-1", "B-2", "C-3")
    assert isinstance(found, Check)
    assert found.answers["A-1"] == Cancelled()
    assert found.answers["B-2"] == Completed(Pin("PIN-B2222"))
    assert isinstance(found.answers["C-3"], Refused)
    assert found.strangers == 3


def test_one_that_stands_twice_is_believed_only_where_both_say_the_same() -> None:
    entry = {"order_id": "A-1", "status": "accept", "pin": "P-1234"}
    same = read([entry, dict(entry)])
    assert isinstance(same, Check)
    assert same.answers["A-1"] == Completed(Pin("P-1234"))
    for other in ({**entry, "pin": "P-9999"}, {**entry, "status": "wait"}):
        for entries in ([entry, other], [other, entry], [entry, other, entry]):
            found = read(entries)
            assert isinstance(found, Check)
            assert isinstance(found.answers["A-1"], Garbled)


@pytest.mark.parametrize(
    ("written", "reference"),
    [("1e3", "1000"), ('"00123"', "123"), ('"123"', "00123"), ("123.0", "123")],
)
def test_an_id_is_its_text(written: str, reference: str) -> None:
    found = read('[{"order_id": ' + written + ', "status": "accept", "pin": "P-1234"}]', reference)
    assert isinstance(found, Check)
    assert isinstance(found.answers[reference], Refused)


def test_an_answer_that_names_no_order_does_not_say_that_these_are_unknown() -> None:
    nobody = [["A-1"], "A-1", {"status": "wait"}, {"order_id": ["A-1"]}]
    found = read(nobody)
    assert isinstance(found, Check)
    assert (found.answers, found.strangers) == (
        {"A-1": Garbled("not_understood", "the answer names no order")},
        4,
    )
    for entries in ([], [*nobody, {"order_id": "C-3", "status": "wait"}]):
        found = read(entries, "A-1", "C-3")
        assert isinstance(found, Check)
        assert isinstance(found.answers["A-1"], Refused)


CODES = [
    "Kod: FF9MJ31CXKRG",
    "XK7P Q2MN 9RTW",
    "QWERTYUIOPAS",
    "Code: aB3d-eF5h-iJ7k",
    "pass: secret",
    "AB12 CD34",
    "1234 5678 9012",
]


@pytest.mark.parametrize("text", CODES)
def test_a_replay_that_may_hold_a_code_is_for_a_person(text: str) -> None:
    for replay in ([text], [{"replay": [text]}], text, ["tamam", text]):
        assert isinstance(one(status="accept", replay_api=replay), Garbled)
    assert one("message", status="accept", replay_api=[text]) != one(status="accept")


@pytest.mark.parametrize("text", ["tamam", "60 UC yüklendi", "تم الشحن", "Başarılı", "OK"])
def test_a_replay_of_words_is_a_message(text: str) -> None:
    assert one(status="accept", replay_api=[text]) == Completed(None, text)


@pytest.mark.parametrize(
    "text", ["PIN: 1234-5678-9012", "FF9MJ31CXKRG", "Kod FF9MJ31CXKRG", "şifre: x7Kq2"]
)
def test_a_message_that_is_a_code_or_names_one_is_for_a_person(text: str) -> None:
    for name in ("note", "message"):
        assert isinstance(one(status="accept", **{name: text}), Garbled)
        found = one(status="accept", pin="P-1234-XY", **{name: text})
        assert isinstance(found, Completed)
        assert found.pin == Pin("P-1234-XY")
        assert isinstance(one("message", status="accept", **{name: text}), Completed)


@pytest.mark.parametrize("text", ["Transfer 12345", "Player1 +60 UC", "tamam"])
def test_a_message_with_numbers_is_a_message(text: str) -> None:
    assert isinstance(one(status="accept", note=text), Completed)


@pytest.mark.parametrize(
    "entry",
    [
        {"replay_api": {"pin": "AB12-CD34-EF56"}},
        {"replay_api": [{"code": "AB12-CD34-EF56"}]},
        {"data": {"pin": "AB12-CD34-EF56"}},
        {"pins": ["AB12-CD34-EF56"]},
        {"codes": ["AB12-CD34-EF56"]},
    ],
)
def test_a_code_in_another_place_is_for_a_person(entry: dict[str, Any]) -> None:
    modes: tuple[Replay, ...] = ("hold", "pin", "message")
    for replay in modes:
        found = one(replay, status="accept", **entry)
        assert isinstance(found, Garbled)
        assert found.why == "unreadable_pin"


def test_what_the_order_was_about_is_no_code() -> None:
    found = one(status="accept", data={"playerId": "123456789"}, replay_api=[{}], pins=[])
    assert found == Completed(None, "")


@pytest.mark.parametrize("status", ["reject", "wait"])
def test_a_code_where_the_order_was_not_accepted_is_for_a_person(status: str) -> None:
    for field in ("pin", "voucher", "serial", "code"):
        found = one(status=status, **{field: "AB12-CD34-EF56"})
        assert isinstance(found, Garbled)
        assert found.why == "unreadable_pin"
    entries: list[dict[str, Any]] = [{"code": "105"}, {"code": 105}, {"pin": None}]
    words = ("Pending", "Bekliyor", "0", "Yetersiz bakiye", "", "null")
    entries.extend({"pin": word} for word in words)
    for entry in entries:
        assert not isinstance(one(status=status, **entry), Garbled)


def test_an_error_with_orders_contradicts_itself() -> None:
    orders = [{"order_id": "A-1", "status": "reject"}]
    for error in ({"status": "ERROR", "code": 121}, {"code": "500"}, {"error": "x"}):
        assert isinstance(read({**error, "data": orders}), Garbled)
    assert read({"status": "ERROR", "code": 121, "data": []}) == Blocked("refused_121")
    fine = read({"status": "OK", "code": 200, "data": orders})
    assert isinstance(fine, Check)
    assert fine.answers["A-1"] == Cancelled()


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (429, {"status": "error", "message": "slow down"}, Busy("http_429", 60.0)),
        (429, {"code": 429, "message": "x"}, Busy("http_429", 60.0)),
        (200, {"code": 429, "message": "x"}, Busy("http_429", 60.0)),
        (401, {"status": "ERROR", "message": "Invalid token"}, Blocked("http_401")),
        (401, {"code": 121, "message": "x"}, Blocked("refused_121")),
        (403, {"status": "ERROR"}, Blocked("http_403")),
        (408, {"status": "ERROR"}, Busy("http_408", 60.0)),
        (301, {"error": "x"}, Blocked("redirect")),
        (400, {"code": 105, "message": "x"}, Refused("105", "x")),
        (503, {"code": 121}, Busy("http_503", 60.0)),
    ],
)
def test_a_status_about_the_account_is_not_hidden_by_a_document(
    status: int, body: dict[str, Any], answer: Answer
) -> None:
    found = read(body, status=status, headers={"retry-after": "60"})
    assert type(found) is type(answer)
    for name in ("why", "code", "retry_after"):
        assert getattr(found, name, None) == getattr(answer, name, None)


def test_json_in_another_encoding_than_it_claims_is_not_guessed() -> None:
    body = b'[{"order_id":"A-1","status":"accept","pin":"AB\xff2-CD34-EF56"}]'
    assert read(body) == Garbled("bad_encoding")
    for headers in (
        {"content-type": 'application/json; charset="utf-8"'},
        {"content-type": "application/json; charset=utf8"},
        {"content-encoding": "identity"},
    ):
        assert read(body, headers=headers) == Garbled("bad_encoding")
    zipped = read(gzip.compress(body), headers={"content-encoding": "gzip"})
    assert zipped == Garbled("bad_encoding")
    declared = read(body, headers={"content-type": "application/json; charset=windows-1254"})
    assert isinstance(declared, Check)
    wide = '[{"order_id":"A-1","status":"wait"}]'.encode("utf-16")
    assert isinstance(read(wide), Check)


def test_our_own_ids_are_read_from_their_own_field() -> None:
    own = "3306d930-0000-4000-8000-000000000001"
    entry = {"order_uuid": own, "order_id": "ID_77", "status": "accept"}
    for by_uuid, kind in ((True, Completed), (False, Refused)):
        found = read([entry], own, by_uuid=by_uuid)
        assert isinstance(found, Check)
        assert isinstance(found.answers[own], kind)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"status": "ERROR", "code": "120", "message": "Api Token is required!"},
            Blocked("refused_120"),
        ),
        ({"code": "121", "message": "x"}, Blocked("refused_121")),
        ({"error": "UNAUTHORIZED"}, Blocked("http_401")),
        ({"status": "ERROR", "code": "429"}, Busy("http_429")),
        ({"status": "ERROR", "code": "500"}, Busy("http_500")),
        (
            {"status": "ERROR", "code": "105", "message": "no such order"},
            Refused("105", "no such order"),
        ),
        ({"status": "ERROR", "message": "no"}, Refused("error", "no")),
        ({"status": "OK", "data": None}, Garbled("not_understood")),
        ({"status": "OK", "data": {}}, Garbled("not_understood")),
        ("", Blocked("empty_answer")),
        ("<html>x</html>", Blocked("html_answer")),
        ("[] []", Garbled("not_json")),
        ('{"status": "OK", "data": [{"order_id": "A-1", "status": "acce', Garbled("not_json")),
        ('[{"order_id": "A-1", "status": "wait", "status": "accept"}]', Garbled("not_json")),
        ('[{"order_id": "A-1", "status": NaN}]', Garbled("not_json")),
        ("[" * 60_000, Garbled("not_json")),
        (b"\xff\xfe\xfa" * 9, Garbled("not_json")),
        (b"[]" + b" " * 70_000, Garbled("too_long")),
        ("null", Garbled("not_understood")),
        ('"accept"', Garbled("not_understood")),
    ],
)
def test_what_is_no_list_of_orders_concerns_them_all(body: Any, expected: Answer) -> None:
    found = read(body)
    assert type(found) is type(expected)
    assert getattr(found, "why", getattr(found, "code", "")) == getattr(
        expected, "why", getattr(expected, "code", "")
    )


def test_a_status_of_http_comes_first_where_the_body_says_nothing() -> None:
    assert read("", status=503, headers={"retry-after": "9"}) == Busy("http_503", 9.0)
    assert read("no", status=401) == Blocked("http_401")
    assert read({"code": "122", "message": "no"}, status=401) == Blocked("refused_122")
    assert isinstance(read([{"order_id": "A-1", "status": "accept"}], status=500), Busy)


@pytest.mark.long
@given(DOCUMENTS)
def test_whatever_comes_nothing_is_raised_and_nothing_ends_but_by_its_word(value: Any) -> None:
    found = read(json.dumps(value))
    if isinstance(found, Check):
        assert set(found.answers) == {"A-1"}


@pytest.mark.parametrize(
    "before",
    [
        "\ufeff",
        "\ufeff\ufeff\r\n",
        "ï»¿",
        "\u200b",
        "<br />\n<b>Warning</b>:  x in <b>/a.php</b> on line <b>3</b><br />\n",
        "[29-Nov-2026 12:00:00 UTC] PHP Notice:  x in /a.php on line 3\n",
        "<!-- cached -->",
    ],
)
def test_what_stands_before_a_document_hides_nothing(before: str) -> None:
    body = (
        before
        + '{"status": "OK", "data": [{"order_id": "A-1", "status": "accept", "pin": "AB12-CD34"}]}'
    )
    for raw in (body.encode(), body.encode("utf-16")):
        found = read(raw)
        assert isinstance(found, Check)
        assert found.answers["A-1"] == Completed(Pin("AB12-CD34"))


def test_a_message_that_was_encoded_twice_is_put_right_and_a_pin_is_not_guessed() -> None:
    assert one(status="reject", note="Ä°ÅŸlem iptal") == Cancelled("İşlem iptal")
    assert one(status="accept", pin="PÄ°N YOK") == Completed(None)
    assert one(status="accept", pin="Åžifre: AB12-CD34") == Garbled("unreadable_pin")


def test_what_cannot_be_unpacked_is_not_understood() -> None:
    assert read(b"x", headers={"content-encoding": "br"}) == Garbled("bad_encoding")


def test_a_balance_or_why_there_is_none() -> None:
    def profile(value: Any, status: int = 200) -> Balance | NoBalance:
        return parse_profile(status, {}, json.dumps(value).encode(), now=NOW, max_body=65_536)

    assert profile({"balance": "43.55", "email": "x"}) == Balance("43.55")
    assert profile({"status": "OK", "data": {"balance": 12.5}}) == Balance("12.5")
    for value, number in (
        ("43.550", 43.55),
        (12.345, 12.345),
        ("-1234.500", -1234.5),
        ("1.234,50", 1234.5),
        ("x", None),
    ):
        balance = profile({"balance": value})
        assert isinstance(balance, Balance)
        assert balance.number == number
    assert profile({"code": "120", "message": "x"}) == NoBalance("refused_120")
    for failed, why, said in (
        ({"code": "120", "message": "no money"}, "refused_120", "no money"),
        ({"code": "105", "message": "no page"}, "refused_105", "no page"),
        ({"code": "500", "message": "busy"}, "http_500", "busy"),
        ({"status": "OK", "data": {"balance": " "}}, "not_understood", ""),
        ({"balance": None}, "not_understood", ""),
    ):
        found = profile(failed)
        assert isinstance(found, NoBalance)
        assert (found.why, found.said) == (why, said)
    empty = parse_profile(200, {}, b"", now=NOW, max_body=65_536)
    assert empty == NoBalance("empty_answer")
    assert profile([]) == NoBalance("not_understood")
    assert profile({}, 500) == NoBalance("http_500")


CODE = "AB12-CD34-EF56"
FOR_A_PERSON: list[tuple[Replay, dict[str, Any], str, str]] = [
    (
        "hold",
        {"status": "wait", "pin": CODE},
        "unreadable_pin",
        "status 'wait', and a code in the ",
    ),
    ("hold", {"status": "Gone " + "x" * 60}, "unknown_state", f"status 'gone {'x' * 35}'"),
    ("hold", {"status": f"used {CODE}"}, "unknown_state", "status 'used ****'"),
    ("hold", {"status": "ok", "pins": [CODE]}, "unreadable_pin", "accepted (a list in the PIN's"),
    ("hold", {"status": "ok", "data": {"pin": CODE}}, "unreadable_pin", "accepted (another object"),
    (
        "hold",
        {"status": "ok", "pin": 12345678},
        "unreadable_pin",
        "accepted (a number in the PIN's",
    ),
    ("hold", {"status": "ok", "pin": [CODE]}, "unreadable_pin", "accepted (no text in the PIN's"),
    ("hold", {"status": "ok", "pin": CODE, "code": "X" + CODE}, "unreadable_pin", "accepted (two "),
    (
        "hold",
        {"status": "ok", "replay_api": {"x": CODE}},
        "unreadable_pin",
        "accepted (no text in ",
    ),
    ("hold", {"status": "ok", "note": f"PIN: {CODE}"}, "unreadable_pin", "accepted (its message "),
    ("pin", {"status": "ok", "replay_api": f"<i>{CODE}<x>"}, "unreadable_pin", "accepted (markup "),
    ("hold", {"status": "ok", "replay_api": CODE}, "unreadable_pin", "accepted (the replay may "),
]


@pytest.mark.parametrize(("replay", "entry", "why", "said"), FOR_A_PERSON)
def test_a_person_reads_why_an_entry_was_not_understood(
    replay: Replay, entry: dict[str, Any], why: str, said: str
) -> None:
    found = one(replay, **entry)
    assert isinstance(found, Garbled)
    assert found.why == why
    assert found.message.startswith(said)
    assert CODE not in found.message


@pytest.mark.parametrize(
    ("body", "why", "said"),
    [
        ({"status": "OK", "data": {}}, "not_understood", "no list of orders"),
        ({"error": "x", "data": [{}]}, "not_understood", "an error and orders in one answer"),
        ("[cut", "not_json", "[…"),
    ],
)
def test_a_person_reads_why_a_whole_answer_was_not_understood(
    body: Any, why: str, said: str
) -> None:
    found = read(body)
    assert isinstance(found, Garbled)
    assert (found.why, found.message) == (why, said)


def test_a_person_reads_what_a_page_says() -> None:
    found = read("<html><body>Bakım</body></html>")
    assert isinstance(found, Blocked)
    assert (found.why, found.message) == ("html_answer", "Bakım")


def test_a_person_reads_why_an_order_was_not_found() -> None:
    twice = [{"order_id": "A-1", "status": "wait"}, {"order_id": "A-1", "status": "ok"}]
    for entries, why, said in (
        (twice, "two_answers", "the answer contains the order twice, with different values"),
        ([{"status": "wait"}], "not_understood", "the answer names no order"),
    ):
        found = read(entries)
        assert isinstance(found, Check)
        answer = found.answers["A-1"]
        assert isinstance(answer, Garbled)
        assert (answer.why, answer.message) == (why, said)


@pytest.mark.parametrize("key", ["message", "error", "msg"])
def test_what_an_api_says_of_its_failure_is_shown_without_codes(key: str) -> None:
    for code, why in (("105", "refused"), ("500", "http_500"), ("121", "refused_121")):
        found = read({"status": "ERROR", "code": code, key: f" no {CODE} here "})
        assert isinstance(found, Refused | Busy | Blocked)
        assert found.message == "no **** here"
        assert getattr(found, "why", "refused") == why
        silent = read({"status": "ERROR", "code": code})
        assert isinstance(silent, Refused | Busy | Blocked)
        assert silent.message == ""


def test_a_failures_code_is_cut_to_twenty_characters() -> None:
    assert read({"status": "ERROR", "code": "x" * 30}) == Refused("x" * 20)
    assert read({"status": "ERROR", "code": " "}) == Refused("error")


def test_the_shops_words_for_no_pin_count_here_too() -> None:
    def read_with(replay: Replay, **entry: Any) -> Answer:
        body = json.dumps([{"order_id": "A-1", "status": "accept", **entry}]).encode()
        found = parse_check(
            200, {}, body, ["A-1"], now=NOW, max_body=999, replay=replay, no_pin=["hazır"]
        )
        assert isinstance(found, Check)
        return found.answers["A-1"]

    assert read_with("hold", pin="HAZIR", note="yüklendi") == Completed(None, "yüklendi")
    assert read_with("pin", replay_api="HAZIR", note="yüklendi") == Completed(None, "yüklendi")
    assert read_with("hold", pin="yok") == Completed(Pin("yok"))


def test_a_code_behind_an_empty_text_of_the_replay_is_found() -> None:
    assert one("pin", status="ok", replay_api=[None, CODE]) == Completed(Pin(CODE))
    assert one("pin", status="ok", replay_api={"replay": [None, CODE]}) == Completed(Pin(CODE))


def test_a_message_goes_with_its_pin_and_texts_are_joined_by_a_blank() -> None:
    entry = {"status": "ok", "note": "yüklendi", "message": "tamam"}
    assert one(**entry, pin=CODE) == Completed(Pin(CODE), "yüklendi tamam")
    assert one("pin", **entry, replay_api=CODE) == Completed(Pin(CODE), "yüklendi tamam")
    assert one("message", **entry, replay_api="iyi") == Completed(None, "yüklendi tamam iyi")
    assert one("hold", **entry, replay_api="iyi") == Completed(None, "yüklendi tamam iyi")
    assert one("hold", **entry, replay_api="yok") == Completed(None, "yüklendi tamam")


def test_a_body_as_long_as_is_allowed_is_read_and_no_longer_one() -> None:
    body = b'[{"order_id":"A-1","status":"wait"}]'
    for room, kind in ((len(body), Check), (len(body) - 1, Garbled)):
        assert isinstance(parse_check(200, {}, body, ["A-1"], now=NOW, max_body=room), kind)
    too_long = parse_check(200, {}, body, ["A-1"], now=NOW, max_body=len(body) - 1)
    assert too_long == Garbled("too_long")
    unread = parse_check(
        200, {"content-encoding": "br"}, body, ["A-1"], now=NOW, max_body=len(body)
    )
    assert unread == Garbled("bad_encoding")


def test_ids_are_the_providers_unless_it_was_asked_by_ours() -> None:
    body = json.dumps([{"order_id": "A-1", "order_uuid": "B-2", "status": "wait"}]).encode()
    found = parse_check(200, {}, body, ["A-1", "B-2"], now=NOW, max_body=999)
    assert isinstance(found, Check)
    assert found.answers["A-1"] == Waiting()
    assert isinstance(found.answers["B-2"], Refused)
    broken = json.dumps({"status": "ERROR", "code": "121"}).encode()
    assert parse_check(500, {}, broken, ["A-1"], now=NOW, max_body=999) == Busy("http_500")


def test_a_strict_software_is_believed_only_where_nothing_contradicts() -> None:
    def answer(**entry: Any) -> Answer:
        body = json.dumps([{"id": "A-1", **entry}]).encode()
        found = parse_check(200, {}, body, ["A-1"], now=NOW, max_body=999, dialect=TENANT)
        assert isinstance(found, Check)
        return found.answers["A-1"]

    assert answer(status="wait") == Waiting()
    assert answer(status="wait", orderId="A-1") == Waiting()
    assert isinstance(answer(status="wait", orderId="B-2"), Garbled)
    assert answer(status="accept", note="60 UC") == Completed(None, "60 UC")
    for entry, said in (
        ({"status": "accept", "note": f"kod {CODE}"}, "accepted (its texts may hold the code)"),
        ({"status": "reject", "pin": "hazır"}, "status 'reject', and a code in the PIN's place"),
        ({"status": "reject", "pin": 7}, "status 'reject', and a code in the PIN's place"),
    ):
        found = answer(**entry)
        assert isinstance(found, Garbled)
        assert (found.why, found.message) == ("unreadable_pin", said)
    unknown = answer(status=7)
    assert isinstance(unknown, Garbled)
    assert (unknown.why, unknown.message) == ("unknown_state", "status ''")
