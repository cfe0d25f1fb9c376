"""Memories that must not grow without end."""

from __future__ import annotations

from typing import Any


def forget_oldest(kept: dict[Any, Any], most: int) -> None:
    """Let go of what was put in longest ago, until at most ``most`` are left."""
    while len(kept) > most:
        del kept[next(iter(kept))]
