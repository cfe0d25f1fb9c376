"""What the program shows of itself, gathered from memory for the page, the metrics and the command line alike.

Bounded: rings of fixed size, labels from closed sets. No PIN, no secret, and nothing of the shop's customers.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from order_monitor import __version__, census
from order_monitor.account import Account, Pause
from order_monitor.answer import Answer, Blocked, Busy, Refused, Unreachable
from order_monitor.census import AGES, Census
from order_monitor.clock import Clock
from order_monitor.engine import Engine
from order_monitor.finding import Fate, Result
from order_monitor.order import Order
from order_monitor.tell.probe import Probe
from order_monitor.tell.webhook import Sender

_RECENT: Final = 50
_FAILURES: Final = 30
_MINUTES: Final = 60
_DELAYS: Final = 1000
_DELAY_BUCKETS: Final = (1.0, 5.0, 15.0, 60.0, 300.0)
_BUCKET_SECONDS: Final = 5.0
_BUCKETS: Final = 12
_CENSUS_SHARE: Final = 50
"""A census may take a fiftieth of the time at most: the more orders there are, the less often they are counted."""


class Meter:
    """How many things a second, over the last minute."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._buckets: deque[tuple[int, int]] = deque(maxlen=_BUCKETS)

    def add(self, now: float) -> None:
        """Count one at ``now`` (monotonic seconds)."""
        slot = int(now / _BUCKET_SECONDS)
        count = self._buckets.pop()[1] if self._buckets and self._buckets[-1][0] == slot else 0
        self._buckets.append((slot, count + 1))

    def per_second(self, now: float) -> float:
        """Return the mean over the last minute."""
        first = int(now / _BUCKET_SECONDS) - _BUCKETS + 1
        return sum(count for slot, count in self._buckets if slot >= first) / (_BUCKETS * _BUCKET_SECONDS)


@dataclass(slots=True)
class _Minute:
    at: float
    open: int
    checks: int = 0
    ended: int = 0


@dataclass(slots=True)
class History:
    """What happened lately, in rings of fixed size; failures in one of their own, so that successes push none out."""

    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    failures: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_FAILURES))
    minutes: deque[_Minute] = field(default_factory=lambda: deque(maxlen=_MINUTES))
    delays: deque[float] = field(default_factory=lambda: deque(maxlen=_DELAYS))
    rates: dict[str, Meter] = field(default_factory=dict)


class View:
    """Watches the engine, and says how it is."""

    def __init__(self, clock: Clock) -> None:
        """Begin with an empty history."""
        self._clock = clock
        self._history = History()
        self._started = clock.time()
        self._engine: Engine | None = None
        self._probe: Probe | None = None
        self.give_up_after = 0.0
        self._census: Census = Census()
        self._counted_until = float("-inf")
        self.sender: Sender | None = None

    def watch(self, engine: Engine, probe: Probe, give_up_after: float, sender: Sender | None = None) -> None:
        """Show ``engine``, as ``probe`` judges it; orders count as overdue after ``give_up_after`` seconds."""
        self._engine, self._probe, self.give_up_after, self.sender = engine, probe, give_up_after, sender

    @property
    def engine(self) -> Engine:
        """What is watched."""
        assert self._engine is not None, "watch() comes first"  # noqa: S101 - a programming error
        return self._engine

    @property
    def probe(self) -> Probe:
        """Its judge."""
        assert self._probe is not None, "watch() comes first"  # noqa: S101 - a programming error
        return self._probe

    # --- watching

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:  # noqa: ARG002 - the observer's
        """Count a question, and keep a failure."""
        self._history.rates.setdefault(account, Meter()).add(self._clock.monotonic())
        self._minute().checks += 1
        if isinstance(answer, (Blocked, Busy, Unreachable, Refused)):
            why = f"refused_{answer.code}" if isinstance(answer, Refused) else answer.why
            told = {"at": iso(self._clock.time()), "account": account, "outcome": answer.outcome, "why": why}
            self._history.failures.appendleft(told)

    def wrote(self, count: int, seconds: float) -> None:
        """Nothing to keep."""

    def settled(self, account: str, result: Result, delay: float) -> None:
        """Keep a change of status."""
        write, order = result.write, result.finding.order
        if result.fate is not Fate.WRITTEN or write is None or write.status == result.status:
            return
        self._history.recent.appendleft(
            {
                "order_id": order.id,
                "from": result.status,
                "to": write.status,
                "has_pin": write.pin is not None,
                "at": iso(self._clock.time()),
                "account": account,
            }
        )
        if write.final:
            self._minute().ended += 1
            self._history.delays.append(delay)

    def scanned(self, seconds: float) -> None:  # noqa: ARG002 - the observer's
        """Note how many are open."""
        self._minute().open = self.engine.state.open

    def _minute(self) -> _Minute:
        now = self._clock.time()
        minutes = self._history.minutes
        if not minutes or now - minutes[-1].at >= 60:  # noqa: PLR2004 - a minute
            minutes.append(_Minute(now - now % 60, minutes[-1].open if minutes else 0))
        return minutes[-1]

    # --- showing

    def count(self) -> Census:
        """Return the census, at most a little old."""
        began = self._clock.monotonic()
        if began >= self._counted_until:
            engine = self.engine
            self._census = census.take(engine.book, engine.skips, engine.now(), self.give_up_after)
            self._counted_until = began + max(0.5, (self._clock.monotonic() - began) * _CENSUS_SHARE)
        return self._census

    def document(self) -> dict[str, Any]:
        """Return all of it, ready to be written as JSON."""
        state, count = self.engine.state, self.count()
        reasons = self.probe.reasons()
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
                "by_age": [
                    {"up_to": limit, "count": number} for limit, number in zip((*AGES, None), count.by_age, strict=True)
                ],
            },
            "accounts": [self._account(account, count) for account in self.engine.accounts.values()],
            "recent": list(self._history.recent),
            "failures": list(self._history.failures),
            "problems": [
                {"order_id": p.order_id, "kind": p.kind, "why": p.why, "account": p.account, "since": iso(p.since)}
                for p in count.problems
            ],
            "next": [{"order_id": e.order.id, "account": e.account, "at": iso(e.due)} for e in count.next],
            "events": self.events(),
            "webhook": {"waiting": self.sender.waiting, "dead": self.sender.dead} if self.sender else None,
            "reviews": state.reviews,
            "detection_seconds": self._detection(),
            "history": [
                {"at": iso(m.at), "open": m.open, "checks": m.checks, "ended": m.ended} for m in self._history.minutes
            ],
        }

    def oldest_due(self) -> float:
        """Return for how many seconds the answer is overdue that is overdue longest; 0 where nothing is due."""
        oldest = self.count().oldest_due
        return round(max(0.0, self.engine.now() - oldest), 1) if oldest is not None else 0.0

    def _lights(self) -> dict[str, dict[str, Any]]:
        """Say whose fault it is: the shop's database's, the provider's, or this program's."""
        state, accounts = self.engine.state, list(self.engine.accounts.values())
        shut = [account for account in accounts if not account.gate.is_open and account.paused is None]
        live = self.probe.is_live()
        provider = f"{len(shut)} of {len(accounts)} accounts closed" if shut else ""
        monitor = "" if live else "the loop does not tick"
        if live and state.stuck:
            monitor = f"{len(state.stuck)} orders are stuck"
        return {
            "database": {"ok": state.scan_problem is None and state.scans > 0, "why": state.scan_problem or ""},
            "provider": {
                "ok": bool(accounts) and not shut,
                "why": provider if accounts else "there is no account to ask",
            },
            "monitor": {"ok": live and not state.stuck, "why": monitor},
        }

    def _account(self, account: Account, count: Census) -> dict[str, Any]:
        now = self._clock.monotonic()
        share = count.shares.get(account.name, census.Share())
        meter = self._history.rates.get(account.name)
        opens = account.gate.opens_at()
        return {
            "name": account.name,
            "open": account.gate.is_open,
            "reason": account.gate.reason if not account.gate.is_open else "",
            "last_error": account.last_error,
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
        delays = sorted(self._history.delays)
        groups = Counter(next((b for b in _DELAY_BUCKETS if delay <= b), None) for delay in delays)
        return {
            "p50": _quantile(delays, 0.5),
            "p95": _quantile(delays, 0.95),
            "buckets": [{"up_to": limit, "count": groups[limit]} for limit in (*_DELAY_BUCKETS, None)],
        }


def _pause(pause: Pause | None) -> dict[str, Any] | None:
    if pause is None:
        return None
    return {"reason": pause.reason, "by": pause.by, "since": iso(pause.since), "until": iso(pause.until)}


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None


def iso(seconds: float | None) -> str | None:
    """Write epoch seconds as UTC, None for what is no date."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None
