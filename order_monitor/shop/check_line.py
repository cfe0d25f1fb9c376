"""One line of what was looked at, as `check` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One thing looked at. ``do`` says what to do about it, where there is something."""

    level: Level
    subject: str
    text: str
    do: str = ""
