"""Checks what a process shows of itself: its readiness, and its page.

- Without faults for some time, it is ready.
- A closed account makes it unready only if no account that it asks is well.
- If the database has been down for longer than a few scans take, or refuses every write, it is not
  ready.
- The page shows what the last scan has read: the number of open orders, what waits for a person,
  and the events that wait.
- It shows the ends that this process wrote, the newest first, and when each account was last
  understood.
- It contains no PIN.
"""

import json
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.order import Order
from order_monitor.shop.accounts.pauses import EVERY_ACCOUNT
from order_monitor.tell.document import document_of
from order_monitor.tell.history import iso
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.status_view import StatusView
from order_monitor.tell.webhook import Sender
from order_monitor.watch.observer import Observer
from tests.simulation.scenario import HOUR
from tests.simulation.sight import LONGEST_PAUSE

if TYPE_CHECKING:
    from tests.simulation.process import Process

SETTLES_IN = 120.0
"""Seconds after its start, and after a database outage, within which a process must be ready."""

AWAY_FOR = 100.0
"""Seconds after which a process that cannot read the orders must not be ready: three scans, and
their duration.
"""

REFUSED_FOR = 120.0
"""Seconds after which a process must not be ready if all its writes are refused."""

FEWEST = 3
"""How many orders' writes must be refused before the cause is more than these orders."""

SHOWN = 50
"""How many ends the page shows."""

UNWELL = (
    "outage",
    "busy",
    "maintenance",
    "login",
    "refusing",
    "crossed",
    "slow",
    "cut",
    "connect",
    "password",
)
"""Faults that may keep an account closed long after they have ended."""

WELL_AGAIN = 1.5 * HOUR
"""Seconds for which they may do so."""

REFUSING = ("poison", "rewrites", "refuses_all", "pair", "other_file")
"""Faults that may delay the writes of some orders until the next question about them."""


class Shown(Observer):
    """The page and the readiness of one process."""

    def __init__(self, process: "Process") -> None:
        """Observe ``process``; call `watch` before it starts."""
        self._process = process
        self._world = process.world
        self.view = StatusView(process.clock)
        self._read: Mapping[str, Any] = {}
        """The data of the last scan, as the model shop gave it."""
        self._ends: deque[tuple[str, str]] = deque(maxlen=SHOWN)
        self._understood: dict[str, float] = {}
        self._refused: dict[str, float] = {}
        """The orders whose writes the database refused since this process last wrote something, and
        since when.
        """

    def watch(self, scan_interval: float, sender: Sender | None) -> None:
        """Check the process's engine, which scans every ``scan_interval`` seconds."""
        process = self._process
        cluster = process.cluster
        probe = Readiness(process.engine, process.clock, scan_interval, cluster, sender)
        self.view.cluster = cluster
        self.view.watch(process.engine, probe, process.policy.give_up_after, sender)

    # --- what the process does

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """An answer was read: for an account that is understood the page shows its time."""
        self.view.history.checked(account, order, answer, seconds)
        if isinstance(answer, Completed | Cancelled | Waiting):
            self._understood[order.integration or account] = self._process.engine.now()
        self.look_whether_ready()

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """A finding was written, refused or dropped."""
        self.view.history.settled(account, result, delay)
        write, order_id = result.write, result.finding.order.id
        if result.fate is WriteStatus.WRITTEN:
            self._refused.clear()
            if write is not None and write.status != result.status:
                self._ends.appendleft((order_id, write.status))
        elif result.is_refused:
            self._refused.setdefault(order_id, self._world.now())
        else:
            self._refused.pop(order_id, None)

    def scanned(self, seconds: float) -> None:
        """A scan is complete: its data is shown from now on."""
        self.view.history.scanned(seconds)
        self._read = dict(self._process.pool.seen)

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Forget removed accounts."""
        self.view.history.remain(accounts)
        self._understood = {key: at for key, at in self._understood.items() if key in accounts}

    # --- what must hold

    def look_whether_ready(self) -> None:
        """Check that it is ready if all is well, and not ready if nothing can be read or
        written.
        """
        process, world = self._process, self._world
        if not process.is_daemon or process.stop.event.is_set():
            return
        now, reasons = world.now(), self.view.probe.reasons()
        age = now - process.born
        since = world.sight.away_since
        if since is not None and now - max(since, process.born) > AWAY_FOR:
            away = now - since
            world.check(
                bool(reasons),
                f"a process is ready although the database has been away for {away:.0f} s",
            )
        if self._is_refused_everything(now):
            world.check(bool(reasons), "a process is ready although all it would write is refused")
        now_well = [
            one for one in process.engine.accounts.values() if one.is_ours(now) and one.is_well(now)
        ]
        if now_well and any(reason.startswith("account ") for reason in reasons):
            world.check(
                False,
                f"a process is not ready although {now_well[0].name} is well: {'; '.join(reasons)}",
            )
        if reasons and age > SETTLES_IN and self._is_all_well(now):
            world.check(False, f"a process is not ready although all is well: {'; '.join(reasons)}")

    def _is_refused_everything(self, now: float) -> bool:
        open_ones = [
            since
            for order_id, since in self._refused.items()
            if order_id in self._process.engine.state.stuck
            and self._process.engine.queue.get(order_id) is not None
        ]
        return len(open_ones) >= FEWEST and now - min(open_ones) > REFUSED_FOR

    def _is_all_well(self, now: float) -> bool:
        """Whether there has been no fault for as long as one may have effects."""
        world = self._world
        if (
            world.wrong
            or self._process.is_other
            or self._process.differs
            or world.scenario.is_special
        ):
            return False
        # Questions about an order that the provider does not know yet fail, and with the first
        # orders that counts against the account.
        if any(
            plan.forgets or now < plan.sent_at + plan.unknown_for + LONGEST_PAUSE
            for plan in world.plans.values()
        ):
            return False
        if not all(world.is_account_settled(key) for key in world.scenario.accounts):
            return False
        kinds = {fault.kind for fault in world.scenario.faults if fault.at <= now}
        wait = WELL_AGAIN if kinds & {*UNWELL, *REFUSING} else SETTLES_IN
        return not kinds or now - world.quiet_since > wait

    def look_at_the_page(self) -> None:
        """Check that the page shows what was read, and no PIN."""
        process, world = self._process, self._world
        if process.is_dead or process.engine.state.scans == 0 or not process.is_daemon:
            return
        document = document_of(self.view)
        self._compare("orders open", process.engine.state.open, self._open())
        orders = document["orders"]
        parts = sum(group["count"] for group in orders["by_age"])
        world.check(parts <= orders["open"], "the page's parts exceed the whole")
        self._compare("reviews", document["reviews"], self._read.get("reviews"))
        waiting = self._read.get("events")
        if waiting is not None:
            count, since = waiting
            self._compare("events", document["events"]["waiting"], count)
            age = 0.0 if since is None else max(0.0, process.engine.now() - since)
            self._compare(
                "events' age", document["events"]["oldest_waiting_seconds"], round(age, 1)
            )
        recent = [(one["order_id"], one["to"]) for one in document["recent"]]
        self._compare("recent ends", recent, list(self._ends))
        paused = self._read.get("pauses", set())
        for key, account in process.engine.accounts.items():
            shown = next(one for one in document["accounts"] if one["name"] == account.name)
            self._compare(
                f"pause of {key}", bool(shown["paused"]), bool({key, EVERY_ACCOUNT} & paused)
            )
            if key in self._understood and shown["last_answer_at"] is not None:
                self._compare(
                    f"last answer of {key}", shown["last_answer_at"], iso(self._understood[key])
                )
        text = json.dumps(document, default=str)
        world.check("PIN-" not in text and "BY-HAND-" not in text, "a PIN stands on the page")

    def _open(self) -> int | None:
        """The number of open orders in the last full scan.

        Where accounts are shared, those that were got since are read in between.
        """
        if self._process.cluster is not None:
            return None
        found = self._read.get("open")
        return None if found is None else found + self._read.get("left_alone", 0)

    def _compare(self, what: str, shown: object, true: object) -> None:
        if true is not None:
            self._world.check(
                shown == true, f"the page shows {what} {shown!r}, and {true!r} was read"
            )
