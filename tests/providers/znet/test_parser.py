"""znet's answers, each line of its documented table, and what no bytes whatever may bring about."""

import codecs
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.amount import LONGEST_AMOUNT
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
from order_monitor.core.pin import Pin, read_pin
from order_monitor.core.text import was_written_twice
from order_monitor.demo.standin import render
from order_monitor.providers.http.body import (
    decode,
)
from order_monitor.providers.provider import Balance, NoBalance
from order_monitor.providers.znet.parser import parse, parse_balance, parse_text

NOW = 1_790_000_000.0


def ask(body: bytes, status: int = 200, **headers: str) -> Answer:
    return parse(status, {k.replace("_", "-"): v for k, v in headers.items()}, body, now=NOW)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("OK|2|AB12-CD34-EF56-GH78|Açıklama", Completed(Pin("AB12-CD34-EF56-GH78"), "Açıklama")),
        ("OK|2| |Yüklendi", Completed(None, "Yüklendi")),
        ("OK|2|-|Yüklendi", Completed(None, "Yüklendi")),
        ("OK|2| - |Yüklendi", Completed(None, "Yüklendi")),
        ("OK|2||", Completed(None, "")),
        ("OK|2|–|x", Completed(None, "x")),
        ("OK|1| |İşlem bekleniyor", Waiting("İşlem bekleniyor")),
        ("OK|1|sırada| ", Waiting("sırada")),
        ("OK|3| |İşlem iptal edildi", Cancelled("İşlem iptal edildi")),
        ("OK|3|Oyuncu bulunamadı| ", Cancelled("Oyuncu bulunamadı")),
        ("OK|3|Oyuncu bulunamadı|iade", Cancelled("Oyuncu bulunamadı iade")),
        ("OK|3|yok|iade", Cancelled("iade")),
        ("OK|1|yok|", Waiting("")),
        ("OK|2|PIN1|not a | with pipes", Completed(Pin("PIN1"), "not a | with pipes")),
        ("OK|2|0012|leading zeros stay", Completed(Pin("0012"), "leading zeros stay")),
        ("ok|2|PIN1|x", Completed(Pin("PIN1"), "x")),
        ("  Ok | 2 | PIN1 | x \r\n", Completed(Pin("PIN1"), "x")),
        ("\ufeffOK|2|PIN1|x", Completed(Pin("PIN1"), "x")),
        ("OK|\u200b2\u200b|PIN1|x", Completed(Pin("PIN1"), "x")),
        ("\u200bOK\u200b|2|PIN1|x", Completed(Pin("PIN1"), "x")),
        ("\u200b OK|2|PIN1|x", Completed(Pin("PIN1"), "x")),
        ("008|Yetkiniz yok", Blocked("refused_8")),
        ("80|x", Refused("80", "x")),
        ("OK|2|AB12|OK|3| |iptal", Completed(Pin("AB12"), "OK|3| |iptal")),
        ("\ufeff \r\nOK|2|PIN1|x\0", Completed(Pin("PIN1"), "x")),
        ("OK|7|a|b", Garbled("unknown_state")),
        ("OK|02|a|b", Garbled("unknown_state")),
        ("OK|２|a|b", Garbled("unknown_state")),  # noqa: RUF001 - a fullwidth digit is not a state
        ("OK||a|b", Garbled("unknown_state")),
        ("OK", Garbled("cut_short")),
        ("OK|2", Garbled("cut_short")),
        ("OK|2|AB12-CD", Garbled("cut_short")),
        ("OK|3|iptal", Garbled("cut_short")),
        ("OKAY|2|a|b", Garbled("not_understood")),
        ("hello", Garbled("not_understood")),
        ('{"status": 2}', Garbled("not_understood")),
        ("8", Garbled("not_understood")),
        ("3|Açıklama", Refused("3", "Açıklama")),
        ("3|Oyuncu|bulunamadı", Refused("3", "Oyuncu|bulunamadı")),
        ("3|Oyuncu\nbulunamadı", Refused("3", "Oyuncu\nbulunamadı")),
        ("|hata", Garbled("not_understood")),
        ("-|hata", Garbled("not_understood")),
        ("2|PIN1", Refused("2", "PIN1")),
        ("-1|hata", Refused("-1", "hata")),
        ("-8|hata", Refused("-8", "hata")),
        ("123456 |hata", Refused("123456", "hata")),
        ("1234567|hata", Garbled("not_understood")),
        ("8|Bağlantı Hatası", Blocked("refused_8", "Bağlantı Hatası")),
        ("", Blocked("empty_answer")),
        (" \r\n\ufeff", Blocked("empty_answer")),
        ("<!DOCTYPE html><html></html>", Blocked("html_answer")),
        ("\n<HTML>OK|2|PIN|x", Blocked("html_answer")),
        ("OK|2|AB\x01CD|x", Garbled("unreadable_pin")),
        ("OK|2|AB\ufffdCD|x", Garbled("unreadable_pin")),
    ],
)
def test_a_body_means_what_the_table_says(body: str, answer: Answer) -> None:
    assert ask(body.encode()) == answer


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (300, Blocked("redirect")),
        (301, Blocked("redirect")),
        (302, Blocked("redirect")),
        (399, Blocked("redirect")),
        *(
            (status, Blocked(f"http_{status}"))
            for status in (401, 402, 403, 404, 405, 407, 410, 451)
        ),
        (400, Garbled("unexpected_http_status")),
        (499, Garbled("unexpected_http_status")),
        (206, Garbled("unexpected_http_status")),
        (204, Garbled("unexpected_http_status")),
        (408, Busy("http_408")),
        (429, Busy("http_429")),
        (500, Busy("http_500")),
        (503, Busy("http_503")),
        (599, Busy("http_599")),
    ],
)
def test_any_status_but_200_says_nothing_of_the_order(status: int, answer: Answer) -> None:
    assert ask(b"OK|2|PIN1|x", status) == answer
    assert ask(b"OK|3| |x", status) == answer


def test_retry_after_reaches_the_answer() -> None:
    assert ask(b"", 429, retry_after="9") == Busy("http_429", 9.0)
    assert ask(b"", 503, retry_after="Mon, 21 Sep 2026 14:13:50 GMT") == Busy("http_503", 30.0)


def test_turkish_text_in_either_encoding() -> None:
    """F11: a body is decoded by what it is, not by what a library makes of it."""
    text = "OK|3| |İşlem iptal edildi, ğüşıöç"
    assert ask(text.encode("utf-8")) == ask(text.encode("windows-1254"))
    assert ask(text.encode("windows-1254"), content_type="text/html; charset=UTF-8") == parse_text(
        text
    )
    for name in (
        "windows-1254",
        "Windows-1254",
        "iso-8859-9",
        '"cp1254"',
        "'cp1254'",
        "latin5",
        "latin-5",
    ):
        assert ask(
            text.encode("windows-1254"), content_type=f"text/html; charset={name}"
        ) == parse_text(text)


DECLARED = "text/html; charset="


@pytest.mark.parametrize("codec", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_needs_no_declaration(codec: str) -> None:
    text = "OK|3| |İşlem iptal edildi"
    for declared in ("", f"{DECLARED}windows-1254"):
        assert ask(text.encode(codec), content_type=declared) == parse_text(text)
    big = codecs.BOM_UTF16_BE + text.encode("utf-16-be")
    assert ask(big) == parse_text(text)
    assert ask(codecs.BOM_UTF32_BE + text.encode("utf-32-be")) == parse_text(text)


def test_a_pin_that_cannot_be_decoded_is_no_pin() -> None:
    assert ask(b"OK|2|AB\x81\x8dCD|x") == Garbled("unreadable_pin")


def test_a_body_beyond_the_limit_is_not_read() -> None:
    body = b"OK|2|PIN1|" + b"x" * 100
    assert parse(200, {}, body, now=NOW, max_body=len(body)) == Completed(Pin("PIN1"), "x" * 100)
    assert parse(200, {}, body, now=NOW, max_body=len(body) - 1) == Garbled("too_long")
    assert parse(200, {}, body.ljust(65_536), now=NOW) == Completed(Pin("PIN1"), "x" * 100)
    assert parse(200, {}, body.ljust(65_537), now=NOW) == Garbled("too_long")


def test_compressed_answers_are_undone_within_the_limit() -> None:
    """D6: a small body may not become a large one."""
    plain = "OK|2|PIN1|Yüklendi".encode()
    for name in ("gzip", "x-gzip", " GZIP "):
        assert ask(gzipped(plain), content_encoding=name) == parse_text(plain.decode())
    assert ask(zlib.compress(plain), content_encoding="deflate") == parse_text(plain.decode())
    assert ask(gzipped(b"0" * 10_000_000), content_encoding="gzip") == Garbled("bad_encoding")
    assert ask(gzipped(plain)[:-9], content_encoding="gzip") == Garbled("bad_encoding")
    assert ask(plain, content_encoding="gzip") == Garbled("bad_encoding")
    assert ask(plain, content_encoding="br") == Garbled("bad_encoding")
    assert ask(plain, content_encoding="identity") == parse_text(plain.decode())


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def gzipped(plain: bytes) -> bytes:
    """The same bytes at any time of day: they name the tests."""
    return gzip.compress(plain, mtime=0)


PLAIN = "OK|2|PIN1|Yüklendi".encode()
ZIPPED = gzipped(PLAIN)


@pytest.mark.parametrize(
    "name",
    [
        "none",
        "identity",
        "UTF-8",
        "windows-1254",
        "binary",
        "8bit",
        "text/plain",
        "",
        " , ",
        "null",
    ],
)
def test_an_encoding_that_names_no_compression_changes_nothing(name: str) -> None:
    assert ask(PLAIN, content_encoding=name) == parse_text(PLAIN.decode())
    busy = ask(b"Bakim", 503, content_encoding=name)
    assert isinstance(busy, Busy)
    assert busy.message == "Bakim"
    assert parse_balance(200, {"content-encoding": name}, b"OK|5", now=NOW) == Balance("5")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("deflate", raw_deflate(PLAIN)),
        ("deflate", zlib.compress(PLAIN)),
        ("x-deflate", raw_deflate(PLAIN)),
        ("gzip, gzip", gzipped(ZIPPED)),
        ("deflate, gzip", gzipped(raw_deflate(PLAIN))),
        ("gzip, deflate", zlib.compress(ZIPPED)),
        ("identity, GZIP ,utf-8", ZIPPED),
        ("gzip", gzipped(PLAIN[:12]) + gzipped(PLAIN[12:])),
        ("gzip", ZIPPED + b"\0" * 20),
        ("gzip", ZIPPED + b"\n"),
    ],
)
def test_what_was_compressed_is_undone_as_browsers_do(name: str, body: bytes) -> None:
    assert ask(body, content_encoding=name) == parse_text(PLAIN.decode())


def test_nothing_that_came_compressed_is_an_empty_answer() -> None:
    assert ask(b"", content_encoding="gzip") == Blocked("empty_answer")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("zstd", PLAIN),
        ("gzip, br", ZIPPED),
        ("br, gzip", ZIPPED),
        ("gzip, gzip", ZIPPED),
        ("gzip", raw_deflate(PLAIN)),
        ("gzip", ZIPPED + ZIPPED[:-3]),
        ("gzip", gzipped(b"") * 100),
        ("gzip," * 6, ZIPPED),
        ("deflate", raw_deflate(PLAIN)[:-2]),
        ("deflate", raw_deflate(b"x" * 100_000)),
        ("gzip, gzip", gzipped(gzipped(b"0" * 10_000_000))),
    ],
)
def test_what_cannot_be_undone_is_garbled(name: str, body: bytes) -> None:
    assert ask(body, content_encoding=name) == Garbled("bad_encoding")
    assert parse_balance(200, {"content-encoding": name}, body, now=NOW) == NoBalance(
        "bad_encoding"
    )


def test_a_balance_that_came_compressed_is_read() -> None:
    assert parse_balance(200, {"content-encoding": "gzip"}, gzipped(b"OK|5,5"), now=NOW) == Balance(
        "5,5"
    )


def test_what_would_become_too_large_is_not_even_unpacked() -> None:
    """D6: the limit holds while it is undone, not only for what comes of it."""
    bomb = gzipped(b"0" * 10_000_000)
    tracemalloc.start()
    try:
        assert parse(200, {"content-encoding": "gzip"}, bomb, now=NOW) == Garbled("bad_encoding")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_compressed_answer_may_be_as_long_as_the_limit() -> None:
    plain = b"OK|2|PIN1|" + b"x" * 100
    headers = {"content-encoding": "gzip"}
    assert parse(200, headers, gzipped(plain), now=NOW, max_body=len(plain)) == parse_text(
        plain.decode()
    )
    assert parse(200, headers, gzipped(plain), now=NOW, max_body=len(plain) - 1) == Garbled(
        "bad_encoding"
    )


PIPELIKE = st.lists(
    st.sampled_from(
        [
            "OK",
            "ok",
            "|",
            "1",
            "2",
            "3",
            "7",
            "8",
            " ",
            "-",
            "\ufeff",
            "<html>",
            "PIN",
            "ş",
            "\0",
            "\r\n",
        ]
    )
).map("".join)


@given(
    status=st.integers(100, 999),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "content-encoding", "retry-after"]),
        st.text(max_size=30) | PIPELIKE,
    ),
    body=st.binary(max_size=300) | PIPELIKE.map(lambda s: s.encode()),
)
def test_no_bytes_make_it_raise_and_only_ok_2_and_ok_3_end_an_order(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    answer = parse(status, headers, body, now=NOW)
    if isinstance(answer, Completed | Cancelled):
        assert status == 200
        text = (
            decode(body, headers.get("content-type", ""))
            if not headers.get("content-encoding")
            else None
        )
        if text is not None:
            fields = text.strip("\ufeff \t\r\n\0").split("|")
            assert fields[0].strip().upper() == "OK"
            assert fields[1].strip() == ("2" if isinstance(answer, Completed) else "3")
            assert len(fields) >= 4


FIELD = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), max_size=40
)
PIN = FIELD.filter(lambda s: "|" not in s and read_pin(s) == Pin(s))
MESSAGE = FIELD.filter(
    lambda s: (
        not set("\ufeff&<") & set(s)
        and not s.startswith("|")
        and "ok|" not in s.lower()
        and not was_written_twice(s)
    )
)


@given(
    answer=st.builds(Completed, st.none() | PIN.map(Pin), MESSAGE)
    | st.builds(Cancelled, MESSAGE)
    | st.builds(Waiting, MESSAGE)
)
def test_a_rendered_answer_reads_back(answer: Completed | Cancelled | Waiting) -> None:
    assert parse_text(render(answer)) == answer


def test_a_pin_never_shows_itself() -> None:
    answer = Completed(Pin("SECRET-PIN"), "x")
    shown = f"{answer} {answer!r} {answer.pin!s} {answer.pin!r} {[answer.pin]}"
    assert "SECRET" not in shown
    assert repr(answer.pin) == str(answer.pin) == "Pin(****)"
    assert Pin("a") == Pin("a")
    assert Pin("a") != Pin("b")
    assert Pin("a") != "a"
    assert len({Pin("a"), Pin("a")}) == 1
    assert Unreachable("timeout").outcome == "unreachable"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, "OK|1523.40", Balance("1523.40")),
        (200, " ok | -12,5 | 300 \r\n", Balance("-12,5")),
        (200, "\ufeffOK|5\0", Balance("5")),
        (200, "Notice: Undefined variable: x in /a.php on line 1\nOK|5", Balance("5")),
        (200, "", NoBalance("empty_answer")),
        (200, "8|hata", NoBalance("refused_8")),
        (200, "3|hata", NoBalance("refused_3")),
        (200, "<html>", NoBalance("html_answer")),
        (200, "OK|much", NoBalance("cut_short")),
        (200, "OK|1.234,50", Balance("1.234,50")),
        (200, "OK|1 234,50 TL|0", Balance("1 234,50 TL")),
        (200, "OK|1.2.3", Balance("1.2.3")),
        (200, "OK|12.345 KWD|1", Balance("12.345 KWD")),
        (200, "OK|AB12-CD34|x", Balance("****")),
        (200, "OK|1| |x", Balance("1")),
        (200, "OK|x|y|z", NoBalance("unknown_state")),
        (200, "OK|1x| |z", NoBalance("unknown_state")),
        (503, "OK|5", NoBalance("http_503")),
        (302, "", NoBalance("redirect")),
        (418, "", NoBalance("unexpected_http_status")),
    ],
)
def test_a_balance_or_the_name_of_its_failure(
    status: int, body: str, expected: Balance | NoBalance
) -> None:
    assert parse_balance(status, {}, body.encode(), now=NOW) == expected


@pytest.mark.parametrize(
    ("status", "content_type", "body", "said"),
    [
        (503, "", "Bakım", "Bakım"),
        (503, "text/html; charset=windows-1254", "ş", "ş"),
        (200, "", "8|Bağlantı Hatası", "Bağlantı Hatası"),
        (200, "text/html; charset=windows-1254", "3|ş", "ş"),
        (200, "", "<title>Giriş</title>", "Giriş"),
    ],
)
def test_what_was_said_goes_with_a_balance_that_is_none(
    status: int, content_type: str, body: str, said: str
) -> None:
    found = parse_balance(status, {"content-type": content_type}, body.encode(), now=NOW)
    assert isinstance(found, NoBalance)
    assert found.said == said


def test_of_a_failure_that_came_compressed_nothing_is_shown() -> None:
    answer = ask(gzipped(b"Bakim"), 503, content_encoding="gzip")
    assert isinstance(answer, Busy)
    assert answer.message == ""


@pytest.mark.parametrize(
    ("body", "pin"),
    [
        ("OK|2|AAA-111\nBBB-222|tamam", "AAA-111\nBBB-222"),
        ("OK|2|AAA-111\r\nSeri: 9|tamam", "AAA-111\nSeri: 9"),
        ("OK|2|AAA\rBBB|tamam", "AAA\nBBB"),
        ("OK|2|\nAAA\n|tamam", "AAA"),
        ("OK|2|A&amp;B<1>|tamam", "A&B<1>"),
        ("OK|2|AAA-111<br />BBB-222|tamam", "AAA-111\nBBB-222"),
        ("OK|2|<b>AAA-111</b>|tamam", "AAA-111"),
        ("OK|2|\u200bAAA-111\u00a0|tamam", "AAA-111"),
        ("OK|2|AAA-111\n-|tamam", "AAA-111"),
        ("OK|2|A\tB|tamam", "A B"),
        ("OK|2|0|tamam", "0"),
        ("OK|2|nullable|tamam", "nullable"),
    ],
)
def test_a_pin_is_taken_as_it_is_with_its_line_breaks(body: str, pin: str) -> None:
    assert parse_text(body) == Completed(Pin(pin), "tamam")


@pytest.mark.parametrize(
    "word",
    [
        *(
            "null",
            "NULL",
            "Null",
            "(null)",
            "[null]",
            "undefined",
            "None",
            "nil",
            "NaN",
            "yok",
            "YOK",
            "Pin Yok",
            "PİN YOK",
            "pın yok",
            "n/a",
            "Array",
            "&nbsp;",
            "<b></b>",
            "<br>",
            "\u200b",
            "****-****",
        ),
        *(
            "--",
            "-\t-",
            "-\u00a0-",
            "-\r\n-",
            "''",
            '""',
            "- -",
            "\u00a0",
            *"-\u2010\u2011\u2012\u2013\u2014\u2015\u2212",
        ),
    ],
)
def test_a_word_for_no_pin_is_none(word: str) -> None:
    assert parse_text(f"OK|2|{word}|tamam") == Completed(None, "tamam")


def test_which_words_mean_no_pin_is_a_setting() -> None:
    assert parse_text("OK|2|0|x", {"0"}) == Completed(None, "x")
    assert parse_text("OK|2|null|x", {"0"}) == Completed(Pin("null"), "x")
    assert parse(200, {}, b"OK|2|0|x", now=NOW, no_pin={"0"}) == Completed(None, "x")


@pytest.mark.parametrize("mark", ["\0", "\x07", "\x1b", "\x85", "\x0b", "\ud800"])
def test_a_pin_with_other_control_characters_is_for_a_person(mark: str) -> None:
    answer = parse_text(f"OK|2|AB{mark}CD|x")
    assert answer == Garbled("unreadable_pin")
    assert answer.message == "OK|2|… (characters that cannot be read in the PIN's place)"
    assert parse_text(f"OK|2|ABCD{mark}|x") == Garbled("unreadable_pin")


@pytest.mark.parametrize(
    "third",
    [
        "<script>x()</script>AB12-CD34",
        "<a href='x'>AB12-CD34</a>",
        "AB12-CD34<span",
        "AB12-CD34\nWarning: mysql_fetch() expects a resource in /p.php on line 12",
        "AB12-CD34<br />\n<b>Notice</b>: Undefined index: x in <b>/p.php</b> on line <b>3</b>",
    ],
)
def test_a_pin_with_something_else_in_it_is_for_a_person(third: str) -> None:
    answer = parse_text(f"OK|2|{third}|tamam")
    assert answer == Garbled("unreadable_pin")
    assert isinstance(answer, Garbled)
    assert "AB12" not in answer.message
    assert parse_text(f"OK|1|{third}| bekliyor") == Waiting("bekliyor")
    assert isinstance(parse_text(f"OK|3|{third}|iptal"), Cancelled)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("OK|2|AB12-CD34|TIKTOK|100|Coin", Completed(Pin("AB12-CD34"), "TIKTOK|100|Coin")),
        ("OK|2|AB12-CD34|STOK|2|adet", Completed(Pin("AB12-CD34"), "STOK|2|adet")),
        ("OK|2|AB12-CD34|TIKTOK|1000|Coin", Completed(Pin("AB12-CD34"), "TIKTOK|1000|Coin")),
        ("OK|3| |Stok|0|adet", Cancelled("Stok|0|adet")),
        ("OK|3| |Stok | 0 | adet ", Cancelled("Stok | 0 | adet")),
        ("3|TIKTOK|100|Coin", Refused("3", "TIKTOK|100|Coin")),
        ("OK|2|AB12|tamam\nOK", Completed(Pin("AB12"), "tamam\nOK")),
        (
            "OK|2|AB12-CD34|ok\nWarning: x() failed in /p.php on line 3",
            Completed(Pin("AB12-CD34"), "ok"),
        ),
        ("OK|2|AB12|see <b>STOK|2|x</b>", Completed(Pin("AB12"), "see STOK|2|x")),
        # Behind what looks like an answer, whosever it is, no code gets into a note.
        ("OK|1| |bekliyorOK|2|EF56-GH78|tamam", Waiting("bekliyorOK|2|****|tamam")),
        ("OK|1| |bekliyorOK|2| A1B2C3 | tamam", Waiting("bekliyorOK|2| **** | tamam")),
        ("OK|2|AB12|xOK|2|EF56-GH78|kod EF56-GH78", Completed(Pin("AB12"), "xOK|2|****|kod ****")),
        ("3|hataOK|2|EF56-GH78|tamam", Refused("3", "hataOK|2|****|tamam")),
    ],
)
def test_nothing_in_the_middle_of_a_message_is_an_answer(body: str, answer: Answer) -> None:
    assert parse_text(body) == answer


@pytest.mark.parametrize(
    "body", ["OK|OK|2|AB12-CD34|x", "ok | ok|2|x", "metinOK|2|AB12-CD34|tamam", "!!OK|2|AB12|x"]
)
def test_what_does_not_begin_as_an_answer_is_not_understood(body: str) -> None:
    assert parse_text(body) == Garbled("not_understood")


@pytest.mark.parametrize(
    "body",
    [
        "OK|1| |bekliyor\nOK|2|AB12-CD34|tamam",
        "OK|1| |bekliyor\r\nOK|3| |iptal",
        "OK|1| |bekliyor<br>OK|2|AB12-CD34|tamam",
        "OK|1| |bekliyor<BR />\n <b>OK|2|AB12-CD34|tamam</b>",
        "OK|1| |bekliyor&lt;br&gt;OK|2|AB12-CD34|tamam",
        "OK|1| |bekliyor</p><p>OK|2|AB12-CD34|tamam</p>",
        "OK|1| |bekliyor\n\ufeff OK|2|AB12-CD34|tamam",
        "OK|1| |bekliyor\u2028OK|2|AB12-CD34|tamam",
        "OK|2|EF56-AB12OK|2|AB12-CD34|tamam",
        "OK|1OK|2|AB12-CD34|tamam",
        "OK|2|AB12-CD34|tamam\r\nOK|2|EF56-GH78|tamam",
        "OK|2|AB12\nOK|2|CD34",
        "OK|3| |iptal\nok | 2 | AB12-CD34 | x",
        "3|hata\nOK|2|AB12-CD34|tamam",
        "8|hata\nOK|2|AB12-CD34|tamam",
        "metin\nOK|2|AB12-CD34|tamam",
    ],
)
def test_two_answers_in_one_are_none_and_a_person_sees_that(body: str) -> None:
    answer = parse_text(body)
    assert answer == Garbled("two_answers")
    assert isinstance(answer, Garbled)
    assert "…" in answer.message
    assert "AB12" not in repr(answer)


NOTICE = "<br />\n<b>Notice</b>:  Undefined variable: x in <b>/var/www/pin_kontrol.php</b> on line <b>12</b><br />\n"


@pytest.mark.parametrize(
    "before",
    [
        NOTICE,
        NOTICE * 3,
        NOTICE.replace("Notice", "Warning").replace("\n", ""),
        "Notice: Undefined variable: x in /var/www/a.php on line 12\n",
        "PHP Deprecated: x in /a.php on line 1\n",
    ],
)
@pytest.mark.parametrize("text", ["OK|2|AB12|tamam", "ok|1| |x", "3|hata", "8|login"])
def test_a_notice_of_php_before_an_answer_hides_nothing(before: str, text: str) -> None:
    assert parse_text(before + text) == parse_text(text)


@pytest.mark.parametrize(
    "body", [NOTICE, "<b>Fatal error</b>: x in a.php on line 3", NOTICE + "<html>Bakım</html>"]
)
def test_a_notice_without_an_answer_is_a_page(body: str) -> None:
    assert parse_text(body) == Blocked("html_answer")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("OK|3| |Oyuncu bulunamad&#305;", Cancelled("Oyuncu bulunamadı")),
        ("OK|3|<b>Oyuncu</b> bulunamad&#305;| ", Cancelled("Oyuncu bulunamadı")),
        (f"OK|2|AB12|tamam{NOTICE}", Completed(Pin("AB12"), "tamam")),
        ("OK|1| |bekliyor<br>", Waiting("bekliyor")),
        ("3|Ge&ccedil;ersiz", Refused("3", "Geçersiz")),
    ],
)
def test_a_message_comes_without_markup(body: str, expected: Answer) -> None:
    assert parse_text(body) == expected


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, "<html><title>Giriş</title>", "Giriş"),
        (403, "<html><title>Just a moment...</title>", "Just a moment..."),
        (503, "Bakım", "Bakım"),
        (404, "", ""),
        (200, "Sistem bakımdadır, lütfen bekleyin", "Sistem bakımdadır, lütfen bekleyin"),
        (200, "OK|AB12-CD34|2|x", "OK|?|…"),
        (200, "OK|3|iptal", "OK|3|…"),
        (302, "<title>Giriş</title>", "Giriş"),
        (418, "OK|2|AB12-CD34|x", "OK|2|…"),
    ],
)
def test_what_was_said_goes_with_an_answer_that_is_none(status: int, body: str, said: str) -> None:
    answer = parse(status, {}, body.encode(), now=NOW)
    assert isinstance(answer, (Blocked, Busy, Garbled))
    assert answer.message == said


def test_what_a_failure_said_is_read_in_the_encoding_it_names() -> None:
    answer = ask("تم".encode("cp1256"), 503, content_type="text/html; charset=windows-1256")
    assert isinstance(answer, Busy)
    assert answer.message == "تم"


NOTICE = "\nNotice: Undefined index in /srv/api.php on line 7\n"


def test_a_balance_in_a_declared_charset_is_read() -> None:
    headers = {"content-type": "text/plain; charset=utf-16-le"}
    assert parse_balance(200, headers, "OK|12,50".encode("utf-16-le"), now=NOW) == Balance("12,50")


def test_an_amount_in_other_words_is_one_up_to_a_length() -> None:
    amount = "5 lira, yarın sekiz lira".ljust(LONGEST_AMOUNT, "a")
    assert parse_balance(200, {}, f"OK|{amount}".encode(), now=NOW) == Balance(amount)
    assert isinstance(parse_balance(200, {}, f"OK|{amount}x".encode(), now=NOW), NoBalance)


def test_an_answer_in_a_declared_charset_is_read() -> None:
    body = "OK|1| |تم تحميل الرصيد".encode("cp1256")
    assert ask(body, content_type="text/html; charset=windows-1256") == Waiting("تم تحميل الرصيد")
