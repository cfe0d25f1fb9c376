"""Further invariants in addition to those of `tests.simulation.world`, for a provider that forgets,
wavers or cancels everything:

- an order held by the brake is not ended before its hold is over, and never while the provider is
  wrong about all orders;
- for one login, no more failures are written than its brake allows, whatever the number of accounts
  and processes;
- no order sent before the first start is ended by its age, and one sent long before is not even
  asked about;
- an order that the provider does not know fails only if the settings say so, after the time limit,
  and while another order of the account was understood within the hour; otherwise it is under
  review by then;
- no account is closed for unknown orders while others of it are understood;
- every open order is asked again in time, whatever the answers: the seconds without a reason for
  the lack of a question add up to no more than its longest pause;
- a cancellation to be confirmed was read twice, its wait apart, with no other answer in between, and
  of the same dispatch;
- while a person holds an account's ends, none is written;
- a PIN that came in a form that cannot be stored was put before a person.
"""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from order_monitor.core.answer import Answer, Cancelled, Completed, Garbled, Waiting
from order_monitor.core.order import Order
from order_monitor.shop.accounts.pauses import ends_of
from order_monitor.shop.writing.dispatches import TOUCHED
from order_monitor.shop.writing.event_sql import PROGRAM
from tests.simulation.relatives import TENANT
from tests.simulation.scenario import CONFIG, HOUR
from tests.simulation.shop import OPEN, Commit, Event, Stored

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

HELD = "held_by_brake"
NOT_KNOWN = "not_known"
LONGEST_PAUSE = 600.0 * 1.1
"""The most seconds between two questions about an order, without faults."""

CALM_FOR = 1.5 * HOUR
"""Seconds after the last fault until that holds again: the longest Retry-After, and the gate's
longest pause.
"""

EXPLAINS_NOTHING = frozenset(
    {
        *(
            "touch",
            "twins",
            "same_pin",
            "stale_save",
            "refund",
            "delete",
            "pin_by_hand",
            "ended_by_shop",
            "rewrites",
        ),
        *("resolve", "reopen", "ask", "release", "ends_paused", "renamed"),
        *("clock", "sighup", "second", "once", "receiver_down"),
    }
)
"""Ongoing faults that do not excuse a late question."""

REOPENS_IN = 150.0
"""Seconds after an account's closure within which its orders have their turn again."""

LEFT_ALONE = 7 * 24 * HOUR
_LATELY = 100.0
_WINDOW = 590.0
_LOOK = 6.0
_JITTER = 1.0
_WRITTEN_WITHIN = 120.0
"""Seconds within which what one process was answered has reached the table that all read."""


class Sight:
    """The state needed for these checks."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._heard: dict[tuple[str, str, str], list[tuple[float, int, bool]]] = defaultdict(list)
        """For each dispatch (order, account, reference) the answers understood, and whether each was
        a cancellation: when, and by which process.
        """
        self._understood: dict[str, list[tuple[float, str, int]]] = defaultdict(list)
        """For each account the orders with an answer other than cancelled, when, and by which
        process.
        """
        self.odd_at: dict[str, float] = {}
        """Since when each unknown order is asked about."""
        self._unreadable: set[str] = set()
        """The orders whose PIN came in a form that cannot be stored."""
        self.unsaid: set[str] = set()
        """The orders whose PIN the provider has given, and of which it says later that they wait."""
        self._shut: set[tuple[int, str]] = set()
        self._shut_at: dict[str, float] = {}
        """When each account was last seen to be closed."""
        self.released: dict[str, float] = {}
        """When a person released the held ends, by login."""
        self.ends_paused: dict[str, tuple[float, float]] = {}
        """By the name under which an account's ends are held: the certain start and end."""
        self._passed: dict[str, float] = {}
        self._neglected: dict[tuple[str, str, str], tuple[float, float]] = {}
        """When each order was asked about last, and for how many seconds since then there was no
        reason for the lack of a question.
        """
        self.questions_at: dict[str, float] = {}
        """When each reference was asked about last, for any order."""
        self.away_since: float | None = None
        """Since when the database has been unavailable."""
        self._held_since: dict[str, float] = {}
        """Since when ends of a login are held, without a break: whatever releases the first also
        releases the later ones.
        """

    def check(self, holds: bool, what: str) -> None:  # noqa: FBT001 - it reads as an assertion
        self._world.check(holds, what)

    def heard(self, process: "Process", order: Order, answer: Answer) -> None:
        """An answer was read."""
        now, plan = self._world.now(), self._world.plans.get(order.id)
        account = order.integration or CONFIG
        if isinstance(answer, Cancelled | Completed | Waiting):
            dispatch = (order.id, account, order.reference.strip())
            self._heard[dispatch].append((now, process.number, isinstance(answer, Cancelled)))
            self._understood[account].append((now, order.id, process.number))
        elif plan is not None and plan.forgets:
            self.odd_at.setdefault(order.id, now)
        elif isinstance(answer, Garbled) and answer.why == "unreadable_pin":
            # Of one that has ended a person hears when its PIN is overdue.
            self._unreadable |= set() if order.awaits_pin else {order.id}

    # --- ends

    def failed(
        self, before: Stored, after: Stored, event: Event, commit: Commit, author: "Process | None"
    ) -> None:
        """The program has failed an order."""
        world = self._world
        if event.cause == "time_limit" and world.scenario.is_first_start:
            sent_at = before.sent_at - world.store.epoch
            self.check(
                sent_at >= 0,
                f"{after.id} was sent {-sent_at:.0f} s before the first start, and failed by its age",
            )
        if world.scenario.brake_hold and after.id not in world.sent_again:
            self._look_at_the_brake(after, commit)
        if world.scenario.confirm_cancelled and event.cause == "answer" and author is not None:
            self._look_whether_confirmed(after, author)

    def ended(self, after: Stored, commit: Commit) -> None:
        """The program has ended an order."""
        until = self.ends_paused.get(ends_of(after.account))
        is_held = until is not None and until[0] < commit.began - self._world.store.epoch < until[1]
        self.check(
            not is_held,
            f"{after.id} ended {after.status} while a person holds the ends of {after.account}",
        )

    def may_give_up(self, row: Stored, event: Event) -> bool:
        """Whether an unknown order may be failed for that reason."""
        now, odd_at = self._world.now(), self.odd_at.get(row.id)
        scenario = self._world.scenario
        if not scenario.give_up_unknown or event.cause != "time_limit" or odd_at is None:
            return False
        others = [at for at, order_id, _ in self._understood[row.account] if order_id != row.id]
        return (
            now - odd_at >= scenario.give_up_after - _JITTER
            and bool(others)
            and now - max(others) <= HOUR + 120
        )

    def _look_at_the_brake(self, row: Stored, commit: Commit) -> None:
        world, now, kod = (
            self._world,
            self._world.store.now(),
            self._world.truth.kod_of(row.account),
        )
        hold, since = world.scenario.brake_hold, world.store.reviews.get((row.id, HELD))
        if now - self.released.get(kod, float("-inf")) < _WINDOW:
            return
        if since is not None:
            if since <= self.released.get(kod, float("-inf")):
                return
            truth = world.truth_of(row)
            first = self._held_since.get(kod, since)
            what = f"{row.id} failed {now - first:.0f} s after the first of {kod} was held, and not {hold:g}"
            self.check(now - min(first, since) >= hold - _LOOK, what)
            is_true = (
                truth.plan.outcome == "cancelled"
                and truth.ends_at is not None
                and truth.ends_at <= world.now()
            )
            self.check(
                is_true, f"{row.id} was held, and failed while the provider was wrong about all"
            )
            self._passed[kod] = now
            return
        if now - self._passed.get(kod, float("-inf")) < _WINDOW:
            return
        recent, usual = Counter[str](), Counter[str]()
        for event in [*world.store.events, *commit.events]:
            is_one = (
                event.source == PROGRAM
                and event.cause in ("answer", "time_limit")
                and not event.repeat
            )
            if is_one and event.account and world.truth.kod_of(event.account) == kod:
                (recent if event.decided_at > now - _WINDOW else usual)[event.outcome] += 1
        total, failed = recent["completed"] + recent["failed"], recent["failed"]
        before = usual["failed"] / (usual["completed"] + usual["failed"] or 1)
        is_flood = total >= 20 and failed > recent["completed"] and failed / total > 3 * before
        self.check(
            not is_flood, f"{row.id} failed, the {failed}th of {total} ends of {kod} in ten minutes"
        )

    def _look_whether_confirmed(self, row: Stored, author: "Process") -> None:
        """All answers about this dispatch that this process read, and those of others since its last
        other one, were cancellations for the required time, since it was sent last.
        """
        first, now = self._world.now(), self._world.now()
        dispatch = (row.id, row.account, row.reference.strip())
        times = self._world.times[dispatch]
        # From then on the program ignores that the shop gives it another time.
        sent_at = times[-1] - self._world.store.epoch if 1 < len(times) <= TOUCHED else 0.0
        for at, number, is_cancelled in reversed(self._heard[dispatch]):
            is_own = number == author.number
            if at < sent_at:
                break
            if not is_cancelled and (is_own or now - at > _WRITTEN_WITHIN):
                break
            if is_cancelled:
                first = at
        wait = self._world.scenario.confirm_cancelled
        self.check(
            now - first >= wait - _JITTER,
            f"{row.id} was cancelled for {now - first:.0f} s only, not {wait:g}",
        )

    def look_at_the_unreadable(self) -> None:
        """Check that a person was told of each PIN that cannot be stored."""
        for order_id in sorted(self._unreadable):
            is_told = (order_id, "pin_unreadable") in self._world.store.opened
            self.check(is_told, f"{order_id} had a PIN that cannot be read, and no person knows")

    def forget(self) -> None:
        """Forget old answers: an endless run would keep them all."""
        for kept in (self._heard, self._understood, self.questions_at):
            kept.clear()

    # --- at all times

    def look(self, process: "Process") -> None:
        """Check that no account is closed for faults of its orders."""
        for key, account in process.engine.accounts.items():
            place, now = (process.number, key), self._world.now()
            if account.gate.is_open:
                self._shut.discard(place)
                continue
            self._shut_at[key] = now
            if place not in self._shut:
                self._shut.add(place)
                # In other runs a panel may be overloaded: that counts against its account,
                # regardless of earlier answers.
                is_well = self._world.scenario.is_special and not self._world.is_disturbed
                lately = [
                    at
                    for at, _, number in self._understood[key]
                    if number == process.number and at > now - _LATELY
                ]
                self.check(
                    not (is_well and lately),
                    f"{key} is shut ({account.gate.reason}), and was understood lately",
                )

    def look_at_the_held(self) -> None:
        """Record since when ends of each login are held."""
        since: dict[str, float] = {}
        for (order_id, kind), at in self._world.store.reviews.items():
            row = self._world.store.rows.get(order_id)
            if kind == HELD and row is not None:
                kod = self._world.truth.kod_of(row.account)
                since[kod] = min(at, since.get(kod, at))
        self._held_since = {
            kod: min(at, self._held_since.get(kod, at)) for kod, at in since.items()
        }

    def look_for_forgotten(self) -> None:
        """Check that every open order is asked again in time."""
        world, now = self._world, self._world.now()
        is_quiet = not world.is_disturbed or (
            not world.wrong and now - world.quiet_since > CALM_FOR
        )
        if not is_quiet or not world.processes or now - world.processes[-1].born < LONGEST_PAUSE:
            return
        slack = 90 + len(world.plans) * max(1.0, 1 / world.scenario.per_second)
        for row in world.store.rows.values():
            if row.status not in OPEN or self.is_never_asked(row) or not world.is_settled(row.id):
                continue
            if self.was_shut(row.account, LONGEST_PAUSE + slack):
                continue
            sent_at = max(0.0, row.sent_at - world.store.epoch - world.store.ahead)
            last = max(sent_at, world.last_asked.get(row.reference, 0.0))
            self.check(
                now - last <= LONGEST_PAUSE + slack,
                f"{row.id} was not asked about for {now - last:.0f} s",
            )

    def look_for_neglected(self, seconds: float) -> None:
        """Add ``seconds`` for each order that could have been asked about, and check the total."""
        world, now = self._world, self._world.now()
        slack = 60 + len(world.plans) * max(1.0, 1 / world.scenario.per_second)
        is_explained = (
            any(kind not in EXPLAINS_NOTHING for kind in world.going_on) or not world.processes
        )
        known, self._neglected = self._neglected, {}
        for row in world.store.rows.values():
            if row.status not in OPEN or self.is_never_asked(row) or not world.is_settled(row.id):
                continue
            key = (row.id, row.reference, row.account)
            last, neglected = self.questions_at.get(row.reference, -1.0), 0.0
            if key in known and known[key][0] == last:
                is_kept = (
                    is_explained
                    or self.was_shut(row.account, REOPENS_IN)
                    or row.account in world.store.pauses
                )
                neglected = known[key][1] + (0.0 if is_kept else seconds)
            self._neglected[key] = (last, neglected)
            what = f"{row.id} was not asked about for {neglected:.0f} s in which nothing was in the way"
            self.check(neglected <= LONGEST_PAUSE + slack, f"{what}, at {now:.0f} s")

    def was_shut(self, account: str, within: float) -> bool:
        """Whether an account was closed within this many seconds: then its probes choose their
        orders.
        """
        return self._world.now() - self._shut_at.get(account, float("-inf")) < within

    def is_never_asked(self, row: Stored) -> bool:
        """Whether no provider is asked about an order: it is left alone, or another tenant's, or
        its time of sending is still to come, as after the database's clock went back.
        """
        is_to_come = row.sent_at > self._world.store.now()
        return row.account == TENANT or self.is_left_alone(row) or is_to_come

    def is_left_alone(self, row: Stored) -> bool:
        """Whether an order was sent too long before the first start to be monitored."""
        world = self._world
        return world.scenario.is_first_start and row.sent_at < world.store.epoch - LEFT_ALONE

    def is_kept(self, row: Stored) -> bool:
        """Whether no end can come from the provider's answers, or the order is not asked about."""
        world = self._world
        truth = world.truth_of(row)
        is_over = truth.ends_at is not None and truth.ends_at < world.now()
        if self.is_left_alone(row) or row.sent_at > world.store.now():
            return True
        if world.scenario.is_first_start and row.sent_at < world.store.epoch and not is_over:
            return True
        if not truth.plan.forgets:
            return False
        # If an account gives no intelligible answer for hours, a person hears about the account.
        is_told = (row.id, NOT_KNOWN) in world.store.reviews or self.was_shut(row.account, HOUR)
        return is_told or world.scenario.give_up_after > 3 * HOUR
