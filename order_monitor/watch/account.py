"""One account at a provider while the program runs: who is asked, whether, how fast, and how it went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.amount import amount_of
from order_monitor.core.gate import Gate, Pace, Pause
from order_monitor.core.judge import Fault, Judge
from order_monitor.providers.provider import Provider

NOT_HELD: Final = float("-inf")
"""The lease of an account that another process asks."""

SLOW_AFTER: Final = 2.0
"""Seconds that a call may take before its account counts as slow."""


@dataclass(slots=True)
class Account:
    """An account's provider with its own gate. The pace is its login's: accounts that hold the same login share it.

    ``key`` is what it goes by, the integration's id; ``name`` is for showing only, and may change. ``login`` tells which accounts
    hold one dealer login.
    """

    name: str
    provider: Provider
    gate: Gate = field(default_factory=Gate)
    pace: Pace = field(default_factory=lambda: Pace(10.0))
    paused: Pause | None = None
    lease_until: float = math.inf
    """Until when it is this process that asks it (monotonic seconds): for ever, unless several share the accounts."""
    balance: str | None = None
    last_error: str = ""
    fault: Fault = Fault.UNDECIDED
    """Whose fault that was."""
    said: str = ""
    """What the provider said in place of the last answer that was none, fit to be shown."""
    judge: Judge = field(default_factory=Judge)
    answered_at: float | None = None
    """When an answer of it was last understood, epoch seconds."""
    closed_at: float = 0.0
    told_at: float = 0.0
    failures: int = 0
    """How many calls failed since the gate shut, when that was, and when it was last told (monotonic seconds)."""
    calls: dict[object, float] = field(default_factory=dict)
    """The calls under way and when each began, oldest first."""
    key: str = ""
    login: str = ""
    proxy: str = ""
    """The proxy through which it is asked, without that one's login; nothing where there is none."""

    def __post_init__(self) -> None:
        """Let an account without a key of its own go by its name, and be alone with its login."""
        self.key = self.key or self.name
        self.login = self.login or self.key

    def ask_as(self, fresh: Account) -> Provider:
        """Ask through ``fresh``'s client from now on; return the one before, to be closed."""
        old, self.provider, self.proxy = self.provider, fresh.provider, fresh.proxy
        return old

    @property
    def balance_amount(self) -> float | None:
        """The balance as a number, None where it is not known or cannot be read as one."""
        return amount_of(self.balance or "")

    def is_held(self, now: float) -> bool:
        """Whether it is this process that asks it (``now``: monotonic seconds)."""
        return now < self.lease_until

    def is_ours(self, now: float) -> bool:
        """The same, and no person has paused it."""
        return self.paused is None and self.is_held(now)

    def is_well(self, now: float) -> bool:
        """Whether it may be asked, and its answers are understood (``now``: monotonic seconds)."""
        return self.gate.is_open and not self.judge.is_lost(now)

    def is_understood(self, now: float) -> bool:
        """Whether nothing speaks against its answers being understood, reachable or not."""
        return not (self.judge.reason(self.gate.limit) or self.judge.is_lost(now))

    @contextmanager
    def calling(self, now: float) -> Iterator[None]:
        """Count a call that is about no open order, too, for as long as the block lasts."""
        call = object()
        self.calls[call] = now
        try:
            yield
        finally:
            del self.calls[call]

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self.calls)

    def slow_at(self) -> float | None:
        """When this account counts as slow unless its oldest call ends before; None while it has no call."""
        return next(iter(self.calls.values())) + SLOW_AFTER if self.calls else None

    def is_slow(self, now: float) -> bool:
        """Whether it keeps a call waiting for long, or failed last: then it must not take room from those that are well."""
        slow_at = self.slow_at()
        return self.gate.streak > 0 or (slow_at is not None and now >= slow_at)

    def may_start(self, now: float) -> bool:
        """Whether one more call may start at ``now`` (monotonic seconds)."""
        return self.is_ours(now) and self.gate.lets_through(now) and self.pace.ready_at() <= now

    def may_start_at(self) -> float | None:
        """When that will be; None while only a call's end can tell, or a person, or another process."""
        if self.paused is not None or self.lease_until == NOT_HELD:
            return None
        if self.gate.is_open:
            return self.pace.ready_at()
        opens = self.gate.opens_at()
        return None if opens is None else max(opens, self.pace.ready_at())


class LoginAccounts:
    """The accounts that hold one login: processes share logins, not accounts, so that a login is asked by one of them alone."""

    def __init__(self, accounts: list[Account]) -> None:
        """Treat ``accounts`` as one."""
        self.accounts = accounts

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return sum(account.in_flight for account in self.accounts)

    @property
    def names(self) -> list[str]:
        """What they are called."""
        return [account.name for account in self.accounts]

    def is_held(self, now: float) -> bool:
        """Whether this process asks all of them (``now``: monotonic seconds)."""
        return all(account.is_held(now) for account in self.accounts)

    def lease(self, until: float) -> None:
        """Let this process ask them until then (monotonic seconds)."""
        for account in self.accounts:
            account.lease_until = until


def by_login(accounts: Iterable[Account]) -> dict[str, LoginAccounts]:
    """Return accounts by the login they hold."""
    groups: dict[str, list[Account]] = {}
    for account in accounts:
        groups.setdefault(account.login, []).append(account)
    return {login: LoginAccounts(group) for login, group in groups.items()}
