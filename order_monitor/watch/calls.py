"""The calls under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from order_monitor.providers.provider import Provider


class Calls:
    """Keeps a task for each call, and says when one has ended."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        """Tell ``on_end`` of each end."""
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("order_monitor.engine")

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def start(self, call: Coroutine[Any, Any, None], name: str) -> None:
        """Start one."""
        task = asyncio.create_task(call, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def finish(self, seconds: float) -> int:
        """Wait for all, at most ``seconds``; cut the rest and return how many those were."""
        if not self._tasks:
            return 0
        _, late = await asyncio.wait(set(self._tasks), timeout=seconds)
        for call in late:
            call.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)
        return len(late)

    def retire(self, provider: Provider) -> None:
        """Close a client that is no longer needed, once the calls now under way have ended."""
        task = asyncio.create_task(self._close(provider), name="close account")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._tasks.discard(call)
        self._on_end()
        if not call.cancelled() and (error := call.exception()) is not None:
            self._log.error("check.failed", error=type(error).__name__)

    async def _close(self, provider: Provider) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        await provider.aclose()
