"""Iterates over very many items without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

TURN: Final = 500
"""Number of items before other tasks get a turn: at some microseconds each, a few milliseconds."""

_Thing = TypeVar("_Thing")


async def unhurried(things: Iterable[_Thing]) -> AsyncIterator[_Thing]:
    """Yield the things, which must not change meanwhile, and let other tasks run at times."""
    for n, thing in enumerate(things, 1):
        if n % TURN == 0:
            await asyncio.sleep(0)
        yield thing
