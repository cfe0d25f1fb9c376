"""Settings: ``monitor.toml``, overridden by files in a secrets directory, overridden by the
environment.

An unknown key is an error in any of them. No message repeats a value, because it might be a
password.
"""

from __future__ import annotations

from typing import Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from order_monitor.core.proxy import parse_proxy
from order_monitor.settings.sections import (
    ClusterSettings,
    DatabaseSettings,
    EventSettings,
    HealthSettings,
    LimitSettings,
    LogSettings,
    NoteSettings,
    NotifySettings,
    ProviderSettings,
    ScheduleSettings,
    ShutdownSettings,
    StatusSettings,
    WebhookSettings,
)


class Settings(BaseSettings):
    """All settings; see ``docs/settings.md``, which is generated from the sections."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    database: DatabaseSettings = DatabaseSettings()
    provider: ProviderSettings = ProviderSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    limits: LimitSettings = LimitSettings()
    cluster: ClusterSettings = ClusterSettings()
    statuses: StatusSettings = StatusSettings()
    notes: NoteSettings = NoteSettings()
    health: HealthSettings = HealthSettings()
    events: EventSettings = EventSettings()
    webhook: WebhookSettings = WebhookSettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()
    shutdown: ShutdownSettings = ShutdownSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing here: `order_monitor.settings.loading` gathers all sources itself.

        pydantic-settings' own sources do not say where a value came from, which each mistake
        names, and would wait for ever on a secrets file that is a pipe.
        """
        return (init_settings,)

    @property
    def observe(self) -> bool:
        """Whether to ask and decide without writing."""
        return self.schedule.observe

    def secrets(self) -> list[str]:
        """Return every secret value, for the log's redactor."""
        address = self.database.address()
        provider, webhook = self.provider, self.webhook
        given = (
            provider.kod,
            provider.sifre,
            provider.token,
            provider.proxy,
            self.health.token,
            self.database.dsn,
            webhook.url,
            webhook.secret,
            self.health.ping_url,
            *self.notify.urls,
        )
        values = [secret.get_secret_value() for secret in given if secret]
        login = parse_proxy(provider.proxy.get_secret_value()).secrets() if provider.proxy else []
        return [*values, *login, *(address.secrets() if address else [])]


def secret_keys() -> dict[str, list[str]]:
    """Return the keys of each section whose values are secrets."""
    sections: dict[str, Any] = {
        name: field.annotation for name, field in Settings.model_fields.items()
    }
    return {
        name: [
            field.alias or key
            for key, field in section.model_fields.items()
            if "SecretStr" in repr(field.annotation)
        ]
        for name, section in sections.items()
    }


def known_keys() -> dict[str, list[str]]:
    """Return the keys of each section, as written in monitor.toml."""
    sections: dict[str, Any] = {
        name: field.annotation for name, field in Settings.model_fields.items()
    }
    return {
        name: [field.alias or key for key, field in section.model_fields.items()]
        for name, section in sections.items()
    }
