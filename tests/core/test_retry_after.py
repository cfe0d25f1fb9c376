"""Retry-After is a number of seconds or a date; anything else is none."""

import pytest

from order_monitor.core.retry_after import retry_after

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("Mon, 21 Sep 2026 14:13:50 GMT", 30.0),
        ("Mon, 21 Sep 2020 14:13:50 GMT", 0.0),
        ("Mon, 21 Sep 2026 14:13:50", 30.0),
        ("Mon, 21 Sep 2026 17:13:50 +0300", 30.0),
        ("٣٠", None),
        ("-5", None),
        ("1.5", None),
        ("99999999999999999999", None),
        ("soon", None),
        ("Mon, 99 Sep 99999 14:13:50 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds
