"""Keep in-memory dicts from growing without limit."""

from __future__ import annotations

from typing import Any


def forget_oldest(kept: dict[Any, Any], most: int) -> None:
    """Remove the oldest entries until at most ``most`` are left."""
    while len(kept) > most:
        del kept[next(iter(kept))]
