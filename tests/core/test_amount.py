"""Amounts as panels write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.amount import amount_of


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1234", 1234.0),
        ("0", 0.0),
        ("1.234,50", 1234.5),
        ("1,234.50", 1234.5),
        ("12.345", 12345.0),
        ("12,345", 12345.0),
        ("1.234.567", 1234567.0),
        ("1,234,567.891", 1234567.891),
        ("1.234,567", 1234.567),
        ("1234.500", 1234.5),
        ("0.345", 0.345),
        ("0,5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("12.5", 12.5),
        ("12.3456", 12.3456),
        ("-12,5", -12.5),
        ("\u22121.234,50", -1234.5),
        ("+7", 7.0),
        ("1 234,50", 1234.5),
        ("1\u2009234\u202f567.5", 1234567.5),
        ("1\u00a0234", 1234.0),
        ("1'234'567.25", 1234567.25),
        ("1\u2019234", 1234.0),
        ("1.234,50 TL", 1234.5),
        ("₺1.234,50", 1234.5),
        ("$ -3.20", -3.2),
        ("-$3.20", -3.2),
        ("1234.5usd", 1234.5),
        ("\u0661\u066c\u0662\u0663\u0664\u066b\u0665\u0660", 1234.5),
        ("  42 \n", 42.0),
        ("000123", 123.0),
        ("", None),
        (".", None),
        ("1.2.3", None),
        ("1.234,567,89", None),
        ("1,23,456.78", None),
        ("12 34", None),
        ("1 234 56", None),
        ("1,234 567", None),
        ("1.5 000", None),
        ("1.234.5", None),
        ("12.345 KWD", None),
        ("5 bin", None),
        ("5K", None),
        ("1e5", None),
        ("inf", None),
        ("nan", None),
        ("--5", None),
        ("(5)", None),
        ("5 5 TL", None),
        ("0x10", None),
        ("9" * 41, None),
    ],
)
def test_an_amount_with_either_separator(text: str, number: float | None) -> None:
    assert amount_of(text) == number


@given(
    cents=st.integers(-(10**12), 10**12),
    separators=st.sampled_from(
        [(".", ","), (",", "."), (" ", ","), ("\u2009", "."), ("'", "."), ("", ","), ("", ".")]
    ),
)
def test_whatever_is_written_with_cents_reads_back(cents: int, separators: tuple[str, str]) -> None:
    between, point = separators
    whole, rest = divmod(abs(cents), 100)
    text = f"{'-' if cents < 0 else ''}{whole:,}".replace(",", between) + f"{point}{rest:02}"
    assert amount_of(text) == pytest.approx(cents / 100)


@given(st.text(max_size=50) | st.text("0123456789., '-TL", max_size=20))
def test_no_text_makes_it_raise(text: str) -> None:
    number = amount_of(text)
    assert number is None or math.isfinite(number)


def test_an_amount_has_forty_characters_at_most() -> None:
    assert amount_of("7".rjust(40, "0")) == 7
    assert amount_of("7".rjust(41, "0")) is None
