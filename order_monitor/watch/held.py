"""Held ends: when their orders are asked again, and one log line per account instead of order."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from order_monitor.core.answer import Waiting
from order_monitor.core.brake import ASK_EVERY, next_slot
from order_monitor.core.check_result import WriteResult
from order_monitor.core.decision import StuckReason
from order_monitor.core.gate import Pause
from order_monitor.core.schedule import OnePass
from order_monitor.core.tracked_order import Stage, TrackedOrder
from order_monitor.shop.accounts.pauses import only_ends, pause_of_ends
from order_monitor.shop.writing.brake import Held
from order_monitor.watch.context import Context

BY_BRAKE: Final = str(StuckReason.HELD_BY_BRAKE)
BY_PERSON: Final = "ends_paused"


class HeldEnds:
    """Keeps the queue and the log in step with what is held."""

    def __init__(self, context: Context) -> None:
        """Plan on ``context``."""
        self._context = context
        self._told: dict[str, float] = {}
        self._released: set[str] = set()
        self._log = structlog.get_logger("order_monitor.brake")

    def keep(self, entry: TrackedOrder | None, result: WriteResult) -> None:
        """Process an end that was held: its order is asked again, without a line of its own."""
        context, is_brakes = self._context, result.stuck is not None
        context.state.kept[result.order_id] = BY_BRAKE if is_brakes else BY_PERSON
        if is_brakes and result.finding.account not in self._told:
            self._tripped(result.finding.account)
        if entry is None:
            return
        entry.note(stuck=None)
        entry.written = result.finding.answer
        if is_brakes and not context.policy.one_pass:
            context.queue.schedule(entry, context.now() + ASK_EVERY)
        else:
            context.again(entry)

    def after_scan(self, held: Sequence[Held], pauses: Mapping[str, Pause], began: float) -> None:
        """Take over what a scan that ``began`` at this time (monotonic seconds) read."""
        state, counts = self._context.state, Counter(one.account for one in held)
        for account in counts.keys() - self._told.keys():
            self._tripped(account, orders=counts[account])
        for account in [
            a for a, told_at in self._told.items() if a not in counts and told_at < began
        ]:
            del self._told[account]
            self._log.info("brake.ended", account=self._context.name_of(account))
        state.held = dict(counts)
        self._released &= {one.order_id for one in held}
        for one in held:
            self._plan(one)
        self._pauses(pauses)

    def _tripped(self, account: str, **more: int) -> None:
        self._told[account] = self._context.clock.monotonic()
        name = self._context.name_of(account)
        do = f"look at the provider's panel, then: order-monitor release {shlex.quote(name)}"
        self._log.error("brake.tripped", account=name, do=do, **more)

    def _plan(self, one: Held) -> None:
        """Ask about a held order every `ASK_EVERY` seconds; about a released one at once."""
        queue, now = self._context.queue, self._context.now()
        entry = queue.get(one.order_id)
        if entry is None or entry.stage not in (Stage.SCHEDULED, Stage.IDLE):
            return
        if isinstance(entry.written, Waiting):
            # Another process held it after this one had read "waiting". A repeated "waiting"
            # withdraws the hold, so it must be written.
            entry.written = None
        if self._context.policy.one_pass:
            if (
                entry.stage is Stage.IDLE
                and not entry.checks
                and (one.is_released or self._is_due(entry, one, now))
            ):
                self._context.state.eligible += 1
                queue.schedule(entry, now)
        elif one.is_released and one.order_id not in self._released:
            self._released.add(one.order_id)
            queue.schedule(entry, now)
        elif entry.stage is Stage.SCHEDULED and entry.wake > now + ASK_EVERY:
            queue.schedule(entry, now + ASK_EVERY)

    def _is_due(self, entry: TrackedOrder, one: Held, now: float) -> bool:
        """Whether a held order's time came since it was asked, or within this pass's period."""
        plan = self._context.policy.plan
        since = plan.since(entry.asked_at, now) if isinstance(plan, OnePass) else None
        return since is not None and next_slot(one.since, now) > since

    def _pauses(self, pauses: Mapping[str, Pause]) -> None:
        """Log whose ends a person holds from now on, and ask again about released orders."""
        state, now_held = self._context.state, only_ends(pauses)
        for key in now_held.keys() - state.ends_paused.keys():
            pause = now_held[key]
            self._log.warning(
                "ends.paused", account=self._context.name_of(key), reason=pause.reason, by=pause.by
            )
        for key in state.ends_paused.keys() - now_held.keys():
            self._log.info("ends.resumed", account=self._context.name_of(key))
        is_over = bool(state.ends_paused.keys() - now_held.keys())
        state.ends_paused = now_held
        if not is_over:
            return
        now = self._context.now()
        for order_id in [i for i, why in state.kept.items() if why == BY_PERSON]:
            entry = self._context.queue.get(order_id)
            if (
                entry is not None
                and entry.stage is Stage.SCHEDULED
                and pause_of_ends(pauses, entry.account) is None
            ):
                self._context.queue.schedule(entry, now)
