"""How a command ends: its exit code, what is said of an error, and that no hanging thread keeps the process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from order_monitor.core.errors import OrderMonitorError, SettingsError, ShopError, ShopUnavailableError, TableError
from order_monitor.tell.streams import say

_LAST_SECONDS: Final = 3.0


class ExitCode:
    """What the exit codes mean, everywhere."""

    OK = 0
    NOT_DONE = 1
    BAD_SETTINGS = 2
    NO_DATABASE = 3


def run_to_exit(work: Coroutine[Any, Any, int], close_log: Callable[[], None]) -> int:
    """Run ``work`` and return its exit code, or that of the error it ended with.

    A thread that hangs in the system's resolver would keep the process alive after its work: it is not waited for.
    """
    return asyncio.run(_to_exit(work, close_log))


async def _to_exit(work: Coroutine[Any, Any, int], close_log: Callable[[], None]) -> int:
    try:
        code = await work
    except OrderMonitorError as error:
        code = report(error)
    close_log()
    # Before the event loop is closed, which would wait for such a thread too.
    leave_soon(code)
    return code


def leave_soon(code: int) -> None:
    """Make sure that the process is gone a little later, whatever threads are left."""
    last = threading.Timer(_LAST_SECONDS, _exit_now, (code,))
    last.daemon = True
    last.start()


def _exit_now(code: int) -> None:
    os._exit(code)


def report(error: OrderMonitorError) -> int:
    """Say on stderr what is wrong and return the exit code for it."""
    if isinstance(error, TableError):
        say("order-monitor: the shop's database is not as the settings say:")
        for problem in error.problems:
            say(f"  {problem}")
        return ExitCode.NOT_DONE
    if isinstance(error, SettingsError):
        count = len(error.problems)
        say(f"order-monitor: {count} mistake{'s' if count > 1 else ''} in the settings:")
        for problem in error.problems:
            say(f"  {problem}")
        if error.note:
            say(f"order-monitor: {error.note}")
        return ExitCode.BAD_SETTINGS
    if isinstance(error, ShopUnavailableError):
        what = "there is no connection to the database" if error.short_of else "the database cannot be reached"
        say(f"order-monitor: {what}: {error}")
        return ExitCode.NO_DATABASE
    # What is to be pasted keeps its lines.
    refused = "the database refuses: " if isinstance(error, ShopError) else ""
    say(*f"order-monitor: {refused}{error}".split("\n"))
    return ExitCode.NOT_DONE
