"""The text of a body: encodings, compression, and what PHP writes before an answer."""

import encodings
import gzip
import pkgutil
import zlib
from contextlib import suppress

import pytest

from order_monitor.core.answer import (
    Blocked,
)
from order_monitor.providers.http.body import (
    CHARSETS,
    LAYERS,
    body_text,
    decode,
    is_as_declared,
    is_page,
    not_ok,
)

NOW = 1_790_000_000.0


DECLARED = "text/html; charset="


@pytest.mark.parametrize(
    "named",
    [
        "",
        "utf-8",
        "windows-1254",
        "ISO-8859-9",
        "latin5",
        '"cp1254"',
        "x-cp1254",
        "windows-1252",
        "cp1250",
        "latin1",
        "utf-16",
        "x",
    ],
)
def test_valid_utf_8_wins_whatever_was_declared(named: str) -> None:
    """Many a panel declares its database's charset, or a template's, and writes UTF-8."""
    assert decode("ş".encode(), DECLARED + named) == "ş"


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ("windows-1256", "تم شحن الطلب"),
        (" 'Windows-1256' ; x=y", "تم شحن الطلب"),
        ("x-windows-1256", "تم شحن الطلب"),
        ("cp1256", "تم"),
        ("windows-1251", "Выполнен"),
        ("koi8-r", "Выполнен"),
        ("iso-8859-5", "Выполнен"),
        ("ISO_8859-6", "تم"),
        ("windows-1253", "Ολοκληρώθηκε"),
        ("windows-1254", "İşlem “bitti”"),
        ("iso-8859-9", "İşlem “bitti”"),
        ("iso-8859-1", "déjà “vu”"),
        ("Shift_JIS", "完了"),
        ("gb2312", "完成"),
        ("tis-620", "เสร็จ"),
        ("utf-16", "İşlem"),
        ("utf-16le", "OK|1| |beklemede"),
        ("utf-32be", "OK|1| |beklemede"),
    ],
)
def test_what_is_no_utf_8_is_read_as_declared(named: str, text: str) -> None:
    codec = {"iso-8859-1": "cp1252", "iso-8859-9": "cp1254"}.get(
        named, named.strip(" '").split("'")[0].removeprefix("x-")
    )
    assert decode(text.encode(codec), DECLARED + named) == text


@pytest.mark.parametrize(
    "named",
    [
        "",
        "utf-8",
        "nonsense",
        "base64",
        "rot13",
        "utf-7",
        "unicode_escape",
        "idna",
        "us-ascii",
        "a.b",
        "hex",
    ],
)
def test_of_what_is_neither_utf_8_nor_declared_windows_1254_is_the_last_word(named: str) -> None:
    """A wrong name is ignored, a charset that the bytes are not in too, and what is no charset at
    all.
    """
    assert decode("ğüşıöç".encode("windows-1254"), DECLARED + named) == "ğüşıöç"


def test_every_charset_that_python_knows_is_known_and_nothing_else() -> None:
    modules = {module.name for module in pkgutil.iter_modules(encodings.__path__)} - {
        "aliases",
        "charmap",
    }
    texts = set()
    for name in modules - {
        "undefined",
        "mbcs",
        "oem",
        "idna",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
        "utf_7",
    }:
        with suppress(LookupError, UnicodeError):
            b"A".decode(name)
            texts.add(name)
    assert not texts - set(CHARSETS)
    for name in CHARSETS.values():
        "".encode(name)


PAGE = "<!DOCTYPE html><html><body>Bakımdayız</body></html>"


@pytest.mark.parametrize(
    ("headers", "body", "found"),
    [
        ({"content-type": "text/html"}, PAGE.encode(), True),
        ({}, PAGE.encode(), True),
        ({"content-encoding": "gzip"}, gzip.compress(PAGE.encode(), mtime=0), True),
        ({"content-type": "text/html; charset=utf-16-le"}, PAGE.encode("utf-16-le"), True),
        ({"content-type": "text/html; charset=cp1026"}, "<p>İş".encode("cp1026"), True),
        ({}, f"\u200b{PAGE}".encode(), True),
        ({"content-type": "text/html"}, b"OK|1|x|y", False),
        ({"content-encoding": "gzip"}, PAGE.encode(), False),
        ({"content-encoding": "gzip"}, gzip.compress(PAGE.encode() + b" " * 999, mtime=0), False),
        ({}, b"", False),
        ({}, b"<br />\n<b>Notice</b>: x in <b>y</b> on line <b>7</b><br />\n[]", False),
        ({}, b"<br />\n<b>Notice</b>: x in <b>y</b> on line <b>7</b><br />\n<p>", True),
        ({}, b"<br />\n<b>Notice</b>: x in <b>y</b> on line <b>7</b><br />\n", True),
    ],
)
def test_a_page_is_known_by_its_text(headers: dict[str, str], body: bytes, *, found: bool) -> None:
    assert is_page(headers, body, 500) is found


@pytest.mark.parametrize(
    ("named", "charset"),
    [
        ("x-cp-1256", "cp1256"),
        ("X-Windows-1256", "cp1256"),
        ("csWindows1256", "cp1256"),
        ("x-cs-windows-1256", "cp1256"),
        ("ISO-8859-6-I", "iso8859_6"),
        ("iso-8859-6-e", "iso8859_6"),
        ("x-iso-8859-6", "iso8859_6"),
        ("cs-iso-8859-6", "iso8859_6"),
        ("xdos720", "cp720"),
    ],
)
def test_a_charset_is_known_by_each_of_its_spellings(named: str, charset: str) -> None:
    text = "تم تحميل الرصيد"
    assert decode(text.encode(charset), f"text/html; charset={named}") == text


NOTICE = "\nNotice: Undefined index in /srv/api.php on line 7\n"


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        ({}, b' [{"x":1}]\x00\r\n', '[{"x":1}]'),
        ({}, f'{NOTICE}[{{"x":1}}]'.encode(), '[{"x":1}]'),
        ({}, f'{NOTICE}{{"x":1}}'.encode(), '{"x":1}'),
        ({}, f"{NOTICE}tamam".encode(), f"{NOTICE}tamam".strip()),
        (
            {"content-type": "application/json; charset=windows-1256"},
            '{"x":"تم تحميل"}'.encode("cp1256"),
            '{"x":"تم تحميل"}',
        ),
        ({"content-encoding": "gzip"}, gzip.compress(b"{}", mtime=0), "{}"),
        ({}, gzip.compress(b"{}", mtime=0), "{}"),
        ({"content-encoding": "br"}, b"{}", None),
    ],
)
def test_a_documents_text_is_what_stands_between_invisible_signs_and_notices(
    headers: dict[str, str], body: bytes, text: str | None
) -> None:
    assert body_text(headers, body, 999) == text


@pytest.mark.parametrize(
    ("headers", "body", "is_so"),
    [
        ({}, "ş".encode(), True),
        ({}, "ş".encode("cp1254"), False),
        ({"content-type": "text/html; charset=windows-1254"}, "ş".encode("cp1254"), True),
        ({}, "ş".encode("utf-16"), True),
        ({"content-encoding": "gzip"}, gzip.compress("ş".encode("cp1254"), mtime=0), False),
        ({"content-encoding": "deflate"}, zlib.compress("ş".encode("cp1254")), False),
        ({"content-encoding": "deflate"}, zlib.compress("ş".encode()), True),
        ({"content-encoding": "br"}, b"\xff", True),
        ({"content-type": "text/html; charset=utf-8-sig"}, "ş".encode("cp1254"), False),
    ],
)
def test_whether_a_body_is_in_the_encoding_that_it_claims(
    headers: dict[str, str], body: bytes, *, is_so: bool
) -> None:
    assert is_as_declared(headers, body, 999) is is_so


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({}, b"bakim", "bakim"),
        ({"content-encoding": "deflate"}, b"bakim", ""),
        ({"content-encoding": "br"}, b"bakim", ""),
        ({}, gzip.compress(b"bakim", mtime=0), ""),
        ({"content-type": "text/plain; charset=cp1256"}, "تم تحميل".encode("cp1256"), "تم تحميل"),
    ],
)
def test_what_a_failure_says_is_shown_where_it_can_be_read(
    headers: dict[str, str], body: bytes, said: str
) -> None:
    found = not_ok(404, headers, NOW, body)
    assert isinstance(found, Blocked)
    assert (found.why, found.message) == ("http_404", said)


def test_a_body_of_several_members_has_one_limit() -> None:
    body = gzip.compress(b"a" * 60) + gzip.compress(b"b" * 40)
    headers = {"content-encoding": "gzip"}
    assert body_text(headers, body, 100) == "a" * 60 + "b" * 40
    assert body_text(headers, body, 99) is None


@pytest.mark.parametrize(("bad", "good"), [(1, 2), (2, 16), (3, 24)])
def test_text_counts_as_utf_8_where_nearly_all_of_it_is(bad: int, good: int) -> None:
    def body(letters: int) -> bytes:
        return b"a\xff" * bad + b"a" + "ş".encode() * letters

    assert decode(body(good), "") == "a\ufffd" * bad + "a" + "ş" * good
    assert decode(body(good - 1), "") == "aÿ" * bad + "a" + "ÅŸ" * (good - 1)


@pytest.mark.parametrize("end", [b"\xc5", b"\xc5\r\n", b"\xc5\0"])
def test_a_last_character_that_was_cut_is_left_out_and_nothing_else(end: bytes) -> None:
    """A PIN stands last, and may end with any letter."""
    assert decode(" Şu: ğ XX".encode() + end, "") == " Şu: ğ XX"


@pytest.mark.parametrize("end", [b"ABC", b"\xc5"])
def test_what_was_declared_wide_and_is_not_is_read_as_utf_8(end: bytes) -> None:
    said = "OK|2|\0|ğş|"
    assert decode(said.encode() + end, DECLARED + "utf-16") == said + end.decode("ascii", "ignore")


def test_a_body_is_unpacked_through_few_layers_of_known_kinds() -> None:
    packed = b"{}" * 100
    kinds: list[str] = []
    for _ in range(LAYERS):
        packed, kinds = gzip.compress(packed), [*kinds, "gzip"]
        assert body_text({"content-encoding": ", ".join(kinds)}, packed, 200) == "{}" * 100
    kinds.append("gzip")
    assert body_text({"content-encoding": ", ".join(kinds)}, gzip.compress(packed), 200) is None
    assert body_text({"content-encoding": "gzip, br"}, gzip.compress(b"{}"), 200) is None
    packed = gzip.compress(gzip.compress(zlib.compress(zlib.compress(b"{}"))))
    every = "deflate, x-deflate, gzip, x-gzip"
    assert body_text({"content-encoding": every}, packed, 200) == "{}"


def test_what_was_packed_twice_may_be_twice_as_large_in_between() -> None:
    inner = zlib.compress(b"{}")
    headers = {"content-encoding": "deflate, gzip"}
    for length, text in ((80, "{}"), (81, None)):
        packed = gzip.compress(inner.ljust(length, b"x"))
        assert body_text(headers, packed, 40) == text
