"""What the comparison knows of a contestant."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.compare.load import Load
from benchmarks.compare.processes import Command

ROOT: Final = Path(__file__).parents[3]
Put = Callable[[Sequence[str], float], Awaitable[None]]
"""Has orders (ids) asked about after so many seconds."""


async def _nothing(dsn: str) -> None:
    """Nothing is installed."""


@asynccontextmanager
async def _unasked(_: Load) -> AsyncIterator[Put]:
    async def put(order_ids: Sequence[str], delay: float) -> None:
        """Nothing: what is open in the table is found."""

    yield put


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do the job."""

    name: str
    how: str
    """In a sentence, for the table's reader."""
    commands: Callable[[Load], Sequence[Command]]
    packages: Sequence[str] = ()
    program: str | None = None
    """A program that must be there beside the packages."""
    install: Callable[[str], Awaitable[None]] = _nothing
    """Puts into a database (its address) what the contestant needs there."""
    producer: Callable[[Load], AbstractAsyncContextManager[Put]] = _unasked
    broker: Callable[[Load], Sequence[Command]] = lambda _: ()
    """What must run before orders can be put."""
    untaken: Callable[[Load], int] = lambda _: 0
    """How many orders that were put still lie with the broker."""
    is_whole: bool = True
    """Whether it does the whole job, database and all; the others are limits."""


def module(name: str, load: Load) -> Command:
    """Return the command that runs a module of ours as a contestant."""
    return python(load, "-m", f"benchmarks.compare.contestants.{name}")


def python(load: Load, *arguments: str) -> Command:
    """Return the command that runs Python with ``arguments``, told of ``load``."""
    return Command("own", (sys.executable, *arguments), {**load.environ(), "PYTHONPATH": str(ROOT)})
