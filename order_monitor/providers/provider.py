"""The provider interface: all that the rest of the program knows about a provider."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from order_monitor.core.amount import amount_of
from order_monitor.core.answer import Answer


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how many requests it took (a failed connection is retried once)."""

    answer: Answer
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Balance:
    """The account's balance, as the provider writes it."""

    amount: str
    is_json: bool = field(default=False, compare=False)
    """Whether it is written like a JSON number, in which a point never separates thousands."""

    @property
    def number(self) -> float | None:
        """The amount as a number, None if it cannot be parsed."""
        is_exact = self.is_json and re.fullmatch(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?", self.amount)
        return float(self.amount) if is_exact else amount_of(self.amount)


@dataclass(frozen=True, slots=True)
class NoBalance:
    """Why there is no balance: the failure's name, from the same closed set as an answer's, and the
    provider's text, safe to show.
    """

    why: str
    said: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """The answers about several orders, by reference, and the number of ``requests`` made.

    ``failure`` applies to every order missing from ``answers``: a call failed as a whole and says
    nothing about any order. ``strangers`` is the number of entries about orders not asked about.
    """

    answers: Mapping[str, Answer]
    requests: int = 1
    failure: Answer | None = None
    strangers: int = 0


class Provider(Protocol):
    """An account at a provider that can be asked for the state of an order."""

    async def ask(self, reference: str) -> Reply:
        """Ask once about the order that the provider knows as ``reference``.

        Every failure is an answer (`Blocked`, `Busy`, `Unreachable`, `Garbled`); only cancellation
        is raised.
        """

    async def balance(self) -> Balance | NoBalance:
        """Ask for the account's balance."""

    async def aclose(self) -> None:
        """Close the connections."""


@runtime_checkable
class Reachable(Provider, Protocol):
    """A provider that can be reached, or not, without a login."""

    async def is_reached(self) -> bool:
        """Return whether any response came to a request without a login and without an order."""


@runtime_checkable
class AsksMany(Provider, Protocol):
    """A provider that answers about several orders in one call."""

    batch: int
    """Maximum number of orders in one call; 1 means one at a time."""

    def calls_of(self, references: Sequence[str]) -> int:
        """Return how many calls `ask_many` needs for these."""

    async def ask_many(self, references: Sequence[str]) -> Batch:
        """Ask once about several orders.

        Every failure is an answer; only cancellation is raised.
        """


def batch_of(provider: Provider) -> int:
    """Return how many orders a provider may be asked about in one call."""
    return max(1, provider.batch) if isinstance(provider, AsksMany) else 1
