"""The way of one order: found open, due, let through, asked about, understood, handed to the writer; then forgotten or due again.

The daemon and ``--once`` are this same loop. They differ in their plan (schedule.py) and in when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from order_monitor.account import Account
from order_monitor.aftermath import Aftermath
from order_monitor.answer import Answer, Blocked, Busy, Cancelled, Completed, Unreachable, Waiting
from order_monitor.book import Book, Entry, Stage
from order_monitor.clock import Clock
from order_monitor.directory import AnyOpener, Directory, OneAccount
from order_monitor.doubts import Doubts
from order_monitor.finding import Finding, Result
from order_monitor.intake import Intake, Shop
from order_monitor.observer import Observer, Observers
from order_monitor.order import SkipReason
from order_monitor.providers.seam import Provider, Reply
from order_monitor.schedule import Plan
from order_monitor.state import State
from order_monitor.writer import Writer

TICK: Final = 5.0
"""Seconds after which the loop looks round although nothing called: it shows that it lives, and a clock that jumped is seen."""

BACKLOG: Final = 2000
"""Answers waiting for the database beyond which no more are fetched."""

_STILL_CLOSED_EVERY: Final = 3600.0
_FIRST_HOLD: Final = 5.0
_LONGEST_HOLD: Final = 60.0


class Engine:
    """Asks about every open order when its plan says so."""

    def __init__(  # noqa: PLR0913 - the one place where the parts meet
        self,
        shop: Shop,
        accounts: Mapping[str, Account] | Directory,
        plan: Plan,
        clock: Clock,
        *,
        concurrency: int = 20,
        give_up_after: float = 86_400.0,
        give_up_blind: bool = False,
        confirm_cancelled: float = 0.0,
        one_pass: bool = False,
        patience: float | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Ask ``accounts`` about the orders of ``shop``, at most ``concurrency`` at a time.

        Accounts that keep calls waiting share that many places among themselves; those that answer have as many of their own.
        A cancellation is believed when a second answer agrees ``confirm_cancelled`` seconds later; 0 believes the first.
        With ``one_pass`` the loop ends when every order has had its turn or stands before a shut gate. ``patience`` is
        how many seconds a write may be tried without progress, None for ever.
        """
        self.directory = OneAccount(next(iter(accounts.values()))) if isinstance(accounts, Mapping) else accounts
        self.book = Book()
        self.state = State()
        self._intake = Intake(shop, self.directory, self.book, plan, clock, self.state, give_up_after=give_up_after)
        self._observer = observer or Observers()
        self._aftermath = Aftermath(self.book, self.state, self._intake, self._observer)
        self.writer = Writer(shop, clock, self._recorded, on_batch=self._observer.wrote, patience=patience)
        self._shop = shop
        self._plan = plan
        self._clock = clock
        self._concurrency = concurrency
        self._blind = give_up_blind
        self._doubts = Doubts(confirm_cancelled)
        self._one_pass = one_pass
        self._stopping = False
        self._wake = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._turn = 0
        self._log = structlog.get_logger("order_monitor.engine")

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The accounts that may be asked, by name."""
        return self.directory.accounts

    def now(self) -> float:
        """Return epoch seconds by the database's clock, which ``sent_at`` was written by."""
        return self._intake.now()

    def choose(self, shop: Shop) -> None:
        """Look for orders in another view of the same shop."""
        self._shop = shop
        self._intake.choose(shop)

    def adopt(self, plan: Plan, *, concurrency: int, give_up_after: float, give_up_blind: bool) -> None:
        """Go on by other settings. An order's next time, already planned, stays; the times after it are the new plan's."""
        self._plan = plan
        self._concurrency = concurrency
        self._blind = give_up_blind
        self._intake.adopt(plan, give_up_after)
        self._wake.set()

    def adopt_accounts(self, opener: AnyOpener | None, calls_per_second: float, gate_after: int) -> None:
        """Give every account another pace and limit, and with ``opener`` a new client too."""
        for provider in self.directory.reopen(opener) if opener else []:
            self._close_later(provider)
        for account in self.accounts.values():
            account.pace.per_second = calls_per_second
            account.gate.limit = gate_after
        self._wake.set()

    @property
    def skips(self) -> Mapping[str, SkipReason]:
        """The orders nobody asks about, and why."""
        return self._intake.skips

    # --- found open

    async def scan(self) -> None:
        """Look for open orders, and take up and let go accordingly.

        Raises:
            ShopError: the database could not be asked; the orders known so far are kept.
            SettingsError: the table is not as it must be.
        """
        began = self._clock.monotonic()
        dropped = await self._intake.scan()
        self._observer.scanned(self._clock.monotonic() - began)
        for provider in dropped:
            self._close_later(provider)
        self._give_up_unasked()
        self.book.promote(self.now())
        if not self._calls and not self._is_behind():
            self.state.succeeded_at = self.now()
        self._wake.set()

    def _is_behind(self) -> bool:
        """Whether an account that may be asked has orders due, or held back by its failures."""
        used = {entry.account for entry in self.book}
        asked = [a for a in self.accounts.values() if a.paused is None and a.name in used]
        return any(self.book.due(a.name) or a.gate.streak for a in asked)

    def _close_later(self, provider: Provider) -> None:
        task = asyncio.create_task(self._close(provider), name="close account")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, provider: Provider) -> None:
        """Close a client that is no longer needed, once the calls under way have ended."""
        if self._calls:
            await asyncio.wait(set(self._calls))
        await provider.aclose()

    def _give_up_unasked(self) -> None:
        """With ``give_up_blind`` the deadline holds even where the account cannot be asked at all."""
        for entry in list(self.book) if self._blind else []:
            waits = entry.stage in (Stage.SCHEDULED, Stage.READY) and self._intake.is_past_deadline(entry.order)
            account = self.accounts.get(entry.account)
            if waits and account is not None and not account.gate.is_open:
                self._submit(entry, Unreachable("account_closed"))

    # --- due, and let through

    def stop(self) -> None:
        """Start no more calls."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Start calls as they come due, until stopped or, in one pass, until nothing is left to do."""
        while not self._stopping and not self._is_over():
            self._wake.clear()
            pause = self._start_calls()
            await self._clock.wait(self._wake, pause)

    def _is_over(self) -> bool:
        if not self._one_pass or self._calls or len(self.writer) or self._doubts.open:
            return False
        self.book.promote(self.now())
        return all(not self.book.due(a.name) or not a.gate.is_open or a.paused for a in self.accounts.values())

    def _start_calls(self) -> float:
        """Start what may start now; return after how many seconds to look again, if nothing calls before."""
        now = self._clock.monotonic()
        self.state.ticked_at = now
        self.book.promote(self.now())
        waiting = self._in_turn()
        while waiting:
            waiting = [a for a in waiting if self._may_start(a, now)]
            for account in waiting:
                if self._may_start(account, now):
                    self._start(account, now)
        return self._pause(now)

    def _may_start(self, account: Account, now: float) -> bool:
        return bool(self.book.due(account.name)) and account.may_start(now) and self._has_room(account, now)

    def _in_turn(self) -> list[Account]:
        """All accounts, another one first each time."""
        accounts = list(self.accounts.values())
        self._turn = (self._turn + 1) % max(1, len(accounts))
        return accounts[self._turn :] + accounts[: self._turn]

    def _has_room(self, account: Account, now: float) -> bool:
        """Whether a place is free: for an account that is well, among those that are; for a slow one, among all."""
        if len(self.writer) >= BACKLOG:
            return False
        if len(self._calls) < self._concurrency:
            return True
        well = sum(other.in_flight for other in self.accounts.values() if not other.is_slow(now))
        return not account.is_slow(now) and well < self._concurrency

    def _pause(self, now: float) -> float:
        pause = TICK
        wake = self.book.next_wake()
        if wake is not None:
            pause = min(pause, wake - self.now())
        for account in self.accounts.values():
            # With no place free, one comes free at a call's end, which wakes us, or when an account turns out slow.
            has_room = self._has_room(account, now)
            at = (account.may_start_at() if self.book.due(account.name) else None) if has_room else account.slow_at()
            pause = pause if at is None or (at <= now and not has_room) else min(pause, at - now)
        return max(0.0, pause)

    def _start(self, account: Account, now: float) -> None:
        entry = self.book.take(account.name)
        if entry is None:
            return
        probe = account.gate.started()
        account.pace.take(now)
        account.calls[entry] = now
        call = asyncio.create_task(self._check(account, entry, probe=probe), name=f"check {entry.order.id}")
        self._calls.add(call)
        call.add_done_callback(self._called)

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._wake.set()
        if not call.cancelled() and (error := call.exception()) is not None:
            self._log.error("check.failed", error=type(error).__name__)

    # --- asked about, and understood

    async def _check(self, account: Account, entry: Entry, *, probe: bool) -> None:
        try:
            reply = await account.provider.ask(entry.order.referans)
        except asyncio.CancelledError:
            account.gate.released(probe=probe)
            raise
        except Exception as error:  # noqa: BLE001 - a fault in an adapter is that call's failure, not the program's
            self._log.error("check.failed", order_id=entry.order.id, account=account.name, error=type(error).__name__)
            reply = Reply(Unreachable("internal_error"))
        finally:
            began = account.calls.pop(entry)
        self._observer.checked(account.name, entry.order, reply.answer, self._clock.monotonic() - began)
        self._understand(account, entry, reply, probe=probe)

    def _understand(self, account: Account, entry: Entry, reply: Reply, *, probe: bool) -> None:
        answer = reply.answer
        now = self._clock.monotonic()
        if reply.requests > 1:
            account.pace.take(now, reply.requests - 1)
        self.state.outcomes[answer.outcome] += 1
        self._log.debug("order.asked", order_id=entry.order.id, account=account.name, outcome=answer.outcome)
        if isinstance(answer, (Blocked, Busy, Unreachable)):
            self._account_failed(account, answer, now, probe=probe)
            self._not_answered(entry, answer)
            return
        if account.gate.succeeded(probe=probe):
            closed_for = round(now - account.closed_at, 1)
            self._log.info("account.opened", account=account.name, closed_for=closed_for, failures=account.failures)
        account.last_error = ""
        self.state.succeeded_at = account.answered_at = self.now()
        entry.failures = 0
        entry.checks += 1
        if isinstance(answer, (Waiting, Completed, Cancelled)):
            self._answered(entry, answer)
        else:
            self._refused(account, entry, answer)

    def _account_failed(
        self, account: Account, answer: Blocked | Busy | Unreachable, now: float, *, probe: bool
    ) -> None:
        """An outage is the account's, and one line in the log; the order keeps its place."""
        retry_after = answer.retry_after if isinstance(answer, Busy) else None
        account.last_error = answer.why
        if account.gate.failed(now, answer.why, probe=probe, retry_after=retry_after):
            message = answer.message[:200] if isinstance(answer, Blocked) else ""
            account.closed_at = account.told_at = now
            account.failures = 0
            self._log.error("account.closed", account=account.name, reason=answer.why, message=message)
        account.failures += 1
        if not account.gate.is_open and now - account.told_at >= _STILL_CLOSED_EVERY:
            account.told_at = now
            closed_for = round(now - account.closed_at, 1)
            self._log.warning(
                "account.still_closed",
                account=account.name,
                reason=answer.why,
                closed_for=closed_for,
                failures=account.failures,
                due=self.book.due(account.name),
            )

    def _not_answered(self, entry: Entry, answer: Answer) -> None:
        """Put the order back behind others, lest one that always fails is every probe's choice."""
        if self._gives_up_blind(entry):
            self._submit(entry, answer)
        elif self._one_pass:
            self._doubts.forget(entry)
            self.book.idle(entry)
        else:
            entry.failures += 1
            hold = min(_FIRST_HOLD * 2 ** min(entry.failures - 1, 8), _LONGEST_HOLD)
            self.book.schedule(entry, entry.due, wake=self.now() + hold)

    def _refused(self, account: Account, entry: Entry, answer: Answer) -> None:
        told = (answer.outcome, getattr(answer, "code", getattr(answer, "why", "")))
        if entry.written != told:
            self._log.warning(f"order.{told[0]}", order_id=entry.order.id, account=account.name, code=told[1])
        if self._doubts.is_for_a_person(entry, answer) or self._gives_up_blind(entry):
            self._submit(entry, answer)
            return
        entry.written = told
        self._again(entry)

    def _answered(self, entry: Entry, answer: Waiting | Completed | Cancelled) -> None:
        """Hand over what changes something; a repeated "still waiting" before the deadline does not."""
        entry.unknown = 0
        if (again := self._doubts.ask_again_at(entry, answer, self.now())) is not None:
            self.book.schedule(entry, again)
            return
        repeated = (
            isinstance(answer, Waiting) and entry.written == answer and not self._intake.is_past_deadline(entry.order)
        )
        if repeated and not self._shop.records_every_check:
            self._again(entry)
        else:
            self._submit(entry, answer)

    def _submit(self, entry: Entry, answer: Answer) -> None:
        self.book.writing(entry)
        self.writer.submit(Finding(entry.order, answer, self.now(), entry.due, entry.checks))

    def _gives_up_blind(self, entry: Entry) -> bool:
        return self._blind and self._intake.is_past_deadline(entry.order)

    # --- written; forgotten, or due again

    def _again(self, entry: Entry) -> None:
        due = self._plan.again(entry.order, self.now())
        if due is None:
            self.book.idle(entry)
        else:
            self.book.schedule(entry, due)

    def _recorded(self, result: Result) -> None:
        """Take note of what became of a finding; an order that is still open is due again."""
        self._wake.set()
        delay = max(0.0, self.now() - result.finding.due)
        if (entry := self._aftermath.take(result, delay)) is not None:
            self._again(entry)

    def overdue(self) -> int:
        """Return how many known orders are older than the shop's patience and still open."""
        return sum(self._intake.is_past_deadline(entry.order) for entry in self.book)

    # --- the end

    async def finish_calls(self, seconds: float) -> int:
        """Wait for the calls under way, at most ``seconds``; cut the rest and return how many those were."""
        if not self._calls:
            return 0
        _, late = await asyncio.wait(set(self._calls), timeout=seconds)
        for call in late:
            call.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)
        return len(late)
