"""Settings: ``monitor.toml``, overridden by files in a secrets directory, overridden by the environment.

An unknown key is an error wherever it stands. No message ever repeats a value: it might be the password.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo, field_validator
from pydantic import model_validator as check_section
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from order_monitor.shop.dsn import Address, parse_dsn
from order_monitor.values import (
    Integer,
    Name,
    Number,
    PositiveSeconds,
    Seconds,
    Size,
    Status,
    check_url,
    is_signing_secret,
    is_web_address,
    not_blank,
    read_json,
    read_list,
)

FINAL_STATUSES = ("completed", "delivered", "done", "cancelled", "canceled", "failed", "rejected")
"""The statuses known to end an order in the shops' tables."""


class Section(BaseModel):
    """A table of monitor.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Database(Section):
    """Where the shop's orders are."""

    dsn: SecretStr | None = None
    host: str | None = Field(default=None, min_length=1)
    port: Integer = Field(default=5432, ge=1, le=65_535)
    user: str | None = Field(default=None, min_length=1)
    password: SecretStr | None = None
    name: str | None = Field(default=None, min_length=1)
    # PostgreSQL counts in whole milliseconds, takes 0 for "never", and holds twice this in 31 bits.
    statement_timeout: Seconds = Field(default=30.0, ge=0.001, le=1_000_000)
    time_zone: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_+\-/:]+$")
    schema_: Name = Field(default="public", alias="schema")
    table: Name = "product_orders"
    columns: Annotated[dict[str, Name], BeforeValidator(read_json)] = {}
    pool_size: Integer = Field(default=4, ge=2, le=100)

    @field_validator("dsn")
    @classmethod
    def _dsn_is_readable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_dsn(value.get_secret_value())
        return value

    @field_validator("password")
    @classmethod
    def _is_given(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is None else not_blank(value)

    @field_validator("columns")
    @classmethod
    def _columns_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        from order_monitor.shop.columns import LOGICAL  # noqa: PLC0415 - only names are needed, and only here

        unknown = sorted(set(value) - set(LOGICAL))
        if unknown:
            msg = f"no such column: {', '.join(unknown)}; there are {', '.join(LOGICAL)}"
            raise ValueError(msg)
        return value

    @check_section(mode="after")
    def _one_address(self) -> Self:
        if self.dsn is not None and self.model_fields_set & {"host", "port", "user", "password", "name"}:
            msg = "give either dsn, or host, port, user, password and name"
            raise ValueError(msg)
        return self

    def address(self) -> Address | None:
        """Return where to connect, None where neither ``dsn`` nor ``host`` is given."""
        if self.dsn is not None:
            return parse_dsn(self.dsn.get_secret_value())
        if self.host is None:
            return None
        password = self.password.get_secret_value() if self.password else None
        return Address((self.host,), (self.port,), self.user, password, self.name)


class Provider(Section):
    """The account at znet."""

    source: Literal["config", "database"] = "config"
    allow_http: bool = False
    allow_private: bool = False
    refresh: Seconds = 60.0
    base_url: str | None = None
    kod: SecretStr | None = None
    sifre: SecretStr | None = None
    status_path: str = Field(default="servis/pin_kontrol.php", pattern=r"^[A-Za-z0-9._~/\-]+$")
    connect_timeout: PositiveSeconds = 5.0
    timeout: PositiveSeconds = 20.0
    max_body: Size = 65_536
    user_agent: str = Field(default="order-monitor", pattern=r"^[\x20-\x7e]+$")
    balance_interval: Seconds = 900.0
    low_balance: Number | None = Field(default=None, ge=0)

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        return value if value is None else check_url(value, allow_http=bool(info.data.get("allow_http")))

    @field_validator("kod", "sifre")
    @classmethod
    def _is_given(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is None else not_blank(value)


class Schedule(Section):
    """When an order is asked about."""

    first_check: Seconds = 60.0
    base: PositiveSeconds = 30.0
    cap: PositiveSeconds = 600.0
    jitter: Number = Field(default=0.1, ge=0, le=1)
    give_up_after: PositiveSeconds = 86_400.0
    give_up_blind: bool = False
    confirm_cancelled: Seconds = 0.0
    recheck_after: Seconds = 0.0
    scan_interval: PositiveSeconds = 10.0
    record_sync: bool = True

    @check_section(mode="after")
    def _in_order(self) -> Self:
        if self.cap < self.base:
            msg = "cap must not be smaller than base"
            raise ValueError(msg)
        if self.give_up_after <= self.first_check:
            msg = "give_up_after must be longer than first_check"
            raise ValueError(msg)
        return self


class Limits(Section):
    """How hard the provider may be asked."""

    concurrency: Integer = Field(default=20, ge=1, le=1000)
    calls_per_second: Number = Field(default=10.0, gt=0, le=100_000)
    gate_after: Integer = Field(default=5, ge=1, le=1000)


class Statuses(Section):
    """What the shop calls the states of an order."""

    open: Annotated[tuple[Status, ...], BeforeValidator(read_list), Field(min_length=1)] = (
        "sent",
        "pending",
        "processing",
        "queued",
    )
    completed: Status = "completed"
    failed: Status = "failed"
    processing: Status = "processing"

    @check_section(mode="after")
    def _consistent(self) -> Self:
        if self.processing not in self.open:
            msg = "processing must be one of open, or an order in progress would never be asked about again"
            raise ValueError(msg)
        if {self.completed, self.failed} & set(self.open):
            msg = "completed and failed must not be among open"
            raise ValueError(msg)
        if self.completed == self.failed:
            msg = "completed and failed must differ"
            raise ValueError(msg)
        return self


class Health(Section):
    """The endpoint that says how the daemon is."""

    LOOPBACK: ClassVar = ("127.0.0.1", "::1", "localhost")
    enabled: bool = True
    allow_open: bool = False
    token: SecretStr | None = None
    host: str = Field(default="127.0.0.1", min_length=1)
    port: Integer = Field(default=8080, ge=0, le=65_535)
    hosts: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(read_list)] = ()
    # Whoever knows it can pretend that all is well, so it is kept like a password.
    ping_url: SecretStr | None = None

    @field_validator("ping_url")
    @classmethod
    def _is_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_web_address(value.get_secret_value()):
            msg = "give the address to call, like https://ping.example.com/your-id"
            raise ValueError(msg)
        return value

    @field_validator("token")
    @classmethod
    def _is_given(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is None else not_blank(value)

    @check_section(mode="after")
    def _closed_by_default(self) -> Self:
        if self.enabled and self.host not in self.LOOPBACK and self.token is None and not self.allow_open:
            msg = "host is not a loopback address: set token, or allow_open = true to answer everybody"
            raise ValueError(msg)
        return self


class Webhook(Section):
    """Who is told of each event by HTTP, with the signature of the Standard Webhooks specification."""

    # Often holds a token of the receiver's, so it is kept like a password.
    url: SecretStr | None = None
    secret: SecretStr | None = None
    timeout: PositiveSeconds = 10.0
    max_attempts: Integer = Field(default=12, ge=1, le=100)

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_web_address(value.get_secret_value()):
            msg = "give the address to post to, like https://shop.example.com/hooks/orders"
            raise ValueError(msg)
        return value

    @field_validator("secret")
    @classmethod
    def _is_signing_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_signing_secret(value.get_secret_value()):
            msg = "give whsec_ and the base64 of some 32 random bytes, as from: openssl rand -base64 32"
            raise ValueError(msg)
        return value

    @check_section(mode="after")
    def _both_or_none(self) -> Self:
        if (self.url is None) != (self.secret is None):
            msg = "give both url and secret, or neither"
            raise ValueError(msg)
        return self


class Log(Section):
    """What is told on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Shutdown(Section):
    """How long a stop may take."""

    grace: Seconds = 25.0


class Settings(BaseSettings):
    """Everything; see ``monitor.toml.example``."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    database: Database = Database()
    provider: Provider = Provider()
    schedule: Schedule = Schedule()
    limits: Limits = Limits()
    statuses: Statuses = Statuses()
    health: Health = Health()
    webhook: Webhook = Webhook()
    log: Log = Log()
    shutdown: Shutdown = Shutdown()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing behind the caller's back: `order_monitor.settings_file` gathers all sources itself."""
        return (init_settings,)

    def secrets(self) -> list[str]:
        """Return every secret value, for the log's redactor."""
        address = self.database.address()
        provider, webhook = self.provider, self.webhook
        given = (
            provider.kod,
            provider.sifre,
            self.health.token,
            self.database.dsn,
            webhook.url,
            webhook.secret,
            self.health.ping_url,
        )
        values = [secret.get_secret_value() for secret in given if secret]
        return [*values, *(address.secrets() if address else [])]


def known_keys() -> dict[str, list[str]]:
    """Return each section's keys, as they are written in monitor.toml."""
    sections: dict[str, Any] = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {
        name: [field.alias or key for key, field in section.model_fields.items()] for name, section in sections.items()
    }
