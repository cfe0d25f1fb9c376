"""Settings: ``monitor.toml``, overridden by files in a secrets directory, overridden by the
environment.

An unknown key is an error in any of them. No message repeats a value, because it might be a
password.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic.fields import FieldInfo
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

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        case_sensitive=True,  # of [database] and [DATABASE], one would be passed over
        enable_decoding=False,  # lists and tables are read by the types, which say what is wrong
    )

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
        """Return what the code gives alone: built in code, settings read nothing.

        `order_monitor.settings.loading` gives all other sources as it reads them.
        """
        return (init_settings,)

    @property
    def observe(self) -> bool:
        """Whether to ask and decide without writing."""
        return self.schedule.observe

    def value(self, key: str) -> Any:  # noqa: ANN401 - a setting of any type
        """Return the value of a key as written in monitor.toml, like ``database.schema``."""
        section, _, name = key.partition(".")
        part = getattr(self, section)
        return getattr(part, name if name in type(part).model_fields else f"{name}_")

    def with_values(self, values: Mapping[str, object]) -> Self:
        """Return these settings with other ``values``, by key, which are not validated again."""
        sections: dict[str, dict[str, object]] = {}
        for key, value in values.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
        return self.model_copy(
            update={
                section: getattr(self, section).model_copy(update=own)
                for section, own in sections.items()
            }
        )

    def secrets(self) -> list[str]:
        """Return every secret value, for the log's redactor."""
        address, proxy = self.database.address(), self.provider.proxy
        given = [
            self.value(f"{section}.{key}")
            for section, keys in secret_keys().items()
            for key in keys
        ]
        each = (one for value in given for one in (value if isinstance(value, tuple) else (value,)))
        values = [secret.get_secret_value() for secret in each if secret]
        login = parse_proxy(proxy.get_secret_value()).secrets() if proxy else []
        return [*values, *login, *(address.secrets() if address else [])]


def secret_keys() -> dict[str, list[str]]:
    """Return the keys of each section whose values are secrets."""
    return {
        name: [key for key, field in fields.items() if "SecretStr" in repr(field.annotation)]
        for name, fields in _fields().items()
    }


def known_keys() -> dict[str, list[str]]:
    """Return the keys of each section, as written in monitor.toml."""
    return {name: list(fields) for name, fields in _fields().items()}


def _fields() -> dict[str, dict[str, FieldInfo]]:
    sections: dict[str, Any] = {
        name: field.annotation for name, field in Settings.model_fields.items()
    }
    return {
        name: {field.alias or key: field for key, field in section.model_fields.items()}
        for name, section in sections.items()
    }
