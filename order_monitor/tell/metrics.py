"""Metrics for Prometheus: counters are updated as events happen, gauges are read from memory at
each scrape.
"""

from __future__ import annotations

from collections import Counter as CountOf
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from order_monitor import __version__
from order_monitor.core.answer import Answer
from order_monitor.core.check_result import WriteResult
from order_monitor.core.decision import StuckReason
from order_monitor.core.order import Order, SkipReason
from order_monitor.tell.attention import NOT_READY, REMEDIES, causes_in
from order_monitor.tell.queue_summary import QueueSummary, Share
from order_monitor.tell.status_view import StatusView
from order_monitor.watch.observer import Observer

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_CALL: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_QUERY: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DELAY: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


_HELP: Final = {
    "ready": "1 while the process is ready: see /readyz.",
    "orders_due": "Orders whose next check is due and has not started.",
    "orders_stuck": "Orders whose answer could not be written; each needs an operator.",
    "orders_held": "Orders whose end is held back, by the brake or by an operator.",
    "orders_stuck_by_reason": "Stuck orders, by reason.",
    "orders_odd": "Orders whose own answers are not understood, while others of the account are.",
    "oldest_due_seconds": "Seconds since the check that is overdue the longest was due.",
    "oldest_open_seconds": "Age of the oldest open order that is asked about, in seconds.",
    "inflight": "Checks in flight.",
    "writes_pending": "Check results not yet in the database.",
    "writes_oldest_seconds": "Age of the oldest check result not yet in the database, in seconds.",
    "database_up": "1 while the shop's database is reachable.",
    "last_success_timestamp_seconds": "Unix time of the last understood answer, or of the last moment at which nothing was due.",
    "orders_open": "Open orders in the shop's table.",
    "orders_overdue": "Open orders older than schedule.give_up_after.",
    "reviews": "Open reviews: decisions that need an operator (order-monitor review).",
    "orders_skipped": "Open orders that are not checked, by reason.",
    "events_waiting": "Events the shop has not consumed yet.",
    "events_oldest_waiting_seconds": "Age of the oldest event the shop has not consumed, in seconds.",
    "webhook_waiting": "Events waiting to be posted to the webhook.",
    "webhook_dead": "Events given up as dead letters.",
    "attention": "1 while an operator should look at this kind of thing, as the page and order-monitor status say it.",
    "ends_by_age": "1 while the clocks agree, so that an order's age may end it.",
    "account_open": "1 while the account may be asked (its circuit breaker is closed).",
    "account_orders": "Open orders of the account.",
    "account_paused": "1 while the account is paused by an operator.",
    "account_understood": "0 while none of the account's answers is understood.",
    "account_balance": "Balance of the account, in the provider's currency.",
    "cluster_members": "Processes sharing the accounts, as this one sees them; 0 while it is not a member.",
    "cluster_leader": "1 while this process is the leader: it posts events and reports for all.",
    "timing_orders": "Ends the learned timing is based on, weighted by age.",
    "build_info": "The running version.",
}
"""The text of each gauge."""


class Metrics(Observer):
    """Counts what the engine does, and renders it for Prometheus."""

    def __init__(self, view: StatusView, dropped: Callable[[], int] = lambda: 0) -> None:
        """Read gauges from ``view``; ``dropped`` returns the number of lost log lines."""
        self._registry = CollectorRegistry()
        self._checks = self._counter(
            "checks", "Checks made with the provider, by account and outcome.", "account", "outcome"
        )
        self._filled = self._counter(
            "filled",
            "Orders asked about before they were due, in the free places of a call.",
            "account",
        )
        self._ignored = self._counter(
            "ignored_entries",
            "Entries in answers about orders that were not asked about.",
            "account",
        )
        self._writes = self._counter(
            "writes", "Check results handed to the database, by what became of them.", "result"
        )
        self._check_seconds = self._histogram(
            "check_seconds", "Duration of one check with the provider, in seconds.", _CALL
        )
        self._write_seconds = self._histogram(
            "write_seconds", "Duration of writing one batch, in seconds.", _QUERY
        )
        self._scan_seconds = self._histogram(
            "scan_seconds", "Duration of one scan of the open orders, in seconds.", _QUERY
        )
        self._detection = self._histogram(
            "detection_seconds",
            "Seconds from the time a check was due until the end it found was written.",
            _DELAY,
        )
        self._registry.register(_Gauges(view, dropped))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"order_monitor_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"order_monitor_{name}", text, buckets=buckets, registry=self._registry)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Count a check."""
        self._checks.labels(account, answer.outcome).inc()
        self._check_seconds.observe(seconds)

    def filled(self, account: str, count: int) -> None:
        """Count orders that were asked about before they were due."""
        self._filled.labels(account).inc(count)

    def ignored(self, account: str, count: int) -> None:
        """Count entries about orders that were not asked about."""
        self._ignored.labels(account).inc(count)

    def wrote(self, count: int, seconds: float) -> None:
        """Measure a batch."""
        self._write_seconds.observe(seconds)

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """Count the result of a write."""
        self._writes.labels(str(result.fate)).inc()
        if result.write is not None and result.write.final:
            self._detection.observe(delay)

    def scanned(self, seconds: float) -> None:
        """Measure a scan."""
        self._scan_seconds.observe(seconds)

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Drop the counts of accounts that are gone or have been renamed."""
        names = set(accounts.values())
        for counter in (self._checks, self._filled, self._ignored):
            samples = [sample for family in counter.collect() for sample in family.samples]
            for labels in {tuple(sample.labels.values()) for sample in samples}:
                if labels[0] not in names:
                    counter.remove(*labels)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    """Reads the current values."""

    def __init__(self, view: StatusView, dropped: Callable[[], int]) -> None:
        self._view = view
        self._dropped = dropped

    def describe(self) -> list[Metric]:
        """Return nothing in advance: the metrics depend on the accounts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each gauge."""
        yield from self._orders()
        yield from self._accounts()
        yield from self._clocks()
        yield self._attention()
        yield from self._process()

    def _orders(self) -> Iterator[Metric]:
        view, engine, counts = self._view, self._view.engine, self._view.count()
        state = engine.state
        yield _gauge("ready", not view.probe.reasons())
        yield _gauge("orders_due", counts.due)
        yield _gauge("orders_stuck", len(state.stuck))
        yield _gauge("orders_held", view.held())
        stuck = CountOf(state.stuck.values())
        yield _gauges("orders_stuck_by_reason", "reason", {why: stuck[why] for why in StuckReason})
        yield _gauge("orders_odd", len(state.odd))
        yield _gauge("oldest_due_seconds", view.oldest_due())
        yield _gauge("oldest_open_seconds", round(counts.oldest_open, 1))
        yield _gauge("inflight", sum(a.in_flight for a in engine.accounts.values()))
        yield _gauge("writes_pending", len(engine.writer))
        yield _gauge("writes_oldest_seconds", engine.writer.oldest_seconds())
        yield _gauge("database_up", state.scans > 0 and not state.scan_problem)
        yield _gauge("last_success_timestamp_seconds", state.succeeded_at or 0)
        if view.speaks:
            yield from self._table(counts)

    def _table(self, counts: QueueSummary) -> Iterator[Metric]:
        """Values that are the same in every process."""
        view = self._view
        yield _gauge("orders_open", counts.open)
        yield _gauge("orders_overdue", counts.overdue)
        yield _gauge("reviews", view.engine.state.reviews)
        skipped = {reason: counts.skipped[reason] for reason in SkipReason}
        yield _gauges("orders_skipped", "reason", skipped)
        if (events := view.events()) is not None:
            yield _gauge("events_waiting", events["waiting"])
            yield _gauge("events_oldest_waiting_seconds", events["oldest_waiting_seconds"])
        if (sender := view.sender) is not None:
            yield _gauge("webhook_waiting", sender.waiting)
            yield _gauge("webhook_dead", sender.dead)

    def _attention(self) -> Metric:
        """What the page lists as something to look at.

        Not being ready at all has a separate metric.
        """
        on = {cause.kind for cause in causes_in(self._view) if not cause.passes}
        kinds = {kind: kind in on for kind in REMEDIES if kind != NOT_READY}
        return _gauges("attention", "kind", kinds)

    def _clocks(self) -> Iterator[Metric]:
        clocks = self._view.engine.context.clocks
        yield _gauge("ends_by_age", clocks.vouches(self._view.clock.boot()))
        leaps = CounterMetricFamily(
            "order_monitor_clock_leaps",
            "Jumps of a clock since the start, by clock.",
            labels=["clock"],
        )
        for clock, count in clocks.leaps.items():
            leaps.add_metric([clock], count)
        yield leaps

    def _accounts(self) -> Iterator[Metric]:
        shares, now = self._view.count().shares, self._view.clock.monotonic()
        held = [
            (one.name, shares.get(key, Share()), one)
            for key, one in self._view.engine.accounts.items()
            if one.is_held(now)
        ]
        label = "account"
        yield _gauges("account_open", label, {name: one.gate.is_open for name, _, one in held})
        yield _gauges("account_orders", label, {name: share.orders for name, share, _ in held})
        yield _gauges("account_paused", label, {name: bool(one.paused) for name, _, one in held})
        understood = {name: one.is_understood(now) for name, _, one in held}
        yield _gauges("account_understood", label, understood)
        amounts = {name: one.balance_amount for name, _, one in held}
        known = {name: amount for name, amount in amounts.items() if amount is not None}
        yield _gauges("account_balance", label, known)

    def _process(self) -> Iterator[Metric]:
        view = self._view
        if (cluster := view.cluster) is not None:
            yield _gauge("cluster_members", len(cluster.view.members) if cluster.view else 0)
            yield _gauge("cluster_leader", cluster.leads)
        if view.learned is not None:
            counts = {
                view.engine.name_of(key): count
                for key, count in view.learned.orders().items()
                if key in view.engine.accounts
            }
            yield _gauges("timing_orders", "account", counts)
        yield _gauges("build_info", "version", {__version__: 1})
        yield CounterMetricFamily(
            "order_monitor_log_lines_dropped",
            "Log lines dropped since the start.",
            value=self._dropped(),
        )


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(f"order_monitor_{name}", _HELP[name], value=float(value))


def _gauges(name: str, label: str, values: Mapping[Any, float]) -> Metric:
    """Return one gauge with a value for each value of its label."""
    family = GaugeMetricFamily(f"order_monitor_{name}", _HELP[name], labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], float(value))
    return family
