"""Decide whose fault it is that an answer was not understood: the order's, the account's, the
network's, or ours. Pure.

The evidence is how other orders of the same account were answered in the same minutes:

- Other orders are understood: then an answer that is not is the order's own fault. The provider
  does not know its reference, for example because the shop stored an order whose dispatch was
  refused. Such an answer says nothing about the account, now or later.
- Several orders were not understood, and none in between was: then it is the account's fault. A
  maintenance text, a new version of the panel, a login page. Orders that were understood before
  show this at once. Orders that never were show it only if no other order was understood lately,
  since all of them may be unknown to the provider.

Example, with a limit of 5 and one answer for each order in turn. ``A x y z u v B``: A and B are
understood, A a moment ago, and the five between them never were: it is their own fault.
``A b c d e f``, where b to f were understood an hour ago: it is the account's fault. If B is
understood right after that, it was the fault of b to f after all.
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
"""Minimum number of different orders needed to say anything about their account."""

PATIENCE: Final = 60.0
"""Seconds without an understood answer, while several orders were not understood, after which an
account counts as not understood.
"""

SAME_MINUTES: Final = 120.0
"""Seconds within which an answer about one order is evidence for the answers about others."""

SAME_HOUR: Final = 3600.0
"""The same where a refund depends on it."""

SEARCHED: Final = 10
"""Number of probes that may look for an understood order without growing pauses, as long as each
asks about an order for the first time.
"""

_FAILED_ALONE: Final = 3
"""Number of questions in a row about one order that must fail before the order itself may be at
fault, if others are answered meanwhile.
"""

_REMEMBERED: Final = 1000

_OURS: Final = frozenset({"internal_error", "client_error", "private_address"}) | EXHAUSTED
_EMPTY: Final = "empty_answer"
_BROKEN: Final = "http_5"


class Fault(StrEnum):
    """Whose fault an answer is; a closed set. ``undecided`` if there is no evidence yet."""

    ORDER = "order"
    ACCOUNT = "account"
    NETWORK = "network"
    OURS = "ours"
    UNDECIDED = "undecided"


def is_odd(answer: Answer) -> TypeGuard[Odd]:
    """Whether an answer may concern only its order but does not give the order's state.

    Some panels answer an empty body, or a status of 500 and above, if they do not know a reference.
    """
    if isinstance(answer, Busy):
        return answer.why.startswith(_BROKEN) and answer.retry_after is None
    return isinstance(answer, (Refused, Garbled)) or (
        isinstance(answer, Blocked) and answer.why == _EMPTY
    )


@dataclass(slots=True)
class OddAnswer:
    """An answer that was not understood, given at ``at`` (monotonic seconds) for the slot ``due``
    (epoch seconds).

    ``is_own``: it is its order's own fault as far as we know. ``is_counted``: it counts as a check
    of its order, which was last asked about at ``asked_before`` (epoch seconds) until then.
    """

    answer: Odd
    at: float
    due: float
    is_own: bool = False
    is_counted: bool = False
    asked_before: float | None = None


@dataclass(slots=True)
class Judge:
    """Judges the answers of one account. Times are monotonic seconds."""

    odd: dict[str, OddAnswer] = field(default_factory=dict)
    """The orders whose answers were not understood since the last understood one.

    Orders already known to be odd are not included.
    """
    spare: int = 0
    """How many more orders may be tried at once while the gate is shut. Only in a single pass,
    which does not wait.
    """
    _failed: dict[str, int] = field(default_factory=dict)
    """How many questions in a row about an order failed on the network.

    ``_alone`` holds the orders for which that happened while others were answered.
    """
    _alone: set[str] = field(default_factory=set)
    _understood: dict[str, float] = field(default_factory=dict)
    _since: float = 0.0

    def understood(self, order_id: str, now: float) -> dict[str, OddAnswer]:
        """Record an answer that was understood.

        Return the odd answers that this shows to be their orders' own fault.
        """
        own = {
            i: odd for i, odd in self.odd.items() if i != order_id and now - odd.at <= SAME_MINUTES
        }
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
        """Return the order that was understood last, other than this one, and when."""
        others = [(at, other) for other, at in self._understood.items() if other != order_id]
        return (found[1], found[0]) if (found := max(others, default=None)) else None

    def are_others_understood(
        self, order_id: str, now: float, within: float = SAME_MINUTES
    ) -> bool:
        """Whether another order of the account was understood ``within`` that many seconds."""
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
        """Return whose fault an answer without an order state is.

        Args:
            order_id: the order it was asked for.
            answer: the answer.
            now: when it came.
            due: the slot it was asked for, epoch seconds.
            limit: how many different orders must not be understood before the account is at fault.
            was_understood: whether the order was understood before.
            is_known_odd: whether its answers were found to be its own fault before, and it has had
                no other answer since.
        """
        assert not isinstance(answer, AboutOrder)
        if isinstance(answer, Unreachable):
            return self._unreachable(order_id, answer)
        self._answered(order_id)
        if not is_odd(answer):
            return (
                Fault.OURS if isinstance(answer, Blocked) and answer.why in _OURS else Fault.ACCOUNT
            )
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
        """Judge a question that failed on the way: the network's fault, unless all others are
        answered.
        """
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

    def counted(self, order_id: str, asked_before: float | None) -> None:
        """Record that the odd answer counts as a check of its order."""
        odd = self.odd.get(order_id)
        if odd is not None and not odd.is_counted:
            odd.is_counted, odd.asked_before = True, asked_before

    def take_back(self) -> dict[str, OddAnswer]:
        """Return the odd answers that were counted as checks or as their orders' own fault, and no
        longer count them so.
        """
        found = {i: replace(odd) for i, odd in self.odd.items()}
        for odd in self.odd.values():
            odd.is_own = odd.is_counted = False
        return {i: odd for i, odd in found.items() if odd.is_own or odd.is_counted}

    def reason(self, limit: int) -> str:
        """Return why the account cannot be asked, if ``limit`` different orders were not
        understood; empty otherwise.
        """
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
        """Whether several orders were answered lately and none was understood."""
        return sum(not odd.is_own for odd in self.odd.values()) >= FEWEST

    def silent_for(self, now: float) -> float:
        """Return for how many seconds orders were asked about and none was understood."""
        return now - self._since if self.odd else 0.0

    def is_lost(self, now: float) -> bool:
        """Whether the doubt has lasted: the account is then unhealthy, however few its orders."""
        return self.is_in_doubt and now - self._since > PATIENCE
