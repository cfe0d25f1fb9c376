"""The tables in force, each account's purse, and the price at which its orders are planned."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from order_monitor.core.timing.memory import ALL, Key, parent
from order_monitor.core.timing.price import PlanTable, Purse, position

PATIENCE = 64
"""Calls of an account after which its price is set anew."""


@dataclass(slots=True)
class AccountPlan:
    """One account: its purse, its packages' tables with their weights in orders, and where on the ladder of prices it is."""

    purse: Purse
    tables: dict[Key, tuple[float, PlanTable]] = field(default_factory=dict)
    position: float = 5.0
    calls: int = 0

    def settle(self) -> None:
        """Set the price anew: over the packages where there are any, else for what the account lends."""
        self.calls = 0
        own = [weighed for key, weighed in self.tables.items() if key[1]]
        self.position = position(own or list(self.tables.values()), self.purse.ratio)


class Book:
    """All accounts' tables."""

    def __init__(self, budget: float | None) -> None:
        """Begin with no table; ``budget`` (calls a second an account) is None for as many calls as backoff would make."""
        self._budget = budget
        self._accounts: dict[str, AccountPlan] = {}

    def account(self, name: str) -> AccountPlan:
        """Return an account, made where there is none."""
        found = self._accounts.get(name)
        if found is None:
            found = self._accounts[name] = AccountPlan(Purse(self._budget))
        return found

    def remain(self, accounts: Container[str], places: Container[Key]) -> None:
        """Forget the accounts that are none of these, and the tables of what is not remembered (in ``places``) any more."""
        self._accounts = {n: plan for n, plan in self._accounts.items() if n in accounts or n == ALL[0]}
        for key in [key for key in self.keys() if key not in places]:
            self.drop(key)

    def put(self, key: Key, orders: float, table: PlanTable) -> None:
        """Let a table stand for a key's orders."""
        account = self.account(key[0])
        account.tables[key] = max(orders, 1.0), table
        account.settle()

    def drop(self, key: Key) -> None:
        """Forget a key's table."""
        self.account(key[0]).tables.pop(key, None)

    def keys(self) -> list[Key]:
        """Return the keys that have a table."""
        return [key for account in self._accounts.values() for key in account.tables]

    def find(self, key: Key) -> PlanTable | None:
        """Return the table for an order: its package's, else what its account lends, else what all lend."""
        level: Key | None = key
        while level is not None:
            account = self._accounts.get(level[0])
            if account is not None and level in account.tables:
                return account.tables[level][1]
            level = parent(level)
        return None

    def own(self, key: Key) -> PlanTable | None:
        """Return a key's own table."""
        account = self._accounts.get(key[0])
        found = None if account is None else account.tables.get(key)
        return None if found is None else found[1]

    def spend(self, name: str, backoff: float, now: float) -> None:
        """Note a call of an account, and how many backoff would have made for the same order meanwhile."""
        account = self.account(name)
        account.purse.spend(backoff, now)
        account.calls += 1
        if account.calls >= PATIENCE and account.tables:
            account.settle()
