"""Whether the clocks may be believed where money hangs on an order's age: pure, from readings that it is given.

Both clocks, this machine's UTC and the database's, are held against the seconds since boot, which nobody can set and which go on in
suspend. What is left between them, the offset, stays the same as long as nobody sets either: a change of it is a leap, forward or
back, and for ten minutes after one no order is ended by its age. Slow drift is followed; many small leaps add up to one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LEAP: Final = 5.0
"""Seconds by which an offset may be off without being a leap."""

DRIFT: Final = 0.0005
"""The share of the time between two readings by which an offset may have changed beside that."""

SETTLING: Final = 600.0
"""Seconds after a leap, and after boot, in which no age is believed."""

WIDEST: Final = 3600.0
"""Seconds by which the two clocks may differ: beyond that one of them is wrong, and nobody knows which."""

NOTABLE: Final = 30.0
"""Seconds of a steady difference that a person should know of."""

_LONGEST_DRIFT: Final = 86_400.0


class Face(StrEnum):
    """Which clock; a closed set."""

    MACHINE = "machine"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Leap:
    """A clock went this many seconds forward, or back, by itself."""

    clock: Face
    seconds: float


@dataclass(frozen=True, slots=True)
class ClockMemory:
    """What one process knows of the clocks and a later one of the same boot goes on with.

    ``machine`` and ``database`` are offsets: what the clock showed less the seconds since boot. ``unsteady_until`` and ``at``, when
    that was so, are seconds since boot.
    """

    machine: float | None
    database: float | None
    unsteady_until: float
    at: float | None = None


@dataclass(frozen=True, slots=True)
class _Band:
    """Where an offset was at a time: between two values, since reading a clock over a network takes a while."""

    low: float
    high: float
    at: float

    def grown(self, boot: float) -> _Band:
        """Return where it may be by now if nobody has set the clock."""
        drift = DRIFT * min(max(0.0, boot - self.at), _LONGEST_DRIFT)
        return _Band(self.low - drift, self.high + drift, boot)

    def missed_by(self, other: _Band) -> float:
        """Return how far ``other`` is beyond it, negative for below it, 0 where they meet."""
        return max(0.0, other.low - self.high) - max(0.0, self.low - other.high)

    def met_by(self, other: _Band) -> _Band:
        """Return what the two have in common; where that is nothing, its own end nearest to ``other``."""
        low = min(max(self.low, other.low), self.high)
        return _Band(low, max(low, min(self.high, other.high)), other.at)


class _Watched:
    """One clock. ``held`` follows it no faster than a clock drifts, ``last`` is its newest reading."""

    def __init__(self) -> None:
        self.held: _Band | None = None
        self.last: _Band | None = None
        self.is_read = False
        self.leaps = 0

    def read(self, band: _Band) -> float:
        """Take a reading; return by how many seconds the clock has leapt, 0 where it has not."""
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
        """Take up what was read by another process; return by how many seconds the clock has leapt since."""
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
    """Says whether an order may be ended by its age. All ``boot`` are seconds since this machine's boot, suspend included."""

    def __init__(self, *, is_recalling: bool = False) -> None:
        """Believe nothing before both clocks were read; with ``is_recalling`` not before `recall` either."""
        self._is_recalling = is_recalling
        self._clocks = {face: _Watched() for face in Face}
        self._until = 0.0
        self._cause = ""

    @property
    def is_recalling(self) -> bool:
        """Whether what was seen before this process is still to be told."""
        return self._is_recalling

    @property
    def leaps(self) -> dict[str, int]:
        """How often each clock has leapt."""
        return {str(face): watched.leaps for face, watched in self._clocks.items()}

    @property
    def difference(self) -> float | None:
        """By how many seconds the database's clock is ahead of this machine's; None before both were read."""
        machine, database = self._clocks[Face.MACHINE], self._clocks[Face.DATABASE]
        if not (machine.is_read and database.is_read) or machine.last is None or database.last is None:
            return None
        return machine.last.missed_by(database.last)

    @property
    def differs(self) -> bool:
        """Whether the clocks differ by so much that a person should know."""
        return abs(self.difference or 0.0) > NOTABLE

    def note_machine(self, utc: float, boot: float) -> Leap | None:
        """Take a reading of this machine's clock: epoch seconds."""
        return self._note(Face.MACHINE, utc, boot, 0.0)

    def note_database(self, now: float, boot: float, took: float = 0.0) -> Leap | None:
        """Take a reading of the database's clock, made at some time within the last ``took`` seconds."""
        return self._note(Face.DATABASE, now, boot, took)

    def _note(self, face: Face, now: float, boot: float, took: float) -> Leap | None:
        watched = self._clocks[face]
        if not all(math.isfinite(value) for value in (now, boot, took)):
            watched.is_read = False
            self._settle(boot, f"the {face}'s clock shows no time")
            return None
        return self._leapt(face, watched.read(_Band(now - boot, now - boot + max(0.0, took), boot)), boot)

    def _leapt(self, face: Face, seconds: float, boot: float) -> Leap | None:
        if not seconds:
            return None
        self._settle(boot, f"the {face}'s clock leapt by {seconds:+.0f} s")
        return Leap(face, seconds)

    def _settle(self, boot: float, cause: str) -> None:
        if math.isfinite(boot):
            self._until, self._cause = max(self._until, boot + SETTLING), cause

    def recall(self, memory: ClockMemory | None, boot: float) -> list[Leap]:
        """Go on with what an earlier process of this boot has seen, None where there was none; return the leaps since."""
        self._is_recalling = False
        if memory is None:
            return []
        latest = boot + SETTLING
        until = min(memory.unsteady_until, latest) if math.isfinite(memory.unsteady_until) else latest
        if until > self._until:
            self._until, self._cause = until, "a clock leapt before this process began"
        at = min(memory.at, boot) if memory.at is not None and math.isfinite(memory.at) else boot
        kept = {Face.MACHINE: memory.machine, Face.DATABASE: memory.database}
        leaps = [self._leapt(face, self._clocks[face].remember(offset, at), boot) for face, offset in kept.items()]
        return [leap for leap in leaps if leap is not None]

    def state(self) -> ClockMemory:
        """Return what a later process is to know."""
        machine, database = self._clocks[Face.MACHINE], self._clocks[Face.DATABASE]
        at = machine.held.at if machine.held is not None else None
        return ClockMemory(machine.offset, database.offset, self._until, at)

    def vouches(self, boot: float) -> bool:
        """Whether an order may be ended by its age now."""
        return not self.why(boot)

    def why(self, boot: float) -> str:
        """Say why no order may be ended by its age, in a few words; nothing where it may."""
        if self.is_unknown:
            return self._unknown()
        if not boot >= SETTLING:
            return "this machine has been up for less than ten minutes"
        if not boot >= self._until:
            return f"{self._cause}, less than ten minutes ago"
        difference = self.difference
        if difference is None or not abs(difference) <= WIDEST:
            return f"the database's clock and this machine's differ by {abs(difference or 0.0):.0f} s"
        return ""

    @property
    def is_unknown(self) -> bool:
        """Whether something that must be known has not been read yet."""
        return self._is_recalling or not all(watched.is_read for watched in self._clocks.values())

    def _unknown(self) -> str:
        unread = [f"the {face}'s clock" for face, watched in self._clocks.items() if not watched.is_read]
        return f"{unread[0] if unread else 'what earlier processes saw of the clocks'} has not been read yet"
