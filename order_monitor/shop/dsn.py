"""Parse a database address without repeating it: the password may be anywhere in a malformed one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode

_SCHEMES: Final = frozenset(
    {"postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2"}
)
_SSL: Final = frozenset(
    {
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslcrl",
        "ssl_min_protocol_version",
    }
)
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_TAKEN: Final = _SSL | {
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "target_session_attrs",
    "application_name",
}
_CHOICES: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": (
        "any",
        "primary",
        "standby",
        "read-write",
        "read-only",
        "prefer-standby",
    ),
}
_HIGHEST_PORT: Final = 65_535
# Not urllib's parser: Python releases differ in which bracketed hosts they accept.
_FORM: Final = re.compile(
    r"(?P<scheme>[A-Za-z0-9+]+)://(?P<netloc>[^/?#\x00-\x1f]*)(?:/(?P<name>[^/?#@\x00-\x1f]*))?(?:\?(?P<query>[^#\x00-\x1f]*))?"
)
_UNREADABLE: Final = (
    "cannot be read; write postgresql://user:password@host:5432/name with special characters of the password "
    "percent-encoded, or give host, port, user, password and name instead"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect and as which user. ``options`` are libpq's, as asyncpg takes them."""

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    user: str | None
    password: str | None = field(repr=False)
    name: str | None
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def connect_arguments(self, place: int | None = None) -> dict[str, Any]:
        """Return asyncpg's arguments, for all hosts or the one at ``place``: it must accept writes,
        because a standby would show outdated orders.
        """
        options = dict(self.options)
        session = options.pop("target_session_attrs", "read-write")
        arguments: dict[str, Any] = {"target_session_attrs": session, "password": self.password}
        if self.user is not None:
            arguments["user"] = self.user
        if self.name is not None:
            arguments["database"] = self.name
        if options:
            # asyncpg accepts certificates only in a DSN.
            arguments["dsn"] = f"postgresql://?{urlencode(options)}"
        hosts, ports = list(self.hosts), list(self.ports)
        if place is not None:
            hosts, ports = hosts[place : place + 1], ports[place : place + 1]
        return {"host": hosts, "port": ports, **arguments}

    def files(self) -> list[tuple[str, str]]:
        """Return the files named in the options, each with its key."""
        return [(key, value) for key, value in self.options if key in _FILES]

    def secrets(self) -> list[str]:
        """Return what must not be logged."""
        return [
            secret for secret in (self.password, dict(self.options).get("sslpassword")) if secret
        ]


def parse_dsn(dsn: str) -> Address:
    """Parse ``dsn``.

    Raises:
        ValueError: it cannot be parsed, or contains a key that asyncpg would pass on as a server
            setting.
    """
    found = _FORM.fullmatch(dsn.strip())
    url = found.groupdict("") if found else None
    if url is None or url["scheme"].lower() not in _SCHEMES or "@" in url["query"]:
        raise ValueError(_UNREADABLE)
    login, _, places = url["netloc"].rpartition("@")
    if "[" in login or "]" in login:
        raise ValueError(_UNREADABLE)
    try:
        pairs = parse_qsl(url["query"], keep_blank_values=True, strict_parsing=bool(url["query"]))
    except ValueError:
        raise ValueError(_UNREADABLE) from None
    options = dict(pairs)
    unknown = sorted(key for key in options if key not in _TAKEN)
    if unknown:
        # If a password was not escaped, a "key" may be part of it.
        is_safe = "password" not in options and "sslpassword" not in options
        named = [key for key in unknown if is_safe and re.fullmatch(r"[a-z_]{2,40}", key)]
        raise ValueError(
            f"has keys that are not understood after '?': {', '.join(named) or 'unnamable'}; take them out"
        )
    for key, choices in _CHOICES.items():
        if options.get(key, choices[0]) not in choices:
            raise ValueError(f"{key} after '?' must be one of {', '.join(choices)}")
    user, colon, password = login.partition(":")
    given = {
        key: options.pop(key, None)
        for key in ("host", "port", "user", "password", "dbname", "application_name")
    }
    hosts, ports = _places(given["host"] or places, given["port"] or "")
    return Address(
        hosts,
        ports,
        unquote(user) or given["user"] or None,
        unquote(password) if colon else given["password"],
        unquote(url["name"]) or given["dbname"] or None,
        tuple(options.items()),
    )


def _places(places: str, port: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return hosts and ports; ``port`` is one for all hosts without their own, or one each."""
    hosts, ports = [], []
    parts, defaults = places.split(","), port.split(",")
    if len(defaults) not in (1, len(parts)):
        raise ValueError(_UNREADABLE)
    for n, part in enumerate(parts):
        found = re.fullmatch(
            r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]@?#\s]*)(?::([0-9]{1,5}))?", unquote(part)
        )
        number = (found[2] if found else None) or defaults[n % len(defaults)] or "5432"
        if (
            not found
            or not re.fullmatch("[0-9]{1,5}", number)
            or not 0 < int(number) <= _HIGHEST_PORT
        ):
            raise ValueError(_UNREADABLE)
        hosts.append(found[1].strip("[]") or "localhost")
        ports.append(int(number))
    return tuple(hosts), tuple(ports)
