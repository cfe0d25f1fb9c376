"""When to ask about an order: a pure function of its ``sent_at`` and id, so that it needs no
storage.

The k-th check falls at ``sent_at + first_check + Σ min(base·2^(i-1), cap)`` for i = 1 … k-1, each
delay stretched by a jitter that depends only on (order id, i). After a restart an order therefore
continues where it would be by now.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct
from typing import Final, Protocol

from order_monitor.core.order import Order

_FIRST: Final = 8
_BYTES: Final = 4 * _FIRST
_UNITS: Final = 2**32
_SURELY: Final = 1 - 1e-9
"""No two slots are closer than this share of the cap, whatever the rounding."""

_AHEAD: Final = 5.0
"""Seconds by which the time of a check may seem to lie ahead, since processes estimate the
database's clock.
"""

_eight: Final = Struct(f">{_FIRST}I").unpack


@dataclass(frozen=True, slots=True)
class Schedule:
    """The times at which an order is asked about.

    All durations are seconds; ``jitter`` is a fraction of a delay.
    """

    first_check: float = 60.0
    base: float = 30.0
    cap: float = 600.0
    jitter: float = 0.1
    give_up_after: float = 86_400.0

    _doubling: tuple[tuple[float, float], ...] = field(init=False, repr=False, compare=False)
    """The delays that are still below the cap, and how much each unit of jitter adds to them."""

    def __post_init__(self) -> None:
        """Prepare what all orders' slots share."""
        count = max(0, math.ceil(math.log2(self.cap / self.base)))
        delays = [self.base * 2**i for i in range(count)]
        doubling = tuple((delay, delay * self.jitter / _UNITS) for delay in delays)
        object.__setattr__(self, "_doubling", doubling)

    def slot(self, order_id: str, k: int) -> float:
        """Return how many seconds after ``sent_at`` the k-th check falls (k counts from 1).

        The cost does not depend on k.
        """
        return self._at(order_id, self._early(order_id), k)

    def latest(self, order_id: str, age: float) -> float | None:
        """Return the last slot at or before ``age``, in seconds after ``sent_at``.

        None before the first one.
        """
        k, regular = self._until(order_id, self._early(order_id), age)
        if age >= self.give_up_after and (not k or regular < self.give_up_after):
            return self.give_up_after
        return regular if k else None

    def following(self, order_id: str, age: float) -> float:
        """Return the first slot after ``age``, in seconds after ``sent_at``.

        ``give_up_after`` is always a slot.
        """
        early = self._early(order_id)
        k, _ = self._until(order_id, early, age)
        regular = self._at(order_id, early, k + 1)
        return min(regular, self.give_up_after) if age < self.give_up_after else regular

    def _early(self, order_id: str) -> list[float]:
        """Return an order's slots while the delays double; all later ones have a closed form."""
        total = self.first_check
        early = [total]
        for (delay, stretch), unit in zip(self._doubling, _first_units(order_id), strict=False):
            total += delay + stretch * unit
            early.append(total)
        for i in range(_FIRST, len(self._doubling)):
            delay, stretch = self._doubling[i]
            total += delay + stretch * _UNITS * _unit(order_id, i)
            early.append(total)
        return early

    def _at(self, order_id: str, early: list[float], k: int) -> float:
        """Return when the k-th check falls, in seconds after ``sent_at``.

        The capped delays' jitters come in pairs that add up to one, so their sum has a closed form
        and a years-old order costs no more than a new one.
        """
        capped = k - len(early)
        if capped <= 0:
            return early[k - 1]
        pairs, odd = divmod(capped, 2)
        jitter: float = pairs
        if odd:
            jitter += _unit(order_id, k - 1)
        return early[-1] + self.cap * (capped + self.jitter * jitter)

    def _until(self, order_id: str, early: list[float], age: float) -> tuple[int, float]:
        """Return how many regular slots lie at or before ``age``, and the time of the last one."""
        last, cap = early[-1], self.cap
        if age < last:
            k = bisect_right(early, age)
            return k, early[k - 1]
        # Every pair of capped delays has the same length: start at the pair's first slot.
        pairs = int((age - last) / (cap * (2 + self.jitter)))
        k, at = len(early) + 2 * pairs, last + cap * (2 * pairs + self.jitter * pairs)
        while k > len(early) and at > age:
            k -= 1
            at = self._at(order_id, early, k)
        while age - at > cap * _SURELY and (following := self._at(order_id, early, k + 1)) <= age:
            k, at = k + 1, following
        return k, at


def _first_units(order_id: str) -> tuple[int, ...]:
    """Return an order's first jitters, integers below `_UNITS`, the same on every machine: one
    digest gives all of them.
    """
    return _eight(blake2b(order_id.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest())


def _unit(order_id: str, i: int) -> float:
    """Return the i-th jitter of an order, between 0 and 1."""
    digest = blake2b(f"{order_id}/{i}".encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest) / _UNITS


class Plan(Protocol):
    """Which orders this run asks about, and when: how the daemon and one pass differ."""

    def first(self, order: Order, now: float) -> float | None:
        """Return when an order just found is due (epoch seconds), None if not in this run."""

    def again(self, order: Order, now: float) -> float | None:
        """Return when an order just asked about is due next (epoch seconds), None if not in this
        run.
        """


def _sent(order: Order) -> float:
    """Return ``sent_at``; an order that was not skipped always has one."""
    assert order.sent_at is not None
    return order.sent_at


@dataclass(frozen=True, slots=True)
class Continuous:
    """The daemon's plan: every slot for as long as the order is open."""

    schedule: Schedule

    def first(self, order: Order, now: float) -> float | None:
        """Return the last slot if it was missed while no process ran, so that it is due at once;
        otherwise the next one. ``last_sync_at`` shows whether it was missed.
        """
        sent = _sent(order)
        latest = self.schedule.latest(order.id, now - sent)
        if latest is None or (
            order.last_sync_at is not None and order.last_sync_at >= sent + latest
        ):
            return self.again(order, now)
        return sent + latest

    def again(self, order: Order, now: float) -> float | None:
        """Return the next slot after now."""
        sent = _sent(order)
        return sent + self.schedule.following(order.id, now - sent)


@dataclass(frozen=True, slots=True)
class OnePass:
    """The plan of ``--once``: each order older than ``first_check`` exactly once.

    With ``every`` (seconds), only orders whose schedule had a slot since they were last asked
    about, or within ``every`` if that is not known. So cron makes no more calls than the daemon.
    """

    schedule: Schedule
    every: float | None = None

    def first(self, order: Order, now: float) -> float | None:
        """Return the latest slot if it belongs to this pass, None otherwise."""
        sent = _sent(order)
        latest = self.schedule.latest(order.id, now - sent)
        if latest is None:
            return None
        since = self.since(order.last_sync_at, now)
        return sent + latest if since is None or sent + latest > since else None

    def since(self, asked_at: float | None, now: float) -> float | None:
        """Return from when on a time belongs to this pass, for an order asked about at
        ``asked_at``; None if each order is asked once, whatever its time.

        A time later than now was noted before the database's clock went back, and is not known.
        """
        if self.every is None:
            return None
        is_known = asked_at is not None and asked_at <= now + _AHEAD
        return asked_at if is_known else now - self.every

    def again(self, order: Order, now: float) -> float | None:
        """Return None: one pass asks once."""
        return None


@dataclass(frozen=True, slots=True)
class Now:
    """The plan for a person who does not want to wait: each order at once, whatever its schedule
    says, and only once.
    """

    def first(self, order: Order, now: float) -> float | None:
        """Return ``now``."""
        return now

    def again(self, order: Order, now: float) -> float | None:
        """Return None."""
        return None
