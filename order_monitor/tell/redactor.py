"""Redacts secrets in output: those of the settings everywhere, those of the shop's accounts in text
from outside.

A shop may have tens of thousands of accounts, and a short login name may appear in any line by
chance. So our own words are not searched for the secrets of accounts. Text from outside is: in a
line that names an account for that account's secrets, in any other line for those of all accounts.
The time that takes depends on the length of the text, not on the number of secrets. A replaced
secret stays hidden for `HIDDEN_FOR` seconds, and is then forgotten.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, quote_plus

from order_monitor.core.text import visible

HIDDEN_FOR: Final = 3600.0
"""Seconds for which a replaced secret stays hidden: lines about calls that used it may still
follow.
"""

_SHORTEST_SECRET: Final = 4
_BLOT: Final = "****"
_ESCAPED: Final = frozenset("\\\"'")
_Key = TypeVar("_Key")

OURS: Final = frozenset(
    (
        *("event", "level", "timestamp", "version", "exc_info", "library", "signal", "task"),
        *("order_id", "orders", "tenant_id", "status", "outcome", "kind", "code", "fault"),
        *("verdict", "event_id"),
    )
)
"""The fields of a log line that hold our own words and an order's identifiers.

Every other field may hold text from outside.
"""


def forms_of(secret: str) -> set[str]:
    """Return the ways a secret may be written: plain, URL-encoded, in JSON, in a ``repr`` with
    either quote, or in a combination of two.

    Empty for a secret shorter than four characters, which would redact the log itself.
    """
    if len(secret) < _SHORTEST_SECRET:
        return set()
    if secret.isascii() and secret.isalnum():
        return {secret}
    written = {secret, visible(secret), quote(secret, safe=""), quote_plus(secret), quote(secret)}
    return {form for url in written for once in _escaped(url) for form in _escaped(once)}


def _escaped(text: str) -> set[str]:
    """Return ``text`` as written in JSON and in a ``repr`` with either quote."""
    if text.isprintable() and _ESCAPED.isdisjoint(text):
        return {text}
    return {
        text,
        json.dumps(text, ensure_ascii=False)[1:-1],
        repr("'" + text)[2:-1],
        repr('"' + text)[2:-1],
    }


class _Many:
    """Any number of secrets, each with a reference count, found in a text in one pass over it."""

    def __init__(self) -> None:
        self._forms: Counter[str] = Counter()
        self._heads: Counter[str] = Counter()
        self._lengths: Counter[int] = Counter()

    def add(self, secret: str) -> None:
        """Start to search for a secret."""
        for form in forms_of(secret):
            self._forms[form] += 1
            self._heads[form[:_SHORTEST_SECRET]] += 1
            self._lengths[len(form)] += 1

    def remove(self, secret: str) -> None:
        """Stop searching for it once it was removed as often as it was added."""
        for form in forms_of(secret):
            _count_down(self._forms, form)
            _count_down(self._heads, form[:_SHORTEST_SECRET])
            _count_down(self._lengths, len(form))

    def __len__(self) -> int:
        return len(self._forms)

    def blot(self, text: str) -> str:
        """Return ``text`` with all of them redacted, and overlapping ones completely."""
        heads, lengths = self._heads, sorted(self._lengths, reverse=True)
        kept: list[str] = []
        done = hidden_until = 0
        for at in range(len(text) - _SHORTEST_SECRET + 1):
            if text[at : at + _SHORTEST_SECRET] not in heads:
                continue
            length = next((n for n in lengths if text[at : at + n] in self._forms), 0)
            if not length or at + length <= hidden_until:
                continue
            if at >= hidden_until:
                kept += [text[done:at], _BLOT]
            done = hidden_until = at + length
        return "".join(kept) + text[done:] if done else text


def _count_down(counter: Counter[_Key], key: _Key) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


class Redactor:
    """Replaces known secrets with asterisks."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start without secrets; ``monotonic`` (seconds) determines when one is forgotten."""
        self._monotonic = monotonic
        self._everywhere: dict[str, float] = {}
        self._forms: list[str] = []
        self._of: dict[str, dict[str, float]] = {}
        self._many = _Many()
        self._own: dict[str, _Many] = {}
        self._ending: deque[tuple[float, str | None, str]] = deque()

    def learn(self, secrets: Iterable[str]) -> None:
        """Hide these secrets in every line, whatever its source."""
        self._everywhere.update(dict.fromkeys(secrets, math.inf))
        self._spell()

    def retire(self, secrets: Iterable[str]) -> None:
        """Hide these known secrets for only `HIDDEN_FOR` more seconds."""
        until = self._monotonic() + HIDDEN_FOR
        for secret in set(secrets) & self._everywhere.keys():
            self._everywhere[secret] = until
            self._ending.append((until, None, secret))

    def follow(self, accounts: Mapping[str, Iterable[str]]) -> None:
        """Hide the secrets of these accounts, by account name, in text from outside.

        Secrets of removed accounts stay hidden for `HIDDEN_FOR` seconds.
        """
        now = self._monotonic()
        self._forget(now)
        self._own = {}
        until = now + HIDDEN_FOR
        for name in self._of.keys() - accounts.keys():
            self._fade(name, (), until)
        for name, secrets in accounts.items():
            current = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
            known = self._of.get(name)
            if known is not None:
                self._fade(name, current, until)
            elif current:
                known = self._of[name] = {}
            for secret in current:
                assert known is not None
                if secret not in known:
                    self._many.add(secret)
                known[secret] = math.inf

    def _fade(self, name: str, current: Iterable[str], until: float) -> None:
        """Let the secrets that an account no longer has expire at ``until``."""
        known = self._of[name]
        for secret in known.keys() - set(current):
            if known[secret] == math.inf:
                known[secret] = until
                self._ending.append((until, name, secret))

    def _forget(self, now: float) -> None:
        """Forget secrets whose time is over, unless they are in use again."""
        is_changed = False
        while self._ending and self._ending[0][0] <= now:
            until, name, secret = self._ending.popleft()
            known = self._everywhere if name is None else self._of.get(name, {})
            if known.get(secret) != until:
                continue
            del known[secret]
            if name is None:
                is_changed = True
                continue
            self._many.remove(secret)
            if not known:
                del self._of[name]
        if is_changed:
            self._spell()

    def _spell(self) -> None:
        self._forms = sorted(
            {f for s in self._everywhere for f in forms_of(s)}, key=len, reverse=True
        )

    def __len__(self) -> int:
        """Return the number of known forms of secrets."""
        return len(self._forms) + len(self._many)

    def __call__(self, text: str) -> str:
        """Return ``text``, which may come from anywhere, without any secret."""
        return self._many.blot(self.line(text))

    def line(self, text: str) -> str:
        """Return a finished line, whose fields are already redacted, without the secrets that are
        hidden everywhere.
        """
        if self._ending:
            self._forget(self._monotonic())
        for form in self._forms:
            text = text.replace(form, _BLOT)
        return text

    def _own_of(self, account: str) -> _Many:
        """Return the secrets of one account, cached until the next `follow`: an account that is
        logged once is likely to be logged again.
        """
        found = self._own.get(account)
        if found is None:
            found = _Many()
            for secret in list(self._of.get(account, ())):
                found.add(secret)
            self._own[account] = found
        return found

    def fields(self, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return the fields of a line, with the secrets of accounts redacted in text from
        outside.
        """
        if not self._of:
            return event
        account = event.get("account")
        is_named = isinstance(account, str) and account in self._of
        among = self._own_of(str(account)) if is_named else self._many
        return {
            key: value if key in OURS else _each(value, among.blot) for key, value in event.items()
        }


def _each(value: object, blot: Callable[[str], str]) -> object:
    """Return a value with every text in it redacted; objects are replaced by their redacted
    ``repr``.
    """
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return blot(value)
    if isinstance(value, Mapping):
        return {blot(str(key)): _each(one, blot) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_each(one, blot) for one in value]
    return blot(repr(value))
