"""The calls in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from order_monitor.providers.provider import Provider


class Calls:
    """Keeps a task for each call, and reports when one has ended."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        """Call ``on_end`` after each call."""
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()
        self.closing: set[asyncio.Task[None]] = set()
        """The clients that are being closed, a task for each."""
        self._log = structlog.get_logger("order_monitor.engine")

    def __len__(self) -> int:
        """Return the number of calls in flight."""
        return len(self._tasks)

    def start(self, call: Coroutine[Any, Any, None], name: str) -> None:
        """Start a call."""
        task = asyncio.create_task(call, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def finish(self, seconds: float) -> int:
        """Wait at most ``seconds`` for all calls; cancel the rest and return their number."""
        if not self._tasks:
            return 0
        _, late = await asyncio.wait(set(self._tasks), timeout=seconds)
        for call in late:
            call.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)
        return len(late)

    def retire(self, provider: Provider) -> None:
        """Close a client that is no longer needed, once the calls now in flight have ended."""
        task = asyncio.create_task(self._close(provider), name="close account")
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._tasks.discard(call)
        self._on_end()
        if not call.cancelled() and (error := call.exception()) is not None:
            self._log.error("check.failed", error=type(error).__name__)

    async def _close(self, provider: Provider) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        await provider.aclose()
