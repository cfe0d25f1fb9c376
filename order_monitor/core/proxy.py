"""The address of a proxy, and which part of it may be shown. Pure."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_LONGEST_LOGIN: Final = 255
"""Maximum bytes of a user name, and of a password, in SOCKS."""

_LIKE: Final = "like http://user:password@proxy.example.com:3128, https://… or socks5://…"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy.

    ``scheme`` is ``http``, ``https`` (TLS to the proxy itself), ``socks5``, or ``socks5h`` (the
    proxy resolves host names).
    """

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS 5; otherwise HTTP."""
        return self.scheme.startswith("socks")

    @property
    def shown(self) -> str:
        """The address without the login."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def authorization(self) -> bytes | None:
        """Return the value of the ``Proxy-Authorization`` header, None without a login."""
        if self.user is None:
            return None
        return b"Basic " + base64.b64encode(f"{self.user}:{self.password}".encode())

    def secrets(self) -> list[str]:
        """Return the strings that must never be shown."""
        login = self.authorization()
        if login is None:
            return []
        return [one for one in (self.user, self.password, login.decode().partition(" ")[2]) if one]


def parse_proxy(text: str) -> Proxy:
    """Parse the address of a proxy.

    Special characters in the login are percent-encoded as in any URL (``%40`` for ``@``).

    Raises:
        ValueError: it is not a proxy address; the text gives the reason without repeating it.
    """
    text = text.strip()
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    if (
        not url.hostname
        or port == 0
        or re.search(r"[\s\x00-\x1f\x7f]", text)
        or "%" in url.hostname
    ):
        msg = f"give the proxy's address, {_LIKE}"
    elif url.scheme not in _PORTS:
        msg = f"there are http, https, socks5 and socks5h proxies: give its address {_LIKE}"
    elif url.path not in ("", "/") or "?" in text or "#" in text:
        msg = "give only the proxy's address, without path, ? or #; in the login write %2F, %3F and %23 for them"
    else:
        proxy = Proxy(
            url.scheme,
            url.hostname,
            port or _PORTS[url.scheme],
            *_login(url.username, url.password),
        )
        if problem := _problem(proxy, has_login="@" in url.netloc):
            raise ValueError(problem)
        return proxy
    raise ValueError(msg)


def _login(user: str | None, password: str | None) -> tuple[str | None, str]:
    return (unquote(user) if user is not None else None), unquote(password or "")


def _problem(proxy: Proxy, *, has_login: bool) -> str:
    """Return what is wrong with the login; empty if nothing is."""
    if has_login and not proxy.user:
        return "the proxy's login has no user name"
    login = (proxy.user or "", proxy.password)
    if any(re.search(r"[\x00-\x1f\x7f]", part) for part in login):
        return "the proxy's login has a character that no login may have"
    if proxy.is_socks and any(len(part.encode()) > _LONGEST_LOGIN for part in login):
        return (
            "the proxy's user name or password is longer than the 255 bytes that SOCKS has room for"
        )
    if not proxy.is_socks and ":" in login[0]:
        return (
            "the proxy's user name has a colon, which no HTTP proxy could tell from the password's"
        )
    return ""
