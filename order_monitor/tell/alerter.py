"""Sends people a message when the page lists something to look at, when that ends, and once a day a
summary.

Runs as a separate task, which can neither stop nor delay the watching of orders: any failure here
is logged, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.shop.notices import NoticeStore, Row
from order_monitor.tell.attention import CLOCKS, MONITOR, NOT_READY, Cause, urgent_causes_of
from order_monitor.tell.digest import News, SentNotices, Shared, read_shared
from order_monitor.tell.logs import origin
from order_monitor.tell.messages import Messages
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.services import Service
from order_monitor.tell.status_view import StatusView

LOOK: Final = 5.0
"""Seconds between two looks at what to report."""

_MINUTE: Final = 60.0
_LASTS: Final = 4.0
_LASTS_OF: Final = {NOT_READY: 30.0, CLOCKS: 900.0}
"""How many seconds a problem must last before it is reported, so that short glitches send no
message.
"""

_OVER_FOR: Final = 120.0
"""How many seconds a problem must be gone before its end is reported.

After a restart, what was closed counts as open at first.
"""


@dataclass(slots=True)
class _Errand:
    """What one service, identified by its position, should receive: ``news``, and the line of a
    ``day``.

    Records what arrived, and ``why`` not everything did.
    """

    place: int
    news: News | None
    day: str
    why: str = ""
    has_news: bool = False
    has_day: bool = False

    def note(self, told: SentNotices, now: float) -> None:
        if self.news is not None and self.has_news:
            told.was_told(self.news, now)
        if self.has_day:
            told.daily = self.day
        if self.why:
            told.failed(now)
        else:
            told.went_through()


class Alerter:
    """Watches the causes from `order_monitor.tell.attention`, and sends each service those that it
    has not received yet.
    """

    def __init__(
        self,
        row: NoticeStore,
        services: Sequence[Service],
        messages: Messages,
        clock: Clock,
        me: str,
        daily_at: int | None,
        redactor: Redactor,
    ) -> None:
        """Send to ``services``; ``me`` is the name of this process among those that share ``row``.

        The daily line is due ``daily_at`` minutes after midnight in this machine's time zone; None
        for never.
        """
        self._row = row
        self._services = [one for one in services if not one.problem]
        self._messages = messages
        self._clock = clock
        self._me = me
        self._daily_at = daily_at
        self._redactor = redactor
        self._told = [SentNotices() for _ in self._services]
        self._shared = Shared()
        self._since: dict[str, float] = {}
        self._last_on: dict[str, float] = {}
        self._began = clock.monotonic()
        self._synced: tuple[float, list[tuple[str, int]]] | None = None
        self._broken = ""
        self._log = structlog.get_logger("order_monitor.notify")
        for one in services:
            if one.problem:
                self._log.error(
                    "notify.unknown_address",
                    service=one.name,
                    why=one.problem,
                    do="order-monitor notify --test",
                )

    async def run(self, view: StatusView) -> None:
        """Report what ``view`` shows, until cancelled."""
        while True:
            await self._clock.sleep(LOOK)
            await self._guarded(urgent_causes_of(view), view.engine.state.open)

    async def one_pass(self, causes: Sequence[Cause], waiting: int) -> None:
        """Report what a single pass found; its process ends afterwards."""
        await self._guarded(causes, waiting, one_pass=True)

    async def _guarded(
        self, causes: Sequence[Cause], waiting: int, *, one_pass: bool = False
    ) -> None:
        try:
            await self.notify_of(causes, waiting, one_pass=one_pass)
        except Exception as error:  # noqa: BLE001 - a mistake here must end neither daemon nor pass, which find PINs
            where = origin(error)
            if where != self._broken:
                self._log.error("notify.broken", error=where)
            self._broken = where

    async def notify_of(
        self, causes: Sequence[Cause], waiting: int, *, one_pass: bool = False
    ) -> None:
        """Take the current causes, and send what is due; ``waiting`` orders are open.

        ``one_pass`` marks the only look of its process: new causes and ended ones are reported at
        once.
        """
        now = self._clock.monotonic()
        if one_pass:
            # A single pass cannot see whether the clocks will agree in ten minutes, as after each
            # boot, and it has no event loop that must keep ticking.
            causes = [cause for cause in causes if cause.kind != CLOCKS and cause.light != MONITOR]
        own = [replace(cause, why=self._redactor(cause.why)) for cause in causes]
        own = own if one_pass else self._lasting(own, now)
        if not one_pass and not self._is_worth_a_look(own, now):
            return
        errands, is_shared = await self._claim(own, one_pass=one_pass)
        if errands:
            await asyncio.gather(*(self._run(errand, waiting) for errand in errands))
            await self._keep(errands, is_shared=is_shared)

    def _lasting(self, causes: list[Cause], now: float) -> list[Cause]:
        """Return the causes that have lasted long enough."""
        self._since = {cause.topic: self._since.get(cause.topic, now) for cause in causes}
        return [
            cause
            for cause in causes
            if now - self._since[cause.topic] >= _LASTS_OF.get(cause.kind, _LASTS)
        ]

    def _is_worth_a_look(self, own: list[Cause], now: float) -> bool:
        """Whether to read the shared row: once a minute, when something has changed here, and when
        something is due.
        """
        counts = sorted((cause.topic, cause.n) for cause in own)
        if self._synced is None or now - self._synced[0] >= _MINUTE or self._synced[1] != counts:
            self._synced = (now, counts)
            return True
        self._shared.see(self._me, own, self._clock.time())
        return bool(self._errands(one_pass=False))

    async def _claim(self, own: list[Cause], *, one_pass: bool) -> tuple[list[_Errand], bool]:
        """Return what to send, and whether the claim is stored in the database, where it keeps
        other processes from sending the same.

        While the database is unavailable, which must be reported too, this process relies on its
        own memory.
        """
        now = self._clock.time()
        try:
            async with self._row.locked() as row:
                shared = read_shared(row.value)
                shared.see(self._me, own, now)
                for place, told in enumerate(self._of(shared, row)):
                    told.learn(self._told[place])
                    told.lower(shared.causes())
                    self._told[place] = told
                self._shared = shared
                errands = self._errands(one_pass=one_pass)
                for errand in errands:
                    self._told[errand.place].claim(self._me, now)
                row.value = shared.written()
        except (ShopError, SettingsError) as error:
            self._log.debug("notify.alone", why=str(error))
            self._shared.see(self._me, own, now)
            return self._errands(one_pass=one_pass), False
        return errands, True

    def _of(self, shared: Shared, row: Row) -> list[SentNotices]:
        """Return what each of our services has received."""
        return [shared.service(row.digest(service.url)) for service in self._services]

    def _errands(self, *, one_pass: bool) -> list[_Errand]:
        """Return what is due, as far as this process knows."""
        now, causes = self._clock.time(), self._shared.causes()
        over = self._over(causes, one_pass=one_pass)
        today = self._day_due(now)
        errands = []
        for place, told in enumerate(self._told):
            if told.may_be_tried(self._me, now):
                news = told.news(causes, over, now)
                day = today if today and told.lacks_daily(today) else ""
                if news is not None or day:
                    errands.append(_Errand(place, news, day))
        return errands

    def _day_due(self, now: float) -> str:
        """Return the day whose line is due at ``now`` (epoch seconds), as an ISO date.

        Empty if none is due.
        """
        local = datetime.fromtimestamp(now, UTC).astimezone()
        if self._daily_at is None or local.hour * 60 + local.minute < self._daily_at:
            return ""
        return local.date().isoformat()

    def _over(self, causes: Mapping[str, Cause], *, one_pass: bool) -> set[str]:
        """Return the topics that have been gone for long enough."""
        now = self._clock.monotonic()
        self._last_on |= dict.fromkeys(causes, now)
        kinds = {kind for told in self._told for kind in told.topics}
        return {
            kind
            for kind in kinds
            if one_pass or now - self._last_on.get(kind, self._began) >= _OVER_FOR
        }

    async def _run(self, errand: _Errand, waiting: int) -> None:
        """Send the errand's messages; what fails is left for later."""
        service = self._services[errand.place]
        if errand.news is not None:
            errand.why = await service.send(self._messages.of_news(errand.news))
            errand.has_news = not errand.why
        if errand.day and not errand.why:
            try:
                errand.why = await service.send(
                    self._messages.of_day(await self._row.figures(), waiting)
                )
            except (ShopError, SettingsError) as error:
                self._log.debug("notify.alone", why=str(error))
                errand.why = "database"
            errand.has_day = not errand.why
        self._tell_state(errand, service)

    def _tell_state(self, errand: _Errand, service: Service) -> None:
        """Log one line when a service starts to fail, and one when it works again."""
        causes = (*errand.news.begun, *errand.news.over) if errand.news else ()
        kinds = sorted({cause.topic for cause in causes})
        tries = self._told[errand.place].tries
        if errand.why and not tries:
            self._log.warning("notify.failing", service=service.name, why=errand.why)
        elif tries and not errand.why:
            self._log.info("notify.back", service=service.name)
        if not errand.why:
            self._log.info("notify.sent", service=service.name, kinds=kinds, daily=errand.has_day)

    async def _keep(self, errands: list[_Errand], *, is_shared: bool) -> None:
        """Store the outcome in the database if the claim is there.

        Otherwise keep it in memory until the database is back.
        """
        now = self._clock.time()
        if is_shared:
            try:
                async with self._row.locked() as row:
                    shared = read_shared(row.value)
                    fresh = self._of(shared, row)
                    for errand in errands:
                        errand.note(fresh[errand.place], now)
                    row.value = shared.written()
            except (ShopError, SettingsError) as error:
                self._log.debug("notify.alone", why=str(error))
            else:
                self._told, self._shared = fresh, shared
                return
        for errand in errands:
            errand.note(self._told[errand.place], now)
