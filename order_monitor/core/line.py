"""Entries in the order of a number, of which only the front is sorted.

A heap of a million tuples costs a hundred bytes an order. Here most entries lie in bins by their number, eight bytes each, and a
bin is sorted when its turn comes. Whoever has left the line, or stands in it anew, is passed over.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from typing import Final, TypeAlias

from order_monitor.core.entry import Entry

WIDTH: Final = 8.0
"""Seconds of a bin: of a million orders that are asked about every ten minutes some thousands are sorted at a time."""

_Place: TypeAlias = tuple[float, int, Entry, int]
"""A number, a ticket that no other place has, an entry, and its turn when it got the place."""


class Line:
    """Some entries, the least number first."""

    def __init__(self, number: Callable[[Entry], float], belongs: Callable[[Entry], bool]) -> None:
        """Sort entries by ``number``, and pass over those of which ``belongs`` says that they have left."""
        self._number = number
        self._belongs = belongs
        self._front: list[_Place] = []
        self._bins: dict[int, list[Entry]] = {}
        self._which: list[int] = []
        self._tickets = count()
        self._binned = 0

    def __len__(self) -> int:
        """How many places there are, those of whoever has left included."""
        return len(self._front) + self._binned

    def add(self, entry: Entry) -> None:
        """Let an entry stand in line by its number of now."""
        which = int(self._number(entry) // WIDTH)
        if (entries := self._bins.get(which)) is None:
            self._bins[which] = [entry]
            heapq.heappush(self._which, which)
        else:
            entries.append(entry)
        self._binned += 1

    def first(self) -> Entry | None:
        """Return who stands first."""
        front = self._front
        while True:
            while front and not self._stands(front[0]):
                heapq.heappop(front)
            if self._which and not (front and front[0][0] < self._which[0] * WIDTH):
                self._open()
            elif not front or (number := self._number(front[0][2])) <= front[0][0]:
                return front[0][2] if front else None
            else:
                # Its number has grown since, or so many turns have gone by that an old place looks like its own.
                heapq.heapreplace(front, (number, *front[0][1:]))

    def soonest(self, most: int, looked_at: int, is_wanted: Callable[[Entry], bool] = lambda _: True) -> list[Entry]:
        """Return the first ones that are wanted, in their order; only so many are looked at: of very many some may be missing."""
        self.first()
        near = dict.fromkeys(islice(chain(self._forward(), self._binwise()), looked_at))
        wanted = (entry for entry in near if self._belongs(entry) and is_wanted(entry))
        return heapq.nsmallest(most, wanted, key=self._number)

    def tidy(self) -> None:
        """Let go of the places of those that have left."""
        kept = dict.fromkeys(filter(self._belongs, chain((place[2] for place in self._front), self._binwise())))
        for places in (self._front, self._bins, self._which):
            places.clear()
        self._binned = 0
        for entry in kept:
            self.add(entry)

    def _forward(self) -> Iterator[Entry]:
        """Yield the front in its order: the least of a heap stands first, and each one's followers at twice its place."""
        front = self._front
        ahead = [(front[0], 0)] if front else []
        while ahead:
            place, index = heapq.heappop(ahead)
            yield place[2]
            for below in range(2 * index + 1, min(2 * index + 3, len(front))):
                heapq.heappush(ahead, (front[below], below))

    def _binwise(self) -> Iterator[Entry]:
        return chain.from_iterable(self._bins[which] for which in sorted(self._which))

    def _open(self) -> None:
        """Sort the first bin into the front."""
        entries = self._bins.pop(heapq.heappop(self._which))
        self._binned -= len(entries)
        number, tickets = self._number, self._tickets
        self._front += [(number(e), next(tickets), e, e.turn) for e in filter(self._belongs, entries)]
        heapq.heapify(self._front)

    def _stands(self, place: _Place) -> bool:
        return place[2].turn == place[3] and self._belongs(place[2])
