"""How many accounts each of several processes should have: even shares with as few moves as
possible.

Every member computes this on its own from the same view of who holds what, with the same result, so
no election is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Final

PATIENCE: Final = 3
"""Number of looks after which any process may take a free account, regardless of shares: the
process it was meant for may not know about it.
"""


def quota(me: str, held: Mapping[str, int], free: int) -> int:
    """Return how many accounts ``me`` should have, given the counts ``held`` by each member and the
    number of ``free`` ones.

    Shares differ by at most one and add up to the total. If they are uneven, the members that have
    most already keep one more, so that nothing moves needlessly; ties are resolved by name.
    """
    least, more = divmod(sum(held.values()) + free, len(held))
    ranking = sorted(held, key=lambda member: (-held[member], member))
    return least + (ranking.index(me) < more)


def in_turn_of(me: str, keys: Iterable[str]) -> list[str]:
    """Return ``keys`` in this member's own order, so that members take different ones."""
    return sorted(
        keys,
        key=lambda key: blake2b(
            f"{me}/{key}".encode("utf-8", "surrogatepass"), digest_size=8
        ).digest(),
    )


def to_take(me: str, held: Mapping[str, int], free: Mapping[str, int]) -> list[str]:
    """Return which ``free`` accounts, each with its free looks, ``me`` should try to take."""
    room = max(0, quota(me, held, len(free)) - held[me])
    wanted = in_turn_of(me, free)
    return wanted[:room] + [key for key in wanted[room:] if free[key] >= PATIENCE]


def to_give(me: str, held: Mapping[str, int], free: int, kept: Collection[str]) -> int:
    """Return how many accounts to give up; no process took those ``kept``."""
    return max(0, held[me] - len(kept) - quota(me, held, free))
