"""Read a database address without ever repeating it: a wrong one may have the password in any place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_SCHEMES: Final = frozenset(
    {"postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2"}
)
_SSL: Final = frozenset(
    {"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "ssl_min_protocol_version"}
)
_TAKEN: Final = _SSL | {"host", "port", "user", "password", "dbname", "target_session_attrs", "application_name"}
_UNREADABLE: Final = (
    "cannot be read; write postgresql://user:password@host:5432/name with special characters of the password "
    "percent-encoded, or give host, port, user, password and name instead"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where and as whom to connect. ``options`` are libpq's, as asyncpg takes them."""

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    user: str | None
    password: str | None = field(repr=False)
    name: str | None
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def connect_arguments(self) -> dict[str, Any]:
        """Return asyncpg's arguments. A standby would show stale orders, so only a writable server will do."""
        options = dict(self.options)
        session = options.pop("target_session_attrs", "read-write")
        arguments: dict[str, Any] = {"target_session_attrs": session, "password": self.password}
        if self.user is not None:
            arguments["user"] = self.user
        if self.name is not None:
            arguments["database"] = self.name
        if options:
            # asyncpg takes certificates through a DSN alone.
            hosts = ",".join(f"{quote(h, safe=':[]')}:{p}" for h, p in zip(self.hosts, self.ports, strict=True))
            return {"dsn": f"postgresql://{hosts}/?{urlencode(options)}", **arguments}
        return {"host": list(self.hosts), "port": list(self.ports), **arguments}


def parse_dsn(dsn: str) -> Address:
    """Return the address that ``dsn`` names.

    Raises:
        ValueError: it cannot be read, or holds a key that would be passed on as a server setting (asyncpg does that).
    """
    try:
        url = urlsplit(dsn.strip())
        login, _, places = url.netloc.rpartition("@")
        pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
    except ValueError:
        raise ValueError(_UNREADABLE) from None
    if url.scheme not in _SCHEMES or url.fragment or "@" in url.path or "@" in url.query or url.path.count("/") > 1:
        raise ValueError(_UNREADABLE)
    options = dict(pairs)
    unknown = sorted(key for key in options if key not in _TAKEN)
    if unknown:
        named = [key for key in unknown if re.fullmatch(r"[a-z_]{2,40}", key)]
        msg = f"has keys that are not understood after '?': {', '.join(named) or 'unnamable'}; take them out"
        raise ValueError(msg)
    user, colon, password = login.partition(":")
    hosts, ports = _places(options.pop("host", "") or places, options.pop("port", ""))
    return Address(
        hosts,
        ports,
        unquote(user) or options.pop("user", None),
        unquote(password) if colon else options.pop("password", None),
        unquote(url.path[1:]) or options.pop("dbname", None),
        tuple((k, v) for k, v in options.items() if k != "application_name"),
    )


def _places(places: str, port: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    hosts, ports = [], []
    for place in places.split(","):
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]@?#\s]*)(?::([0-9]{1,5}))?", unquote(place))
        if not found:
            raise ValueError(_UNREADABLE)
        hosts.append(found[1].strip("[]") or "localhost")
        ports.append(int(found[2] or (port if port.isdecimal() else 5432)))
    return tuple(hosts), tuple(ports)
