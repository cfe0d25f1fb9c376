"""Whether a second answer "cancelled" confirms a first one, and if not, how long it has to wait.
No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from order_monitor.core.check_result import CheckResult

_LATER: Final = 1.0
"""Seconds by which an answer may seem older than the first one, since processes estimate the
database's time.
"""

_ROUNDING: Final = 0.001
"""Seconds that are no wait: a column of times is exact to a microsecond only."""

_LEAP: Final = 5.0
"""Seconds by which the database's clock may go faster than the process's own before it counts as
set ahead.
"""


class Unconfirmed(NamedTuple):
    """An order whose cancellation waits ``since`` then (epoch seconds), by the account and the
    reference that were asked.
    """

    order_id: str
    since: float
    account: str
    reference: str

    def is_about(self, account: str, reference: str) -> bool:
        """Whether it was read of this account, by this reference."""
        return (self.account, self.reference) == (account, reference.strip())


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Whether a cancellation is believed: if ``again_at`` is None; otherwise it has to be asked for
    again then. ``since`` is set if the wait begins with it (both epoch seconds).
    """

    again_at: float | None = None
    since: float | None = None


def confirmation(
    first: Unconfirmed | None, finding: CheckResult, confirm: float, resent_at: float | None
) -> Confirmation:
    """Judge a cancellation by the ``first`` one that is stored, which must stand for ``confirm``
    seconds.

    ``resent_at`` is when the order was sent again under the same reference (epoch seconds): what
    was answered before says nothing about it.
    """
    since = None
    if first is not None and _counts(first, finding, resent_at):
        waited = _waited(first, finding)
    else:
        waited = -finding.since_read()
        since = finding.seen_at - waited
    rest = confirm - waited
    return Confirmation(finding.seen_at + rest if rest > _ROUNDING else None, since)


def _counts(first: Unconfirmed, finding: CheckResult, resent_at: float | None) -> bool:
    """Whether a stored cancellation is the first of two: it is about the same dispatch, and the
    process that has read this one has had no other answer since.
    """
    is_same = first.is_about(finding.account, finding.order.reference)
    is_before = resent_at is not None and first.since < resent_at <= finding.seen_at
    is_from_the_future = first.since > finding.seen_at + _LATER
    was_otherwise = finding.other_at is not None and finding.other_at > first.since
    return is_same and not (is_before or is_from_the_future or was_otherwise)


def _waited(first: Unconfirmed, finding: CheckResult) -> float:
    """Return the seconds between two cancellations, by the database's clock.

    By the process's own, if it knows the time of the first one and the database's was set ahead
    since.
    """
    waited = finding.seen_at - first.since
    own = finding.waited
    return waited if own is None or waited <= own + _LEAP else own
