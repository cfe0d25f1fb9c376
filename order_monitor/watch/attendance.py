"""Tells the shop's database that this process is there and how its clocks stand, and learns from it how they stood before."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from order_monitor.core.errors import ShopError
from order_monitor.shop.presence import Presence
from order_monitor.watch.board import Board

EVERY: Final = 10.0
_LAST: Final = 2.0


class Attendance:
    """Goes on whatever the table says: where it cannot be read or written nothing stops, save that ages are not believed before."""

    def __init__(self, board: Board, presence: Presence, boot: str, settings: str | None = None) -> None:
        """Tell of the clocks of ``board``; ``boot`` is this boot's id, ``settings`` a digest of what decides money."""
        self._board = board
        self._presence = presence
        self._boot = boot
        self.settings = settings
        self._problem = ""
        self._log = structlog.get_logger("order_monitor.clocks")

    async def begin(self) -> None:
        """Learn how the clocks stood before."""
        board, began = self._board, self._board.clock.monotonic()
        try:
            memory, now = await self._presence.recall(self._boot)
        except ShopError as error:
            self._fail(error)
            return
        boot = board.read_clock()
        for leap in board.clocks.recall(memory, boot):
            board.clock_log.leapt(leap, boot)
        board.compare(now, board.clock.monotonic() - began)
        self._problem = ""

    async def tell(self) -> None:
        """Tell how they stand; what was before must be known first, or it would be forgotten by this."""
        board = self._board
        if board.clocks.is_recalling:
            await self.begin()
        if board.clocks.is_recalling:
            return
        boot, began = board.read_clock(), board.clock.monotonic()
        try:
            prunes = board.clocks.vouches(boot)
            now = await self._presence.tell(self._boot, board.clocks.state(), self.settings, prunes=prunes)
        except ShopError as error:
            self._fail(error)
            return
        board.compare(now, board.clock.monotonic() - began)
        self._problem = ""

    def _fail(self, error: ShopError) -> None:
        if not self._problem:
            self._log.warning("presence.not_told", why=str(error))
        self._problem = str(error)

    async def run(self) -> None:
        """Learn at first, and tell every few seconds, for ever."""
        while True:
            await self.tell()
            await self._board.clock.sleep(EVERY)

    async def leave(self) -> None:
        """Say that this process works no more, if the database can be told so at once."""
        if self._board.clocks.is_recalling:
            return
        with suppress(ShopError, TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._presence.leave(self._boot, self._board.clocks.state(), self.settings)
