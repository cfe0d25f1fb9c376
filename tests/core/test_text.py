"""What is said in place of an answer: plain, short, and without what nobody may see."""

import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.text import (
    SHOWN,
    escaped,
    plain,
    shown,
    undamaged,
    visible,
    visible_lines,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Oyuncu bulunamad&#305;", "Oyuncu bulunamadı"),
        ("a &amp; b", "a & b"),
        ("&lt;b&gt;kalın&lt;/b&gt;", "kalın"),
        ("<font color=red>iptal</font>", "iptal"),
        ("bir<br>iki<BR />üç", "bir iki üç"),
        ("bir <b>iki</b> \t üç", "bir iki üç"),
        ("bir  iki", "bir  iki"),
        ("ka<i>lı</i>n", "kalın"),
        (
            "tamam<br />\n<b>Notice</b>:  Undefined index: x in <b>/var/www/p.php</b> on line <b>12</b><br />",
            "tamam",
        ),
        ("tamam\nNotice: Undefined index: x in /var/www/p.php on line 12", "tamam"),
        ("tamam\nPHP Warning: Division by zero in /p.php on line 3", "tamam"),
        ("<b>Fatal error</b>: Uncaught x", ""),
        ("3 < 5 ve 7 > 2", "3 < 5 ve 7 > 2"),
        ("<3", "<3"),
        ("R&B", "R&B"),
        ("  tamam ", "tamam"),
        ("Notice: bakım saat 3'te", "Notice: bakım saat 3'te"),
    ],
)
def test_a_message_is_plain_text(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<html><head><title>Just a moment...</title></head><body>x</body></html>",
            "Just a moment...",
        ),
        ("<html><title> </title><body><h1>Bakım</h1><p>çalışması</p></body>", "Bakım çalışması"),
        ("<!DOCTYPE html><title>Bak&#305;m</title>", "Bakım"),
        ("<html><style>b{color:red}</style><script>var a='<b>';</script>Giriş</html>", "Giriş"),
        ("<html><script>never closed", ""),
        ("<html><script>a</script>Giriş<script>b</script>", "Giriş"),
        ("<html></script><SCRIPT>a</Script>Giriş", "Giriş"),
        (
            "Sistem bakımdadır, lütfen daha sonra deneyiniz",
            "Sistem bakımdadır, lütfen daha sonra deneyiniz",
        ),
        ("OK|7|AAA-111|x", "OK|7|…"),
        ("OK|ABCD-EFGH|2|x", "OK|?|…"),
        ("ok|2", "OK|…".replace("OK", "ok")),
        ("PIN|1|x", "?|1|…"),
        ('{"state":2,"pin":"AAA"}', '{"…'),
        ("[1,2]", "[…"),
        ('[{"a":1}]', "[{…"),
        ("[[1]]", "[[…"),
        ('{\n"a":1}', "{… (2 lines)"),
        ("OK|12|x", "OK|12|…"),
        ("OK|123|x", "OK|?|…"),
        ("OK|²|x", "OK|?|…"),
        ("OK|A1|x", "OK|?|…"),
        ("OK|x|1", "OK|?|…"),
        (" oK | 2 |x", "oK|2|…"),
        ("kod 1234 var", "kod **** var"),
        ("kod 123 var", "kod 123 var"),
        ("kod AB-C var", "kod **** var"),
        ("kod aB-C var", "kod aB-C var"),
        ("kod AB var", "kod AB var"),
        ("A1", "****"),
        ("Bakım", "Bakım"),
        ("abcd" + " abc" * 29, "abcd" + " abc" * 29),
        ("abcde" + " abc" * 29, ("abcde" + " abc" * 29)[:119] + "…"),
        ("OK|2|A\nOK|2|B|x\n", "OK|2|… (2 lines)"),
        ("AB12-CD34-EF56", "****"),
        ("1234567890", "****"),
        ("PIN: ABCD-EFGH-IJKL", "PIN: ****"),
        ("Ray ID 8c3f19a2e4b7", "Ray ID ****"),
        ("", ""),
        ("\ufeff hata", "hata"),
        ("X hata X", "X hata X"),
    ],
)
def test_what_was_said_is_shown_without_any_code(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.text(max_size=400))
def test_what_is_shown_is_short_and_one_line(text: str) -> None:
    assert len(shown(text)) <= SHOWN
    assert "\n" not in shown(text)


@pytest.mark.slow
@given(
    st.from_regex(r"[A-Z0-9]{4}(-[A-Z0-9]{4}){2,3}", fullmatch=True),
    st.sampled_from(["OK|2|{}|x", "{}", "OK|{}|2", "kod {}"]),
)
def test_no_pin_is_ever_shown(pin: str, where: str) -> None:
    assert pin not in shown(where.format(pin))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["<" * 65_536, "<br>" * 16_000, "&" * 65_536, "\n" * 65_536, "<b> " * 16_000, "<script" * 9000],
)
def test_four_times_the_text_takes_no_longer_than_it_should(text: str) -> None:
    """A provider may send what it likes: no pattern here may look back over all of it at each step."""

    def seconds(given: str) -> float:
        began = time.process_time()
        plain(given)
        shown(given)
        return time.process_time() - began

    quarter = min(seconds(text[: len(text) // 4]) for _ in range(3))
    assert min(seconds(text) for _ in range(3)) < 10 * max(quarter, 0.005)


@pytest.mark.slow
def test_all_that_acts_or_hides_is_written_out_and_nothing_else() -> None:
    unseen = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    for n in range(0x110000):
        c = chr(n)
        if unicodedata.category(c) in unseen:
            assert visible(c).isascii(), hex(n)
            assert visible(c).isprintable(), hex(n)
            assert (visible_lines(c) == c) is (c in "\n\t"), hex(n)
        elif unicodedata.category(c)[0] in "LNPS" and n not in {
            0x115F,
            0x1160,
            0x2800,
            0x3164,
            0xFFA0,
        }:
            assert visible(c) == visible_lines(c) == c, hex(n)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("şifre ✓ 1\u00a0523,40 é e\u0301 ع", "şifre ✓ 1\u00a0523,40 é e\u0301 ع"),
        ("a\x1b[31mb", r"a\u001b[31mb"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b2J\x7f\u202e\u200b", r"\u009b2J\u007f\u202e\u200b"),
        ("\ufe0f\u3164\U000e0041\ud800", r"\ufe0f\u3164\udb40\udc41\ud800"),
        ("\\u001b", r"\u001b"),
    ],
)
def test_what_is_unseen_is_written_out(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_each_character_is_written_out_by_its_number() -> None:
    assert escaped("\uffff\U00010000ş\n") == r"\uffff\ud800\udc00\u015f\n"


@given(st.text(st.characters(exclude_categories=[])))
def test_a_json_document_means_the_same(text: str) -> None:
    written = visible(json.dumps({text: [text]}, ensure_ascii=False))
    apart = text.encode("utf-16", "surrogatepass").decode(
        "utf-16", "surrogatepass"
    )  # two halves side by side are one
    assert json.loads(written) == {apart: [apart]}
    assert visible(written) == written
    assert visible_lines(visible(text) + "\n") == visible(text) + "\n"


@pytest.mark.parametrize(
    ("text", "charset"), [("Şifre", "windows-1252"), ("Ílk", "latin-1"), ("Áü", "latin-1")]
)
def test_a_text_written_twice_is_put_right_from_each_charset(text: str, charset: str) -> None:
    assert undamaged(text.encode().decode(charset)) == text


def test_a_text_that_only_looks_so_stays_as_it_is() -> None:
    text = "Би".encode().decode("windows-1252")
    assert undamaged(text) == text
