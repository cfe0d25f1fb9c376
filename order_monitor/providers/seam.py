"""The seam: all that the rest of the program knows of a provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from order_monitor.answer import Answer


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how many requests it took to get it (a connection that failed is tried once more)."""

    answer: Answer
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left on an account, as the provider writes it."""

    amount: str


class Provider(Protocol):
    """An account at a provider, which can be asked how an order stands."""

    async def ask(self, referans: str) -> Reply:
        """Ask once about the order known to the provider as ``referans``.

        Every failure is an answer (`Blocked`, `Busy`, `Unreachable`, `Garbled`); only cancellation is raised.
        """

    async def balance(self) -> Balance | str:
        """Ask for the account's balance; a string names the failure, from the same closed set as an answer's."""

    async def aclose(self) -> None:
        """Give back the connections."""
