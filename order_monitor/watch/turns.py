"""Going through very many things without standing in the way of everything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

TURN: Final = 500
"""Things gone through before others have their turn: at some microseconds each, a few milliseconds."""

_Thing = TypeVar("_Thing")


async def unhurried(things: Iterable[_Thing]) -> AsyncIterator[_Thing]:
    """Give one thing after the other, and let others have their turn now and then. ``things`` must not change meanwhile."""
    for n, thing in enumerate(things, 1):
        if n % TURN == 0:
            await asyncio.sleep(0)
        yield thing
