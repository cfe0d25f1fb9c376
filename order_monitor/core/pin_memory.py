"""Which order got which PIN lately: a second order of the same account that is answered with it was answered for another.

A cache at the provider, or a proxy that crosses connections, gives order B the answer of order A; the answer itself carries nothing
that tells. Only a keyed hash of each PIN is kept, by a key that lives as long as the process. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from order_monitor.core.bounded import forget_oldest
from order_monitor.core.pin import Pin

REMEMBERED: Final = 100_000
"""How many PINs are remembered; of more, those seen longest ago are forgotten."""


class PinMemory:
    """The PINs given out lately, each with its order."""

    def __init__(self, key: bytes, limit: int = REMEMBERED) -> None:
        """Hash by ``key`` (at most 64 random bytes), and remember ``limit`` PINs."""
        self._key = key
        self._limit = limit
        self._owners: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        """How many PINs are remembered."""
        return len(self._owners)

    def claim(self, account: str, pin: Pin, order_id: str) -> str | None:
        """Note that ``order_id`` gets ``pin``, and return None; or return the other order of ``account`` that has it already."""
        digest = blake2b(
            f"{account}\0{pin.reveal()}".encode("utf-8", "surrogatepass"), key=self._key, digest_size=16
        ).digest()
        owner = self._owners.setdefault(digest, order_id)
        self._owners.move_to_end(digest)
        forget_oldest(self._owners, self._limit)
        return owner if owner != order_id else None
