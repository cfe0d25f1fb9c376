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

LIVE: Final = frozenset(
    {
        *(
            f"schedule.{key}"
            for key in ("first_check", "base", "cap", "jitter", "give_up_after", "give_up_blind")
        ),
        *(
            "schedule.give_up_unknown",
            "schedule.brake_hold",
            "schedule.scan_interval",
            "schedule.record_sync",
        ),
        *(f"limits.{key}" for key in ("concurrency", "calls_per_second", "gate_after")),
        *(
            f"provider.{key}"
            for key in (
                "base_url",
                "kind",
                "kod",
                "sifre",
                "token",
                "status_path",
                "connect_timeout",
                "timeout",
            )
        ),
        *(
            f"provider.{key}"
            for key in (
                "max_body",
                "user_agent",
                "allow_http",
                "allow_private",
                "refresh",
                "ca_file",
                "proxy",
            )
        ),
        *("log.level", "shutdown.grace"),
    }
)
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
        """Stop reloading, whatever requests follow."""
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
        changed = [key for key in _keys() if _value(fresh, key) != _value(self._settings, key)]
        live = [key for key in changed if key in LIVE]
        kept = [key for key in changed if key not in LIVE]
        merged = _merged(self._settings, fresh, live)
        await self._agree(money_of(merged))
        self._redactor.retire(
            set(self._settings.secrets()) - set(merged.secrets()) - set(fresh.secrets())
        )
        self._settings = merged
        if live:
            self._apply(
                as_observed(self._settings), [key for key in live if key.startswith("provider.")]
            )
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

    def _apply(self, settings: Settings, provider: list[str]) -> None:
        set_level(settings.log.level)
        engine, life, limits, schedule = (
            self._parts.engine,
            self._parts.life,
            settings.limits,
            settings.schedule,
        )
        learning = self._parts.learning
        if learning is not None:
            learning.reconfigure(schedule_of(settings))
        engine.reconfigure(
            policy_of(settings, plan=plan_of(settings, learning.timing if learning else None))
        )
        opener = (
            opener_of(settings, SystemClock(), shared=settings.cluster.enabled)
            if provider
            else None
        )
        engine.reconfigure_accounts(opener, limits.calls_per_second, limits.gate_after)
        self._parts.orders.reconfigure(table_config_of(settings))
        if self._parts.view.cluster is not None:
            self._parts.view.cluster.show(mark_of(settings))
        self._parts.view.queue_summary.give_up_after = schedule.give_up_after
        life.reconfigure(grace=settings.shutdown.grace, scan_interval=schedule.scan_interval)
        self._parts.probe.reconfigure(schedule.scan_interval)


def _keys() -> list[str]:
    return [f"{section}.{key}" for section, keys in known_keys().items() for key in keys]


def _value(settings: Settings, key: str) -> object:
    section, _, name = key.partition(".")
    part = getattr(settings, section)
    return getattr(part, name if name in type(part).model_fields else f"{name}_")


def _merged(old: Settings, fresh: Settings, live: list[str]) -> Settings:
    """Return the old settings with the ``live`` values of the new ones, so that settings that need
    a restart are not partly in force.
    """
    sections: dict[str, dict[str, object]] = {}
    for key in live:
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = _value(fresh, key)
    return old.model_copy(
        update={
            name: getattr(old, name).model_copy(update=values) for name, values in sections.items()
        }
    )
