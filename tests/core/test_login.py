"""Which login stands behind an account, by what names it, and that no name of it is shown."""

import pytest

from order_monitor.core.answer import Waiting
from order_monitor.core.check_result import CheckResult
from order_monitor.core.login import Credentials, host_of
from order_monitor.core.order import Order


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
        ("https://panel.example.x.", "panel.example.x"),
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


def test_a_login_is_the_same_in_every_process_and_every_version() -> None:
    """The database knows a login by it: what is stored of it would be lost."""
    one = Credentials("znet", "https://panel.example.com", "dealer-7")
    assert one.login() == "znet panel.example.com b3879dbeb8f6091611f65542"
    assert one.login(b"key") == "znet panel.example.com c05442e8b0d2c5ca89593a92"
    assert Credentials("znet", "https://h", "\ud800").login() == "znet h d2936c1eb2ee7f58fd02305c"


@pytest.mark.parametrize(
    ("kind", "user"),
    [("znet", "dealer-7"), ("client_api", "token"), ("internal", "token"), ("unknown", "dealer-7")],
)
def test_who_is_logged_in_is_said_by_a_token_where_there_are_no_user_names(
    kind: str, user: str
) -> None:
    found = Credentials.of(kind, "https://h", "dealer-7", "token")
    assert found == Credentials(kind, "https://h", user)


def test_of_unknown_times_there_is_no_age() -> None:
    order = Order("1", "sent", None, "ref")
    assert CheckResult(order, Waiting("x"), seen_at=5.0, checks=1).age_since(None) == 0.0
