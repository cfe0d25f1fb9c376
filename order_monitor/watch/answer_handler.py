"""Interprets an answer: what it means for its account and for its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from order_monitor.core.check_result import CheckResult
from order_monitor.core.decision import FOR_A_PERSON, StuckReason
from order_monitor.core.judge import NOT_UNDERSTOOD, REFUSED, SAME_HOUR, SEARCHED, Fault, is_odd
from order_monitor.core.tracked_order import Stage, TrackedOrder
from order_monitor.watch.account import Account
from order_monitor.watch.asker import Call
from order_monitor.watch.context import Context
from order_monitor.watch.discovery import Shop
from order_monitor.watch.write_queue import WriteQueue

_FIRST_HOLD: Final = 5.0
_LONGEST_HOLD: Final = 60.0

_STILL_CLOSED_EVERY: Final = 3600.0

_LASTING: Final = 4
"""How many odd answers in a row record an order as odd, even with no other understood meanwhile."""


class AnswerHandler:
    """Moves the gate for an answer about the account; passes on what changes the order."""

    def __init__(self, context: Context, writer: WriteQueue, shop: Shop) -> None:
        """Pass to ``writer`` what must be written; all answers if ``shop`` records each check."""
        self._context = context
        self._writer = writer
        self._shop = shop
        self._log = structlog.get_logger("order_monitor.engine")

    def _monotonic(self) -> float:
        return self._context.clock.monotonic()

    def handle_call(self, account: Account, call: Call, *, probe: bool) -> None:
        """Process the answers of a call.

        A call about several orders that failed as a whole counts as one failure, and not as a
        failure of any order.
        """
        observer, queue, answers = self._context.observer, self._context.queue, call.batch.answers
        if call.batch.requests > 1:
            # The first was counted when the call began.
            account.pace.spend(self._monotonic(), call.batch.requests - 1)
        if call.batch.strangers:
            observer.ignored(account.name, call.batch.strangers)
        pairs = list(zip(call.entries, call.orders, strict=True))
        left = [pair for pair in pairs if pair[1].reference not in answers]
        has_failed = bool(left) and len(pairs) > 1
        if has_failed:
            pairs = [pair for pair in pairs if pair not in left]
        for entry, order in pairs:
            answer = answers.get(order.reference, call.failure)
            if queue.is_filled(entry) and not isinstance(answer, AboutOrder):
                # It is asked again when it is due; until then nothing new is known about it.
                queue.schedule(entry, entry.due)
                continue
            observer.checked(account.name, order, answer, call.seconds)
            self._understand(account, entry, answer, probe=probe)
        if has_failed:
            # Last: what the answers before it say of the account is older, and opens no gate that
            # the failure shuts.
            observer.checked(account.name, call.orders[0], call.failure, call.seconds)
            unanswered = []
            for entry, _ in left:
                if queue.is_filled(entry):
                    queue.schedule(entry, entry.due)
                else:
                    unanswered.append(entry)
            self._call_failed(account, unanswered, call.failure, probe=probe)

    def _understand(
        self, account: Account, entry: TrackedOrder, answer: Answer, *, probe: bool
    ) -> None:
        now = self._monotonic()
        self._log.debug(
            "order.asked", order_id=entry.id, account=account.name, outcome=answer.outcome
        )
        if isinstance(answer, AboutOrder):
            self._understood(account, entry, answer, probe=probe)
            return
        fault = account.judge.judge(
            entry.id,
            answer,
            now,
            due=entry.due,
            limit=account.gate.limit,
            was_understood=entry.understood,
            is_known_odd=entry.rare.odd > 0,
        )
        if isinstance(answer, Unreachable):
            account.said = ""
        else:
            account.said = answer.message or (
                account.said if isinstance(answer, (Refused, Garbled)) else ""
            )
        if is_odd(answer) and fault is Fault.ACCOUNT:
            self._makes_no_sense(account, entry, answer, probe=probe)
        elif is_odd(answer):
            self._odd(account, entry, answer, fault, probe=probe)
        else:
            assert isinstance(answer, (Blocked, Busy, Unreachable))
            self._failed(account, entry, answer, fault, probe=probe)
        if account.judge.odd:
            self._show_unexplained(account)

    def _call_failed(
        self, account: Account, entries: Sequence[TrackedOrder], answer: Answer, *, probe: bool
    ) -> None:
        """Process a failed call about several orders: the account's or network's failure, not
        theirs.
        """
        self._context.state.outcomes[answer.outcome] += 1
        why = (
            f"refused_{answer.code}"
            if isinstance(answer, Refused)
            else getattr(answer, "why", answer.outcome)
        )
        if why in EXHAUSTED:
            for entry in entries:
                self._ran_out(account, entry, why, probe=probe)
            return
        account.said = getattr(answer, "message", "")
        fault = Fault.NETWORK if isinstance(answer, Unreachable) else Fault.ACCOUNT
        is_shut = self._account_failed(account, answer, why, fault, probe=probe)
        for entry in entries:
            if self._context.policy.one_pass:
                # Each order gets another turn, in a call of its own, as long as the account may be
                # asked.
                entry.note(failures=entry.rare.failures + 1)
                self._context.queue.schedule(entry, entry.due)
            else:
                self._not_answered(entry, answer)
        if is_shut:
            self._take_back(account)

    def _understood(
        self, account: Account, entry: TrackedOrder, answer: AboutOrder, *, probe: bool
    ) -> None:
        own = account.judge.understood(entry.id, self._monotonic())
        account.last_error = account.said = ""
        account.answered_at = self._context.now()
        self._reached(account, probe=probe)
        if not self._writer.stands_still():
            self._context.state.succeeded_at = account.answered_at
        self._asked(account, entry, answer)
        if self._context.policy.confirm_cancelled and not isinstance(answer, Cancelled):
            entry.other_at = entry.asked_at
        entry.note(odd=0, odd_at=None)
        self._context.note_odd(entry)
        self._answered(entry, answer)
        for order_id, odd in own.items():
            other = self._context.queue.get(order_id)
            if other is not None and not odd.is_own:
                self._is_its_own(account, other, odd.answer, is_counted=odd.is_counted)

    def _asked(self, account: Account, entry: TrackedOrder, answer: Answer) -> None:
        self._context.state.answered(answer.outcome, 1)
        account.judge.counted(entry.id, entry.asked_at)
        entry.note(failures=0)
        entry.checks += 1
        entry.asked_at = self._context.now()

    def give_up_unasked(self, accounts: Mapping[str, Account]) -> None:
        """With ``give_up_blind``, apply the deadline even if the account cannot be asked at all."""
        now = self._monotonic()
        for entry in list(self._context.queue) if self._context.policy.give_up_blind else []:
            waits = entry.is_waiting and self._context.expires(entry)
            account = accounts.get(entry.account)
            if waits and account is not None and account.is_held(now) and not account.gate.is_open:
                self._submit(entry, Unreachable("account_closed"))

    # --- answers about the account, or that cannot be assigned yet

    def _failed(
        self,
        account: Account,
        entry: TrackedOrder,
        answer: AccountFailure,
        fault: Fault,
        *,
        probe: bool,
    ) -> None:
        """Record a failure of the account, network or machine, or of this order alone."""
        self._context.state.outcomes[answer.outcome] += 1
        if answer.why in EXHAUSTED:
            self._ran_out(account, entry, answer.why, probe=probe)
            return
        if fault is Fault.ORDER:
            account.gate.learned_nothing(self._monotonic(), probe=probe)
            self._not_answered(entry, answer, self._context.policy.cap)
            return
        is_shut = self._account_failed(account, answer, answer.why, fault, probe=probe)
        self._not_answered(entry, answer)
        if is_shut:
            self._take_back(account)

    def _account_failed(
        self, account: Account, answer: Answer, why: str, fault: Fault, *, probe: bool
    ) -> bool:
        """Count a failure of the account or the network; return whether it closed the gate."""
        retry_after = answer.retry_after if isinstance(answer, Busy) else None
        now = self._monotonic()
        is_shut = account.gate.failed(now, why, probe=probe, retry_after=retry_after)
        self._note_failure(account, why, is_shut=is_shut, fault=fault)
        return is_shut

    def _ran_out(self, account: Account, entry: TrackedOrder, why: str, *, probe: bool) -> None:
        """Record that this machine could not ask: that ends no order and closes no gate."""
        account.gate.learned_nothing(self._monotonic(), probe=probe)
        self._context.ran_out(why)
        if self._context.policy.one_pass:
            self._context.queue.idle(entry)
        else:
            self._not_answered_at(entry, entry.due)

    def _makes_no_sense(
        self, account: Account, entry: TrackedOrder, answer: Odd, *, probe: bool
    ) -> None:
        reason = account.judge.reason(account.gate.limit)
        is_answer = isinstance(answer, (Refused, Garbled))
        # The first check of an order tells little: the provider may know the other orders, and
        # these must be found soon.
        is_first = not (entry.understood or entry.checks or entry.rare.failures)
        is_search = (
            is_first and is_answer and len(account.judge.odd) <= account.gate.limit + SEARCHED
        )
        if not is_answer:
            self._context.state.outcomes[answer.outcome] += 1
        self._shut(account, reason, probe=probe, grows=not is_search)
        self._not_answered(entry, answer)

    def _shut(self, account: Account, reason: str, *, probe: bool, grows: bool = True) -> None:
        """Close an account's gate.

        A single pass still tries a few other orders at once, because their answers may be
        understood.
        """
        is_shut = account.gate.shut(self._monotonic(), reason, probe=probe, grows=grows)
        self._note_failure(account, reason, is_shut=is_shut, fault=Fault.ACCOUNT)
        if is_shut:
            self._take_back(account)
            account.judge.spare = account.gate.limit if self._context.policy.one_pass else 0
        elif probe and account.judge.spare:
            account.judge.spare -= 1
        if account.judge.spare:
            account.gate.retry_now()

    def _odd(
        self, account: Account, entry: TrackedOrder, answer: Odd, fault: Fault, *, probe: bool
    ) -> None:
        """An odd answer is the order's own fault, or cannot be assigned yet: it becomes the
        account's when as many different orders have had one as it takes to close the gate.
        """
        is_answer, now = isinstance(answer, (Refused, Garbled)), self._monotonic()
        if is_answer and (
            account.gate.is_open or account.gate.reason not in (REFUSED, NOT_UNDERSTOOD)
        ):
            self._reached(account, probe=probe)
        elif fault is Fault.ORDER or isinstance(answer, (Refused, Garbled)):
            account.gate.learned_nothing(now, probe=probe)
            account.judge.spare = 0
        elif account.gate.streak + 1 >= account.gate.limit:
            self._shut(account, answer.why, probe=probe)
        else:
            account.gate.failed(now, answer.why, probe=probe)
            self._note_failure(account, answer.why, is_shut=False, fault=fault)
        if fault is Fault.ORDER or is_answer:
            self._asked(account, entry, answer)
            self._not_understood(account, entry, answer, fault)
        else:
            self._context.state.outcomes[answer.outcome] += 1
            self._not_answered(entry, answer)

    def _reached(self, account: Account, *, probe: bool) -> None:
        """Record that the account answers, which ends an outage."""
        if account.gate.succeeded(probe=probe):
            self._log.info(
                "account.opened",
                account=account.name,
                closed_for=round(self._monotonic() - account.closed_at, 1),
                failures=account.failures,
            )

    def _note_failure(self, account: Account, why: str, *, is_shut: bool, fault: Fault) -> None:
        """Note and log a failure. An outage counts for the account, and is one log line."""
        now = self._monotonic()
        account.last_error, account.fault = why, fault
        if is_shut:
            account.closed_at = account.told_at = now
            account.failures = 0
            self._log.error(
                "account.closed",
                account=account.name,
                reason=why,
                message=account.said,
                fault=str(fault),
            )
        account.failures += 1
        if not account.gate.is_open and now - account.told_at >= _STILL_CLOSED_EVERY:
            account.told_at = now
            self._log.warning(
                "account.still_closed",
                account=account.name,
                reason=why,
                closed_for=round(now - account.closed_at, 1),
                failures=account.failures,
                due=self._context.queue.ready.count(account.key),
            )

    def _take_back(self, account: Account) -> None:
        """Undo the odd answers that turned out to be the account's: they count neither as attempts
        nor as the orders' own fault. Each order keeps the slot it was asked for.
        """
        for order_id, odd in account.judge.take_back().items():
            other = self._context.queue.get(order_id)
            if other is None:
                continue
            if odd.is_own and not other.rare.odd_noted:
                other.note(odd=0, odd_at=None)
                self._context.note_odd(other)
            if (
                not odd.is_counted
                or other.rare.failures
                or other.stage not in (Stage.SCHEDULED, Stage.IDLE)
            ):
                continue
            other.checks -= 1
            other.asked_at = odd.asked_before
            self._context.state.answered(odd.answer.outcome, -1)
            if other.stage is Stage.SCHEDULED:
                self._not_answered_at(other, odd.due)

    def _not_answered(
        self, entry: TrackedOrder, answer: Answer, longest: float = _LONGEST_HOLD
    ) -> None:
        """Move the order behind others: one that always fails must not get every probe."""
        if self._context.gives_up_blind(entry):
            self._submit(entry, answer)
        elif self._context.policy.one_pass:
            self._context.queue.idle(entry)
        else:
            self._not_answered_at(entry, entry.due, longest)

    def _not_answered_at(
        self, entry: TrackedOrder, due: float, longest: float = _LONGEST_HOLD
    ) -> None:
        failures = entry.rare.failures + 1
        entry.note(failures=failures)
        hold = min(_FIRST_HOLD * 2 ** min(failures - 1, 8), longest)
        self._context.queue.schedule(entry, due, wake=self._context.now() + hold)

    # --- answers that were not understood, by the order's own fault

    def _not_understood(
        self, account: Account, entry: TrackedOrder, answer: Odd, fault: Fault
    ) -> None:
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
        is_for_a_person = not entry.awaits_pin and count_unreadable(entry, answer)
        if fault is not Fault.ORDER and self._is_unexplained(account, entry):
            self._submit(entry, answer, nobody_understood=True)
        elif (
            is_for_a_person
            or self._context.gives_up_blind(entry)
            or self._is_to_be_noted(account, entry)
        ):
            self._submit(entry, answer, account)
        else:
            self._context.again(entry)

    def _is_its_own(
        self, account: Account, entry: TrackedOrder, answer: Answer, *, is_counted: bool
    ) -> None:
        """Note that an odd answer was the order's own: another was understood within a minute."""
        self._count_odd(entry)
        if not self._context.policy.one_pass or entry.stage is not Stage.IDLE:
            return
        if not is_counted:
            self._asked(account, entry, answer)
        if self._is_to_be_noted(account, entry):
            self._submit(entry, answer, account)

    def _count_odd(self, entry: TrackedOrder) -> None:
        rare = entry.rare
        entry.note(
            odd=rare.odd + 1, odd_at=self._context.now() if rare.odd_at is None else rare.odd_at
        )
        self._context.note_odd(entry)

    def _is_to_be_noted(self, account: Account, entry: TrackedOrder) -> bool:
        """Whether to record that the order is odd, or has been for too long."""
        rare, policy, now = entry.rare, self._context.policy, self._context.now()
        if entry.awaits_pin or rare.odd_at is None:
            return False
        if rare.odd_noted:
            is_long = now - rare.odd_at >= policy.give_up_after
            return is_long and (policy.give_up_unknown or rare.stuck != StuckReason.NOT_KNOWN)
        # This may also happen at the beginning of an outage: proof is an answer about another order
        # that was understood later, or that it lasts.
        was_others_turn = account.judge.are_others_understood(
            entry.id, self._monotonic(), within=now - rare.odd_at
        )
        return policy.one_pass or rare.odd >= _LASTING or (entry.is_odd and was_others_turn)

    def _is_unexplained(self, account: Account, entry: TrackedOrder) -> bool:
        """Whether an order was never understood and is past its time limit, while no other order of
        the account was understood for as long.

        Then it is unknown whether the provider does not know the order or answers this account
        differently, so a person must look at it. After a start it takes an hour to find out; a
        single pass cannot.
        """
        now, policy = self._context.now(), self._context.policy
        silence = account.judge.silent_for(self._monotonic())
        was_long_ago = (
            account.answered_at is None or now - account.answered_at >= policy.give_up_after
        )
        is_silent = (
            was_long_ago and silence >= min(SAME_HOUR, policy.give_up_after) and not policy.one_pass
        )
        is_untold = not entry.understood and not entry.awaits_pin and entry.rare.stuck is None
        return is_untold and is_silent and self._context.is_past_deadline(entry)

    def _show_unexplained(self, account: Account) -> None:
        """Pass on all orders in that state: a closed gate lets one be asked at a time."""
        for order_id, odd in account.judge.odd.items():
            entry = self._context.queue.get(order_id)
            if entry is None or entry.is_in_hand or odd.is_own:
                continue
            if self._is_unexplained(account, entry):
                self._submit(entry, odd.answer, nobody_understood=True)

    def _evidence(self, account: Account, order_id: str) -> str:
        """Describe what is known of the account's other orders."""
        last = account.judge.last_of_others(order_id)
        if last is None:
            return "no other order of the account was understood yet"
        seconds = self._monotonic() - last[1]
        return f"order {last[0]} of the account was understood {seconds:.0f} s before"

    # --- answers that were understood

    def _answered(self, entry: TrackedOrder, answer: AboutOrder) -> None:
        """Pass on an answer that changes something: a repeated "still waiting" only by its age."""
        entry.note(unknown=0)
        if entry.awaits_pin:
            self._ended_before(entry, answer)
            return
        repeated = (
            isinstance(answer, Waiting) and entry.written == answer and not entry.rare.odd_noted
        )
        is_noted = self._shop.records_every_check and not self._context.queue.is_filled(entry)
        if repeated and not self._context.expires(entry) and not is_noted:
            self._context.again(entry)
        else:
            self._submit(entry, answer)

    def _ended_before(self, entry: TrackedOrder, answer: AboutOrder) -> None:
        """Process an answer about an order that has ended: only its PIN can still change."""
        if isinstance(answer, Completed) and answer.pin is not None:
            self._submit(entry, answer)
            return
        if isinstance(answer, Cancelled) and entry.written != answer:
            self._log.warning(
                "order.cancelled_after_end",
                order_id=entry.id,
                account=self._context.name_of(entry.account),
            )
        entry.written = answer
        self._context.again(entry)

    def _submit(
        self,
        entry: TrackedOrder,
        answer: Answer,
        odd_at: Account | None = None,
        *,
        nobody_understood: bool = False,
    ) -> None:
        """Pass an answer to the writer; ``odd_at`` is where it was odd by the order's own fault."""
        context, rare = self._context, entry.rare
        context.queue.writing(entry)
        finding = CheckResult(
            entry.order, answer, context.now(), entry.due, entry.checks, entry.account
        )
        finding.vouched = context.clocks.vouches(context.read_clock())
        finding.seen_utc = context.clock.time()
        finding.is_odd_noted = rare.odd_noted
        finding.nobody_understood = nobody_understood
        finding.other_at = entry.other_at
        waits = context.state.unconfirmed.get(entry.id)
        if waits is not None and waits.began_at is not None:
            finding.waited = context.clock.monotonic() - waits.began_at
        if odd_at is not None and rare.odd_at is not None:
            finding.odd_since = rare.odd_at
            now = context.clock.monotonic()
            finding.others_understood = odd_at.judge.are_others_understood(entry.id, now, SAME_HOUR)
        self._writer.submit(finding)


def count_unreadable(entry: TrackedOrder, answer: Answer) -> bool:
    """Count unreadable answers in a row; return whether a person must see the order now, unless it
    is stuck for the same reason already.
    """
    allowed = FOR_A_PERSON.get(answer.why) if isinstance(answer, Garbled) else None
    unknown = entry.rare.unknown + 1 if allowed else 0
    entry.note(unknown=unknown)
    # Not only the answer that makes them enough: those before it may have been of another kind.
    return allowed is not None and unknown >= allowed[1] and entry.rare.stuck != allowed[0]
