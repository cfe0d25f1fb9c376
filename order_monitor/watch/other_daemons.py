"""Notices other daemons at work on the same shop where no sharing is set: started twice by accident, they ask everything twice."""

from __future__ import annotations

from typing import Final

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.errors import ShopError
from order_monitor.shop.presence import Presence
from order_monitor.watch.board import Board

EVERY: Final = 10.0
WITHIN: Final = 35.0
"""Seconds between two looks, and after which a daemon that told nothing more counts as gone."""


class OtherDaemons:
    """Keeps the board's list of daemons beside this one.

    A row alone is no daemon: one that was killed leaves its own, and its successor must not be told of it. So a row counts once it
    was seen to change.
    """

    def __init__(self, board: Board, presence: Presence, clock: Clock) -> None:
        """Look for others by the table of ``presence``."""
        self._board = board
        self._presence = presence
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._living: set[str] = set()
        self._log = structlog.get_logger("order_monitor.life")

    async def step(self) -> None:
        """Look once; what cannot be read is no news."""
        try:
            rows = await self._presence.seen(WITHIN)
        except ShopError:
            return
        moved = {peer.id for peer, at in rows if at > self._seen.get(peer.id, at)}
        self._seen = {peer.id: at for peer, at in rows}
        self._living = (self._living | moved) & self._seen.keys()
        self._tell([f"{peer.host} (pid {peer.pid})" for peer, _ in rows if peer.id in self._living])

    def _tell(self, names: list[str]) -> None:
        before, self._board.state.beside = self._board.state.beside, tuple(names)
        if set(names) - set(before):
            self._log.warning("daemon.beside", others=names, do="stop all but one, or set cluster.enabled for all")
        elif before and not names:
            self._log.info("daemon.alone")

    async def run(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            await self.step()
            await self._clock.sleep(EVERY)
