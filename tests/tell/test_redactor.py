"""Secrets of very many accounts: none is shown, our own words stay, a line costs what it costs for
one, the old are forgotten.
"""

import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import assume, given
from hypothesis import strategies as st

from order_monitor.tell.logs import set_up
from order_monitor.tell.redactor import HIDDEN_FOR, Redactor
from tests.support.clocks import ManualClock
from tests.support.operations import operations

SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=12).map(
    lambda text: f"{text}Ж§"
)
"""With two letters that stand in no word of ours."""

WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": lambda s: s,
    "in an address": lambda s: f"https://x/?kod={quote(s, safe='')}&sifre={quote_plus(s)}",
    "in JSON": lambda s: json.dumps({"a": s}, ensure_ascii=False),
    "in a repr": lambda s: repr([s, "'" + s, '"' + s]),
    "in a repr of JSON": lambda s: repr(json.dumps([s], ensure_ascii=False)),
    "beside others": lambda s: f"before{s}{s} after",
}


class Log:
    """A log on a stream in memory."""

    def __init__(self, form: str) -> None:
        self.bytes = io.BytesIO()
        self.sink, self.redact = set_up("debug", form, io.TextIOWrapper(self.bytes, "utf-8"), {})
        self.log = structlog.get_logger("test")

    def text(self) -> str:
        self.sink.close()
        return self.bytes.getvalue().decode()


@given(
    st.lists(st.tuples(SECRETS, SECRETS), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from(sorted(WRITTEN)),
    st.sampled_from(["said", "why", "message", "detail", "reason", "anything"]),
    st.sampled_from(["text", "list", "mapping", "key", "object"]),
    st.sampled_from(["its own", "none", "another's name"]),
    st.sampled_from(["json", "console"]),
    st.booleans(),
)
def test_no_secret_is_ever_shown(
    accounts: list[tuple[str, str]],
    which: int,
    written: str,
    field: str,
    shape: str,
    named: str,
    form: str,
    gone: bool,  # noqa: FBT001
) -> None:
    """C7: whatever text from outside it stands in, and for an hour after it was exchanged."""
    # Three ways of writing in one another are more than any line of ours has.
    assume((shape, written) != ("object", "in a repr of JSON"))
    log = Log(form)
    names = {f"account-{n}": secrets for n, secrets in enumerate(accounts)}
    mine = f"account-{which % len(accounts)}"
    log.redact.follow(names)
    if gone:
        log.redact.follow(dict.fromkeys(names, ("new1", "new2")))
    shapes: dict[str, Any] = {
        "text": str,
        "list": lambda t: [1, (t,)],
        "mapping": lambda t: {"a": {"b": t}},
    }
    shapes |= {"key": lambda t: {t: 1}, "object": ValueError}
    for secret in names[mine]:
        value = shapes[shape](WRITTEN[written](secret))
        more = {"its own": {"account": mine}, "none": {}, "another's name": {"account": "nobody"}}[
            named
        ]
        log.log.warning("library.message", **{field: value}, **more)
    assert "Ж§" not in log.text()
    structlog.reset_defaults()


@given(st.lists(st.text("ab", min_size=4, max_size=8), max_size=6), st.text("ab", max_size=40))
def test_no_letter_of_a_secret_that_stands_there_is_left(secrets: list[str], text: str) -> None:
    """Overlapping ones too: each letter that belongs to any of them goes, and no other."""
    redact = Redactor()
    redact.follow({str(n): (secret,) for n, secret in enumerate(secrets)})
    hidden = {
        i
        for s in secrets
        for at in range(len(text))
        if text.startswith(s, at)
        for i in range(at, at + len(s))
    }
    kept = "".join(c for i, c in enumerate(text) if i not in hidden)
    assert redact(text).replace("*", "") == kept
    assume(not hidden)
    assert redact(text) == text


@pytest.mark.parametrize("account", ["one", None])
def test_our_own_words_are_not_searched(account: str | None) -> None:
    """Of thirty thousand login names one is a part of nearly every number."""
    log = Log("json")
    log.redact.follow({"one": ("completed", "2026"), "two": ("f3a9", "warning")})
    more = {} if account is None else {"account": account}
    log.log.warning(
        "order.completed",
        order_id="f3a9-2026",
        status="completed",
        said="was completed f3a9",
        **more,
    )
    line = json.loads(log.text())
    assert (line["event"], line["order_id"], line["status"]) == (
        "order.completed",
        "f3a9-2026",
        "completed",
    )
    assert line["level"] == "warning"
    assert line["timestamp"].startswith("2")
    assert line["said"] == ("was **** f3a9" if account else "was **** ****"), (
        "its own alone, where it is known whose"
    )


def test_a_traceback_is_searched_whole() -> None:
    log = Log("console")
    log.redact.follow({"one": ("sifre-CANARY", "kod1")})
    try:
        raise ValueError("sifre-CANARY")
    except ValueError:
        log.log.exception("task.died")
    assert "CANARY" not in log.text()


def test_what_was_exchanged_is_forgotten_after_an_hour() -> None:
    clock = ManualClock()
    redact = Redactor(clock.monotonic)
    redact.learn(["dsn-old", "token"])
    redact.follow({"a": ("kod-a", "old-a"), "b": ("kod-b", "same"), "c": ("kod-c", "same")})
    redact.follow({"a": ("kod-a", "new-a"), "c": ("kod-c", "same")})
    redact.retire(["dsn-old"])
    text = "kod-a old-a new-a kod-b kod-c same dsn-old token"
    clock.elapsed = HIDDEN_FOR - 1
    assert redact(text).strip("* ") == ""
    clock.elapsed = HIDDEN_FOR
    assert redact(text) == "**** old-a **** kod-b **** **** dsn-old ****"


def test_an_accounts_new_secret_is_hidden_in_its_lines_at_once() -> None:
    """Though a line of it was logged before, with the secrets that it had then."""
    redact = Redactor(ManualClock().monotonic)
    redact.follow({"a": ("old-token",)})
    assert redact.fields({"account": "a", "why": "old-token"})["why"] == "****"
    redact.follow({"a": ("new-token",)})
    assert redact.fields({"account": "a", "why": "old-token new-token"})["why"] == "**** ****"


def test_one_that_comes_back_is_hidden_again() -> None:
    clock = ManualClock()
    redact = Redactor(clock.monotonic)
    redact.follow({"a": ("first",)})
    redact.follow({"a": ("second",)})
    clock.elapsed = 1000
    redact.follow({"a": ("first",)})
    clock.elapsed = 1000 + 2 * HIDDEN_FOR
    redact.follow({"a": ("first",)})
    assert redact("first second") == "**** second"


def test_three_rotations_of_many_accounts_leave_as_much_as_one() -> None:
    """By count: what is held of thirty thousand, and what a line is compared with."""
    clock = ManualClock()
    redact = Redactor(clock.monotonic)
    for rotation in range(4):
        redact.follow({f"a{n}": (f"kod{n}", f"sifre {rotation} {n}/") for n in range(2000)})
        clock.elapsed += HIDDEN_FOR
    redact.follow({f"a{n}": (f"kod{n}", f"sifre 3 {n}/") for n in range(2000)})
    held = len(redact)
    once = Redactor(clock.monotonic)
    once.follow({f"a{n}": (f"kod{n}", f"sifre 3 {n}/") for n in range(2000)})
    assert held == len(once)
    redact.follow({})
    clock.elapsed += HIDDEN_FOR
    redact.follow({})
    assert len(redact) == 0


@pytest.mark.untraced
@pytest.mark.parametrize("account", ["a7", None])
def test_a_line_costs_as_much_with_thirty_thousand_accounts_as_with_ten(
    account: str | None,
) -> None:
    def cost(accounts: int) -> int:
        redact = Redactor()
        redact.follow({f"a{n}": (f"kod{n:06}", f"pass{n:06}") for n in range(accounts)})
        told = {
            "event": "account.closed",
            "reason": "http_500",
            "message": "the panel says: kod000007 " * 4,
        }
        line = told if account is None else {**told, "account": account}
        assert "kod000007" not in str(redact.fields(line)["message"])
        return operations(lambda: redact.fields(line))

    assert cost(30_000) <= 1.2 * cost(10)
