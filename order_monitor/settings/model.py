"""Settings: ``monitor.toml``, overridden by files in a secrets directory, overridden by the environment.

An unknown key is an error wherever it stands. No message ever repeats a value: it might be the password.
"""

from __future__ import annotations

from typing import Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from order_monitor.core.proxy import parse_proxy
from order_monitor.settings.asking import (
    ClusterSettings,
    DatabaseSettings,
    LimitSettings,
    ProviderSettings,
    ScheduleSettings,
    StatusSettings,
)
from order_monitor.settings.telling import (
    EventSettings,
    HealthSettings,
    LogSettings,
    NotifySettings,
    ShutdownSettings,
    WebhookSettings,
)


class Settings(BaseSettings):
    """Everything; see ``docs/settings.md``, which is written from this file."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    database: DatabaseSettings = DatabaseSettings()
    provider: ProviderSettings = ProviderSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    limits: LimitSettings = LimitSettings()
    cluster: ClusterSettings = ClusterSettings()
    statuses: StatusSettings = StatusSettings()
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
        """Read nothing behind the caller's back: `order_monitor.settings.loading` gathers all sources itself."""
        return (init_settings,)

    def secrets(self) -> list[str]:
        """Return every secret value, for the log's redactor."""
        address = self.database.address()
        provider, webhook = self.provider, self.webhook
        given = (
            provider.kod,
            provider.sifre,
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
    """Return each section's keys whose values are secrets."""
    sections: dict[str, Any] = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {
        name: [
            field.alias or key for key, field in section.model_fields.items() if "SecretStr" in repr(field.annotation)
        ]
        for name, section in sections.items()
    }


def known_keys() -> dict[str, list[str]]:
    """Return each section's keys, as they are written in monitor.toml."""
    sections: dict[str, Any] = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {
        name: [field.alias or key for key, field in section.model_fields.items()] for name, section in sections.items()
    }
