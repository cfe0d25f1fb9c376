"""Codes taken out of a text: several at once, one within another, and characters of two letters."""

import pytest

from order_monitor.core.masking import masked


@pytest.mark.parametrize(
    ("text", "codes", "left"),
    [
        ("bcd", {"abcd"}, "bcd"),
        ("xbcd", {"abcd"}, "xbcd"),
        ("abcx abcd", {"abcd"}, "abcx ****"),
        ("abc12", {"abcd", "bc12"}, "a****"),
        ("aabcd", {"abcd"}, "a****"),
        ("zzbcd1", {"zbcz", "bcd1"}, "zz****"),
        ("abab12 ab", {"ab12"}, "ab**** ab"),
        ("x1y2z3w4", {"1y2z", "3w4x"}, "x****3w4"),
    ],
)
def test_each_of_several_codes_is_found_wherever_another_one_ends(
    text: str, codes: set[str], left: str
) -> None:
    assert masked(text, codes) == left


def test_a_code_around_another_one_is_found_when_that_is_gone() -> None:
    assert masked("AB1234CD", {"1234", "abcd"}) == "****"
    assert masked("AB1234CX", {"1234", "abcd"}) == "AB****CX"


def test_a_character_of_two_letters_goes_as_a_whole() -> None:
    assert masked("\ufb01123xy", {"i123", "fxy"}) == "****xy"
    assert masked("ab\ufb01123cd", {"i123", "abcd"}) == "****"
    assert masked("ab\ufb01123ce", {"i123", "abcd"}) == "ab****ce"
