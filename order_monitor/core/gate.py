"""When an account may be asked: its gate after failures (a circuit breaker), its pace (a rate
limiter), and a pause set by a person.

Times are seconds of a monotonic clock, except in `Pause`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 300.0
LONGEST_RETRY_AFTER: Final = 3600.0
"""Upper limit in seconds for the provider's ``Retry-After``: no header may stop the program for a
day.
"""


@dataclass(slots=True)
class Gate:
    """Shuts an account after ``limit`` failures in a row.

    Then it allows one probe at a time, with growing pauses. Only a failed probe makes the pause
    grow: calls that were under way when the gate shut all fail together, and are one outage, not
    twenty.
    """

    limit: int = 5
    streak: int = 0
    reason: str = ""
    probing: bool = False
    _shut: bool = False
    _pauses: int = 0
    _until: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls may be made freely."""
        return not self._shut

    def opens_at(self) -> float | None:
        """Return when the next probe may start; None if the gate is open or a probe is running."""
        return self._until if self._shut and not self.probing else None

    def lets_through(self, now: float) -> bool:
        """Whether one more call may start at ``now``."""
        return self.is_open or (not self.probing and now >= self._until)

    def started(self) -> bool:
        """Record that a call starts.

        Return whether it is a probe; the caller must pass that back with the result.
        """
        if self._shut:
            self.probing = True
        return self._shut

    def succeeded(self, *, probe: bool) -> bool:
        """Record an understood answer; return whether that opened the gate."""
        opened = self._shut
        self.streak = self._pauses = 0
        self._shut = False
        self.reason = ""
        if probe:
            self.probing = False
        return opened

    def failed(
        self,
        now: float,
        reason: str,
        *,
        probe: bool,
        retry_after: float | None = None,
        grows: bool = True,
    ) -> bool:
        """Record a failure of the account; return whether that shut the gate.

        Without ``grows`` the pause keeps its length.
        """
        if probe:
            self.probing = False
        self.streak += 1
        self.reason = reason
        shutting = not self._shut and (self.streak >= self.limit or retry_after is not None)
        if retry_after is not None and self.streak < self.limit:
            # What was under way when the gate shut does not shorten its pause.
            self._until = max(self._until, now) if self._shut and not probe else now
        elif shutting or (probe and self._shut):
            self._pauses += grows or not self._pauses
            self._until = now + self._pause()
        if retry_after is not None:
            self._until = max(self._until, now + min(retry_after, LONGEST_RETRY_AFTER))
        self._shut = self._shut or shutting
        return shutting

    def _pause(self) -> float:
        return min(FIRST_PAUSE * 2.0 ** min(max(0, self._pauses - 1), 16), LONGEST_PAUSE)

    def shut(self, now: float, reason: str, *, probe: bool, grows: bool = True) -> bool:
        """Record that the account's answers make no sense, which needs no streak of failures.

        Return whether that shut the gate.
        """
        self.streak = max(self.streak, self.limit - 1)
        return self.failed(now, reason, probe=probe, grows=grows)

    def learned_nothing(self, now: float, *, probe: bool) -> None:
        """Record an answer that says nothing about the account: the next probe follows after the
        same pause.
        """
        if probe:
            self.probing = False
            self._until = max(self._until, now + self._pause())

    def released(self, *, probe: bool) -> None:
        """Record that a call ended without information about the account."""
        if probe:
            self.probing = False

    def restart(self) -> None:
        """Forget every failure: a person has resumed the account."""
        self.streak = self._pauses = 0
        self._shut = False
        self.reason = ""

    def retry_now(self) -> None:
        """Let one probe through at once: the account's address or password has changed."""
        self._until = 0.0
        self._pauses = 0


@dataclass(slots=True)
class Pace:
    """Spaces calls evenly, at most ``per_second``: no bursts, which providers mistake for an
    attack.
    """

    per_second: float
    slack: float = 0.02
    _next: float = field(default=float("-inf"))

    def ready_at(self) -> float:
        """Return when the next call may start."""
        return self._next

    def spend(self, now: float, calls: int = 1) -> None:
        """Count ``calls`` started at ``now``.

        Catches up after a late timer, by up to ``slack`` seconds.
        """
        self._next = max(self._next, now - self.slack) + calls / self.per_second


@dataclass(frozen=True, slots=True)
class Pause:
    """A person's order not to ask an account.

    Times are epoch seconds; ``until`` is None if it lasts until the account is resumed.
    """

    account: str
    reason: str
    by: str
    since: float
    until: float | None = None
