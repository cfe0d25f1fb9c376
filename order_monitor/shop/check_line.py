"""One line of what was looked at, as `check` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One thing looked at. ``do`` says what to do about it, where there is something."""

    level: Literal["ok", "warning", "error"]
    subject: str
    text: str
    do: str = ""
