"""Chains of tenants: an order that another tenant took ends when its child has ended, in chains of
any length.

This runs next to the scans and is not part of an order's own path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Final

import structlog

from order_monitor.core.answer import Answer
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.clock import Clock
from order_monitor.core.errors import RowRejectedError, SettingsError, ShopError
from order_monitor.shop.writing.chains import ChainTable
from order_monitor.watch.engine import Engine

_AT_A_TIME: Final = 100
"""The number of ends written in one transaction."""

_SHARE: Final = 100.0
"""A pass is made again after so many times the seconds that it takes."""

_LONGEST: Final = 1000
"""The most steps that late PINs move up a chain in one pass."""


class Chains:
    """Propagates ends from children to their parents."""

    def __init__(
        self,
        engine: Engine,
        store: ChainTable,
        clock: Clock,
        interval: float,
        is_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """Run every ``interval`` seconds, while ``is_ours`` says that it is for this process."""
        self._engine = engine
        self._store = store
        self._clock = clock
        self._interval = interval
        self._is_ours = is_ours
        self._stuck: dict[str, str] = {}
        self._log = structlog.get_logger("order_monitor.chains")

    async def run(self) -> None:
        """Run until cancelled."""
        before = 0.0
        while True:
            began = self._clock.monotonic()
            if self._engine.state.scans and self._is_ours():
                await self.attempt()
            took = self._clock.monotonic() - began
            # The quicker of two: one pass that was held up says nothing about what a pass costs.
            await self._clock.sleep(max(self._interval, min(before, took) * _SHARE))
            before = took

    async def attempt(self) -> bool:
        """Make one pass; return whether the database took it. If not, the next one catches up."""
        try:
            await self.step()
        except (ShopError, SettingsError) as error:
            self._log.debug("chains.waiting", why=str(error))
            return False
        return True

    async def step(self) -> int:
        """Make one pass: from the orders whose child has ended up to the first order of each chain.

        Return the number of written ends. While ends are held, nothing is written.

        Raises:
            ShopError: the database failed; ends already written stay.
            SettingsError: the table is not as required.
        """
        if self._engine.context.hold:
            return 0
        found = await self._store.ended()
        written: dict[str, Answer] = {}
        for _, level in groupby(found, key=lambda end: end.level):
            findings = []
            for end in level:
                answer = end.answer or written.get(end.child)
                if answer is not None:
                    findings.append(end.finding(answer, self._engine.now()))
            written |= await self._write(findings)
        met = {end.order.id for end in found}
        count = len(written) + await self._late_pins(met)
        self._let_go(self._stuck.keys() - met)
        return count

    async def _late_pins(self, met: set[str]) -> int:
        """Move late PINs upward, one order of each chain at a time; ``met`` collects their ids."""
        count = 0
        for _ in range(_LONGEST):
            ends = await self._store.late_pins()
            met.update(end.order.id for end in ends)
            found = [e.finding(e.answer, self._engine.now()) for e in ends if e.answer is not None]
            written = await self._write(found)
            if not written:
                break
            count += len(written)
        return count

    async def _write(self, findings: Sequence[CheckResult]) -> dict[str, Answer]:
        """Write some ends; return the results by the orders' ids."""
        written: dict[str, Answer] = {}
        for start in range(0, len(findings), _AT_A_TIME):
            for result in await self._record(findings[start : start + _AT_A_TIME]):
                if result.fate is WriteStatus.WRITTEN:
                    written[result.order_id] = result.finding.answer
                self._tell(result)
        return written

    async def _record(self, findings: Sequence[CheckResult]) -> Iterable[WriteResult]:
        """Write all together or, if one is refused, each alone; the next pass tries again."""
        if not findings or self._engine.context.hold:
            return []
        try:
            return await self._store.record(findings)
        except RowRejectedError as error:
            if len(findings) == 1:
                self._log.debug("chains.waiting", why=str(error))
                return []
        results: list[WriteResult] = []
        for finding in findings:
            results += await self._record([finding])
        return results

    def _tell(self, result: WriteResult) -> None:
        order_id, state = result.order_id, self._engine.state
        if result.fate is not WriteStatus.STUCK:
            self._let_go({order_id})
        if result.fate is WriteStatus.WRITTEN:
            self._engine.writer.results.handle(result)
        elif result.fate is WriteStatus.STUCK:
            reason = str(result.stuck)
            if self._stuck.get(order_id) != reason:
                self._log.error(
                    "order.stuck", order_id=order_id, reason=reason, detail=result.detail
                )
            self._stuck[order_id] = state.stuck[order_id] = reason

    def _let_go(self, ids: set[str]) -> None:
        """Forget orders that are no longer stuck."""
        for order_id in ids & self._stuck.keys():
            del self._stuck[order_id]
            self._engine.state.stuck.pop(order_id, None)
