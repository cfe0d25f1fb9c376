"""The interface for what follows the engine: metrics, the page, traces. They change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from order_monitor.core.answer import Answer
from order_monitor.core.check_result import WriteResult
from order_monitor.core.order import Order


class Observer:
    """Is notified of events after they happened; here, does nothing. Durations are seconds."""

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """A check was answered, or failed, after ``seconds``."""

    def filled(self, account: str, count: int) -> None:
        """A call about ``account``'s due orders included ``count`` others."""

    def ignored(self, account: str, count: int) -> None:
        """An answer had ``count`` entries about orders that were not asked about."""

    def wrote(self, count: int, seconds: float) -> None:
        """A batch of ``count`` results was written to the database."""

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """One result's write was settled, ``delay`` seconds after its order was due."""

    def scanned(self, seconds: float) -> None:
        """The open orders were read and taken in."""

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Only these accounts (key and name) still exist: data about any other can be dropped."""

    def taken_over(self, accounts: Mapping[str, float]) -> None:
        """These accounts (by key) were another process's, which kept up with them until then (epoch
        seconds): what is known of their orders' answers may be out of date, and the tables are not.
        """


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        """Notify each of ``observers``."""
        self._all = list(observers)

    def add(self, observer: Observer) -> None:
        """Notify one more, which needs the engine itself and is built after it."""
        self._all.append(observer)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Notify each."""
        for one in self._all:
            one.checked(account, order, answer, seconds)

    def filled(self, account: str, count: int) -> None:
        """Notify each."""
        for one in self._all:
            one.filled(account, count)

    def ignored(self, account: str, count: int) -> None:
        """Notify each."""
        for one in self._all:
            one.ignored(account, count)

    def wrote(self, count: int, seconds: float) -> None:
        """Notify each."""
        for one in self._all:
            one.wrote(count, seconds)

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """Notify each."""
        for one in self._all:
            one.settled(account, result, delay)

    def scanned(self, seconds: float) -> None:
        """Notify each."""
        for one in self._all:
            one.scanned(seconds)

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Notify each."""
        for one in self._all:
            one.remain(accounts)

    def taken_over(self, accounts: Mapping[str, float]) -> None:
        """Notify each."""
        for one in self._all:
            one.taken_over(accounts)
