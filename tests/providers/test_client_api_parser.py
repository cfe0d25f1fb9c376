"""A client API's answers: matched by the id they name, believed only where they are certain."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.answer import Answer, Blocked, Busy, Cancelled, Completed, Garbled, Refused, Waiting
from order_monitor.core.pin import Pin
from order_monitor.providers.client_api_parser import Check, Replay, parse_check, parse_profile
from order_monitor.providers.provider import Balance, NoBalance

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
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    asked = references or ("A-1",)
    return parse_check(status, headers or {}, raw, asked, now=NOW, max_body=65_536, by_uuid=by_uuid, replay=replay)


def one(replay: Replay = "hold", **entry: Any) -> Answer:
    """Return what one entry is read as."""
    found = read({"status": "OK", "data": [{"order_id": "A-1", **entry}]}, replay=replay)
    assert isinstance(found, Check)
    return found.answers["A-1"]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *((w, Completed) for w in ("accept", "ACCEPT", " success ", "ok", "done", "complete", "completed")),
        *((w, Cancelled) for w in ("reject", "rejected", "failed", "fail", "error", "cancelled", "canceled")),
        *((w, Waiting) for w in ("wait", "pending", "processing", "inprogress", "queued", "queue")),
        *((word, Garbled) for word in UNKNOWN),
    ],
)
def test_a_word_that_is_contested_or_unknown_is_not_understood(word: Any, kind: type[Answer]) -> None:
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


@pytest.mark.parametrize("shape", [["AB12-9988-7766"], [{"replay": ["AB12-9988-7766"]}], "AB12-9988-7766"])
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
    ("written", "reference"), [("1e3", "1000"), ('"00123"', "123"), ('"123"', "00123"), ("123.0", "123")]
)
def test_an_id_is_its_text(written: str, reference: str) -> None:
    found = read('[{"order_id": ' + written + ', "status": "accept", "pin": "P-1234"}]', reference)
    assert isinstance(found, Check)
    assert isinstance(found.answers[reference], Refused)


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
        ({"status": "ERROR", "code": "120", "message": "Api Token is required!"}, Blocked("refused_120")),
        ({"code": "121", "message": "x"}, Blocked("refused_121")),
        ({"error": "UNAUTHORIZED"}, Blocked("http_401")),
        ({"status": "ERROR", "code": "429"}, Busy("http_429")),
        ({"status": "ERROR", "code": "500"}, Busy("http_500")),
        ({"status": "ERROR", "code": "105", "message": "no such order"}, Refused("105", "no such order")),
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
    assert getattr(found, "why", getattr(found, "code", "")) == getattr(expected, "why", getattr(expected, "code", ""))


def test_a_status_of_http_comes_first_where_the_body_says_nothing() -> None:
    assert read("", status=503, headers={"retry-after": "9"}) == Busy("http_503", 9.0)
    assert read("no", status=401) == Blocked("http_401")
    assert read({"code": "122", "message": "no"}, status=401) == Blocked("refused_122")
    assert isinstance(read([{"order_id": "A-1", "status": "accept"}], status=500), Busy)


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
    body = before + '{"status": "OK", "data": [{"order_id": "A-1", "status": "accept", "pin": "AB12-CD34"}]}'
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
    assert profile([]) == NoBalance("not_understood")
    assert profile({}, 500) == NoBalance("http_500")
