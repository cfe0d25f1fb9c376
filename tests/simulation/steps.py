"""Counts a process's steps: one each time one of its tasks reaches an await that yields to others.

At a chosen step it dies like with ``kill -9``: at that await, before any of its tasks continues.
"""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any

import order_monitor

HOME = Path(order_monitor.__file__).parent
Place = tuple[str, int]
"""A file of the program, and a line in it."""


class Steps:
    """The number of steps of a process, and after how many more it dies, if ever."""

    def __init__(self, die: Callable[[], None]) -> None:
        """Call ``die`` at the chosen step."""
        self._die = die
        self.frozen: list[asyncio.Future[None]] | None = None
        """While the process is frozen: what its tasks wait for."""
        self.thawed_at = float("-inf")
        """When it was frozen last, until then, in the loop's time."""
        self.made = 0
        self.left: int | None = None
        self.on_step: Callable[[Any], None] | None = None

    def freeze(self) -> None:
        """Let none of its tasks continue, as SIGSTOP does."""
        if self.frozen is None:
            self.frozen = []

    def thaw(self) -> None:
        """Let them continue."""
        if self.frozen is None:
            return
        self.thawed_at = asyncio.get_running_loop().time()
        waiting, self.frozen = self.frozen, None
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def one(self, coroutine: Any) -> None:
        """Count a step: ``coroutine`` is at an await."""
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
        """Step through ``inner``."""
        self._inner = inner
        self._steps = steps
        self._next: Callable[[], Any] | None = None
        """How it continues when its process is not frozen any more."""

    def send(self, value: Any) -> Any:
        """Resume it."""
        return self._step(lambda: self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        """Resume it with an error."""
        self._next = None
        return self._step(lambda: self._inner.throw(*error))

    def _step(self, step: Callable[[], Any]) -> Any:
        step, self._next = self._next or step, None
        if self._steps.frozen is not None:
            self._next = step
            thawed = asyncio.get_running_loop().create_future()
            self._steps.frozen.append(thawed)
            # What an await yields to the task.
            return thawed.__await__().send(None)
        awaited = step()
        self._steps.one(self._inner)
        return awaited

    def close(self) -> None:
        """Close it."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Be awaitable."""
        return self._inner.__await__()


def places(coroutine: Any) -> Iterator[Place]:
    """Yield a coroutine's position: its own await, and those of the program's functions that it
    awaits.
    """
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                path = Path(frame.f_code.co_filename)
                if path.is_relative_to(HOME):
                    yield str(path.relative_to(HOME)), frame.f_lineno
                coroutine = getattr(
                    coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None
                )
                break
        else:
            # The wrapper that steps an async generator is visible only to the collector.
            inside = [found for found in gc.get_referents(coroutine) if hasattr(found, "ag_frame")]
            coroutine = inside[0] if inside else None
