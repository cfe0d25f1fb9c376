"""Understood: what an answer means for its account and for its order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import structlog

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Unreachable,
    Waiting,
)
from order_monitor.core.entry import Entry, Stage
from order_monitor.core.recording import Finding
from order_monitor.providers.provider import Reply
from order_monitor.watch.account import Account
from order_monitor.watch.account_health import AccountHealth
from order_monitor.watch.board import Board
from order_monitor.watch.confirmation import Confirmations
from order_monitor.watch.writer import Writer

_FIRST_HOLD: Final = 5.0
_LONGEST_HOLD: Final = 60.0


class Judgement:
    """Moves the account's gate by what concerns the account, and hands on what changes the order."""

    def __init__(self, board: Board, writer: Writer, records_every_check: Callable[[], bool]) -> None:
        """Hand what is to be written to ``writer``; a repeated answer only where every check is recorded."""
        self._board = board
        self._writer = writer
        self._records_every_check = records_every_check
        self._health = AccountHealth(board, writer)
        self.confirmations = Confirmations(board.policy.confirm_cancelled)
        self._log = structlog.get_logger("order_monitor.engine")

    def understand(self, account: Account, entry: Entry, reply: Reply, probe: bool) -> None:  # noqa: FBT001 - inquiry.Understand
        """Take a reply."""
        answer, now = reply.answer, self._board.clock.monotonic()
        if reply.requests > 1:
            account.pace.take(now, reply.requests - 1)
        self._log.debug("order.asked", order_id=entry.id, account=account.name, outcome=answer.outcome)
        if isinstance(answer, (Refused, Garbled)):
            account.sense.not_understood(entry.id, answer.outcome, entry.due, now)
            account.said = answer.message or account.said
            self._not_understood(account, entry, answer, now, probe=probe)
        elif isinstance(answer, (Blocked, Busy, Unreachable)):
            self._board.state.outcomes[answer.outcome] += 1
            retry_after = answer.retry_after if isinstance(answer, Busy) else None
            account.said = "" if isinstance(answer, Unreachable) else answer.message
            is_shut = account.gate.failed(now, answer.why, probe=probe, retry_after=retry_after)
            self._health.failed(account, answer.why, now, is_shut=is_shut)
            self._not_answered(entry, answer)
        else:
            self._health.answered(account, now, probe=probe)
            self._asked(entry, answer)
            self._answered(entry, answer)

    def _asked(self, entry: Entry, answer: Answer) -> None:
        self._board.state.outcomes[answer.outcome] += 1
        entry.note(failures=0)
        entry.checks += 1

    def give_up_unasked(self, accounts: Mapping[str, Account]) -> None:
        """With ``give_up_blind`` the deadline holds even where the account cannot be asked at all."""
        now = self._board.clock.monotonic()
        for entry in list(self._board.queue) if self._board.policy.give_up_blind else []:
            waits = entry.is_waiting and self._board.expires(entry)
            account = accounts.get(entry.account)
            if waits and account is not None and account.is_held(now) and not account.gate.is_open:
                self._submit(entry, Unreachable("account_closed"))

    def _not_understood(
        self, account: Account, entry: Entry, answer: Refused | Garbled, now: float, *, probe: bool
    ) -> None:
        """An odd answer is its order's own, until as many different orders have had one as it takes to shut the gate."""
        reason = account.sense.reason(account.gate.limit)
        if not reason:
            self._health.reached(account, now, probe=probe)
            self._asked(entry, answer)
            self._refused(account, entry, answer)
            return
        is_shut = account.gate.shut(now, reason, probe=probe)
        self._health.failed(account, reason, now, is_shut=is_shut)
        self._not_answered(entry, answer)
        if is_shut:
            self._take_back(account)

    def _take_back(self, account: Account) -> None:
        """Those odd answers were not their orders' attempts: each keeps the slot it was asked for."""
        for order_id, (outcome, due) in account.sense.orders().items():
            other = self._board.queue.get(order_id)
            if other is None or other.memo.failures or other.stage not in (Stage.SCHEDULED, Stage.IDLE):
                continue
            other.checks -= 1
            self._board.state.outcomes[outcome] -= 1
            if other.stage is Stage.SCHEDULED:
                self._not_answered_at(other, due)

    def _not_answered(self, entry: Entry, answer: Answer) -> None:
        """Put the order back behind others, lest one that always fails is every probe's choice."""
        if self._board.gives_up_blind(entry):
            self._submit(entry, answer)
        elif self._board.policy.one_pass:
            self.confirmations.forget(entry)
            self._board.queue.idle(entry)
        else:
            self._not_answered_at(entry, entry.due)

    def _not_answered_at(self, entry: Entry, due: float) -> None:
        failures = entry.memo.failures + 1
        entry.note(failures=failures)
        hold = min(_FIRST_HOLD * 2 ** min(failures - 1, 8), _LONGEST_HOLD)
        self._board.queue.schedule(entry, due, wake=self._board.now() + hold)

    def _refused(self, account: Account, entry: Entry, answer: Refused | Garbled) -> None:
        told = (answer.outcome, answer.code if isinstance(answer, Refused) else answer.why)
        if entry.written != told:
            order_id, said = entry.id, answer.message
            self._log.warning(f"order.{told[0]}", order_id=order_id, account=account.name, code=told[1], said=said)
        is_for_a_person = not entry.awaits_pin and self.confirmations.is_for_a_person(entry, answer)
        if is_for_a_person or self._board.gives_up_blind(entry):
            self._submit(entry, answer)
            return
        entry.written = told
        self._board.again(entry)

    def _answered(self, entry: Entry, answer: Waiting | Completed | Cancelled) -> None:
        """Hand over what changes something; a repeated "still waiting" does not, before its age may end the order."""
        entry.note(unknown=0)
        if entry.awaits_pin:
            self._ended_before(entry, answer)
            return
        if (again := self.confirmations.ask_again_at(entry, answer, self._board.now())) is not None:
            self._board.queue.schedule(entry, again)
            return
        repeated = isinstance(answer, Waiting) and entry.written == answer
        if repeated and not self._board.expires(entry) and not self._records_every_check():
            self._board.again(entry)
        else:
            self._submit(entry, answer)

    def _ended_before(self, entry: Entry, answer: Waiting | Completed | Cancelled) -> None:
        """Of an order that has ended, nothing but its PIN can change."""
        if isinstance(answer, Completed) and answer.pin is not None:
            self._submit(entry, answer)
            return
        if isinstance(answer, Cancelled) and entry.written != answer:
            self._log.warning(
                "order.cancelled_after_end", order_id=entry.id, account=self._board.name_of(entry.account)
            )
        entry.written = answer
        self._board.again(entry)

    def _submit(self, entry: Entry, answer: Answer) -> None:
        board = self._board
        board.queue.writing(entry)
        finding = Finding(entry.order, answer, board.now(), entry.due, entry.checks, entry.account)
        finding.vouched = board.clocks.vouches(board.read_clock())
        finding.seen_utc = board.clock.time()
        self._writer.submit(finding)
