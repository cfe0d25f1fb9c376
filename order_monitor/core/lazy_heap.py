"""A priority queue of entries in which only the front is sorted.

A heap of a million tuples costs a hundred bytes per order. Here most entries lie in unsorted bins
by their number, eight bytes each, and a bin is sorted when its turn comes. Entries that have left
the queue, or were added again since, are skipped.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from typing import Final, TypeAlias

from order_monitor.core.tracked_order import TrackedOrder

WIDTH: Final = 8.0
"""Width of a bin in seconds: with a million orders asked about every ten minutes, some thousands
are sorted at a time.
"""

_Place: TypeAlias = tuple[float, int, TrackedOrder, int]
"""A number, a unique ticket, an entry, and the entry's ``turn`` when it was added."""


class LazyHeap:
    """Entries, lowest number first."""

    def __init__(
        self, number: Callable[[TrackedOrder], float], belongs: Callable[[TrackedOrder], bool]
    ) -> None:
        """Sort entries by ``number``; skip those that have left, for which ``belongs`` is false."""
        self._number = number
        self._belongs = belongs
        self._front: list[_Place] = []
        self._bins: dict[int, list[TrackedOrder]] = {}
        self._which: list[int] = []
        self._tickets = count()
        self._binned = 0

    def __len__(self) -> int:
        """Return how many places there are, including those of entries that have left."""
        return len(self._front) + self._binned

    def push(self, entry: TrackedOrder) -> None:
        """Add an entry under its current number."""
        which = int(self._number(entry) // WIDTH)
        try:  # Most often there is one: to ask first takes longer.
            self._bins[which].append(entry)
        except KeyError:
            self._bins[which] = [entry]
            heapq.heappush(self._which, which)
        self._binned += 1

    def first(self) -> TrackedOrder | None:
        """Return the entry with the lowest number, None if empty."""
        front = self._front
        while True:
            while front and not self._stands(front[0]):
                heapq.heappop(front)
            if self._which and not (front and front[0][0] < self._which[0] * WIDTH):
                self._open()
            elif not front or (number := self._number(front[0][2])) <= front[0][0]:
                return front[0][2] if front else None
            else:
                # Its number has grown since, or ``turn`` has wrapped around so that an old place
                # looks valid.
                heapq.heapreplace(front, (number, *front[0][1:]))

    def soonest(
        self, most: int, looked_at: int, is_wanted: Callable[[TrackedOrder], bool] = lambda _: True
    ) -> list[TrackedOrder]:
        """Return the first entries that are wanted, in order.

        Only ``looked_at`` entries are examined: of very many, some may be missing.
        """
        self.first()
        near = dict.fromkeys(islice(chain(self._forward(), self._binwise()), looked_at))
        wanted = (entry for entry in near if self._belongs(entry) and is_wanted(entry))
        return heapq.nsmallest(most, wanted, key=self._number)

    def tidy(self) -> None:
        """Drop the places of entries that have left."""
        kept = dict.fromkeys(
            filter(self._belongs, chain((place[2] for place in self._front), self._binwise()))
        )
        for places in (self._front, self._bins, self._which):
            places.clear()
        self._binned = 0
        for entry in kept:
            self.push(entry)

    def _forward(self) -> Iterator[TrackedOrder]:
        """Yield the front in order: the lowest entry of a heap comes first, and the children of
        index i are at 2i + 1 and 2i + 2.
        """
        front = self._front
        ahead = [(front[0], 0)] if front else []
        while ahead:
            place, index = heapq.heappop(ahead)
            yield place[2]
            for below in range(2 * index + 1, min(2 * index + 3, len(front))):
                heapq.heappush(ahead, (front[below], below))

    def _binwise(self) -> Iterator[TrackedOrder]:
        return chain.from_iterable(self._bins[which] for which in sorted(self._which))

    def _open(self) -> None:
        """Sort the first bin into the front."""
        entries = self._bins.pop(heapq.heappop(self._which))
        self._binned -= len(entries)
        number, tickets = self._number, self._tickets
        self._front += [
            (number(e), next(tickets), e, e.turn) for e in filter(self._belongs, entries)
        ]
        heapq.heapify(self._front)

    def _stands(self, place: _Place) -> bool:
        return place[2].turn == place[3] and self._belongs(place[2])
