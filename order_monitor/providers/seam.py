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


class Provider(Protocol):
    """An account at a provider, which can be asked how an order stands."""

    async def ask(self, referans: str) -> Reply:
        """Ask once about the order known to the provider as ``referans``.

        Every failure is an answer (`Blocked`, `Busy`, `Unreachable`, `Garbled`); only cancellation is raised.
        """

    async def aclose(self) -> None:
        """Give back the connections."""
