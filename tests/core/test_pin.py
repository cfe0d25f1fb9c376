"""What is a PIN and what is none, where it is blotted out, and what tells it from another's: one
table for each.
"""

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from order_monitor.core.folding import letters
from order_monitor.core.pin import (
    MARKUP,
    NO_PIN_WORDS,
    NOTICE,
    STRANGE,
    NoPin,
    Pin,
    Unreadable,
    guarded_code,
    has_words_beside,
    is_given_as_code,
    is_no_pin,
    may_hold_code,
    read_pin,
)


@pytest.mark.parametrize(
    ("text", "pin"),
    [
        ("AB12-CD34-EF56-GH78", "AB12-CD34-EF56-GH78"),
        ("  0012 ", "0012"),
        ("0", "0"),
        ("true", "true"),
        ("Yüklendi", "Yüklendi"),
        ("nullable", "nullable"),
        ("yokluk 1", "yokluk 1"),
        ("a  B", "a  B"),
        ("İĞŞ-12", "İĞŞ-12"),
        # entities
        ("A&amp;B", "A&B"),
        ("A&amp;amp;B", "A&B"),
        ("A&amp;amp;amp;B", "A&B"),
        ("A&#38;B", "A&B"),
        ("A&#x26;B", "A&B"),
        ("&nbsp;AB12&nbsp;", "AB12"),
        ("&nbsp AB12", "AB12"),
        ("A&amp;nbsp;B", "A B"),
        ("AT&T", "AT&T"),
        ("A&B;C", "A&B;C"),
        ("X&GT7", "X&GT7"),
        ("A&notit;B", "A&notit;B"),
        ("A&lt;B-12", "A<B-12"),
        ("&#65;B", "AB"),
        ("&quot;AB12&quot;", '"AB12"'),
        # markup
        ("KEY<br>SERIAL", "KEY\nSERIAL"),
        ("KEY<br/>SERIAL", "KEY\nSERIAL"),
        ("KEY<BR />SERIAL", "KEY\nSERIAL"),
        ("KEY<br clear='all'>SERIAL", "KEY\nSERIAL"),
        ("KEY&lt;br&gt;SERIAL", "KEY\nSERIAL"),
        ("<b>AB12</b>", "AB12"),
        ("<STRONG>AB12</STRONG>", "AB12"),
        ("<i>AB</i>12", "AB12"),
        ("<em><u>AB12</u></em>", "AB12"),
        ('<span style="color:red" class=x>AB12</span>', "AB12"),
        ("<font color=red>AB12</font>", "AB12"),
        ("<p>AB12</p>", "AB12"),
        ("<p>AB12</p>\r\n<p class='x'>CD34</p>", "AB12\nCD34"),
        ("AB12<div>CD34</div>", "AB12\nCD34"),
        ("AB12<p>CD34", "AB12\nCD34"),
        # signs that are no markup
        ("A<B-12", "A<B-12"),
        ("A<1>B", "A<1>B"),
        ("A < b > 12", "A < b > 12"),
        ("A>B", "A>B"),
        ("A<", "A<"),
        ("AB<CD", "AB<CD"),
        ("x<<y", "x<<y"),
        # what cannot be seen
        ("A\u200bB\u200c1\u200d2\u200e\u200f", "AB12"),
        ("\ufeffAB12\u2060", "AB12"),
        ("AB\u00ad12", "AB12"),
        ("\u202aAB12\u202c\u2066\u2069", "AB12"),
        ("AB&shy;12", "AB12"),
        ("AB\ufe0f\u3164\u034f12", "AB12"),
        ("AB\u00a0\u200312\u3000", "AB  12"),
        ("A\tB", "A B"),
        # lines
        ("KEY\r\nSERIAL", "KEY\nSERIAL"),
        ("KEY\rSERIAL", "KEY\nSERIAL"),
        ("KEY\u2028SERIAL", "KEY\nSERIAL"),
        ("\n\n KEY \n  SERIAL\n \n", "KEY\nSERIAL"),
        ("KEY\n\nSERIAL", "KEY\n\nSERIAL"),
        ("KEY\n-", "KEY"),
        ("-\nKEY\nyok\n***", "KEY"),
        ("KEY\n-\nSERIAL", "KEY\n-\nSERIAL"),
        # a word of a notice alone is none
        ("Warning", "Warning"),
        ("AB12 Notice: once", "AB12 Notice: once"),
    ],
)
def test_a_pin_is_taken_whole_and_as_it_is(text: str, pin: str) -> None:
    assert read_pin(text) == Pin(pin)
    assert not is_no_pin(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "\t",
            "\n",
            "\r\n",
            "-",
            "--",
            "- -",
            "–",
            "—",
            "****-****",
            "***",
            "_",
            "__",
            ".",
            "...",
            "?",
            "!",
            "#",
        ),
        *(
            "[]",
            "()",
            "{}",
            "''",
            '""',
            "/",
            "•••",
            "✅",
            "✓",
            "~",
            "=",
            "|",
            "&nbsp;",
            "&amp;nbsp;",
            "&nbsp",
            "&#160;",
        ),
        *(
            "<br>",
            "<b></b>",
            "<p> </p>",
            "<span>-</span>",
            "\u200b",
            "\ufeff",
            "\u00ad",
            "\u00a0",
            "-\n-",
            "&shy;",
            "&#8203;",
        ),
        *(
            "null",
            "NULL",
            "Null",
            "(null)",
            "[null]",
            "undefined",
            "Undefined",
            "none",
            "None",
            "nil",
            "NaN",
            "nan",
        ),
        *(
            "N/A",
            "n/a",
            "n.a.",
            "N / A",
            "false",
            "FALSE",
            "empty",
            "Array",
            "Array()",
            "Object",
            "[object Object]",
        ),
        *(
            "yok",
            "YOK",
            "Yok",
            "Yok.",
            "yok!",
            '"yok"',
            "- yok -",
            "<b>yok</b>",
            "YOKTUR",
            "y\u200bok",
            "(yok)",
            "\uff59\uff4f\uff4b",
        ),
        *(
            "pin yok",
            "Pin Yok",
            "PİN YOK",
            "pın yok",
            "PIN YOK",
            "pi\u0307n yok",
            "PIN: YOK",
            "pin  yok",
            "pin-yok",
            "PIN\nYOK",
        ),
        *(
            "boş",
            "BOŞ",
            "bos",
            "Boş.",
            "BOS\u0327",
            "pin bulunamadı",
            "PİN BULUNAMADI",
            "stokta yok",
            "Mevcut Değil",
            "yok\n-\nnull",
            "PIN YOK KOD YOK",
            "Kod: yok\nSeri: yok",
            *(
                "null null",
                "NULL/NULL",
                "yok - yok",
                "PIN:",
                "Kod : -",
                "PİN: yok",
                "Seri No = N/A",
            ),
        ),
    ],
)
def test_a_mark_of_nothing_is_no_pin(text: str) -> None:
    assert read_pin(text) == NoPin()
    assert is_no_pin(text)


def test_no_text_is_no_pin() -> None:
    assert is_no_pin(None)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("<script>x</script>", MARKUP),
        ("AB12<script", MARKUP),
        ("<a href='x'>AB12</a>", MARKUP),
        ("<img src=x>", MARKUP),
        ("AB12<img src=x", MARKUP),
        ("AB12 <b", MARKUP),
        ("AB12<br", MARKUP),
        ("AB12<br/", MARKUP),
        ("AB12</b", MARKUP),
        ("<!-- AB12 -->", MARKUP),
        ("<!-- AB12", MARKUP),
        ("<!DOCTYPE html>", MARKUP),
        ("<?php echo 1 ?>", MARKUP),
        ("<table><tr><td>AB12</td></tr></table>", MARKUP),
        ("<x-y>AB12", MARKUP),
        ("&lt;script&gt;", MARKUP),
        ("&amp;lt;script&amp;gt;", MARKUP),
        ('<span title="a>b">AB12</span>', MARKUP),
        ("<span title='a>AB12</span>", MARKUP),
        ("<<b>b>AB12", MARKUP),
        ("AB&am<b></b>p;12", MARKUP),
        ("AB&am&shy;p;12", MARKUP),
        ("&" + "amp;" * 9 + "lt;", MARKUP),
        ('<b title="&' + "amp;" * 4 + '">AB12</b>', MARKUP),
        ("PIN\nWarning: mysql_fetch() expects in /p.php on line 12", NOTICE),
        ("Notice: Undefined index: pin in /p.php on line 1", NOTICE),
        ("AB12<br />\n<b>Warning</b>: x in <b>/p.php</b> on line <b>1</b><br />", NOTICE),
        ("<br />\n<b>Warning</b>: cut", NOTICE),
        ("AB12\n  PHP Deprecated:  x", NOTICE),
        ("AB12\nfatal error: Uncaught x", NOTICE),
        ("AB12\nStrict Standards: x", NOTICE),
        ("AB12Warning: x in y on line 3", NOTICE),
        ("AB12\n#0 /var/www/p.php:12", NOTICE),
        *(
            (f"AB{c}12", STRANGE)
            for c in (
                "\0",
                "\x07",
                "\x1b",
                "\x7f",
                "\x85",
                "\x0b",
                "\x0c",
                "\ufffd",
                "\ud800",
                "\ue000",
                "\uffff",
            )
        ),
        ("AB12\x85", STRANGE),
        ("\0", STRANGE),
        ("AB&#1;12", STRANGE),
        ("AB&#0;12", STRANGE),
        ("AB&#xD800;12", STRANGE),
    ],
)
def test_what_could_be_something_else_is_for_a_person(text: str, holds: str) -> None:
    assert read_pin(text) == Unreadable(holds)
    assert not is_no_pin(text)


def test_which_words_mean_no_pin_is_a_setting() -> None:
    assert read_pin("0", {"0"}) == NoPin()
    assert read_pin(" -0- ", {"0"}) == NoPin()
    assert read_pin("null", {"0"}) == Pin("null")
    assert read_pin("HENÜZ YÜKLENMEDİ!", ["Henüz yüklenmedi"]) == NoPin()
    assert read_pin("-", ()) == NoPin()
    assert is_no_pin("0", {"0"})


@pytest.mark.parametrize("word", NO_PIN_WORDS)
def test_each_word_means_it_in_any_case(word: str) -> None:
    for text in (
        word,
        word.upper(),
        word.title(),
        word.replace("i", "İ").upper(),
        f" *{word}* ",
        f"<b>{word}</b>",
    ):
        assert read_pin(text) == NoPin()


PIECES = st.sampled_from(
    [
        *(
            "AB12",
            "cd",
            "-",
            " ",
            "\n",
            "\r\n",
            "\t",
            "<",
            ">",
            "&",
            ";",
            "&amp;",
            "&lt;",
            "&gt;",
            "&nbsp;",
            "&#38;",
            "&shy;",
        ),
        *(
            "<b>",
            "</b>",
            "<br>",
            "<p>",
            "</div>",
            "<script>",
            "<b",
            "yok",
            "\u200b",
            "\u00a0",
            "İ",
            "ß",
            "amp;",
            "b>",
            "'",
            '"',
        ),
        *("\x01", "Warning:", "\ud800", "\u2028"),
    ]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=40)


@pytest.mark.long
@given(TEXTS, st.sampled_from([NO_PIN_WORDS, ("0",), ()]))
def test_to_read_what_was_read_changes_nothing(text: str, no_pin: tuple[str, ...]) -> None:
    found = read_pin(text, no_pin)
    if isinstance(found, Pin):
        assert read_pin(found.reveal(), no_pin) == found
        assert letters(found.reveal())
        assert found.is_same(found.reveal().replace("\n", "\r\n") + " ")


def test_the_same_pin_but_for_blanks_around_it_and_the_ends_of_lines() -> None:
    assert Pin("A\nB").is_same(" A\r\nB\n")
    assert not Pin("A\nB").is_same("A B")
    assert not Pin("A").is_same("")
    assert not Pin("a").is_same("A")


# --- blotted out


@pytest.mark.parametrize(
    ("pin", "text", "expected"),
    [
        ("A1B2", "kod A1B2.", "kod ****."),
        ("AB12-CD34", "x ab12 cd34, AB12.CD34; y", "x ****; y"),
        ("AB12-CD34", "x AB12CD34 y ab12cd34 z", "x **** y **** z"),
        ("AB12-CD34", "AB\u200b12\nCD\u00ad34", "****"),
        ("ab12cd34", "kod: A-B-1-2 C_D/3|4!", "kod: ****!"),
        ("ıIiİ-12", "IIII12 iıİI 12 x", "**** x"),
        ("ŞİFRE-1", "sifre1", "****"),
        ("STRASSE", "straße x", "**** x"),
        ("12SS", "12ß3", "****3"),
        ("2SSS", "2ßßs", "****s"),
        ("S12A", "ß12a", "****"),
        ("1234", "order 91234567", "order 9****567"),
        ("abcd", "ababcdcd", "****"),
        ("abab", "abababx", "****abx"),
        ("AAA-111\nBBB-222", "AAA-111 BBB-222", "****"),
        ("AAA-111\nBBB-222", "seri BBB-222", "seri ****"),
        ("AAA-111\nBBB-222", "AAA-111 ve BBB-222", "**** ve ****"),
        ("Kod: AB12CD34 seri 998877", "AB12CD34 998877 x", "**** x"),
        ("7", "kod 7", "kod ****"),
        ("1.1", "1.11-.-1", "1.****-.-1"),
        ("1.1", "1.****-.-1", "1.****-.-1"),
        ("7", "17, 71 ve 7'de", "17, 71 ve ****'de"),
        ("AB1", "ab-1 xab1 ab12", "**** xab1 ab12"),
        ("7\n8", "18 ve 7", "18 ve 7"),
        ("ABC\nDE", "kod ABC, DE", "kod ****"),
        ("ABC\nDE", "kod ABC", "kod ABC"),
        ("AB  1\nCD", "kod AB  1 CD", "kod ****"),
        ("Seri ABC-123", "Seri yok", "Seri yok"),
        ("", "kod", "kod"),
        ("-", "a-b", "a-b"),
        ("★★★★", "a ★★★★ b", "a **** b"),
        ("AB12", "", ""),
        ("AB\ud80012", "x ab12 \ud800", "x **** \ud800"),
    ],
)
def test_a_pin_is_blotted_out_of_a_text(pin: str, text: str, expected: str) -> None:
    assert Pin(pin).masked(text) == expected


CODES = st.text(st.sampled_from("abAB1ıİßs- \n.ﬁ½"), max_size=12)


@example("1.1", [""])
@given(CODES, st.lists(CODES | st.sampled_from(["\u200b", "kod", "****"]), max_size=5))
def test_no_code_of_four_is_left_in_a_text(code: str, around: list[str]) -> None:
    text = code.upper().join([*around, ""]) + "-".join(code) + code.join(around)
    masked = Pin(code).masked(text)
    for part in (code, *code.split("\n")):
        if len(letters(part)) >= 4:
            assert letters(part) not in letters(masked)
    assert Pin(code).masked(masked) == masked


@given(st.text(max_size=20), st.text(max_size=60))
def test_any_text_may_be_blotted(pin: str, text: str) -> None:
    masked = Pin(pin).masked(text)
    if len(letters(pin)) >= 4:
        assert letters(pin) not in letters(masked)


def work(call: Callable[[], object]) -> int:
    """Count what a call does: each function that is called, ours or the interpreter's."""
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "ab",
        "a-",
        "-",
        " ",
        "aaab",
        "1234",
        "abcd",
        "\n",
        "<b>",
        "<b ",
        "&amp;",
        "AB12 ",
        "yok\n",
    ],
)
def test_twice_the_text_is_twice_the_work(piece: str) -> None:
    """Whatever is sent, and whatever the PIN: counted, not timed."""
    calls: list[Callable[[str], object]] = [
        Pin("a" * 50 + "b").masked,
        Pin("\n".join(["a" * 40 + "x", "abcd", "aaaa1"])).masked,
        Pin("ab").masked,
        read_pin,
        guarded_code,
        has_words_beside,
    ]
    for call in calls:
        once, twice = work(partial(call, piece * 1000)), work(partial(call, piece * 2000))
        assert twice < 2.2 * once + 500


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        *(
            "<" * 65_536,
            "<b" * 32_000,
            "<b " * 20_000,
            "&" * 65_536,
            "&amp;" * 13_000,
            "&#38" * 16_000,
            "Warning:" * 8_000,
        ),
        *(
            "\n " * 32_000,
            " " * 65_536,
            "<p>" * 20_000,
            "AB12 " * 13_000,
            "a'" * 32_000,
            "1," * 32_000,
            "12:30" * 13_000,
        ),
        *("Ab:" * 20_000, "A-" * 32_000, "on line " * 8_000, "&" + "amp;" * 16_000),
    ],
)
def test_a_long_text_is_read_at_once(text: str) -> None:
    """A pattern that looked back over all of it at each step would take minutes: the test's time
    limit ends it.
    """
    read_pin(text)
    guarded_code(text, ["5321234567"])
    has_words_beside(text)
    Pin(text).masked(text)


# --- which code it is


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("ABCD-EFGH-IJKL", "ABCDEFGHIJKL"),
        ("AB12-CD34-EF56", "AB12CD34EF56"),
        ("ab12-cd34", "AB12CD34"),
        ("(AB12-CD34).", "AB12CD34"),
        ("\uff21\uff2212\uff0dCD34", "AB12CD34"),
        ("Kod: AB12CD34", "AB12CD34"),
        ("Kod:AB12CD34", "AB12CD34"),
        ("AB12CD34\nSeri 998877665", "AB12CD34 998877665"),
        ("1234567890123456", "1234567890123456"),
        ("1234567890123456 UC", "1234567890123456"),
        ("1234 5678 9012 3456", "1234567890123456"),
        ("AB12 CD34", "AB12CD34"),
        ("AB12 CD34 1000 UC", "AB12CD34"),
        ("ık12345", "IK12345"),
        ("12-34-5678", "12345678"),
        ("2026-13-45", "20261345"),
        ("660 UC 123456ABC", "123456ABC"),
        *(
            (text, None)
            for text in (
                *(
                    "",
                    "-",
                    "Yüklendi",
                    "100 TL yüklenmiştir",
                    "İşlem 29.11.2026 12:30 tamam",
                    "12345",
                    "AB-12",
                    "E-PIN",
                ),
                *(
                    "2026-11-29",
                    "29.11.2026",
                    "29/11/2026",
                    "29/11/26",
                    "29.11.2026'da",
                    "2026-11-29T12:30:00",
                    "1.1.2026",
                ),
                *(
                    "2026-11-29T12:30:00.123Z",
                    "2026-11-29T12:30:00+03:00",
                    "29.11.2026-12:30",
                    "12:34",
                    "12:34:56",
                    "12:34:56'da",
                ),
                *(
                    "10:30-11:30",
                    "saat:12:34:56",
                    "1000TL",
                    "100.000TL",
                    "5.000 TL",
                    "660UC",
                    "1000000 UC",
                    "1000000UC",
                    "100 USD",
                ),
                *(
                    "12GB",
                    "1000000 UC'dir",
                    "100000 Elmasınız",
                    "₺1000000",
                    "1.250,00",
                    "100.000-TL",
                    "600+60UC",
                    "600+600 UC",
                ),
                *(
                    "500000 GÜN",
                    "500000 KREDİ",
                    "100000 kredi",
                    "1234 5678",
                    "Oyuncu 1234 5678 TL",
                    "YENI KODU",
                ),
            )
        ),
    ],
)
def test_a_pins_codes_are_told_from_its_other_words(value: str, code: str | None) -> None:
    assert guarded_code(value) == code


@pytest.mark.parametrize(
    ("value", "own", "code"),
    [
        ("12345678 yüklendi", ["12345678"], None),
        ("12345678'e yüklendi", ["12345678"], None),
        ("05321234567", ["+90 532 123 45 67"], None),
        ("+905321234567", ["0532 123 45 67"], None),
        ("0532-123-45-67", ["+905321234567"], None),
        ("905321234567", ["5321234567"], None),
        ("1760885915220128", ["1760885915220128", ""], None),
        ("PUBG-MOBILE 60 UC", ["PUBG Mobile 60 UC"], None),
        ("oyuncu-123 AB12CD34", ["Oyuncu 123"], "AB12CD34"),
        ("AB12CD34", ["AB12", "-", ""], "AB12CD34"),
        ("0012345", ["99"], "0012345"),
        ("991234567", ["1234567"], "991234567"),
    ],
)
def test_what_the_orders_own_row_says_is_no_code(
    value: str, own: list[str], code: str | None
) -> None:
    assert guarded_code(value, own) == code


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("AB12-CD34", False),
        ("AB12-CD34\nEF56-GH78", False),
        ("AB12-CD34 - ", False),
        ("1234 5678 9012 3456", False),
        ("Kod: AB12-CD34", True),
        ("Kod:AB12-CD34", True),
        ("AB12-CD34 1000 UC", True),
        ("Yüklendi", True),
        ("12345", True),
        ("", False),
        ("-", False),
    ],
)
def test_whether_there_are_words_beside_the_codes(value: str, expected: bool) -> None:  # noqa: FBT001 - what is expected
    assert has_words_beside(value) is expected


@given(TEXTS, st.lists(TEXTS, max_size=2))
def test_a_code_is_folded_and_never_the_rows_own(value: str, own: list[str]) -> None:
    code = guarded_code(value, own)
    assert code is None or letters(code).upper() == code.replace(" ", "")
    assert guarded_code(value, [*own, value]) is None
    has_words_beside(value)


def test_a_code_has_one_digest_in_every_version_by_its_key() -> None:
    """What is stored of an order's code is compared with the next one."""
    digest = Pin("AB12\nCD34").digest(b"key")
    assert digest.hex() == "022aadc3362411923bca3ccf59b05635"
    assert Pin(" AB12\r\nCD34 ").digest(b"key") == digest
    assert Pin("AB12\nCD34").digest(b"another") != digest
    assert Pin("ab12\nCD34").digest(b"key") != digest
    assert Pin("\ud800").digest(b"key").hex() == "356aba2d5b6610b7e11e0cfd82116cec"


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("1.234.567", True),
        ("ab1x", True),
        ("ONAYLI", False),
        ("ONAYLAN", True),
        ("60 UC ONAYLI", False),
    ],
)
def test_a_text_may_hold_a_code_by_its_shortest_words(text: str, *, may: bool) -> None:
    assert may_hold_code(text) is may


def test_an_amount_is_no_code_whatever_ends_its_unit() -> None:
    assert guarded_code("123456 PUANLIK") is None
    assert guarded_code("123456 TL'dir") is None
    assert guarded_code("123456 TLX") == "123456"


@pytest.mark.parametrize(
    ("text", "is_given"),
    [("PIN: ab1x", True), ("PIN: a1x", False), ("PIN:", False), ("PIN: 60UC yüklendi", False)],
)
def test_a_message_names_a_code_of_four_signs_or_more(text: str, *, is_given: bool) -> None:
    assert is_given_as_code(text) is is_given


def test_three_numbers_of_one_length_are_one_code_and_two_are_two_numbers() -> None:
    assert guarded_code("1234 5678 9012") == "123456789012"
    assert guarded_code("1234 5678") is None


@pytest.mark.parametrize(
    ("code", "own", "is_own"),
    [
        ("495321234567", "05321234567", True),
        ("495321234567", "+90 532 123 45 67", False),
        ("00532123", "532123", True),
        ("00532123", "532124", False),
        ("0053212", "53212", False),
    ],
)
def test_a_number_of_the_row_is_known_with_any_dialling_prefix(
    code: str, own: str, *, is_own: bool
) -> None:
    assert (guarded_code(code, [own]) is None) is is_own


def test_each_line_of_a_code_is_blotted_out_of_four_signs_on() -> None:
    assert Pin("abcd\nefgh").masked("x abcd y efgh z") == "x **** y **** z"
    assert Pin("abc\nefgh").masked("x abc y efgh z") == "x abc y **** z"


def test_a_number_before_a_unit_is_an_amount_up_to_nine_digits() -> None:
    assert guarded_code("123456789 TL") is None
    assert guarded_code("1234567890 TL") == "1234567890"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ABC123 1234 5678 9012", "ABC123 123456789012"),
        ("1234 5678 9012 ABC123", "123456789012 ABC123"),
        ("1234, 5678, 9012.", "123456789012"),
        ("123456 TL yüklendi", None),
        ("ABCD-EFGH", "ABCDEFGH"),
        ("ABC-DEF", "ABCDEF"),
        ("AB-DEF", None),
    ],
)
def test_all_codes_of_a_text_identify_it(text: str, code: str | None) -> None:
    """Equal codes have equal digests, and different codes different ones."""
    assert guarded_code(text) == code
