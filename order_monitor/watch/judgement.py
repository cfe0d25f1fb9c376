"""Understood: what an answer means for its account and for its order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from order_monitor.core.answer import (
    EXHAUSTED,
    AboutOrder,
    AccountFailure,
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Odd,
    Refused,
    Unreachable,
    Waiting,
)
from order_monitor.core.decision import StuckReason
from order_monitor.core.entry import Entry, Stage
from order_monitor.core.judge import NOT_UNDERSTOOD, REFUSED, SAME_HOUR, SEARCHED, Fault, is_odd
from order_monitor.core.recording import Finding
from order_monitor.providers.provider import Reply
from order_monitor.watch.account import Account
from order_monitor.watch.account_health import AccountHealth
from order_monitor.watch.board import Board
from order_monitor.watch.confirmation import Confirmations
from order_monitor.watch.writer import Writer

_FIRST_HOLD: Final = 5.0
_LONGEST_HOLD: Final = 60.0

_LASTING: Final = 4
"""So many odd answers in a row are noted of an order, whoever was understood meanwhile."""


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
        _count_requests(account, reply, now)
        self._log.debug("order.asked", order_id=entry.id, account=account.name, outcome=answer.outcome)
        if isinstance(answer, AboutOrder):
            self._understood(account, entry, answer, now, probe=probe)
            return
        fault = account.judge.judge(
            entry.id,
            answer,
            now,
            due=entry.due,
            limit=account.gate.limit,
            was_understood=entry.understood,
            is_known_odd=entry.memo.odd > 0,
        )
        if isinstance(answer, Unreachable):
            account.said = ""
        else:
            account.said = answer.message or (account.said if isinstance(answer, (Refused, Garbled)) else "")
        if is_odd(answer) and fault is Fault.ACCOUNT:
            self._makes_no_sense(account, entry, answer, now, probe=probe)
        elif is_odd(answer):
            self._odd(account, entry, answer, fault, now, probe=probe)
        else:
            assert isinstance(answer, (Blocked, Busy, Unreachable))
            self._failed(account, entry, answer, fault, now, probe=probe)
        if account.judge.odd:
            self._show_unexplained(account)

    def call_failed(self, account: Account, entries: Sequence[Entry], reply: Reply, probe: bool) -> None:  # noqa: FBT001 - inquiry.CallFailed
        """Take the failure of a call about several orders: it is the account's or the network's, and says nothing of any order."""
        answer, now = reply.answer, self._board.clock.monotonic()
        _count_requests(account, reply, now)
        self._board.state.outcomes[answer.outcome] += 1
        why = f"refused_{answer.code}" if isinstance(answer, Refused) else getattr(answer, "why", answer.outcome)
        if why in EXHAUSTED:
            for entry in entries:
                self._ran_out(account, entry, why, now, probe=probe)
            return
        account.said = getattr(answer, "message", "")
        fault = Fault.NETWORK if isinstance(answer, Unreachable) else Fault.ACCOUNT
        is_shut = self._account_failed(account, answer, why, fault, now, probe=probe)
        for entry in entries:
            if self._board.policy.one_pass:
                # Each has its turn again, by itself, for as long as the account may be asked.
                entry.note(failures=entry.memo.failures + 1)
                self._board.queue.schedule(entry, entry.due)
            else:
                self._not_answered(entry, answer)
        if is_shut:
            self._take_back(account)

    def _understood(self, account: Account, entry: Entry, answer: AboutOrder, now: float, *, probe: bool) -> None:
        own = account.judge.understood(entry.id, now)
        self._health.answered(account, now, probe=probe)
        self._asked(account, entry, answer)
        entry.note(odd=0, odd_at=None)
        self._board.note_odd(entry)
        self._answered(entry, answer)
        for order_id, odd in own.items():
            other = self._board.queue.get(order_id)
            if other is not None and not odd.is_own:
                self._is_its_own(account, other, odd.answer, is_counted=odd.is_counted)

    def _asked(self, account: Account, entry: Entry, answer: Answer) -> None:
        self._board.state.answered(answer.outcome, 1)
        account.judge.counted(entry.id)
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

    # --- answers that say something of the account, or of nobody

    def _failed(
        self, account: Account, entry: Entry, answer: AccountFailure, fault: Fault, now: float, *, probe: bool
    ) -> None:
        """Take note of a failure: it is the account's, the network's or ours, unless only this order's questions fail."""
        self._board.state.outcomes[answer.outcome] += 1
        if answer.why in EXHAUSTED:
            self._ran_out(account, entry, answer.why, now, probe=probe)
            return
        if fault is Fault.ORDER:
            account.gate.learned_nothing(now, probe=probe)
            self._not_answered(entry, answer, self._board.policy.cap)
            return
        is_shut = self._account_failed(account, answer, answer.why, fault, now, probe=probe)
        self._not_answered(entry, answer)
        if is_shut:
            self._take_back(account)

    def _account_failed(
        self, account: Account, answer: Answer, why: str, fault: Fault, now: float, *, probe: bool
    ) -> bool:
        """Count a failure of the account or of the network; return whether it shut the gate."""
        retry_after = answer.retry_after if isinstance(answer, Busy) else None
        is_shut = account.gate.failed(now, why, probe=probe, retry_after=retry_after)
        self._health.failed(account, why, now, is_shut=is_shut, fault=fault)
        return is_shut

    def _ran_out(self, account: Account, entry: Entry, why: str, now: float, *, probe: bool) -> None:
        """Take note that this machine could not ask: it ends no order, not even with ``give_up_blind``, and shuts no gate."""
        account.gate.learned_nothing(now, probe=probe)
        self._board.ran_out(why)
        if self._board.policy.one_pass:
            self.confirmations.forget(entry)
            self._board.queue.idle(entry)
        else:
            self._not_answered_at(entry, entry.due)

    def _makes_no_sense(self, account: Account, entry: Entry, answer: Odd, now: float, *, probe: bool) -> None:
        reason, is_answer = account.judge.reason(account.gate.limit), isinstance(answer, (Refused, Garbled))
        # A question that is an order's first tells little: others may be known all the same, and are to be found soon.
        is_first = not (entry.understood or entry.checks or entry.memo.failures)
        is_search = is_first and is_answer and len(account.judge.odd) <= account.gate.limit + SEARCHED
        if not is_answer:
            self._board.state.outcomes[answer.outcome] += 1
        self._shut(account, reason, now, probe=probe, grows=not is_search)
        self._not_answered(entry, answer)

    def _shut(self, account: Account, reason: str, now: float, *, probe: bool, grows: bool = True) -> None:
        """Shut an account's gate; one pass tries some others at once all the same: they may be understood."""
        is_shut = account.gate.shut(now, reason, probe=probe, grows=grows)
        self._health.failed(account, reason, now, is_shut=is_shut, fault=Fault.ACCOUNT)
        if is_shut:
            self._take_back(account)
            account.judge.spare = account.gate.limit if self._board.policy.one_pass else 0
        elif probe and account.judge.spare:
            account.judge.spare -= 1
        if account.judge.spare:
            account.gate.retry_now()

    def _odd(self, account: Account, entry: Entry, answer: Odd, fault: Fault, now: float, *, probe: bool) -> None:
        """An odd answer is its order's own, or nobody's yet: until as many different orders have had one as shut the gate."""
        is_answer = isinstance(answer, (Refused, Garbled))
        if is_answer and (account.gate.is_open or account.gate.reason not in (REFUSED, NOT_UNDERSTOOD)):
            self._health.reached(account, now, probe=probe)
        elif fault is Fault.ORDER or isinstance(answer, (Refused, Garbled)):
            account.gate.learned_nothing(now, probe=probe)
            account.judge.spare = 0
        elif account.gate.streak + 1 >= account.gate.limit:
            self._shut(account, answer.why, now, probe=probe)
        else:
            account.gate.failed(now, answer.why, probe=probe)
            self._health.failed(account, answer.why, now, is_shut=False, fault=fault)
        if fault is Fault.ORDER or is_answer:
            self._asked(account, entry, answer)
            self._not_understood(account, entry, answer, fault)
        else:
            self._board.state.outcomes[answer.outcome] += 1
            self._not_answered(entry, answer)

    def _take_back(self, account: Account) -> None:
        """Those odd answers were not their orders' attempts, nor their own fault: each keeps the slot it was asked for."""
        for order_id, odd in account.judge.take_back().items():
            other = self._board.queue.get(order_id)
            if other is None:
                continue
            if odd.is_own and not other.memo.odd_noted:
                other.note(odd=0, odd_at=None)
                self._board.note_odd(other)
            if not odd.is_counted or other.memo.failures or other.stage not in (Stage.SCHEDULED, Stage.IDLE):
                continue
            other.checks -= 1
            self._board.state.answered(odd.answer.outcome, -1)
            if other.stage is Stage.SCHEDULED:
                self._not_answered_at(other, odd.due)

    def _not_answered(self, entry: Entry, answer: Answer, longest: float = _LONGEST_HOLD) -> None:
        """Put the order back behind others, lest one that always fails is every probe's choice."""
        if self._board.gives_up_blind(entry):
            self._submit(entry, answer)
        elif self._board.policy.one_pass:
            self.confirmations.forget(entry)
            self._board.queue.idle(entry)
        else:
            self._not_answered_at(entry, entry.due, longest)

    def _not_answered_at(self, entry: Entry, due: float, longest: float = _LONGEST_HOLD) -> None:
        failures = entry.memo.failures + 1
        entry.note(failures=failures)
        hold = min(_FIRST_HOLD * 2 ** min(failures - 1, 8), longest)
        self._board.queue.schedule(entry, due, wake=self._board.now() + hold)

    # --- answers that were not understood, and are the order's own

    def _not_understood(self, account: Account, entry: Entry, answer: Odd, fault: Fault) -> None:
        told = (answer.outcome, answer.code if isinstance(answer, Refused) else answer.why)
        if entry.written != told:
            evidence = self._evidence(account, entry.id)
            self._log.warning(
                f"order.{told[0]}",
                order_id=entry.id,
                account=account.name,
                code=told[1],
                said=answer.message,
                fault=str(fault),
                evidence=evidence,
            )
        entry.written = told
        if fault is Fault.ORDER:
            self._count_odd(entry)
        is_for_a_person = not entry.awaits_pin and self.confirmations.is_for_a_person(entry, answer)
        if fault is not Fault.ORDER and self._is_unexplained(account, entry):
            self._submit(entry, answer, nobody_understood=True)
        elif is_for_a_person or self._board.gives_up_blind(entry) or self._is_to_be_noted(account, entry):
            self._submit(entry, answer, account)
        else:
            self._board.again(entry)

    def _is_its_own(self, account: Account, entry: Entry, answer: Answer, *, is_counted: bool) -> None:
        """Another order was understood since: what was answered about this one, the same minute, was its own fault."""
        self._count_odd(entry)
        if not self._board.policy.one_pass or entry.stage is not Stage.IDLE:
            return
        if not is_counted:
            self._asked(account, entry, answer)
        if self._is_to_be_noted(account, entry):
            self._submit(entry, answer, account)

    def _count_odd(self, entry: Entry) -> None:
        memo = entry.memo
        entry.note(odd=memo.odd + 1, odd_at=self._board.now() if memo.odd_at is None else memo.odd_at)
        self._board.note_odd(entry)

    def _is_to_be_noted(self, account: Account, entry: Entry) -> bool:
        """Whether the database is to know that the order is odd, or that it has been so for too long."""
        memo, policy, now = entry.memo, self._board.policy, self._board.now()
        if entry.awaits_pin or memo.odd_at is None:
            return False
        if memo.odd_noted:
            is_long = now - memo.odd_at >= policy.give_up_after
            return is_long and (policy.give_up_unknown or memo.stuck != StuckReason.NOT_KNOWN)
        # At the beginning of an outage it may look so too: what was understood after that tells, or that it lasts.
        was_others_turn = account.judge.are_others_understood(
            entry.id, self._board.clock.monotonic(), within=now - memo.odd_at
        )
        return policy.one_pass or memo.odd >= _LASTING or (entry.is_odd and was_others_turn)

    def _is_unexplained(self, account: Account, entry: Entry) -> bool:
        """Whether an order was never understood, past its time limit, and no other order of the account was for as long.

        Whether the provider does not know it, or speaks otherwise to this account, nobody can say: a person is to see it. After a
        start it takes an hour to know that, and one pass cannot.
        """
        now, policy = self._board.now(), self._board.policy
        silence = account.judge.silent_for(self._board.clock.monotonic())
        was_long_ago = account.answered_at is None or now - account.answered_at >= policy.give_up_after
        is_silent = was_long_ago and silence >= min(SAME_HOUR, policy.give_up_after) and not policy.one_pass
        is_untold = not entry.understood and not entry.awaits_pin and entry.memo.stuck is None
        return is_untold and is_silent and self._board.is_past_deadline(entry)

    def _show_unexplained(self, account: Account) -> None:
        """Hand over what has become so of all that were not understood: of a shut account one alone is asked at a time."""
        for order_id, odd in account.judge.odd.items():
            entry = self._board.queue.get(order_id)
            if entry is None or entry.is_in_hand or entry.referans is None or odd.is_own:
                continue
            if self._is_unexplained(account, entry):
                self._submit(entry, odd.answer, nobody_understood=True)

    def _evidence(self, account: Account, order_id: str) -> str:
        """Say what is known of the account's other orders."""
        last = account.judge.last_of_others(order_id)
        if last is None:
            return "no other order of the account was understood yet"
        seconds = self._board.clock.monotonic() - last[1]
        return f"order {last[0]} of the account was understood {seconds:.0f} s before"

    # --- answers that were

    def _answered(self, entry: Entry, answer: AboutOrder) -> None:
        """Hand over what changes something; a repeated "still waiting" does not, before its age may end the order."""
        entry.note(unknown=0)
        if entry.awaits_pin:
            self._ended_before(entry, answer)
            return
        if (again := self.confirmations.ask_again_at(entry, answer, self._board.now())) is not None:
            self._board.queue.schedule(entry, again)
            return
        repeated = isinstance(answer, Waiting) and entry.written == answer and not entry.memo.odd_noted
        if repeated and not self._board.expires(entry) and not self._records_every_check():
            self._board.again(entry)
        else:
            self._submit(entry, answer)

    def _ended_before(self, entry: Entry, answer: AboutOrder) -> None:
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

    def _submit(
        self, entry: Entry, answer: Answer, odd_at: Account | None = None, *, nobody_understood: bool = False
    ) -> None:
        """Hand an answer to the writer; ``odd_at`` is the account whose answer was not understood, by the order's own fault."""
        board, memo = self._board, entry.memo
        board.queue.writing(entry)
        finding = Finding(entry.order, answer, board.now(), entry.due, entry.checks, entry.account)
        finding.vouched = board.clocks.vouches(board.read_clock())
        finding.seen_utc = board.clock.time()
        finding.is_odd_noted = memo.odd_noted
        finding.nobody_understood = nobody_understood
        if odd_at is not None and memo.odd_at is not None:
            finding.odd_since = memo.odd_at
            now = board.clock.monotonic()
            finding.others_understood = odd_at.judge.are_others_understood(entry.id, now, SAME_HOUR)
        self._writer.submit(finding)


def _count_requests(account: Account, reply: Reply, now: float) -> None:
    """Let the pace know of the requests that one question took beyond the first."""
    if reply.requests > 1:
        account.pace.take(now, reply.requests - 1)
