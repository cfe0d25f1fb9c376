"""Which login stands behind an account, by what names it, and that no name of it is shown."""

import pytest

from order_monitor.core.answer import Waiting
from order_monitor.core.login import Credentials, host_of
from order_monitor.core.order import Order
from order_monitor.core.recording import Finding


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://panel.example.com/servis/", "panel.example.com"),
        ("HTTPS://PANEL.example.com.:443", "panel.example.com"),
        ("http://panel.example.com:80", "panel.example.com"),
        ("https://panel.example.com:8443/a", "panel.example.com:8443"),
        (" https://panel.example.com ", "panel.example.com"),
        ("https://panel.example.com:port", ""),
        ("https://[::1", ""),
        ("", ""),
    ],
)
def test_a_host_is_one_however_it_is_written(url: str, host: str) -> None:
    assert host_of(url) == host


def test_one_user_of_one_host_is_one_login_and_is_not_shown() -> None:
    one = Credentials("znet", "https://panel.example.com", "dealer-7")
    assert one.login() == Credentials("znet", "http://PANEL.example.com./x", " dealer-7 ").login()
    assert one.login() != Credentials("znet", "https://panel.example.com", "dealer-8").login()
    assert one.login() != Credentials("other", "https://panel.example.com", "dealer-7").login()
    assert "dealer" not in one.login() + repr(one)


def test_of_unknown_times_there_is_no_age() -> None:
    order = Order("1", "sent", None, "ref")
    assert Finding(order, Waiting("x"), seen_at=5.0, checks=1).age_since(None) == 0.0
