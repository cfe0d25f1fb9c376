"""Whether the clocks can be trusted where an order's age decides about money. Pure: works on
readings that the caller passes.

Both clocks, this machine's UTC clock and the database's, are compared with the seconds since boot,
which cannot be set and which keep counting during suspend. The difference, the offset, stays
constant while neither clock is set. A change of it is a leap, forward or back, and for ten minutes
after a leap no order is ended by its age. Slow drift is tolerated; many small leaps add up to one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LEAP: Final = 5.0
"""Change of an offset, in seconds, that is not yet a leap."""

DRIFT: Final = 0.0005
"""Additional allowed change of an offset, as a share of the time between two readings."""

SETTLING: Final = 600.0
"""Seconds after a leap, and after boot, in which no age is trusted."""

WIDEST: Final = 3600.0
"""Maximum difference between the two clocks in seconds: beyond it one of them is wrong, and we
cannot know which.
"""

NOTABLE: Final = 30.0
"""A steady difference in seconds that a person should know about."""

_LONGEST_DRIFT: Final = 86_400.0


class WhichClock(StrEnum):
    """Which clock; a closed set."""

    MACHINE = "machine"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Leap:
    """A clock jumped forward (positive) or back by this many seconds."""

    clock: WhichClock
    seconds: float


@dataclass(frozen=True, slots=True)
class ClockMemory:
    """What one process knows about the clocks, for a later process of the same boot.

    ``machine`` and ``database`` are offsets: the clock's reading minus the seconds since boot.
    ``unsteady_until`` and ``at``, the time of these values, are seconds since boot.
    """

    machine: float | None
    database: float | None
    unsteady_until: float
    at: float | None = None


@dataclass(frozen=True, slots=True)
class _Band:
    """Range of an offset at one time: reading a clock over a network takes a while, so the exact
    value is unknown.
    """

    low: float
    high: float
    at: float

    def grown(self, boot: float) -> _Band:
        """Return the possible range at ``boot`` if the clock was not set since."""
        drift = DRIFT * min(max(0.0, boot - self.at), _LONGEST_DRIFT)
        return _Band(self.low - drift, self.high + drift, boot)

    def missed_by(self, other: _Band) -> float:
        """Return how far ``other`` lies outside: negative if below, 0 if they overlap."""
        return max(0.0, other.low - self.high) - max(0.0, self.low - other.high)

    def met_by(self, other: _Band) -> _Band:
        """Return the overlap with ``other``.

        If there is none, the end of this range nearest to ``other``.
        """
        low = min(max(self.low, other.low), self.high)
        return _Band(low, max(low, min(self.high, other.high)), other.at)


class _Watched:
    """One clock.

    ``held`` follows the clock no faster than the allowed drift; ``last`` is its latest reading.
    """

    def __init__(self) -> None:
        self.held: _Band | None = None
        self.last: _Band | None = None
        self.is_read = False
        self.leaps = 0

    def read(self, band: _Band) -> float:
        """Take a reading; return by how many seconds the clock has leapt, 0 if it has not."""
        self.is_read = True
        if self.held is None or self.last is None:
            self.held = self.last = band
            return 0.0
        held, last = self.held.grown(band.at), self.last.grown(band.at)
        missed = max(held.missed_by(band), last.missed_by(band), key=abs)
        if abs(missed) <= LEAP:
            self.held, self.last = held.met_by(band), band
            return 0.0
        self.held = self.last = band
        self.leaps += 1
        return missed

    def remember(self, offset: float | None, at: float) -> float:
        """Continue from the reading of another process.

        Return by how many seconds the clock has leapt since.
        """
        if offset is None or not math.isfinite(offset):
            return 0.0
        before, was_read = self.last, self.is_read
        self.held = self.last = _Band(offset, offset, at)
        if before is not None and was_read:
            return self.read(before)
        return 0.0

    @property
    def offset(self) -> float | None:
        return None if self.held is None else (self.held.low + self.held.high) / 2


class ClockWatch:
    """Decides whether an order may be ended by its age.

    Every ``boot`` parameter is seconds since this machine's boot, suspend included.
    """

    def __init__(self, *, is_recalling: bool = False) -> None:
        """Trust nothing before both clocks were read.

        With ``is_recalling``, also not before `recall` was called.
        """
        self._is_recalling = is_recalling
        self._clocks = {face: _Watched() for face in WhichClock}
        self._until = 0.0
        self._cause = ""

    @property
    def is_recalling(self) -> bool:
        """Whether `recall` must still be called with what earlier processes saw."""
        return self._is_recalling

    @property
    def leaps(self) -> dict[str, int]:
        """How often each clock has leapt."""
        return {str(face): watched.leaps for face, watched in self._clocks.items()}

    @property
    def difference(self) -> float | None:
        """By how many seconds the database's clock is ahead of this machine's.

        None before both were read.
        """
        machine, database = self._clocks[WhichClock.MACHINE], self._clocks[WhichClock.DATABASE]
        if (
            not (machine.is_read and database.is_read)
            or machine.last is None
            or database.last is None
        ):
            return None
        return machine.last.missed_by(database.last)

    @property
    def differs(self) -> bool:
        """Whether the clocks differ by so much that a person should know."""
        return abs(self.difference or 0.0) > NOTABLE

    def note_machine(self, utc: float, boot: float) -> Leap | None:
        """Take a reading of this machine's clock: epoch seconds."""
        return self._note(WhichClock.MACHINE, utc, boot, 0.0)

    def note_database(self, now: float, boot: float, took: float = 0.0) -> Leap | None:
        """Take a reading of the database's clock, made at some time within the last ``took``
        seconds.
        """
        return self._note(WhichClock.DATABASE, now, boot, took)

    def _note(self, face: WhichClock, now: float, boot: float, took: float) -> Leap | None:
        watched = self._clocks[face]
        if not all(math.isfinite(value) for value in (now, boot, took)):
            watched.is_read = False
            self._settle(boot, f"the {face}'s clock shows no time")
            return None
        return self._leapt(
            face, watched.read(_Band(now - boot, now - boot + max(0.0, took), boot)), boot
        )

    def _leapt(self, face: WhichClock, seconds: float, boot: float) -> Leap | None:
        if not seconds:
            return None
        self._settle(boot, f"the {face}'s clock leapt by {seconds:+.0f} s")
        return Leap(face, seconds)

    def _settle(self, boot: float, cause: str) -> None:
        if math.isfinite(boot):
            self._until, self._cause = max(self._until, boot + SETTLING), cause

    def recall(self, memory: ClockMemory | None, boot: float) -> list[Leap]:
        """Continue from what an earlier process of this boot saw, None if there was none.

        Return the leaps since.
        """
        self._is_recalling = False
        if memory is None:
            return []
        latest = boot + SETTLING
        until = (
            min(memory.unsteady_until, latest) if math.isfinite(memory.unsteady_until) else latest
        )
        if until > self._until:
            self._until, self._cause = until, "a clock leapt before this process began"
        at = min(memory.at, boot) if memory.at is not None and math.isfinite(memory.at) else boot
        kept = {WhichClock.MACHINE: memory.machine, WhichClock.DATABASE: memory.database}
        leaps = [
            self._leapt(face, self._clocks[face].remember(offset, at), boot)
            for face, offset in kept.items()
        ]
        return [leap for leap in leaps if leap is not None]

    def state(self) -> ClockMemory:
        """Return what a later process needs to know."""
        machine, database = self._clocks[WhichClock.MACHINE], self._clocks[WhichClock.DATABASE]
        at = machine.held.at if machine.held is not None else None
        return ClockMemory(machine.offset, database.offset, self._until, at)

    def vouches(self, boot: float) -> bool:
        """Whether an order may be ended by its age now."""
        return not self.why(boot)

    def why(self, boot: float) -> str:
        """Return in a few words why no order may be ended by its age; empty if it may."""
        if self.is_unknown:
            return self._unknown()
        if not boot >= SETTLING:
            return "this machine has been up for less than ten minutes"
        if not boot >= self._until:
            return f"{self._cause}, less than ten minutes ago"
        difference = self.difference
        if difference is None or not abs(difference) <= WIDEST:
            return (
                f"the database's clock and this machine's differ by {abs(difference or 0.0):.0f} s"
            )
        return ""

    def settles(self, boot: float) -> bool:
        """Whether it is only some minutes until orders may be ended by their age, if nothing more
        happens to a clock.
        """
        difference = self.difference
        return bool(self.why(boot)) and (difference is None or abs(difference) <= WIDEST)

    @property
    def is_unknown(self) -> bool:
        """Whether a required reading is still missing."""
        return self._is_recalling or not all(watched.is_read for watched in self._clocks.values())

    def _unknown(self) -> str:
        unread = [
            f"the {face}'s clock" for face, watched in self._clocks.items() if not watched.is_read
        ]
        return f"{unread[0] if unread else 'what earlier processes saw of the clocks'} has not been read yet"
