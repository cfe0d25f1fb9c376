"""How many accounts each of several processes should have: even shares, moved as little as can be.

Every member works this out by itself from the same view of who holds what, and comes to the same shares: nobody is elected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Final

PATIENCE: Final = 3
"""Looks for which an account may be free before anybody takes it, whatever the shares: whom it was meant for may not know it."""


def quota(me: str, held: Mapping[str, int], free: int) -> int:
    """Return how many accounts ``me`` should have, of those ``held`` by each member and those that are ``free``.

    Shares differ by one at most, and add up to all there are. Where they do not come out even, whoever has most already keeps one
    more, so that nothing is moved for nothing; of equals the first by name.
    """
    least, more = divmod(sum(held.values()) + free, len(held))
    ranking = sorted(held, key=lambda member: (-held[member], member))
    return least + (ranking.index(me) < more)


def in_turn_of(me: str, keys: Iterable[str]) -> list[str]:
    """Return ``keys`` in an order of this member's own, so that members who take at once take different ones."""
    return sorted(keys, key=lambda key: blake2b(f"{me}/{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest())


def to_take(me: str, held: Mapping[str, int], free: Mapping[str, int]) -> list[str]:
    """Return which of the ``free`` accounts ``me`` should try to take; ``free`` says for how many looks each has been free."""
    room = max(0, quota(me, held, len(free)) - held[me])
    wanted = in_turn_of(me, free)
    return wanted[:room] + [key for key in wanted[room:] if free[key] >= PATIENCE]


def to_give(me: str, held: Mapping[str, int], free: int, kept: Collection[str]) -> int:
    """Return how many accounts ``me`` should give up; those ``kept`` were given up before, and nobody took them."""
    return max(0, held[me] - len(kept) - quota(me, held, free))
