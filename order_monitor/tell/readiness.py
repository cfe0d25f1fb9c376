"""Whether the program is alive and working, judged from memory alone."""

from __future__ import annotations

from typing import Final

from order_monitor.cluster.members import Cluster
from order_monitor.core.clock import Clock
from order_monitor.tell.webhook import Sender
from order_monitor.watch.dispatcher import TICK
from order_monitor.watch.engine import Engine

SILENT_TICKS: Final = 12
_SCANS_ALLOWED: Final = 3
SCAN_MARGIN: Final = 30.0


class Readiness:
    """Judges from memory whether the program is alive and working."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        scan_interval: float,
        cluster: Cluster | None = None,
        sender: Sender | None = None,
    ) -> None:
        """Judge ``engine``, which scans every ``scan_interval`` seconds, its membership in
        ``cluster``, and the state of ``sender``.
        """
        self._engine = engine
        self._clock = clock
        self._interval = scan_interval
        self._cluster = cluster
        self._sender = sender

    def reconfigure(self, scan_interval: float) -> None:
        """Use another scan interval, in seconds."""
        self._interval = scan_interval

    def is_live(self) -> bool:
        """Whether the loop ticked recently."""
        ticked = self._engine.state.ticked_at
        return ticked is not None and self._clock.monotonic() - ticked < TICK * SILENT_TICKS

    def reasons(self) -> list[str]:
        """Return why the program does not work at the moment; empty if it does."""
        state = self._engine.state
        hold = self._engine.context.hold
        # While the engine is on hold, it makes no scans on purpose.
        reasons = [hold] if hold else self._unread()
        if problem := self._engine.writer.problem():
            reasons.append(problem)
        if state.clock_stood_still:
            reasons.append("the database's clock has stopped: nothing becomes due")
        if state.scanned_at is not None and not self._engine.accounts:
            reasons.append("there is no account to ask")
        if self._cluster is not None and self._cluster.problem:
            reasons.append(f"not in the cluster: {self._cluster.problem}")
        if self._sender is not None and self._sender.problem:
            # A failing receiver recovers; if another address was adopted, only a person can fix it.
            reasons.append(f"webhook: {self._sender.problem}")
        return [*reasons, *self._unwell()]

    def _unread(self) -> list[str]:
        """Explain why no orders were read recently; empty if they were."""
        problem, looked_at = self._engine.state.scan_problem, self._looked_at()
        limit = self._interval * _SCANS_ALLOWED + SCAN_MARGIN
        if looked_at is None:
            return [f"no scan yet: {problem}" if problem else "no scan yet"]
        if self._clock.monotonic() - looked_at > limit:
            return [f"no scan for {limit:g} s: {problem or 'still running'}"]
        return []

    def _looked_at(self) -> float | None:
        """When orders were last read: with very many, some are asked about long before all are
        read.

        A failed scan does not count.
        """
        done, going = self._engine.state.scanned_at, self._engine.state.taking_at
        if self._engine.state.scan_problem is not None or going is None:
            return done
        return going if done is None else max(done, going)

    def _unwell(self) -> list[str]:
        """Report what is wrong with the accounts if none of them is well."""
        now = self._clock.monotonic()
        accounts = [account for account in self._engine.accounts.values() if account.is_ours(now)]
        if any(account.is_well(now) for account in accounts):
            return []
        return [
            f"account {account.name}: nothing it answers is understood"
            if account.gate.is_open
            else f"account {account.name} is closed: {account.gate.reason}"
            for account in accounts
        ]
