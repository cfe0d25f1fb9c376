"""Notices other daemons at work on the same shop that do not share its accounts: they ask
everything twice.

Either nothing is shared, and one was started twice by accident; or this process shares
(`cluster.enabled`), and another does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from order_monitor.cluster.membership import announced, member_name
from order_monitor.core.clock import Clock
from order_monitor.core.errors import ShopError
from order_monitor.shop.presence import Peer, Presence
from order_monitor.watch.context import Context

EVERY: Final = 10.0
WITHIN: Final = 35.0
"""Seconds between two looks, and after which a daemon that told nothing more counts as gone."""


_OUTSIDE_FOR: Final = 3
"""At how many looks in a row a daemon must be no member before it counts as one that does not
share: joining takes a while.
"""

Members = Callable[[], frozenset[str] | None]
"""Who shares the accounts, by their announced names; None while that is not known."""


class OtherDaemons:
    """Keeps the board's list of daemons beside this one.

    A row alone is no daemon: one that was killed leaves its own, and its successor must not be told
    of it. So a row counts once it was seen to change.
    """

    def __init__(
        self, context: Context, presence: Presence, clock: Clock, members: Members | None = None
    ) -> None:
        """Look for others by ``presence``: those that are not among the ``members``, if given."""
        self._context = context
        self._presence = presence
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._living: set[str] = set()
        self._members = members
        self._outside: dict[str, int] = {}
        self._log = structlog.get_logger("order_monitor.life")

    async def step(self) -> None:
        """Look once; what cannot be read is no news."""
        try:
            rows = await self._presence.seen(WITHIN)
        except ShopError:
            return
        moved = {one.id for one in rows if one.seen_at > self._seen.get(one.id, one.seen_at)}
        self._seen = {one.id: one.seen_at for one in rows}
        self._living = (self._living | moved) & self._seen.keys()
        living = [one for one in rows if one.id in self._living]
        if self._members is not None:
            members = self._members()
            if members is None:
                return
            living = self._not_sharing(living, members)
        self._tell([f"{peer.host} (pid {peer.pid})" for peer in living])

    def _not_sharing(self, living: list[Peer], members: frozenset[str]) -> list[Peer]:
        """Return those that have been no members for long enough."""
        outside = [
            peer for peer in living if announced(member_name(peer.host, peer.pid)) not in members
        ]
        self._outside = {peer.id: self._outside.get(peer.id, 0) + 1 for peer in outside}
        return [peer for peer in outside if self._outside[peer.id] >= _OUTSIDE_FOR]

    def _tell(self, names: list[str]) -> None:
        before, self._context.state.beside = self._context.state.beside, tuple(names)
        if set(names) - set(before):
            do = "stop all but one, or set cluster.enabled for all"
            self._log.warning(
                "daemon.beside", others=names, shares=self._members is not None, do=do
            )
        elif before and not names:
            self._log.info("daemon.alone")

    async def run(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            await self.step()
            await self._clock.sleep(EVERY)
