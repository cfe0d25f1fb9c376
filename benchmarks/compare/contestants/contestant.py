"""How the comparison describes a contestant."""

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
"""Schedules checks of orders (ids) after a number of seconds."""


async def _nothing(dsn: str) -> None:
    """Install nothing."""


@asynccontextmanager
async def _unasked(_: Load) -> AsyncIterator[Put]:
    async def put(order_ids: Sequence[str], delay: float) -> None:
        """Do nothing: the contestant finds open orders in the table."""

    yield put


@dataclass(frozen=True, slots=True)
class Contestant:
    """One contestant."""

    name: str
    how: str
    """One sentence for readers of the table."""
    commands: Callable[[Load], Sequence[Command]]
    packages: Sequence[str] = ()
    program: str | None = None
    """A program that the contestant needs in addition to the packages."""
    install: Callable[[str], Awaitable[None]] = _nothing
    """Installs the contestant's objects in a database (given by its address)."""
    producer: Callable[[Load], AbstractAsyncContextManager[Put]] = _unasked
    broker: Callable[[Load], Sequence[Command]] = lambda _: ()
    """Processes that must run before orders can be put."""
    untaken: Callable[[Load], int] = lambda _: 0
    """How many of the orders put are still at the broker."""
    is_whole: bool = True
    """Whether it does the whole job, including the database; the others are upper limits."""


def module(name: str, load: Load) -> Command:
    """Return the command that runs one of our modules as a contestant."""
    return python(load, "-m", f"benchmarks.compare.contestants.{name}")


def python(load: Load, *arguments: str) -> Command:
    """Return the command that runs Python with ``arguments`` and ``load`` in its environment."""
    return Command("own", (sys.executable, *arguments), {**load.environ(), "PYTHONPATH": str(ROOT)})
