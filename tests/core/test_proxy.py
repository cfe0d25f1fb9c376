"""A proxy's address: what it may look like, and that its login never shows."""

import pytest

from order_monitor.core.proxy import Proxy, parse_proxy

GOOD = {
    "http://proxy.example:3128": Proxy("http", "proxy.example", 3128),
    " http://proxy.example:3128/ ": Proxy("http", "proxy.example", 3128),
    "HTTP://Proxy.Example": Proxy("http", "proxy.example", 80),
    "https://10.0.0.7": Proxy("https", "10.0.0.7", 443),
    "socks5://proxy.example": Proxy("socks5", "proxy.example", 1080),
    "socks5h://u@[2001:db8::1]:9": Proxy("socks5h", "2001:db8::1", 9, "u"),
    "http://u:p%40s%2Fs%3A%25@h:1": Proxy("http", "h", 1, "u", "p@s/s:%"),
    "http://u:p@s@h:1": Proxy("http", "h", 1, "u", "p@s"),
    "socks5://%C5%9F:%C4%B1@h:1": Proxy("socks5", "h", 1, "ş", "ı"),
}


@pytest.mark.parametrize(("text", "proxy"), GOOD.items())
def test_an_address_is_understood(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CANARY",
        "CANARY:3128",
        "ftp://CANARY:1",
        "socks4://CANARY:1",
        "socks://CANARY:1",
        "http://",
        "http://u:CANARY@",
        "http://CANARY:0",
        "http://CANARY:65536",
        "http://CANARY:x",
        "http://CANARY:1/path",
        "http://CANARY:1?x",
        "http://CANARY:1#x",
        "http://u:CANARY#1@h:1",
        "http://u:CANARY/1@h:1",
        "http://CANARY CANARY:1",
        "http://CANARY\n:1",
        "http://@CANARY:1",
        "http://:CANARY@h:1",
        "http://u%3A:CANARY@h:1",
        "http://u:CANARY%0d%0aX:1@h:1",
        "socks5://u:CANARY%00@h:1",
        f"socks5://u:{'CANARY' * 43}@h:1",
        "http://[::CANARY]:1",
        "http://h%20CANARY:1",
    ],
)
def test_a_mistake_is_told_without_what_was_written(text: str) -> None:
    with pytest.raises(ValueError, match="prox") as caught:
        parse_proxy(text)
    assert "CANARY" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_its_login_shows_nowhere() -> None:
    proxy = parse_proxy("http://user-canary:pass-canary@proxy.example:3128")
    assert "canary" not in f"{proxy} {proxy!r} {proxy.shown}"
    assert proxy.shown == "http://proxy.example:3128"
    assert parse_proxy("socks5://[::1]").shown == "socks5://[::1]:1080"
    assert set(proxy.secrets()) == {
        "user-canary",
        "pass-canary",
        "dXNlci1jYW5hcnk6cGFzcy1jYW5hcnk=",
    }
    assert parse_proxy("http://proxy.example").secrets() == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x", "give the proxy's address, like http://user:password@proxy.example.com:3128, "),
        ("http://u%20v:1@h%20:1", "give the proxy's address, like http://"),
        ("ftp://h:1", "there are http, https, socks5 and socks5h proxies: give its address like "),
        (
            "http://h:1/path",
            (
                "give only the proxy's address, without path, ? or #; "
                "in the login write %2F, %3F and %23 for them"
            ),
        ),
        ("http://:p@h:1", "the proxy's login has no user name"),
        ("http://u%7f:p@h:1", "the proxy's login has a character that no login may have"),
        ("http://u:%1f@h:1", "the proxy's login has a character that no login may have"),
        (
            f"socks5://u:{'p' * 256}@h:1",
            "the proxy's user name or password is longer than the 255 bytes that SOCKS has room for",
        ),
        (
            f"socks5://{'ş' * 128}@h:1",
            "the proxy's user name or password is longer than the 255 bytes that SOCKS has room for",
        ),
        (
            "http://u%3Av:p@h:1",
            "the proxy's user name has a colon, which no HTTP proxy could tell from the password's",
        ),
    ],
)
def test_each_mistake_is_told_by_what_it_is(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="prox") as caught:
        parse_proxy(text)
    assert str(caught.value).startswith(problem)


def test_what_one_kind_of_proxy_cannot_take_another_can() -> None:
    assert parse_proxy(f"socks5://u:{'p' * 255}@h:1").password == "p" * 255
    assert parse_proxy(f"http://u:{'p' * 256}@h:1").password == "p" * 256
    assert parse_proxy("socks5://u%3Av:p@h:1").user == "u:v"


def test_the_login_goes_into_one_header_as_http_has_it() -> None:
    proxy = parse_proxy("http://u:p%20q@h:1")
    assert proxy.authorization() == b"Basic dTpwIHE="
    assert parse_proxy("http://h:1").authorization() is None
