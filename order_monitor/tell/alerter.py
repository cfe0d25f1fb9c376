"""Tells people what the page calls something to look at, its end, and each day how it went.

A task of its own, which can neither stop nor delay the watching of orders: whatever goes wrong here is logged, once.
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
from order_monitor.shop.told import Row, ToldRow
from order_monitor.tell.attention import CLOCKS, MONITOR, NOT_READY, Cause, urgent_causes_of
from order_monitor.tell.digest import News, Shared, Told, read_shared
from order_monitor.tell.logs import origin
from order_monitor.tell.messages import Messages
from order_monitor.tell.overview import Overview
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.services import Service

LOOK: Final = 5.0
"""Seconds between two looks at what is to be told."""

_MINUTE: Final = 60.0
_LASTS: Final = 4.0
_LASTS_OF: Final = {NOT_READY: 30.0, CLOCKS: 900.0}
"""For how many seconds something must last before it is told: what mends itself in the next moment is no news."""

_OVER_FOR: Final = 120.0
"""For how many seconds it must be gone before its end is told; after a restart what was closed is found open at first."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """When the daily line is due: at ``daily_at`` minutes after midnight by this machine's zone; None for never."""

    daily_at: int | None = None

    def day_due(self, now: float) -> str:
        """Return the day whose line is due at ``now`` (epoch seconds), as ISO writes it; nothing where none is."""
        local = datetime.fromtimestamp(now, UTC).astimezone()
        if self.daily_at is None or local.hour * 60 + local.minute < self.daily_at:
            return ""
        return local.date().isoformat()


@dataclass(slots=True)
class _Errand:
    """What one service, by its place, is to be sent: ``news``, and the line of a ``day``; what arrived, and ``why`` not all."""

    place: int
    news: News | None
    day: str
    why: str = ""
    has_news: bool = False
    has_day: bool = False

    def note(self, told: Told, now: float) -> None:
        """Write down how it went."""
        if self.news is not None and self.has_news:
            told.was_told(self.news, now)
        if self.has_day:
            told.daily = self.day
        if self.why:
            told.failed(now)
        else:
            told.went_through()


class Alerter:
    """Watches what `order_monitor.tell.attention` finds, and tells each service what it was not told yet."""

    def __init__(
        self,
        row: ToldRow,
        services: Sequence[Service],
        messages: Messages,
        clock: Clock,
        me: str,
        calendar: Calendar,
        redactor: Redactor,
    ) -> None:
        """Tell ``services``; ``me`` is this process among those that share ``row``."""
        self._row = row
        self._services = [one for one in services if not one.problem]
        self._messages = messages
        self._clock = clock
        self._me = me
        self._calendar = calendar
        self._redactor = redactor
        self._told = [Told() for _ in self._services]
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
                    "notify.unknown_address", service=one.name, why=one.problem, do="order-monitor notify --test"
                )

    async def run(self, view: Overview) -> None:
        """Tell for ever what ``view`` shows."""
        while True:
            await self._clock.sleep(LOOK)
            await self._guarded(urgent_causes_of(view), view.engine.state.open)

    async def one_pass(self, causes: Sequence[Cause], waiting: int) -> None:
        """Tell what a pass found, whose process ends after it."""
        await self._guarded(causes, waiting, one_pass=True)

    async def _guarded(self, causes: Sequence[Cause], waiting: int, *, one_pass: bool = False) -> None:
        try:
            await self.look(causes, waiting, one_pass=one_pass)
        except Exception as error:  # noqa: BLE001 - a mistake here must end neither daemon nor pass, which find PINs
            where = origin(error)
            if where != self._broken:
                self._log.error("notify.broken", error=where)
            self._broken = where

    async def look(self, causes: Sequence[Cause], waiting: int, *, one_pass: bool = False) -> None:
        """Take in what is to be looked at now, and tell what is due; ``waiting`` orders are open.

        ``one_pass`` is the only look of its process: what it finds, and what it finds gone, is told at once.
        """
        now = self._clock.monotonic()
        if one_pass:
            # Whether the clocks will agree in ten minutes, as after each boot, it cannot see; and it has no loop that ticks on.
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
        """Return those that have lasted long enough."""
        self._since = {cause.topic: self._since.get(cause.topic, now) for cause in causes}
        return [cause for cause in causes if now - self._since[cause.topic] >= _LASTS_OF.get(cause.kind, _LASTS)]

    def _is_worth_a_look(self, own: list[Cause], now: float) -> bool:
        """Whether the shared row is to be read: each minute, when something has changed here, and when something is due."""
        counts = sorted((cause.topic, cause.n) for cause in own)
        if self._synced is None or now - self._synced[0] >= _MINUTE or self._synced[1] != counts:
            self._synced = (now, counts)
            return True
        self._shared.see(self._me, own, self._clock.time())
        return bool(self._errands(one_pass=False))

    async def _claim(self, own: list[Cause], *, one_pass: bool) -> tuple[list[_Errand], bool]:
        """Return what to send, claimed so that no other process sends it too, and whether the database knows of that.

        While the database cannot be asked, which itself is to be told, this process goes by its own memory.
        """
        now = self._clock.time()
        try:
            async with self._row.locked() as row:
                shared = read_shared(row.value)
                shared.see(self._me, own, now)
                for place, told in enumerate(self._of(shared, row)):
                    told.learn(self._told[place])
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

    def _of(self, shared: Shared, row: Row) -> list[Told]:
        """Return what each of our services was told."""
        return [shared.service(row.digest(service.url)) for service in self._services]

    def _errands(self, *, one_pass: bool) -> list[_Errand]:
        """Return what is due, by what is known here."""
        now, causes = self._clock.time(), self._shared.causes()
        over = self._over(causes, one_pass=one_pass)
        today = self._calendar.day_due(now)
        errands = []
        for place, told in enumerate(self._told):
            if told.may_be_tried(self._me, now):
                news, day = told.news(causes, over, now), today if today > told.daily else ""
                if news is not None or day:
                    errands.append(_Errand(place, news, day))
        return errands

    def _over(self, causes: Mapping[str, Cause], *, one_pass: bool) -> set[str]:
        """Return the kinds that have been gone for long enough."""
        now = self._clock.monotonic()
        self._last_on |= dict.fromkeys(causes, now)
        kinds = {kind for told in self._told for kind in told.topics}
        return {kind for kind in kinds if one_pass or now - self._last_on.get(kind, self._began) >= _OVER_FOR}

    async def _run(self, errand: _Errand, waiting: int) -> None:
        """Send what an errand is about; what fails is left for later."""
        service = self._services[errand.place]
        if errand.news is not None:
            errand.why = await service.send(self._messages.of_news(errand.news))
            errand.has_news = not errand.why
        if errand.day and not errand.why:
            try:
                errand.why = await service.send(self._messages.of_day(await self._row.figures(), waiting))
            except (ShopError, SettingsError) as error:
                self._log.debug("notify.alone", why=str(error))
                errand.why = "database"
            errand.has_day = not errand.why
        self._tell_state(errand, service)

    def _tell_state(self, errand: _Errand, service: Service) -> None:
        """One line when a service begins to fail, and one when it is well again."""
        kinds = sorted({cause.topic for cause in (*errand.news.begun, *errand.news.over)}) if errand.news else []
        tries = self._told[errand.place].tries
        if errand.why and not tries:
            self._log.warning("notify.failing", service=service.name, why=errand.why)
        elif tries and not errand.why:
            self._log.info("notify.back", service=service.name)
        if not errand.why:
            self._log.info("notify.sent", service=service.name, kinds=kinds, daily=errand.has_day)

    async def _keep(self, errands: list[_Errand], *, is_shared: bool) -> None:
        """Keep how it went: where the database knows of it, there; else in memory, until it is back."""
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
