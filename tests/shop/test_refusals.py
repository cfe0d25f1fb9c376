"""What the database refuses, in one sentence with what to do, for every code that there is.

And never in the driver's words.
"""

import re

import asyncpg
import pytest

from order_monitor.core.errors import ShopError
from order_monitor.shop.database import classify, refusal
from order_monitor.shop.refusals import outside, raised, sentence
from tests.support.shops import Shop
from tests.support.sqlstates import CODES

INSTRUCTION = re.compile(
    r"^(see|run|set|correct|widen|wait|ask|try|raise|let|find|make|give|use|stop|rebuild|drop|rename|name)\b",
    re.IGNORECASE,
)
"""What somebody can do begins with a verb."""


def tells_what_to_do(text: str) -> bool:
    what, mark, remedy = text.partition("; ")
    return (
        bool(what and mark and INSTRUCTION.match(remedy))
        and "CANARY" not in text
        and "Error" not in text
    )


@pytest.mark.parametrize("code", [*CODES, "U0001", "ZZZZZ"])
def test_every_code_gives_a_sentence_with_an_instruction_and_no_text_of_the_drivers(
    code: str,
) -> None:
    error = asyncpg.PostgresError.new(
        {"C": code, "M": "PIN-CANARY", "D": "row (PIN-CANARY)", "H": "CANARY", "W": "CANARY"}
    )
    for told in (classify(error), refusal(error)):
        assert isinstance(told, ShopError)
        assert tells_what_to_do(str(told)), str(told)
        assert f"[{code}]" in str(told)
    assert tells_what_to_do(raised(code))
    assert sentence(code, []) == str(classify(error))


def test_what_nobody_can_act_on_has_the_servers_own_name() -> None:
    for code, name in (("22P02", "invalid text representation"), ("23514", "check violation")):
        assert sentence(code, []).startswith(f"{name} [{code}]; see which trigger")
    assert sentence("ZZZZZ", []).startswith("a code of its own was raised [ZZZZZ]; ")
    assert [c for c in CODES if sentence(c, []).startswith("a code of its own")] == []


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("42501", "GRANT"),
        ("42P01", "database.table"),
        ("42703", "database.columns"),
        ("42809", "database.table"),
        ("0A000", "order-monitor check"),
        ("25006", "primary"),
        ("53100", "disk"),
        ("53300", "max_connections"),
        ("57P03", "wait until it is up"),
        ("28P01", "password"),
        ("28000", "pg_hba.conf"),
        ("3D000", "database.dsn"),
        ("55P03", "pg_locks"),
        ("57014", "statement_timeout"),
        ("40001", "try again"),
        ("40P01", "try again"),
        ("23505", "find the other row"),
        ("22001", "widen"),
        ("XX000", "ask the server's administrator"),
    ],
)
def test_what_is_often_met_says_exactly_what_to_do(code: str, remedy: str) -> None:
    assert remedy in sentence(code, []).partition("; ")[2]


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionRefusedError(111, "CANARY"),
        OSError(113, "CANARY"),
        ValueError("CANARY"),
    ],
)
def test_what_no_server_told_has_an_instruction_too(error: Exception) -> None:
    what, mark, remedy = str(classify(error)).partition("; ")
    assert what
    assert mark
    assert INSTRUCTION.match(remedy)
    assert "CANARY" not in remedy + what
    assert outside("SomethingElse").startswith("SomethingElse; see that the server runs")


async def test_real_refusals_to_connect_say_what_to_do(plain_shop: Shop) -> None:
    name = plain_shop.dsn.partition("?")[0].rpartition("/")[2]
    for dsn, words in (
        (
            plain_shop.dsn.replace(name, "nowhere"),
            r"no such database \[3D000\]; correct the database's name",
        ),
        (
            plain_shop.dsn.replace("postgresql://shop:", "postgresql://shop:x"),
            r"the password is wrong \[28P01\]; correct",
        ),
        ("postgresql://x:y@127.0.0.1:1/z", r"ConnectionRefusedError .*; see that the server runs"),
    ):
        with pytest.raises(ShopError, match=words):
            async with plain_shop.database(dsn).transaction():
                pass
