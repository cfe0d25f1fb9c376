"""Ends that are held: when those orders are asked about again, and who is told, once an account and not once an order."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from order_monitor.core.answer import Waiting
from order_monitor.core.brake import ASK_EVERY, next_slot
from order_monitor.core.decision import StuckReason
from order_monitor.core.entry import Entry, Stage
from order_monitor.core.gate import Pause
from order_monitor.core.recording import Result
from order_monitor.core.schedule import OnePass
from order_monitor.shop.brake import Held
from order_monitor.shop.pauses import only_ends, pause_of_ends
from order_monitor.watch.board import Board

BY_BRAKE: Final = str(StuckReason.HELD_BY_BRAKE)
BY_PERSON: Final = "ends_paused"


class HeldEnds:
    """Keeps the queue and the log in step with what is held."""

    def __init__(self, board: Board) -> None:
        """Plan on ``board``."""
        self._board = board
        self._told: dict[str, float] = {}
        self._released: set[str] = set()
        self._log = structlog.get_logger("order_monitor.brake")

    def keep(self, entry: Entry | None, result: Result) -> None:
        """Take note of an end that was held: its order is asked about again, and nobody is told of it alone."""
        board, is_brakes = self._board, result.stuck is not None
        board.state.kept[result.finding.order.id] = BY_BRAKE if is_brakes else BY_PERSON
        if is_brakes and result.finding.account not in self._told:
            self._tripped(result.finding.account)
        if entry is None:
            return
        entry.note(stuck=None)
        entry.written = result.finding.answer
        if is_brakes and not board.policy.one_pass:
            board.queue.schedule(entry, board.now() + ASK_EVERY)
        else:
            board.again(entry)

    def look(self, held: Sequence[Held], pauses: Mapping[str, Pause], began: float) -> None:
        """Take over what a look that ``began`` then (monotonic seconds) read."""
        state, counts = self._board.state, Counter(one.account for one in held)
        for account in counts.keys() - self._told.keys():
            self._tripped(account, orders=counts[account])
        for account in [a for a, told_at in self._told.items() if a not in counts and told_at < began]:
            del self._told[account]
            self._log.info("brake.ended", account=self._board.name_of(account))
        state.held = dict(counts)
        self._released &= {one.order_id for one in held}
        for one in held:
            self._plan(one)
        self._pauses(pauses)

    def _tripped(self, account: str, **more: int) -> None:
        self._told[account] = self._board.clock.monotonic()
        name = self._board.name_of(account)
        do = f"see znet, then: order-monitor release {shlex.quote(name)}"
        self._log.error("brake.tripped", account=name, do=do, **more)

    def _plan(self, one: Held) -> None:
        """Ask about a held order every `ASK_EVERY` seconds, whatever its schedule says; about one that is released at once."""
        queue, now = self._board.queue, self._board.now()
        entry = queue.get(one.order_id)
        if entry is None or entry.stage not in (Stage.SCHEDULED, Stage.IDLE):
            return
        if isinstance(entry.written, Waiting):
            # Another process held it after this one had read "waiting": the same answer again withdraws the hold, so it is written.
            entry.written = None
        if self._board.policy.one_pass:
            if entry.stage is Stage.IDLE and not entry.checks and (one.is_released or self._is_due(entry, one, now)):
                self._board.state.eligible += 1
                queue.schedule(entry, now)
        elif one.is_released and one.order_id not in self._released:
            self._released.add(one.order_id)
            queue.schedule(entry, now)
        elif entry.stage is Stage.SCHEDULED and entry.wake > now + ASK_EVERY:
            queue.schedule(entry, now + ASK_EVERY)

    def _is_due(self, entry: Entry, one: Held, now: float) -> bool:
        """Whether one of a held order's times has come since it was asked, or within the time of this pass."""
        plan = self._board.policy.plan
        if not isinstance(plan, OnePass) or plan.every is None:
            return False
        asked_at = now - plan.every if entry.asked_at is None else entry.asked_at
        return next_slot(one.since, now) > asked_at

    def _pauses(self, pauses: Mapping[str, Pause]) -> None:
        """Say whose ends a person holds from now on, and ask again about what is let go."""
        state, now_held = self._board.state, only_ends(pauses)
        for key in now_held.keys() - state.ends_paused.keys():
            pause = now_held[key]
            self._log.warning("ends.paused", account=self._name(key), reason=pause.reason, by=pause.by)
        for key in state.ends_paused.keys() - now_held.keys():
            self._log.info("ends.resumed", account=self._name(key))
        is_over = bool(state.ends_paused.keys() - now_held.keys())
        state.ends_paused = now_held
        if not is_over:
            return
        now = self._board.now()
        for order_id in [i for i, why in state.kept.items() if why == BY_PERSON]:
            entry = self._board.queue.get(order_id)
            if entry is not None and entry.stage is Stage.SCHEDULED and pause_of_ends(pauses, entry.account) is None:
                self._board.queue.schedule(entry, now)

    def _name(self, key: str) -> str:
        return self._board.name_of(key)
