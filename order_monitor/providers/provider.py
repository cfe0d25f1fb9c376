"""The seam: all that the rest of the program knows of a provider."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from order_monitor.core.amount import amount_of
from order_monitor.core.answer import Answer


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how many requests it took to get it (a connection that failed is tried once more)."""

    answer: Answer
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left on an account, as the provider writes it."""

    amount: str
    is_json: bool = field(default=False, compare=False)
    """Whether it is written as JSON writes numbers: there a point never stands between thousands."""

    @property
    def number(self) -> float | None:
        """The same as a number, None where it cannot be read as one."""
        is_exact = self.is_json and re.fullmatch(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?", self.amount)
        return float(self.amount) if is_exact else amount_of(self.amount)


@dataclass(frozen=True, slots=True)
class NoBalance:
    """Why there is none: the failure's name, from the same closed set as an answer's, and what was said, fit to be shown."""

    why: str
    said: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """What was said of several orders, by their references, in so many ``requests``.

    ``failure`` concerns all that ``answers`` lacks: a call as a whole failed, and says nothing of any order.
    """

    answers: Mapping[str, Answer]
    requests: int = 1
    failure: Answer | None = None


class Provider(Protocol):
    """An account at a provider, which can be asked how an order stands."""

    async def ask(self, referans: str) -> Reply:
        """Ask once about the order known to the provider as ``referans``.

        Every failure is an answer (`Blocked`, `Busy`, `Unreachable`, `Garbled`); only cancellation is raised.
        """

    async def balance(self) -> Balance | NoBalance:
        """Ask for the account's balance."""

    async def aclose(self) -> None:
        """Give back the connections."""


@runtime_checkable
class AsksMany(Provider, Protocol):
    """A provider that answers about several orders in one call."""

    batch: int
    """How many orders go into one call at the most; 1 for one."""

    async def ask_many(self, references: Sequence[str]) -> Batch:
        """Ask once about several orders. Every failure is an answer; only cancellation is raised."""


def batch_of(provider: Provider) -> int:
    """Return how many orders a provider may be asked about in one call."""
    return max(1, provider.batch) if isinstance(provider, AsksMany) else 1
