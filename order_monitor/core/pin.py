"""What is a PIN and what is not: the only place that decides it, for provider answers, for people's
input and for the values in a row. Pure.

A wrong PIN stored, a PIN lost, or a text shown to a customer as a PIN is lost money. A text that
could be read in two ways is `Unreadable`: it goes to a person and nothing is stored. Everything
here takes time linear in the length of the text, because a provider may send anything.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from html.entities import html5
from typing import Final, TypeAlias, final

from order_monitor.core.folding import is_invisible, letters, words
from order_monitor.core.masking import BLOT, masked, masked_word
from order_monitor.core.text import undamaged, was_written_twice, without_codes

NO_PIN_WORDS: Final = (
    *("null", "(null)", "[null]", "undefined", "none", "nil", "nan", "n/a", "false", "empty"),
    *(
        "array",
        "object",
        "[object Object]",
        "yok",
        "yoktur",
        "pin yok",
        "pin yoktur",
        "kod yok",
        "boş",
    ),
    *("bulunamadı", "pin bulunamadı", "kod bulunamadı", "stok yok", "stokta yok", "mevcut değil"),
)
"""What panels, and the PHP behind them, write if there is no PIN.

``0`` and ``true`` are not included: they may be codes.
"""

MARKUP: Final = "markup"
NOTICE: Final = "a notice of PHP"
STRANGE: Final = "characters that cannot be read"

_SHORTEST_CODE: Final = 4
_ROUNDS: Final = 3
_ENTITY: Final = re.compile(
    r"&(?:#[0-9]{1,8}|#[xX][0-9A-Fa-f]{1,7}|[A-Za-z][A-Za-z0-9]{1,31});|&nbsp(?![A-Za-z0-9;])"
)
_READ_AS_LATIN_1: Final = str.maketrans("ÐÝÞðýþ", "ĞİŞğış")
"""Turkish letters decoded as latin-1, so that ``PÝN YOK`` is also recognized as "no PIN"."""

_CUT_ENTITY: Final = re.compile(r"&#(?:[0-9]|[xX][0-9A-Fa-f])")
_LABEL_ALONE: Final = re.compile(r"\s*[^\W\d_]{2,20}(?:[ -][^\W\d_]{1,20}){0,2}\s*[:=](?!\S*[/?])")
_LINE_BREAK: Final = re.compile(r"\r\n|[\r\n\u2028\u2029]")
_TAG: Final = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)((?:[\s/][^<>]*)?)>")
_LIKE_A_TAG: Final = re.compile(r"<[!?/]|<[A-Za-z][^<>]*>|<([A-Za-z][A-Za-z0-9]*)(?![^\s/])")
_STYLE: Final = frozenset({"b", "strong", "i", "em", "u", "span", "font"})
_BLOCK: Final = frozenset({"p", "div"})
_BLOCK_MARK: Final = "\0"
_ELEMENTS: Final = frozenset(
    "a abbr address area article aside audio b base bdi bdo big blockquote body br button canvas caption center "  # noqa: SIM905
    "cite code col "
    "data dd del details dfn dialog dir div dl dt em embed fieldset figure font footer form frame frameset h1 h2 h3 h4 h5 h6 "
    "head header hr html i iframe img input ins kbd label legend li link main map mark marquee menu meta meter nav noscript "
    "object ol optgroup option output p param picture pre progress q rp rt ruby s samp script section select slot small source "
    "span strike strong style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track tt u ul "
    "var video wbr xml".split()
)
_KIND: Final = r"(?:Notice|Warning|Deprecated|Strict Standards|(?:Catchable |Recoverable )?Fatal error|Parse error)"
_NOTICE: Final = re.compile(
    rf"(?:^|\n) *(?:PHP )?{_KIND} {{0,3}}:|\bon line [0-9]|\.php:[0-9]", re.IGNORECASE
)


@final
class Pin:
    """A PIN code; only an explicit call of ``reveal`` shows it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Keep ``value`` unchanged."""
        self._value = value

    def reveal(self) -> str:
        """Return the code itself: never for a log, an error, a metric or the page."""
        return self._value

    def masked(self, text: str) -> str:
        """Return ``text`` without this code, however it is written there, and without any line or
        word of the PIN that is a code on its own.

        Only the sequence of letters and digits counts, in any case and with any other signs
        between them. A code of four or more characters is also removed from within longer words,
        ``1234`` from ``91234567``: masking too much does no harm. A shorter one is removed only
        where it is a word of its own.
        """
        code = letters(self._value)
        if len(code) >= _SHORTEST_CODE:
            return masked(text, self._parts() or {code})
        if code:
            return masked_word(text, code)
        return (
            text.replace(self._value, BLOT) if len(self._value.strip()) >= _SHORTEST_CODE else text
        )

    def _parts(self) -> set[str]:
        parts = {letters(line) for line in self._value.split("\n")} | {
            code for code, _ in _codes(self._value)
        }
        return {part for part in parts if len(part) >= _SHORTEST_CODE}

    def is_same(self, stored: str) -> bool:
        """Whether a stored value is this code, apart from surrounding blanks and the style of line
        breaks.
        """
        return _lined(self._value).strip() == _lined(stored).strip()

    def digest(self, key: bytes) -> bytes:
        """Return a digest by ``key`` that two codes share where `is_same` holds of them."""
        code = _lined(self._value).strip().encode("utf-8", "surrogatepass")
        return blake2b(code, key=key, digest_size=16).digest()

    def __eq__(self, other: object) -> bool:
        """Compare the codes."""
        return isinstance(other, Pin) and other._value == self._value

    def __hash__(self) -> int:
        """Return the hash of the code."""
        return hash(self._value)

    def __repr__(self) -> str:
        """Show that there is a PIN, but nothing of it."""
        return "Pin(****)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class NoPin:
    """A text that means "no PIN"."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A text that mixes a PIN with something else, or a damaged one: for a person.

    ``holds`` is one of our own phrases, never the text.
    """

    holds: str


Read: TypeAlias = Pin | NoPin | Unreadable


def read_pin(text: str, no_pin: Collection[str] = NO_PIN_WORDS) -> Read:
    """Return the PIN in a text, or that there is none, or why it cannot be determined.

    Entities are decoded, ``<br>`` becomes a line break, style tags and invisible characters are
    removed. Several lines are kept together, without lines at either end that mean nothing. All
    else stays unchanged. Reading a PIN again returns the same PIN.

    Args:
        text: the value of the PIN field.
        no_pin: words that mean "none", in any case and with any signs around them. A text of signs
            alone always means "none".
    """
    found = _read(text, _folded(frozenset(no_pin)))
    if isinstance(found, Pin) and _read(found.reveal(), _folded(frozenset(no_pin))) != found:
        # Nested markup: removing the outer tags leaves text that would be read as markup again.
        return Unreadable(MARKUP)
    return found


def is_no_pin(text: str | None, no_pin: Collection[str] = NO_PIN_WORDS) -> bool:
    """Whether the value of a row's column, or of an answer's PIN field, means "no PIN"."""
    return text is None or isinstance(read_pin(text, no_pin), NoPin)


@lru_cache(maxsize=64)
def _folded(no_pin: frozenset[str]) -> frozenset[str]:
    return frozenset(map(words, no_pin)) | {""}


def _read(text: str, nothing: frozenset[str]) -> Read:
    decoded = _decoded(text)
    if decoded is None or _CUT_ENTITY.search(decoded):
        return Unreadable(MARKUP)
    if any(map(_is_strange, decoded)):
        return Unreadable(STRANGE)
    visible = "".join(
        " " if c == "\t" or unicodedata.category(c) == "Zs" else c
        for c in _lined(decoded)
        if not is_invisible(c)
    )
    bare = _without_style(visible)
    if _NOTICE.search(bare):
        return Unreadable(NOTICE)
    if _has_markup(bare):
        return Unreadable(MARKUP)
    if _says_nothing(bare, nothing) or (
        not bare.isascii() and _says_nothing(_in_turkish(bare), nothing)
    ):
        return NoPin()
    if was_written_twice(bare):
        return Unreadable(STRANGE)
    lines = [line.strip() for line in bare.split("\n")]
    first, last = 0, len(lines)
    while first < last and _says_nothing(lines[first], nothing):
        first += 1
    while first < last and _says_nothing(lines[last - 1], nothing):
        last -= 1
    return Pin("\n".join(lines[first:last])) if first < last else NoPin()


def _in_turkish(text: str) -> str:
    """Return a text as it was before it was decoded with a wrong charset.

    Used only to see whether it means "none": a code is never guessed.
    """
    return undamaged(text).translate(_READ_AS_LATIN_1)


def _says_nothing(text: str, nothing: frozenset[str]) -> bool:
    """Whether a text means "none": once, or once for each of two codes (``null null``), or after a
    label (``PIN:``).
    """
    label = _LABEL_ALONE.match(text)
    found = words(text[label.end() :] if label else text).split()
    longest = max(phrase.count(" ") + 1 for phrase in nothing)
    reached = {0}
    for at in range(len(found)):
        if at not in reached:
            continue
        ends = range(at + 1, min(len(found), at + longest) + 1)
        reached.update(end for end in ends if " ".join(found[at:end]) in nothing)
    return len(found) in reached or words(text) in nothing


def _decoded(text: str) -> str | None:
    """Decode entities, including nested ones; None if there are too many levels."""
    for _ in range(_ROUNDS):
        decoded = _ENTITY.sub(_entity, text)
        if decoded == text:
            return text
        text = decoded
    return text if _ENTITY.sub(_entity, text) == text else None


def _entity(found: re.Match[str]) -> str:
    """Return what an entity stands for.

    Anything that is not an entity stays: in a code, ``&`` is a sign like any other.
    """
    entity = found[0]
    if entity[1] == "#":
        return html.unescape(entity) or "\ufffd"
    return html5.get(entity[1:].rstrip(";") + ";", entity)


def _lined(text: str) -> str:
    return _LINE_BREAK.sub("\n", text)


def _is_strange(char: str) -> bool:
    """Whether a character is a control character, a lone surrogate, a replacement character, or one
    without a meaning in Unicode.
    """
    if char in "\t\r\n":
        return False
    return char == "\ufffd" or unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn")


def _without_style(text: str) -> str:
    """Remove tags that only change the look of a text. A paragraph becomes lines of its own."""
    if "<" not in text:
        return text
    parts = map(str.strip, _TAG.sub(_untagged, text).split(_BLOCK_MARK))
    return "\n".join(part for part in parts if part)


def _untagged(tag: re.Match[str]) -> str:
    name, attributes = tag[2].lower(), tag[3]
    if attributes.count('"') % 2 or attributes.count("'") % 2:
        return tag[0]  # The tag ends within quotes and continues after them.
    if name == "br":
        return "\n"
    if name in _BLOCK:
        return _BLOCK_MARK
    return "" if name in _STYLE else tag[0]


def _has_markup(text: str) -> bool:
    """Whether markup is left: a complete tag of any name, a comment, or the beginning of a known
    HTML element. ``A<B-12`` is not markup.
    """
    return any(
        found[1] is None or found[1].lower() in _ELEMENTS for found in _LIKE_A_TAG.finditer(text)
    )


# --- which code a PIN contains

UNITS: Final = frozenset(
    "TL TRY USD EUR EURO DOLAR LIRA UC VP RP CP GB MB ADET GUN HAFTA AY YIL SAAT DK DAKIKA JETON ELMAS COIN "  # noqa: SIM905
    "COINS DIAMOND DIAMONDS PUAN POINT POINTS KREDI GOLD ALTIN TOKEN TOKENS GEM GEMS ROBUX".split()
)
"""Units of amounts."""

_SHORTEST_WORD: Final = 6
_SHORTEST_GROUP: Final = 3
_LONG_UNIT: Final = 4
_LONGEST_AMOUNT: Final = 9
_PHONE: Final = 10
_SUFFIX: Final = r"(?:['\u2019\u00b4`]\w*)?"
_TIME_OF_DAY: Final = r"(?:[01]?[0-9]|2[0-4])[:.][0-5][0-9](?:[:.][0-5][0-9](?:[.,][0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
_TIME: Final = re.compile(
    rf"(?:[01]?[0-9]|2[0-4]):[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{{1,9}})?)?(?:Z|[+-][0-9]{{2}}:?[0-9]{{2}})?"
    rf"(?:[-–]{_TIME_OF_DAY})?{_SUFFIX}"
)
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12][0-9]|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)[0-9]{2}"
_DATE: Final = re.compile(
    rf"(?:{_YEAR}([-./]){_MONTH}\1{_DAY}|{_DAY}([-./]){_MONTH}\2(?:{_YEAR}|[0-9]{{2}}))(?:[T_/-]{_TIME_OF_DAY})?{_SUFFIX}"
)
_AMOUNT: Final = re.compile(rf"([0-9][0-9.,+]*)-?([^\W\d_]*){_SUFFIX}")
_MONEY: Final = re.compile(rf"[0-9.]+,[0-9]{{1,2}}{_SUFFIX}")
_LABEL: Final = re.compile(r"[^\W\d_]{2,}[:=](?=[^/])")
_LABELLED: Final = re.compile(
    r"(?<![^\W_])(?:pin|kod|kodu|kodunuz|code|key|serial|seri|voucher|pass|password|şifre|sifre|رمز|الرمز|كود|الكود)"
    r"(?:\s*[:=#]\s*|\s+)(?=\S)",
    re.IGNORECASE,
)
_SHORTEST_MIXED: Final = 4
_NUMBER_AND_UNIT: Final = re.compile(r"[\d.,]+[^\W\d_]{1,4}")
_GROUP: Final = re.compile(r"(?=[A-Z]*[0-9])[A-Z0-9]{4,5}")
_NUMBER_ENDING: Final = re.compile(r"(?<=[0-9])['\u2019\u00b4`][^\W\d_]+$")


def guarded_code(value: str, own: Iterable[str] = ()) -> str | None:
    """Return the key that identifies a PIN among those of other orders: all its codes, folded,
    separated by spaces.

    None if it contains no code. Dates, times and amounts are not codes, nor is what the order's own
    row contains (``own``: the player, a telephone number, the reference, what was bought). Spelling
    does not matter: ``AB12-CD34`` and ``ab12cd34`` are the same code.
    """
    known = [text for text in (letters(text).upper() for text in own) if text]
    return (
        " ".join(code.upper() for code, _ in _codes(value) if not _is_own(code.upper(), known))
        or None
    )


def may_hold_code(text: str) -> bool:
    """Whether a text may hold a code, where nothing else does and a missed one would be lost: in
    doubt it does.

    ``Kod: FF9MJ31CXKRG``, ``XK7P Q2MN 9RTW`` and ``pass: secret`` may, ``60 UC yüklendi`` does not.
    """
    words = text.split()
    return (
        guarded_code(text) is not None
        or without_codes(text) != text
        or _LABELLED.search(text) is not None
        or any(_is_mixed(_bare(word)) for word in words)
        or any(map(_is_one_word_in_capitals, text.splitlines()))
    )


def is_given_as_code(text: str) -> bool:
    """Whether a message, which usually is one, is a code or names one: ``PIN: 1234-5678``."""
    labelled = _LABELLED.search(text)
    following = text[labelled.end() :].split() if labelled else []
    is_named = bool(following) and (_is_code(_bare(following[0])) or _is_mixed(_bare(following[0])))
    return is_named or (guarded_code(text) is not None and not has_words_beside(text))


def _is_one_word_in_capitals(line: str) -> bool:
    word = line.strip()
    return len(word) > _SHORTEST_WORD and word.isupper() and len(word.split()) == 1


def _is_mixed(word: str) -> bool:
    """Whether a word has letters and digits, and is not a number with its unit: ``60UC``."""
    has_both = any(map(str.isdigit, word)) and any(map(str.isalpha, word))
    return len(word) >= _SHORTEST_MIXED and has_both and not _NUMBER_AND_UNIT.fullmatch(word)


def has_words_beside(value: str) -> bool:
    """Whether a PIN's text has words besides its codes: a label, an amount, a sentence."""
    count = sum(bool(letters(word)) for word in value.split())
    return count > sum(taken for _, taken in _codes(value))


def _codes(value: str) -> list[tuple[str, int]]:
    """Return the codes in a text, folded, each with the number of whole words it covers."""
    codes: list[tuple[str, int]] = []
    for line in value.splitlines():
        raw = [word for word in line.split() if letters(word)]
        bare = [_bare(word) for word in raw]
        at = 0
        while at < len(bare):
            if length := _groups(bare, at):
                codes += (
                    [(letters("".join(bare[at : at + length])), length)]
                    if _is_one_code(bare[at : at + length])
                    else []
                )
                at += length
                continue
            label = _LABEL.match(bare[at])
            word = _NUMBER_ENDING.sub("", _bare(bare[at][label.end() :]) if label else bare[at])
            following = bare[at + 1] if at + 1 < len(bare) else ""
            if _is_code(word) and not _is_date_or_amount(word, raw[at], following):
                codes.append((letters(word), 0 if label else 1))
            at += 1
    return codes


def _bare(word: str) -> str:
    """Return a word without the signs around it."""
    first, last = 0, len(word)
    while first < last and not letters(word[first]):
        first += 1
    while first < last and not letters(word[last - 1]):
        last -= 1
    return unicodedata.normalize("NFKC", word[first:last])


def _is_code(word: str) -> bool:
    """Whether a word is long and has a digit, or is capitals in groups: ``ABCD-EFGH``."""
    if len(word) >= _SHORTEST_WORD and any(c.isdigit() for c in word):
        return True
    groups = re.split(r"[-‐‑‒–—―−]", word)
    return len(groups) > 1 and all(
        len(g) >= _SHORTEST_GROUP and g.isalpha() and g.isupper() for g in groups
    )


def _groups(bare: list[str], at: int) -> int:
    """Return how many words from ``at`` on look like groups of one code, all of the same length.

    A number before a unit is not a group.
    """
    end = at
    while end < len(bare) and _GROUP.fullmatch(bare[end]) and len(bare[end]) == len(bare[at]):
        end += 1
    return end - at - (at < end < len(bare) and bare[end - 1].isdigit() and _is_unit(bare[end]))


def _is_one_code(groups: list[str]) -> bool:
    """Whether the groups are one code: ``1234 5678 9012 3456``.

    Two numbers next to each other are usually just two numbers; two groups with letters are a code.
    """
    return len(groups) >= (3 if all(group.isdigit() for group in groups) else 2)


def _is_date_or_amount(word: str, raw: str, following: str) -> bool:
    if _DATE.fullmatch(word) or _TIME.fullmatch(word) or _MONEY.fullmatch(word):
        return True
    amount = _AMOUNT.fullmatch(word)
    if amount is None or sum(c.isdigit() for c in amount[1]) > _LONGEST_AMOUNT:
        return False
    if amount[2]:
        return _is_unit(amount[2])
    return _is_unit(following) or any(unicodedata.category(c) == "Sc" for c in raw)


def _is_unit(word: str) -> bool:
    """Whether a word is a unit, with any ending: ``TL'dir``, ``elması``."""
    unit = letters(re.split(r"['\u2019\u00b4`]", word, maxsplit=1)[0]).upper()
    return unit in UNITS or any(
        unit.startswith(known) for known in UNITS if len(known) >= _LONG_UNIT
    )


def _is_own(code: str, known: list[str]) -> bool:
    """Whether the order's own row contains a code.

    A telephone number matches with or without its dialling prefix.
    """
    if any(code in text for text in known):
        return True
    if not code.isdigit():
        return False
    number = code.lstrip("0")
    return len(number) >= _SHORTEST_WORD and any(
        number in text
        or (text.isdigit() and len(text.lstrip("0")) >= _PHONE and code.endswith(text.lstrip("0")))
        for text in known
    )
