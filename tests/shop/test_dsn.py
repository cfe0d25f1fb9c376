"""The database's address: every way to write one, and that a wrong one never shows its password."""

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from order_monitor.shop.dsn import Address, parse_dsn

CANARY = "p@s/s?#%[x]CANARY"
LOCAL = (("localhost",), (5432,))


def tells_no_more(error: BaseException) -> bool:
    """Whether a traceback would show no other error behind this one."""
    return error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)


@pytest.mark.parametrize(
    ("dsn", "address"),
    [
        ("postgresql://u:p@h:6543/n", Address(("h",), (6543,), "u", "p", "n")),
        ("postgres://u:p@h/n", Address(("h",), (5432,), "u", "p", "n")),
        ("postgresql+asyncpg://u:p@h/n", Address(("h",), (5432,), "u", "p", "n")),
        ("postgresql+psycopg://u:p@h/n", Address(("h",), (5432,), "u", "p", "n")),
        ("postgresql+psycopg2://u:p@h/n", Address(("h",), (5432,), "u", "p", "n")),
        ("POSTGRESQL://u:p@h/n", Address(("h",), (5432,), "u", "p", "n")),
        ("  postgresql://u:p@h/n\n", Address(("h",), (5432,), "u", "p", "n")),
        ("postgresql://", Address(*LOCAL, None, None, None)),
        ("postgresql:///n", Address(*LOCAL, None, None, "n")),
        ("postgresql://u@h/", Address(("h",), (5432,), "u", None, None)),
        ("postgresql://u:@h", Address(("h",), (5432,), "u", "", None)),
        ("postgresql://u:p@ss@h/n", Address(("h",), (5432,), "u", "p@ss", "n")),
        ("postgresql://u:a:b@h/n", Address(("h",), (5432,), "u", "a:b", "n")),
        ("postgresql://%75:%40%2F%3F%23@h/%6E%2F", Address(("h",), (5432,), "u", "@/?#", "n/")),
        ("postgresql://u:p@a,b:2,c/n", Address(("a", "b", "c"), (5432, 2, 5432), "u", "p", "n")),
        ("postgresql://u:p@a,b:2/n?port=7", Address(("a", "b"), (7, 2), "u", "p", "n")),
        ("postgresql:///n?host=a,b&port=1,2", Address(("a", "b"), (1, 2), None, None, "n")),
        ("postgresql://u:p@[::1]:6543/n", Address(("::1",), (6543,), "u", "p", "n")),
        ("postgresql://u:p@[fe80::1],h:2/n", Address(("fe80::1", "h"), (5432, 2), "u", "p", "n")),
        (
            "postgresql:///n?host=/run/postgresql",
            Address(("/run/postgresql",), (5432,), None, None, "n"),
        ),
        ("postgresql:///n?host=/run/pg&port=6543", Address(("/run/pg",), (6543,), None, None, "n")),
        ("postgresql://u:p@%2Frun%2Fpg:6543/n", Address(("/run/pg",), (6543,), "u", "p", "n")),
        ("postgresql://?user=u&password=p%40&dbname=n", Address(*LOCAL, "u", "p@", "n")),
        (
            "postgresql://u:p@h/n?user=x&password=y&dbname=z",
            Address(("h",), (5432,), "u", "p", "n"),
        ),
        ("postgresql://?user=&dbname=", Address(*LOCAL, None, None, None)),
        ("postgresql://u:p@h/n?application_name=shop", Address(("h",), (5432,), "u", "p", "n")),
        (
            "postgresql://u:p@h/n?sslmode=require",
            Address(("h",), (5432,), "u", "p", "n", (("sslmode", "require"),)),
        ),
    ],
)
def test_an_address_is_read(dsn: str, address: Address) -> None:
    assert parse_dsn(dsn) == address


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "h/n",
        "mysql://u:p@h/n",
        "postgresql",
        "host=h user=u password=CANARY",
        "postgresql://u:CANARY#@h/n",
        "postgresql://u:CA/NARY@h/n",
        "postgresql://u:CA?NARY@h/n",
        "postgresql://u:12?a=CANARY@h/n",
        "postgresql://u:12/CANARY@h/n",
        "postgresql://u:CA[NARY@h/n",
        "postgresql://u:CA]NARY@h/n",
        "postgresql://u:CANARY",
        "postgresql://u:p@h:CANARY/n",
        "postgresql://u:p@h/n/CANARY",
        "postgresql://u:p@h/n?CANARY",
        "postgresql://u:p@h/n#CANARY",
        "postgresql://u:p@h:0/n",
        "postgresql://u:p@h:65536/n",
        "postgresql://u:p@h/n?port=CANARY",
        "postgresql://u:p@h/n?port=65536",
        "postgresql://u:p@h/n?port=1,2",
        "postgresql://u:p@a,b,c/n?port=1,2",
        "postgresql://u:p@h/n?port=%D9%A1",
    ],
)
def test_what_cannot_be_read_is_refused_without_repeating_it(dsn: str) -> None:
    """C6: neither the message nor what stands behind it repeats a part of the address."""
    with pytest.raises(ValueError, match=r"^cannot be read; write postgresql://") as caught:
        parse_dsn(dsn)
    assert "NARY" not in str(caught.value)
    assert tells_no_more(caught.value)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("schema=public", "schema"),
        ("connect_timeout=5", "connect_timeout"),
        ("sslmode=require&channel_binding=require&keepalives=1", "channel_binding, keepalives"),
        ("ssl=CANARY", "ssl"),
        ("options=-csearch_path%3DCANARY", "options"),
        ("CANARY=1", "unnamable"),
        ("a%20canary=1&b=1", "unnamable"),
        ("password=se&canary=1", "unnamable"),
        ("sslpassword=se&canary=1", "unnamable"),
    ],
)
def test_unknown_keys_are_named(query: str, named: str) -> None:
    """F2: asyncpg would send them to the server as settings."""
    with pytest.raises(ValueError, match="are not understood after '\\?'") as caught:
        parse_dsn(f"postgresql://u:p@h/n?{query}")
    assert f": {named}; take them out" in str(caught.value)
    assert "canary" not in str(caught.value).lower()


@pytest.mark.parametrize("key", ["sslmode", "target_session_attrs"])
def test_a_key_with_a_closed_set_of_values_takes_no_other(key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key} after '\\?' must be one of ") as caught:
        parse_dsn(f"postgresql://u:p@h/n?{key}=CANARY")
    assert "CANARY" not in str(caught.value)


def test_only_a_server_that_can_be_written_to_will_do() -> None:
    plain = parse_dsn("postgresql://u:p@h,[::1]:2/n").connect_arguments()
    assert plain == {
        "host": ["h", "::1"],
        "port": [5432, 2],
        "user": "u",
        "password": "p",
        "database": "n",
        "target_session_attrs": "read-write",
    }
    asked = parse_dsn("postgresql://u:p@h/n?target_session_attrs=any").connect_arguments()
    assert asked["target_session_attrs"] == "any"
    assert "dsn" not in asked
    nameless = parse_dsn("postgresql://h").connect_arguments()
    assert "user" not in nameless, "the driver's own default is meant, not None"
    assert "database" not in nameless


def test_secrets_are_known_and_not_shown() -> None:
    """C6: what a log must hide, wherever in the address it stands."""
    address = parse_dsn(f"postgresql://u:{quote(CANARY, safe='')}@h/n?sslpassword=KEY-CANARY")
    assert address.secrets() == [CANARY, "KEY-CANARY"]
    assert parse_dsn(f"postgresql://h?password={quote(CANARY)}").secrets() == [CANARY]
    assert parse_dsn("postgresql://h").secrets() == []
    assert "CANARY" not in f"{address} {address!r}"


async def first_bytes(listener: socket.socket, arguments: dict[str, Any]) -> bytes:
    """Return what asyncpg says first to a server that hangs up."""
    heard = asyncio.get_running_loop().create_future()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(1024)
        if not heard.done():
            heard.set_result(data)
        writer.close()

    async with await asyncio.start_server(hang_up, sock=listener):
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await asyncpg.connect(**arguments, timeout=5)
        async with asyncio.timeout(30):
            data: bytes = await heard
            return data


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]"), (socket.AF_UNIX, "")],
)
@pytest.mark.parametrize("query", ["", "sslmode=disable", "sslmode=require"])
async def test_the_driver_goes_where_the_address_says(
    family: socket.AddressFamily, host: str, query: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """F2: options travel to the driver another way than hosts do, and neither may lose the other."""
    listener = socket.socket(family)
    if family == socket.AF_UNIX:
        folder = tmp_path_factory.mktemp("pg")
        listener.bind(str(folder / ".s.PGSQL.6543"))
        dsn = f"postgresql://someone:p@/shop?host={folder}&port=6543&{query}".rstrip("&")
    else:
        try:
            listener.bind((host.strip("[]"), 0))
        except OSError:
            listener.close()
            pytest.skip(f"this machine has no {host}")
        dsn = f"postgresql://someone:p@{host}:{listener.getsockname()[1]}/shop?{query}".rstrip("?")
    said = await first_bytes(listener, parse_dsn(dsn).connect_arguments())
    asks_for_tls = said[4:8] == (80877103).to_bytes(4)
    assert asks_for_tls is (family != socket.AF_UNIX and query != "sslmode=disable")
    if not asks_for_tls:
        assert b"user\0someone\0" in said
        assert b"database\0shop\0" in said


PART = st.text(st.characters(codec="utf-8"), min_size=1)


@given(user=PART, password=st.none() | PART, name=PART)
@example(user=CANARY, password=CANARY, name=CANARY)
@example(user="şöför", password=" +\t\n\0", name="%41")
def test_any_login_round_trips(user: str, password: str | None, name: str) -> None:
    """C6: percent-encoded, any character may stand anywhere."""
    login = (
        quote(user, safe="")
        if password is None
        else f"{quote(user, safe='')}:{quote(password, safe='')}"
    )
    address = parse_dsn(f"postgresql://{login}@h:1/{quote(name, safe='')}")
    assert address == Address(("h",), (1,), user, password, name)


PIECES = st.lists(
    st.sampled_from(
        ["postgresql://", "u", ":", "@", "/", "?", "#", "[", "]", "%", "&", "=", ",", "12", " ", "\n", "h", "sslmode",
         "password", "port", "host", "schema", "\ud800", "\u2100", "\uff41", "::1", "+"]
    )
    | st.text(max_size=5)
).map("".join)  # fmt: skip


@given(before=PIECES, after=PIECES, canary=st.sampled_from(["CANARY", CANARY]))
@example(before="postgresql://u:", after="@h/n", canary=CANARY)
@example(before="postgresql://", after=":p@h/n", canary=CANARY)
@example(before="postgresql://u:p@", after="/n", canary=CANARY)
@example(before="postgresql://u:p@h:", after="/n", canary=CANARY)
@example(before="postgresql://u:p@h/", after="", canary=CANARY)
@example(before="postgresql://u:p@h/n?", after="=1", canary="CANARY")
@example(before="postgresql://u:p@h/n?sslmode=", after="", canary="CANARY")
@example(before="postgresql://u:p@h/n?port=", after="", canary="CANARY")
def test_no_text_makes_it_raise_more_than_value_error_or_repeat_itself(
    before: str, after: str, canary: str
) -> None:
    """C6: a password may stand in any place of a wrong address."""
    caught: ValueError | None = None
    try:
        address = parse_dsn(f"{before}{canary}{after}")
    except ValueError as error:
        caught = error
    else:
        assert len(address.hosts) == len(address.ports) > 0
        assert all(0 < port < 65_536 for port in address.ports)
        assert repr(address) == repr(replace(address, password=None, options=())), (
            "neither is shown"
        )
    if caught is not None:
        assert "CANARY" not in str(caught)
        assert tells_no_more(caught)
