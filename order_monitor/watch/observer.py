"""Whoever wants to know what the engine does: metrics, the page, traces. None of them can hold it up or change anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from order_monitor.core.answer import Answer
from order_monitor.core.order import Order
from order_monitor.core.recording import Result


class Observer:
    """Is told of things after they happened, and by itself does nothing. All durations are seconds."""

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """A question was answered, or failed, after ``seconds``."""

    def wrote(self, count: int, seconds: float) -> None:
        """A batch of ``count`` findings was taken to the database."""

    def settled(self, account: str, result: Result, delay: float) -> None:
        """One finding has its fate, ``delay`` seconds after the time at which its order was due."""

    def scanned(self, seconds: float) -> None:
        """The open orders were read and taken up."""

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Only these accounts are there by now, key and name: what is remembered of any other is of no use."""


class Observers(Observer):
    """Several of them as one."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        """Tell each of ``observers``."""
        self._all = tuple(observers)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Tell each."""
        for one in self._all:
            one.checked(account, order, answer, seconds)

    def wrote(self, count: int, seconds: float) -> None:
        """Tell each."""
        for one in self._all:
            one.wrote(count, seconds)

    def settled(self, account: str, result: Result, delay: float) -> None:
        """Tell each."""
        for one in self._all:
            one.settled(account, result, delay)

    def scanned(self, seconds: float) -> None:
        """Tell each."""
        for one in self._all:
            one.scanned(seconds)

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Tell each."""
        for one in self._all:
            one.remain(accounts)
