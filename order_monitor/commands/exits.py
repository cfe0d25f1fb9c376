"""How a command ends: its exit code, the error messages, and an exit that no hanging thread can
block.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any, Final

from order_monitor.core.errors import (
    ObservedError,
    OrderMonitorError,
    SettingsError,
    ShopError,
    ShopUnavailableError,
    TableError,
)
from order_monitor.settings.loading import placed
from order_monitor.tell.streams import say

_LAST_SECONDS: Final = 3.0


class ExitCode:
    """The exit codes of all commands."""

    OK = 0
    NOT_DONE = 1
    BAD_SETTINGS = 2
    NO_DATABASE = 3


class NotDoneError(OrderMonitorError):
    """A command does not do what was asked: ``lines`` say why, ``code`` is its exit code."""

    def __init__(self, *lines: str, code: int = ExitCode.NOT_DONE) -> None:
        """Keep the lines, as they are printed."""
        self.lines = lines
        self.code = code
        super().__init__("; ".join(lines))


def run_to_exit(work: Coroutine[Any, Any, int], close_log: Callable[[], None]) -> int:
    """Run ``work`` and return its exit code, or that of the error it raised.

    A thread that hangs in the system's resolver would keep the process alive after the work: the
    process does not wait for it.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_to_exit(work, close_log))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's event loop where the extra ``fast`` is installed; None for
    Python's own.
    """
    try:
        uvloop = import_module("uvloop")
    except ImportError:
        return None
    found: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return found


async def _to_exit(work: Coroutine[Any, Any, int], close_log: Callable[[], None]) -> int:
    try:
        code = await work
    except OrderMonitorError as error:
        code = report(error)
    close_log()
    # Before the event loop is closed, because that would wait for such a thread too.
    leave_soon(code)
    return code


def leave_soon(code: int) -> None:
    """Make sure that the process exits within seconds, even with threads left."""
    last = threading.Timer(_LAST_SECONDS, os._exit, (code,))
    last.daemon = True
    last.start()


def report(error: OrderMonitorError) -> int:
    """Print the error on stderr and return its exit code."""
    if isinstance(error, NotDoneError):
        say(*error.lines)
        return error.code
    if isinstance(error, SettingsError):
        is_table, count = isinstance(error, TableError), len(error.problems)
        mistakes = f"{count} mistake{'s' if count > 1 else ''} in the settings"
        said = "the shop's database is not as the settings say" if is_table else mistakes
        say(f"order-monitor: {said}:", *(f"  {placed(problem)}" for problem in error.problems))
        if error.note:
            say(f"order-monitor: {error.note}")
        return ExitCode.NOT_DONE if is_table else ExitCode.BAD_SETTINGS
    if isinstance(error, ShopUnavailableError):
        away = "the database cannot be reached"
        what = "there is no connection to the database" if error.short_of else away
        say(f"order-monitor: {what}: {error}")
        return ExitCode.NO_DATABASE
    # A text to copy and paste keeps its line breaks.
    is_refused = isinstance(error, ShopError) and not isinstance(error, ObservedError)
    refused = "the database refuses: " if is_refused else ""
    say(*f"order-monitor: {refused}{error}".split("\n"))
    return ExitCode.NOT_DONE
