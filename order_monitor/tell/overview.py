"""What the program shows of itself, gathered from memory for the page, the metrics and the command line alike.

Bounded: rings of fixed size, labels from closed sets. No PIN, no secret, and nothing of the shop's customers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from order_monitor import __version__
from order_monitor.core.answer import Answer
from order_monitor.core.clock import Clock
from order_monitor.core.entry import Entry
from order_monitor.core.gate import Pause
from order_monitor.core.order import Order
from order_monitor.core.recording import Result
from order_monitor.core.timing.picture import Gallery, Picture
from order_monitor.core.timing.planner import Timing
from order_monitor.tell import census
from order_monitor.tell.census import AGES, Census, Counting
from order_monitor.tell.history import History, iso
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.webhook import Sender
from order_monitor.watch.account import Account
from order_monitor.watch.cluster import Cluster
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer

_DELAY_BUCKETS: Final = (1.0, 5.0, 15.0, 60.0, 300.0)
_FRESH: Final = 0.5
_MANY: Final = 10_000
"""Orders beyond which counting them all in one step would be felt."""

_WANTED_FOR: Final = 60.0
_CENSUS_SHARE: Final = 50
"""A census may take a fiftieth of the time at most: the more orders there are, the less often they are counted."""


class Overview(Observer):
    """Watches the engine, and says how it is."""

    def __init__(self, clock: Clock) -> None:
        """Begin with an empty history."""
        self._clock = clock
        self.history = History(clock, lambda: self.engine.state.open)
        self._started = clock.time()
        self._engine: Engine | None = None
        self._probe: Readiness | None = None
        self.give_up_after = 0.0
        self._census: Census = Census()
        self._counted_until = self._wanted_at = float("-inf")
        self._counts_beside = False
        self.sender: Sender | None = None
        self.cluster: Cluster | None = None
        self.learned: Timing | None = None
        self._gallery = Gallery()

    def watch(self, engine: Engine, probe: Readiness, give_up_after: float, sender: Sender | None = None) -> None:
        """Show ``engine``, as ``probe`` judges it; orders count as overdue after ``give_up_after`` seconds."""
        self._engine, self._probe, self.give_up_after, self.sender = engine, probe, give_up_after, sender

    @property
    def engine(self) -> Engine:
        """What is watched."""
        assert self._engine is not None, "watch() comes first"
        return self._engine

    @property
    def probe(self) -> Readiness:
        """Its judge."""
        assert self._probe is not None, "watch() comes first"
        return self._probe

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Keep it in the history."""
        self.history.checked(account, order, answer, seconds)

    def settled(self, account: str, result: Result, delay: float) -> None:
        """Keep it in the history."""
        self.history.settled(account, result, delay)

    def scanned(self, seconds: float) -> None:
        """Keep it in the history."""
        self.history.scanned(seconds)

    def count(self) -> Census:
        """Return the census, at most a little old; of very many orders it is counted beside, while somebody wants to know."""
        now = self._clock.monotonic()
        self._wanted_at = now
        if now >= self._counted_until and not (self._counts_beside and len(self.engine.queue) > _MANY):
            self._counted(self._counting().at_once(), now)
        return self._census

    async def run(self) -> None:
        """Count very many orders in turns with others, for ever, as long as somebody has asked lately."""
        self._counts_beside = True
        while True:
            now = self._clock.monotonic()
            is_wanted = now - self._wanted_at < _WANTED_FOR and now >= self._counted_until
            if is_wanted and len(self.engine.queue) > _MANY:
                self._counted(await self._counting().in_turns(), now)
            await self._clock.sleep(_FRESH)

    def _counting(self) -> Counting:
        engine, now = self.engine, self._clock.monotonic()
        elsewhere = {name for name, account in engine.accounts.items() if not account.is_held(now)}
        return Counting(engine.queue, engine.skips, engine.now(), self.give_up_after, elsewhere)

    def _counted(self, found: Census, began: float) -> None:
        now = self._clock.monotonic()
        self._census, self._counted_until = found, began + max(_FRESH, (now - began) * _CENSUS_SHARE)

    def document(self) -> dict[str, Any]:
        """Return all of it, ready to be written as JSON."""
        state, count = self.engine.state, self.count()
        reasons = self.probe.reasons()
        owners = self.cluster.owners() if self.cluster else None
        return {
            "version": __version__,
            "started_at": iso(self._started),
            "now": iso(self._clock.time()),
            "ready": not reasons,
            "reasons": reasons,
            "lights": self._lights(),
            "orders": {
                "open": state.open,
                "due": count.due,
                "overdue": count.overdue,
                "stuck": len(state.stuck),
                "skipped": {str(reason): number for reason, number in sorted(state.skipped.items())},
                "oldest_due_seconds": self.oldest_due(),
                "unwritten": len(self.engine.writer),
                "oldest_unwritten_seconds": round(self.engine.writer.oldest_seconds(), 1),
                "by_age": [
                    {"up_to": limit, "count": number} for limit, number in zip((*AGES, None), count.by_age, strict=True)
                ],
            },
            "accounts": [self._account(account, count, owners) for account in self.engine.accounts.values()],
            "cluster": self._members(owners or {}),
            "recent": list(self.history.rings.recent),
            "failures": list(self.history.rings.failures),
            "problems": [_problem(problem) for problem in count.problems],
            "next": [_coming(entry) for entry in count.next],
            "events": self.events(),
            "webhook": {"waiting": self.sender.waiting, "dead": self.sender.dead} if self.sender else None,
            "reviews": state.reviews,
            "detection_seconds": self._detection(),
            "timing": None if self.learned is None else [_picture(one) for one in self._gallery.pictures(self.learned)],
            "history": [
                {"at": iso(m.at), "open": m.open, "checks": m.checks, "ended": m.ended}
                for m in self.history.rings.minutes
            ],
        }

    def monotonic(self) -> float:
        """Return the time by which accounts are judged (monotonic seconds)."""
        return self._clock.monotonic()

    def oldest_due(self) -> float:
        """Return for how many seconds the answer is overdue that is overdue longest; 0 where nothing is due."""
        oldest = self.count().oldest_due
        return round(max(0.0, self.engine.now() - oldest), 1) if oldest is not None else 0.0

    def _lights(self) -> dict[str, dict[str, Any]]:
        """Say whose fault it is: the shop's database's, the provider's, or this program's."""
        state, accounts = self.engine.state, list(self.engine.accounts.values())
        now = self._clock.monotonic()
        unwell = [account for account in accounts if account.is_ours(now) and not account.is_well(now)]
        lost = sum(account.gate.is_open for account in unwell)
        live = self.probe.is_live()
        database = state.scan_problem or ("answers are not being written" if self.engine.writer.stands_still() else "")
        closed = f"{len(unwell) - lost} of {len(accounts)} accounts closed" if len(unwell) > lost else ""
        not_understood = f"{lost} of {len(accounts)} accounts not understood" if lost else ""
        provider = "; ".join(filter(None, (closed, not_understood)))
        monitor = "" if live else "the loop does not tick"
        if live and state.stuck:
            monitor = f"{len(state.stuck)} orders are stuck"
        return {
            "database": {"ok": not database and state.scans > 0, "why": database},
            "provider": {
                "ok": bool(accounts) and not unwell,
                "why": provider if accounts else "there is no account to ask",
            },
            "monitor": {"ok": live and not state.stuck, "why": monitor},
        }

    def _members(self, owners: Mapping[str, str]) -> dict[str, Any] | None:
        """Say who shares the accounts, and which are whose; None where nobody does."""
        if self.cluster is None:
            return None
        view = self.cluster.view
        accounts: dict[str, list[str]] = {}
        for account, member in owners.items():
            accounts.setdefault(member, []).append(account)
        return {
            "me": view.me.name if view else None,
            "problem": self.cluster.problem,
            "members": [
                {"name": m.name, "leads": m.leads, "accounts": sorted(accounts.get(m.name, []))}
                for m in (view.members if view else ())
            ],
        }

    @property
    def speaks(self) -> bool:
        """Whether it tells what is the same in every process: summed up over all of them, the table's numbers count once."""
        return self.cluster is None or self.cluster.leads

    def _account(self, account: Account, count: Census, owners: Mapping[str, str] | None) -> dict[str, Any]:
        now = self._clock.monotonic()
        share = count.shares.get(account.name, census.Share())
        meter = self.history.rings.rates.get(account.name)
        opens = account.gate.opens_at()
        return {
            "name": account.name,
            "owner": None if owners is None else owners.get(account.name, ""),
            "open": account.gate.is_open,
            "reason": account.gate.reason if not account.gate.is_open else "",
            "last_error": account.last_error,
            "said": account.said,
            "understood": account.is_understood(now),
            "in_flight": account.in_flight,
            "orders": share.orders,
            "due": share.due,
            "calls_per_second": round(meter.per_second(now), 2) if meter else 0.0,
            "limit_per_second": account.pace.per_second,
            "next_probe_seconds": None if opens is None else round(max(0.0, opens - now), 1),
            "last_answer_at": iso(account.answered_at),
            "paused": _pause(account.paused),
            "balance": account.balance,
        }

    def events(self) -> dict[str, Any] | None:
        """Return what the shop has not consumed yet; None where that is not known."""
        told = self.engine.state.events_waiting
        if told is None:
            return None
        waiting, since = told
        age = max(0.0, self.engine.now() - since) if since is not None else 0.0
        return {"waiting": waiting, "oldest_waiting_seconds": round(age, 1)}

    def _detection(self) -> dict[str, Any]:
        delays = sorted(self.history.rings.delays)
        groups = Counter(next((b for b in _DELAY_BUCKETS if delay <= b), None) for delay in delays)
        return {
            "p50": _quantile(delays, 0.5),
            "p95": _quantile(delays, 0.95),
            "buckets": [{"up_to": limit, "count": groups[limit]} for limit in (*_DELAY_BUCKETS, None)],
        }


def _problem(problem: census.Problem) -> dict[str, Any]:
    told = {name: getattr(problem, name) for name in ("order_id", "kind", "why", "account", "referans")}
    return {**told, "since": iso(problem.since)}


def _coming(entry: Entry) -> dict[str, Any]:
    return {"order_id": entry.id, "account": entry.account, "at": iso(entry.due), "referans": entry.referans or ""}


def _picture(one: Picture) -> dict[str, Any]:
    account, package = one.key
    curve = [{"age": age, "share": share} for age, share in one.curve]
    told = {"orders": round(one.orders), "half_seconds": one.half, "curve": curve, "checks": one.checks}
    return {"account": account, "package": package, **told}


def _pause(pause: Pause | None) -> dict[str, Any] | None:
    if pause is None:
        return None
    return {"reason": pause.reason, "by": pause.by, "since": iso(pause.since), "until": iso(pause.until)}


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None
