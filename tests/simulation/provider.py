"""A simulated provider: it knows the truth about each order, and answers when and how the scenario
wants.
"""

import asyncio
import random
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from order_monitor.core.answer import Answer, Busy, Unreachable
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.providers.znet.parser import parse_text
from tests.simulation.other_tables import Login
from tests.simulation.scenario import OrderPlan

if TYPE_CHECKING:
    from tests.simulation.process import Process

WINDOW = 1.0
RIGHT = "right"
BROKEN = "broken"
MINUTE = 60.0
REFUSED_IN = 0.3
"""Seconds until a connection that is refused is known to be."""


Name = tuple[str, str]
"""An order's key at the provider: the dealer's name, and the reference."""


@dataclass
class Truth:
    """What the provider knows about one order.

    ``before`` is the previous order under the same reference, which this one ended. Until
    ``stale_until`` it still answers with that order's end.
    """

    plan: OrderPlan
    pin: str
    ends_at: float | None
    pin_at: float
    said: set[str] = field(default_factory=set)
    """Every final answer given: PINs, ``cancelled``, ``approved``."""
    said_waiting_at: float | None = None
    before: "Truth | None" = None
    stale_until: float = 0.0

    @property
    def approved(self) -> set[str]:
        """The PINs and approvals given, including those of earlier orders."""
        return self.said - {"cancelled"} | (
            self.before.approved if self.before is not None else set()
        )


class Panel:
    """One provider for all processes; knows who asks, and which faults are active."""

    def __init__(self, chance: random.Random) -> None:
        self.truths: dict[Name, Truth] = {}
        self.faults: dict[str, dict[str, float]] = {}
        self.asked_at: dict[str, float] = {}
        self.calls = 0
        self._chance = chance
        self._last: dict[str, str] = {}
        self._placed = 0

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def place(self, name: Name, plan: OrderPlan, sent_at: float, stale_for: float = 0.0) -> None:
        """Accept an order; an earlier one with the same key is cancelled, and is still reported for
        ``stale_for`` seconds.
        """
        ends = None if plan.ends_after is None else sent_at + plan.ends_after
        late = 240.0 if plan.outcome == "late" else 0.0
        self._placed += 1
        pin = f"PIN-{name[1]}-{plan.number}-{self._placed}"
        before = self.truths.get(name)
        if before is not None:
            self.cancel(before)
        self.truths[name] = Truth(
            plan, pin, ends, (ends or 0.0) + late, before=before, stale_until=self.now() + stale_for
        )

    def cancel(self, truth: Truth) -> None:
        """End an order that has not ended."""
        now = self.now()
        if truth.ends_at is None or truth.ends_at > now:
            truth.ends_at, truth.plan = (
                now,
                replace(truth.plan, outcome="cancelled", unknown_for=0.0),
            )

    def recant(self, truth: Truth, outcome: str) -> None:
        """Say from now on that an order that has ended has ended otherwise."""
        truth.plan = replace(truth.plan, outcome=outcome)

    def begin(self, kind: str, account: str, size: float) -> None:
        self.faults.setdefault(account, {})[kind] = size

    def end(self, kind: str, account: str) -> None:
        self.faults.get(account, {}).pop(kind, None)

    async def ask(self, row: Login, reference: str) -> Answer:
        """Answer after a while; a client that disconnects earlier hears nothing."""
        self.calls += 1
        account, is_known = row.id, row.sifre == RIGHT
        wrong = self.faults.get(account, {})
        await asyncio.sleep(self._chance.uniform(0.02, 0.6) * (30 if "slow" in wrong else 1))
        wrong = self.faults.get(account, {})
        if "outage" in wrong:
            await asyncio.sleep(20.0)
            return Unreachable("timeout")
        if "cut" in wrong and self._chance.random() < 0.5:
            return Unreachable("connection_lost")
        if "busy" in wrong:
            size = wrong["busy"]
            return Busy("http_429", None if size < 0.3 else size * 400 if size < 0.6 else 1e9)
        if "maintenance" in wrong:
            return parse_text("Sistem bakımdadır, lütfen daha sonra deneyiniz")
        if "login" in wrong or not is_known:
            return parse_text("8|Bağlantı Hatası")
        if "refusing" in wrong and self._chance.random() < 0.9:
            return parse_text("3|Açıklama")
        truth = self.truths[row.kod, reference]
        text = self._truly(truth)
        if (wrongly := self._wrongly(text, wrong, truth.plan.sent_at)) != text:
            truth.said.add("cancelled")
            text = wrongly
        crossed = (
            self._last.get(row.kod) if "crossed" in wrong and self._chance.random() < 0.5 else None
        )
        if text.startswith("OK|2|P"):
            self._last[row.kod] = text
        if text == BROKEN:
            return Busy("http_500", None)
        text = crossed or text
        return parse_text(self._garbled(text, truth) if "garbles" in wrong else text)

    def _garbled(self, text: str, truth: Truth) -> str:
        """Return an answer, or what is left of it: cut, mixed with another one, or with what is no
        code in the PIN's place.
        """
        head, _, note = text.rpartition("|")
        another = next((one for one in self.truths.values() if one is not truth), truth)
        match self._chance.randrange(9):
            case 0:
                return text[: self._chance.randrange(len(head) + 1)]
            case 1:
                return f"OK|2|{another.pin}|x\n{text}"
            case 2:
                return f"{text[:8]}OK|2|{another.pin}|x"
            case 3:
                return f"OK|{self._chance.choice((0, 4, 7, 22, 32))}| |{note}"
            case 4 if text.startswith("OK|2|P"):
                return f"OK|2|<img src='{truth.pin}.png'>|{note}"
            case 5:
                return ""
        return text

    def _wrongly(self, text: str, wrong: dict[str, float], sent_at: float) -> str:
        """Return a false answer; it counts as said.

        ``cancels_all`` is the latest sending time of the orders concerned.
        """
        is_waiting = text.startswith("OK|1|")
        if text.startswith("OK|") and sent_at < wrong.get("cancels_all", float("-inf")):
            return "OK|3| |x"
        return (
            "OK|3| |x" if is_waiting and "wavers" in wrong and self._chance.random() < 0.6 else text
        )

    def _truly(self, truth: Truth) -> str:
        now = self.now()
        if truth.before is not None and now < truth.stale_until:
            return self._truly(truth.before)
        plan = truth.plan
        if plan.forgets:
            return {"refused": "3|İşlem bulunamadı", "empty": ""}.get(plan.forgets, BROKEN)
        if now < plan.sent_at + plan.unknown_for:
            return "3|İşlem bulunamadı"
        if truth.ends_at is None or now < truth.ends_at:
            truth.said_waiting_at = now
            return f"OK|1| |{plan.note}"
        if plan.outcome == "cancelled":
            truth.said.add("cancelled")
            return f"OK|3| |{plan.note}"
        if plan.outcome == "direct" or now < truth.pin_at:
            truth.said.add("approved")
            return f"OK|2| |{plan.note}"
        truth.said.add(truth.pin)
        return f"OK|2|{truth.pin}|{plan.note}"


class Client:
    """One process's client of one account: it counts its calls, and must not be used after it is
    closed.
    """

    def __init__(self, panel: Panel, row: Login, process: "Process") -> None:
        self.panel = panel
        self.row = row
        self.process = process
        self.is_closed = False
        self._under_way = 0

    async def ask(self, reference: str) -> Reply:
        limits, now = self.process.limits, self.panel.now()
        if self.process.is_dead:
            raise asyncio.CancelledError
        if self.is_closed:
            limits.broken.append(f"asked {reference} through a client that is closed")
        if why := self.process.forbidden(self.row):
            limits.broken.append(f"asked {reference} of {self.row.id}, {why}")
        limits.started(self.row, reference, now)
        self.process.world.asked(self.row, reference)
        number = self.process.world.members.begin(self.process, self.row.id)
        self._under_way += 1
        try:
            if "connect" not in self.panel.faults.get(self.row.id, {}):
                return Reply(await self._ask(reference))
            await asyncio.sleep(0.01)
            limits.asked_again(self.row, self.panel.now())
            return Reply(await self._ask(reference), 2)
        finally:
            self._under_way -= 1
            limits.ended(self.row, reference)
            self.process.world.members.end(number)

    async def _ask(self, reference: str) -> Answer:
        """Ask the panel, if it can be reached from here."""
        handover = self.process.world.handover
        began = handover.begin(self.process, self.row.id, reference)
        if handover.is_cut_off(self.process, self.row.id):
            await asyncio.sleep(REFUSED_IN)
            return Unreachable("connect_failed")
        answer = await self.panel.ask(self.row, reference)
        handover.answered(self.process, reference, answer, began)
        return answer

    async def is_reached(self) -> bool:
        """Whether there is any response to a request without a login."""
        await asyncio.sleep(REFUSED_IN)
        is_away = "outage" in self.panel.faults.get(self.row.id, {})
        return not (is_away or self.process.world.handover.is_cut_off(self.process, self.row.id))

    async def balance(self) -> Balance | NoBalance:
        return Balance("100")

    async def aclose(self) -> None:
        if self._under_way:
            self.process.limits.broken.append(
                f"a client of {self.row.id} was closed while it was asking"
            )
        self.is_closed = True


class Limits:
    """The limits of one process: concurrent calls, and calls a second of a login."""

    def __init__(
        self, concurrency: int, per_second: float, accounts: int, twins: Collection[str]
    ) -> None:
        # Accounts that answer have as many places as those that keep calls waiting, plus one probe
        # each.
        self.most_in_flight = 2 * concurrency + accounts
        self.per_second = per_second
        self.twins = twins
        self.in_flight = 0
        self.asked: list[Name] = []
        self.asked_at: dict[str, float] = {}
        self.broken: list[str] = []
        self._starts: dict[str, deque[float]] = {}
        self._requests: dict[str, deque[float]] = {}

    def asked_again(self, row: Login, now: float) -> None:
        """Count a request: over time they keep the pace, even if a question takes several."""
        requests = self._requests.setdefault(row.kod, deque())
        requests.append(now)
        while requests[0] <= now - MINUTE:
            requests.popleft()
        if len(requests) > self.per_second * MINUTE + 2 * self.most_in_flight:
            self.broken.append(
                f"{len(requests)} requests in a minute of {row.kod}, {self.per_second} a second allowed"
            )

    def ended(self, row: Login, reference: str) -> None:
        self.in_flight -= 1
        self.asked.remove((row.id, reference))

    def started(self, row: Login, reference: str, now: float) -> None:
        self.in_flight += 1
        if self.in_flight > self.most_in_flight:
            self.broken.append(f"{self.in_flight} calls at once, {self.most_in_flight} allowed")
        if (row.id, reference) in self.asked and reference not in self.twins:
            self.broken.append(f"asked {reference} while it was asked already")
        self.asked.append((row.id, reference))
        self.asked_at[row.id] = now
        starts = self._starts.setdefault(row.kod, deque())
        starts.append(now)
        self.asked_again(row, now)
        while starts[0] <= now - WINDOW:
            starts.popleft()
        if len(starts) > max(1.0, self.per_second * (WINDOW + 0.05)) + 1:
            self.broken.append(
                f"{len(starts)} calls in a second of {row.kod}, {self.per_second} allowed"
            )
