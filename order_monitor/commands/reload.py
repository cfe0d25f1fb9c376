"""SIGHUP: read the settings again, apply what can change while running, and report what needs a
restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from order_monitor.app import (
    App,
    as_observed,
    mark_of,
    opener_of,
    plan_of,
    policy_of,
    schedule_of,
    table_config_of,
)
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.settings.loading import load
from order_monitor.settings.model import Settings, known_keys
from order_monitor.settings.money import money_of
from order_monitor.tell.logs import set_level
from order_monitor.tell.redactor import Redactor
from order_monitor.watch.system_clock import SystemClock

_LIVE: Final = {
    "schedule": (
        *("first_check", "base", "cap", "jitter", "give_up_after", "give_up_blind"),
        *("give_up_unknown", "brake_hold", "scan_interval", "record_sync"),
    ),
    "limits": ("concurrency", "calls_per_second", "gate_after"),
    "provider": (
        *("base_url", "kind", "kod", "sifre", "token", "status_path", "connect_timeout", "timeout"),
        *("max_body", "user_agent", "allow_http", "allow_private", "refresh", "ca_file", "proxy"),
    ),
    "log": ("level",),
    "shutdown": ("grace",),
}
LIVE: Final = frozenset(f"{section}.{key}" for section, keys in _LIVE.items() for key in keys)
"""The settings that can change while the daemon runs."""


class Reloader:
    """Applies new settings: a whole file or nothing."""

    def __init__(
        self, config: Path | None, settings: Settings, parts: App, redactor: Redactor
    ) -> None:
        """Read ``config`` again on request; ``settings`` are those in force."""
        self._config = config
        self._settings = settings
        self._parts = parts
        self._redactor = redactor
        self._is_wanted = False
        self._is_stopped = False
        self._reloading: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("order_monitor.reload")

    def __call__(self) -> None:
        """Reload. If the file has mistakes, they are logged and nothing changes.

        The database is asked whether other daemons use different settings. A request during a
        reload starts another one afterwards.
        """
        if self._is_stopped:
            return
        self._is_wanted = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload(), name="reload")

    def stop(self) -> None:
        """Stop reloading, and ignore further requests."""
        self._is_stopped = True
        if self._reloading is not None:
            self._reloading.cancel()

    async def _reload(self) -> None:
        while self._is_wanted:
            self._is_wanted = False
            self._parts.notifier.reloading()
            try:
                await self._take(load(self._config, need=("database", "provider")))
            except SettingsError as error:
                self._log.error("settings.refused", problems=error.problems)
            finally:
                self._parts.notifier.reloaded()

    async def _take(self, fresh: Settings) -> None:
        """Apply the new settings, all of them or none.

        Raises:
            SettingsError: a setting that decides money has changed, and another daemon uses the old
                value.
        """
        self._redactor.learn(fresh.secrets())
        keys = [f"{section}.{key}" for section, keys in known_keys().items() for key in keys]
        changed = [key for key in keys if fresh.value(key) != self._settings.value(key)]
        live = [key for key in changed if key in LIVE]
        kept = [key for key in changed if key not in LIVE]
        # What needs a restart is not partly in force.
        merged = self._settings.with_values({key: fresh.value(key) for key in live})
        await self._agree(money_of(merged))
        self._redactor.retire(
            set(self._settings.secrets()) - set(merged.secrets()) - set(fresh.secrets())
        )
        self._settings = merged
        if live:
            # Accounts that are added later are opened by the same settings.
            of_accounts = [key for key in live if key.startswith(("provider.", "limits."))]
            self._apply(as_observed(self._settings), of_accounts)
        self._log.info("settings.reloaded", changed=live, need_restart=kept)

    async def _agree(self, own: Mapping[str, str]) -> None:
        """Make sure that the other daemons agree, if a setting that decides money has changed.

        Raises:
            SettingsError: they do not, or the database is not available to find out.
        """
        settings_guard = self._parts.settings_guard
        if own == settings_guard.own:
            return
        try:
            differing = await settings_guard.change(own)
        except ShopError as error:
            msg = f"settings that decide money have changed, and the database that they stand in cannot be asked: {error}"
            raise SettingsError([msg]) from None
        if differing:
            raise SettingsError([f"{one}; another daemon lives by it" for one in differing])

    def _apply(self, settings: Settings, of_accounts: list[str]) -> None:
        set_level(settings.log.level)
        parts, limits, schedule = self._parts, settings.limits, settings.schedule
        timing = None
        if parts.learning is not None:
            timing = parts.learning.timing
            parts.learning.reconfigure(schedule_of(settings))
        parts.engine.reconfigure(policy_of(settings, plan=plan_of(settings, timing)))
        shared = settings.cluster.enabled
        opener = opener_of(settings, SystemClock(), shared=shared) if of_accounts else None
        parts.engine.reconfigure_accounts(opener, limits.calls_per_second, limits.gate_after)
        parts.orders.reconfigure(table_config_of(settings))
        if parts.view.cluster is not None:
            parts.view.cluster.show(mark_of(settings))
        parts.view.queue_summary.give_up_after = schedule.give_up_after
        parts.life.reconfigure(grace=settings.shutdown.grace, scan_interval=schedule.scan_interval)
        parts.probe.reconfigure(schedule.scan_interval)
