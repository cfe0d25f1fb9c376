"""The runtime state of one account at a provider: its client, whether it may be asked, how fast,
and how its calls went.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.amount import amount_of
from order_monitor.core.gate import Gate, Pace, Pause
from order_monitor.core.judge import Fault, Judge
from order_monitor.core.login import ZNET
from order_monitor.providers.provider import Provider

NOT_HELD: Final = float("-inf")
"""The lease of an account that another process asks."""

SLOW_AFTER: Final = 2.0
"""Seconds that a call may take before its account counts as slow."""


@dataclass(slots=True)
class Account:
    """The client of an account, with its own gate.

    The pace belongs to the login: accounts with the same login share it. ``key`` identifies the
    account, by the integration's id; ``name`` is only for display, and may change. ``login``
    identifies the dealer login.
    """

    name: str
    provider: Provider
    gate: Gate = field(default_factory=Gate)
    pace: Pace = field(default_factory=lambda: Pace(10.0))
    paused: Pause | None = None
    lease_until: float = math.inf
    """Until when this process asks the account (monotonic seconds): forever, unless several
    processes share the accounts.
    """
    held_since: float = -math.inf
    """Since when no other process may ask it (monotonic seconds): what this process read of its
    orders before that may have changed.
    """
    balance: str | None = None
    last_error: str = ""
    fault: Fault = Fault.UNDECIDED
    """Whose fault the last error was."""
    said: str = ""
    """The provider's text in the last unusable answer, safe to show."""
    judge: Judge = field(default_factory=Judge)
    answered_at: float | None = None
    """When one of its answers was last understood, in epoch seconds."""
    closed_at: float = 0.0
    """When the gate was closed, in monotonic seconds."""
    told_at: float = 0.0
    """When that was last logged, in monotonic seconds."""
    failures: int = 0
    """How many calls have failed since then."""
    calls: dict[object, float] = field(default_factory=dict)
    """The calls in flight and their start times, oldest first."""
    key: str = ""
    login: str = ""
    kind: str = ZNET
    """The kind of its provider, as named in `order_monitor.providers.registry`: it decides by which
    reference an order can be asked about.
    """
    proxy: str = ""
    """The proxy through which it is asked, without that proxy's login; empty for none."""

    def __post_init__(self) -> None:
        """Use the name as key, and the key as login, if they are not set."""
        self.key = self.key or self.name
        self.login = self.login or self.key

    def ask_as(self, fresh: Account) -> Provider:
        """Use ``fresh``'s client from now on; return the previous one, for closing."""
        old, self.provider = self.provider, fresh.provider
        self.proxy, self.kind = fresh.proxy, fresh.kind
        return old

    @property
    def balance_amount(self) -> float | None:
        """The balance as a number, None if it is unknown or not a number."""
        return amount_of(self.balance or "")

    def is_held(self, now: float) -> bool:
        """Whether this process asks the account (``now``: monotonic seconds)."""
        return now < self.lease_until

    def is_ours(self, now: float) -> bool:
        """The same, and no person has paused it."""
        return self.paused is None and self.is_held(now)

    def is_well(self, now: float) -> bool:
        """Whether it may be asked, and its answers are understood (``now``: monotonic seconds)."""
        return self.gate.is_open and not self.judge.is_lost(now)

    def is_understood(self, now: float) -> bool:
        """Whether no sign says that its answers are not understood; it may be unreachable."""
        return not (self.judge.reason(self.gate.limit) or self.judge.is_lost(now))

    @contextmanager
    def calling(self, now: float) -> Iterator[None]:
        """Count a call that is not about an open order, while the block runs."""
        call = object()
        self.calls[call] = now
        try:
            yield
        finally:
            del self.calls[call]

    @property
    def in_flight(self) -> int:
        """The number of calls in flight."""
        return len(self.calls)

    def slow_at(self) -> float | None:
        """When this account starts to count as slow, unless its oldest call ends before (monotonic
        seconds).

        None without a call.
        """
        return next(iter(self.calls.values())) + SLOW_AFTER if self.calls else None

    def is_slow(self, now: float) -> bool:
        """Whether its oldest call is slow or its last failed: it must not take others' places."""
        slow_at = self.slow_at()
        return self.gate.streak > 0 or (slow_at is not None and now >= slow_at)

    def may_start(self, now: float) -> bool:
        """Whether one more call may start at ``now`` (monotonic seconds)."""
        return self.is_ours(now) and self.gate.lets_through(now) and self.pace.ready_at() <= now

    def may_start_at(self) -> float | None:
        """When one more call may start (monotonic seconds); None if that depends on the end of a
        call, a person, or another process.
        """
        if self.paused is not None or self.lease_until == NOT_HELD:
            return None
        if self.gate.is_open:
            return self.pace.ready_at()
        opens = self.gate.opens_at()
        return None if opens is None else max(opens, self.pace.ready_at())


class LoginAccounts:
    """The accounts that hold one login. Processes share logins rather than accounts, so that each
    login is asked by only one process.
    """

    def __init__(self, accounts: list[Account]) -> None:
        """Treat ``accounts`` as one."""
        self.accounts = accounts

    @property
    def in_flight(self) -> int:
        """The number of calls in flight."""
        return sum(account.in_flight for account in self.accounts)

    @property
    def names(self) -> list[str]:
        """The names of the accounts."""
        return [account.name for account in self.accounts]

    def is_held(self, now: float) -> bool:
        """Whether this process asks all of them (``now``: monotonic seconds)."""
        return all(account.is_held(now) for account in self.accounts)

    def gained(self, at: float) -> None:
        """Record that no other process may ask them from then on (monotonic seconds)."""
        for account in self.accounts:
            account.held_since = at

    def lease(self, until: float) -> None:
        """Let this process ask them until then (monotonic seconds)."""
        for account in self.accounts:
            account.lease_until = until


def by_login(accounts: Iterable[Account]) -> dict[str, LoginAccounts]:
    """Group accounts by the login they hold."""
    groups: dict[str, list[Account]] = {}
    for account in accounts:
        groups.setdefault(account.login, []).append(account)
    return {login: LoginAccounts(group) for login, group in groups.items()}
