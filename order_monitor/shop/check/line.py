"""One line of `check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One finding. ``do`` is what to do about it, empty if there is nothing to do."""

    level: Level
    subject: str
    text: str
    do: str = ""
