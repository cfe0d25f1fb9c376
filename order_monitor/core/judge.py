"""Whose fault is it that an answer was not understood: its order's, its account's, the network's, or ours? Pure.

The evidence is what other orders of the same account were answered in the same minutes:

- The account is understood for others: then an answer that is not is its order's own. The provider does not know its reference, as
  where a shop stores an order whose dispatch was refused. It says nothing of the account, now or later.
- Several orders were not understood, and none between them: then it is the account. A maintenance text, a new version of the panel,
  a login page. Orders that were understood before tell this at once; orders that never were tell it only where nobody else was
  understood lately, since they may be unknown to the provider all of them.

An example, with a limit of 5, and an answer about each of some orders in turn. ``A x y z u v B``: A and B are understood, A a
moment ago, and the five between never were before: they are their own. ``A b c d e f``, where b to f were understood an hour ago:
it is the account. If B is understood right after that, it was theirs all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, TypeGuard

from order_monitor.core.answer import (
    EXHAUSTED,
    ON_THE_WAY,
    AboutOrder,
    Answer,
    Blocked,
    Busy,
    Garbled,
    Odd,
    Refused,
    Unreachable,
)

REFUSED: Final = "refused"
NOT_UNDERSTOOD: Final = "not_understood"

FEWEST: Final = 2
"""How many different orders it takes at the least to say anything of their account."""

PATIENCE: Final = 60.0
"""Seconds without an understood answer, while several orders' answers were not, after which an account counts as not understood."""

SAME_MINUTES: Final = 120.0
"""Seconds within which an answer about one order is evidence for what was answered about another."""

SAME_HOUR: Final = 3600.0
"""Seconds within which it still is where a refund hangs on it."""

SEARCHED: Final = 10
"""So many probes look for an order that is understood, without longer pauses between them, where each asks for the first time."""

_FAILED_ALONE: Final = 3
"""How many questions in a row about one order must fail before that may be the order's own, if others are answered meanwhile."""

_REMEMBERED: Final = 1000

_OURS: Final = frozenset({"internal_error", "client_error", "private_address"}) | EXHAUSTED
_EMPTY: Final = "empty_answer"
_BROKEN: Final = "http_5"


class Fault(StrEnum):
    """Whose fault an answer is; a closed set. ``undecided`` where there is no evidence yet."""

    ORDER = "order"
    ACCOUNT = "account"
    NETWORK = "network"
    OURS = "ours"
    UNDECIDED = "undecided"


def is_odd(answer: Answer) -> TypeGuard[Odd]:
    """Whether an answer may be about its order alone, and says nothing of how that is.

    Some panels answer an empty body, or fail with a status of 500 and more, where they do not know a reference.
    """
    if isinstance(answer, Busy):
        return answer.why.startswith(_BROKEN) and answer.retry_after is None
    return isinstance(answer, (Refused, Garbled)) or (isinstance(answer, Blocked) and answer.why == _EMPTY)


@dataclass(slots=True)
class OddAnswer:
    """An answer that was not understood, given at ``at`` (monotonic seconds) for the slot ``due`` (epoch seconds).

    ``is_own``: it is its order's, for all that is known. ``is_counted``: it counts as its order's attempt.
    """

    answer: Odd
    at: float
    due: float
    is_own: bool = False
    is_counted: bool = False


@dataclass(slots=True)
class Judge:
    """Judges the answers of one account. Times are monotonic seconds."""

    odd: dict[str, OddAnswer] = field(default_factory=dict)
    """The orders whose answers were not understood since the last one that was; those known to be odd are not among them."""
    spare: int = 0
    """How many more orders may be tried at once although the gate is shut: in one pass, which does not wait."""
    _failed: dict[str, int] = field(default_factory=dict)
    """How many questions in a row about an order failed on the way; those in ``_alone`` while others were answered."""
    _alone: set[str] = field(default_factory=set)
    _understood: dict[str, float] = field(default_factory=dict)
    _since: float = 0.0

    def understood(self, order_id: str, now: float) -> dict[str, OddAnswer]:
        """Note an answer that was understood; return those whose odd answers it shows to be their own."""
        own = {i: odd for i, odd in self.odd.items() if i != order_id and now - odd.at <= SAME_MINUTES}
        self.odd.clear()
        self.spare = 0
        self._answered(order_id)
        self._alone.update(i for i, count in self._failed.items() if count >= _FAILED_ALONE)
        self._understood.pop(order_id, None)
        self._understood[order_id] = now
        while len(self._understood) > FEWEST:
            del self._understood[next(iter(self._understood))]
        return own

    def last_of_others(self, order_id: str) -> tuple[str, float] | None:
        """Return the order that was understood last, of all but this one, and when."""
        others = [(at, other) for other, at in self._understood.items() if other != order_id]
        return (found[1], found[0]) if (found := max(others, default=None)) else None

    def are_others_understood(self, order_id: str, now: float, within: float = SAME_MINUTES) -> bool:
        """Whether another order of the account was understood ``within`` so many seconds."""
        last = self.last_of_others(order_id)
        return last is not None and now - last[1] <= within

    def judge(
        self,
        order_id: str,
        answer: Answer,
        now: float,
        *,
        due: float,
        limit: int,
        was_understood: bool = False,
        is_known_odd: bool = False,
    ) -> Fault:
        """Say whose fault an answer is that says nothing of its order.

        Args:
            order_id: whose order it was asked for.
            answer: the answer.
            now: when it came.
            due: the slot it was asked for, epoch seconds.
            limit: how many different orders must not be understood for it to be the account's.
            was_understood: whether the order was understood before.
            is_known_odd: whether its answers were found to be its own before, and were none else since.
        """
        assert not isinstance(answer, AboutOrder)
        if isinstance(answer, Unreachable):
            return self._unreachable(order_id, answer)
        self._answered(order_id)
        if not is_odd(answer):
            return Fault.OURS if isinstance(answer, Blocked) and answer.why in _OURS else Fault.ACCOUNT
        if is_known_odd:
            return Fault.ORDER
        if not self.odd:
            self._since = now
        before = self.odd.get(order_id)
        if before is None or before.answer.outcome != answer.outcome:
            before = self.odd[order_id] = OddAnswer(answer, now, due)
        before.is_own = not was_understood and self.are_others_understood(order_id, now)
        if self.reason(limit):
            return Fault.ACCOUNT
        return Fault.ORDER if before.is_own else Fault.UNDECIDED

    def _unreachable(self, order_id: str, answer: Unreachable) -> Fault:
        """Judge a question that failed on the way: the network's fault, unless all others are answered."""
        if answer.why in _OURS:
            return Fault.OURS
        if answer.why in ON_THE_WAY:
            return Fault.NETWORK
        if order_id in self._alone:
            return Fault.ORDER
        if len(self._failed) >= _REMEMBERED:
            self._failed.clear()
        self._failed[order_id] = self._failed.get(order_id, 0) + 1
        return Fault.NETWORK

    def _answered(self, order_id: str) -> None:
        self._failed.pop(order_id, None)
        self._alone.discard(order_id)

    def counted(self, order_id: str) -> None:
        """Note that the odd answer counts as its order's attempt."""
        if order_id in self.odd:
            self.odd[order_id].is_counted = True

    def take_back(self) -> dict[str, OddAnswer]:
        """Return those that were counted as their orders' attempts, or as their own, and count them so no more."""
        found = {i: replace(odd) for i, odd in self.odd.items()}
        for odd in self.odd.values():
            odd.is_own = odd.is_counted = False
        return {i: odd for i, odd in found.items() if odd.is_own or odd.is_counted}

    def reason(self, limit: int) -> str:
        """Say why the account cannot be asked, where ``limit`` different orders were not understood; else nothing."""
        answers = [odd.answer for odd in self.odd.values() if not odd.is_own]
        if len(answers) < max(FEWEST, limit):
            return ""
        if all(isinstance(answer, Refused) for answer in answers):
            return REFUSED
        whys = {getattr(answer, "why", "") for answer in answers}
        is_failing = all(isinstance(answer, (Blocked, Busy)) for answer in answers)
        return whys.pop() if is_failing and len(whys) == 1 else NOT_UNDERSTOOD

    @property
    def is_in_doubt(self) -> bool:
        """Whether several orders were answered lately, and none understood."""
        return sum(not odd.is_own for odd in self.odd.values()) >= FEWEST

    def silent_for(self, now: float) -> float:
        """Return for how many seconds orders were asked about and none was understood."""
        return now - self._since if self.odd else 0.0

    def is_lost(self, now: float) -> bool:
        """Whether that has lasted: then the account is no longer well, however few its orders are."""
        return self.is_in_doubt and now - self._since > PATIENCE
