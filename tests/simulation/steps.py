"""A process's life counted in steps: each time one of its tasks comes to an await that lets others go on is one.

At a chosen step it dies as by ``kill -9``: at that very await, before anything else of it goes on.
"""

import gc
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any

import order_monitor

HOME = Path(order_monitor.__file__).parent
Place = tuple[str, int]
"""A file of the program, and a line in it."""


class Steps:
    """How many steps a process has made, and after how many more it dies, if ever."""

    def __init__(self, die: Callable[[], None]) -> None:
        """Call ``die`` when the time has come."""
        self._die = die
        self.made = 0
        self.left: int | None = None
        self.on_step: Callable[[Any], None] | None = None

    def one(self, coroutine: Any) -> None:
        """Note a step: ``coroutine`` stands at an await."""
        self.made += 1
        if self.on_step is not None:
            self.on_step(coroutine)
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                self.left = None
                self._die()


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are counted."""

    def __init__(self, inner: Coroutine[Any, Any, Any], steps: Steps) -> None:
        """Go through ``inner``."""
        self._inner = inner
        self._steps = steps

    def send(self, value: Any) -> Any:
        """Go on."""
        awaited = self._inner.send(value)
        self._steps.one(self._inner)
        return awaited

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        awaited = self._inner.throw(*error)
        self._steps.one(self._inner)
        return awaited

    def close(self) -> None:
        """End it."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Be awaited as any other."""
        return self._inner.__await__()


def places(coroutine: Any) -> Iterator[Place]:
    """Yield where a coroutine stands: its own await, and those of the program's functions that it awaits."""
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                path = Path(frame.f_code.co_filename)
                if path.is_relative_to(HOME):
                    yield str(path.relative_to(HOME)), frame.f_lineno
                coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
                break
        else:
            # The wrapper that steps an async generator shows it to the collector alone.
            inside = [found for found in gc.get_referents(coroutine) if hasattr(found, "ag_frame")]
            coroutine = inside[0] if inside else None
