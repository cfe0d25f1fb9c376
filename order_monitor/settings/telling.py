"""The sections that say who is told: the health endpoint, the webhook, the log; and how the program stops."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic import model_validator as check_section

from order_monitor.settings.asking import Section
from order_monitor.settings.types import (
    Integer,
    PositiveSeconds,
    Seconds,
    is_signing_secret,
    is_web_address,
    not_blank,
    read_addresses,
    read_list,
    read_time_of_day,
)


class HealthSettings(Section):
    """The endpoint that says how the daemon is."""

    LOOPBACK: ClassVar = ("127.0.0.1", "::1", "localhost")
    enabled: bool = True
    """Whether to serve the endpoints and the page."""
    allow_open: bool = False
    """Whether everybody is served without a token, also where `host` is not a loopback address."""
    token: SecretStr | None = None
    """What a caller must send as `Authorization: Bearer` for all but `/livez` and `/readyz`."""
    host: str = Field(default="127.0.0.1", min_length=1)
    """The address to listen on; one that others can reach needs `token`, or `allow_open`."""
    port: Integer = Field(default=8080, ge=0, le=65_535)
    """The port to listen on; 0 takes any free one and tells it in the log."""
    hosts: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(read_list)] = ()
    """Names it is called by, beside localhost and the address in `host`; calls by any other name are refused."""
    # Whoever knows it can pretend that all is well, so it is kept like a password.
    ping_url: SecretStr | None = None
    """An address that is called after each good minute (or pass), with `/fail` behind it after a bad one."""

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


class EventSettings(Section):
    """Who consumes the events, one of which is added at each change of status."""

    consumer: Literal["table", "webhook", "none"] = "table"
    """Who does: the shop's own code, from the `"table"`; the `"webhook"`; or `"none"`, and then they count as consumed at once."""


class WebhookSettings(Section):
    """Who is told of each event by HTTP, with the signature of the Standard Webhooks specification."""

    # Often holds a token of the receiver's, so it is kept like a password.
    url: SecretStr | None = None
    """Where each event is posted to. Needs `secret`."""
    secret: SecretStr | None = None
    """What each post is signed with, after the Standard Webhooks specification: `whsec_` and base64."""
    timeout: PositiveSeconds = 10.0
    """How long one post may take."""
    max_attempts: Integer = Field(default=12, ge=1, le=100)
    """After how many posts in vain an event is put aside as a dead letter."""

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


class NotifySettings(Section):
    """Messages to people by Telegram, mail, Slack and others when something needs attention; needs the extra `notify`."""

    # Each holds a token or a password.
    urls: Annotated[tuple[SecretStr, ...], BeforeValidator(read_addresses)] = ()
    """Where messages go: addresses as Apprise takes them, like `tgram://TOKEN/CHAT` or `mailto://user:password@mail.example.com`."""
    language: Literal["en", "tr", "ar"] = "en"
    """The language of the messages: `en`, `tr` or `ar`."""
    daily_at: Annotated[str | None, BeforeValidator(read_time_of_day)] = None
    """When the line about the last 24 hours is sent each day, by this machine's time zone, like `08:00`."""

    @property
    def daily_minutes(self) -> int | None:
        """Minutes after midnight at which the daily line is due; None for never."""
        if self.daily_at is None:
            return None
        hours, _, minutes = self.daily_at.partition(":")
        return int(hours) * 60 + int(minutes)


class LogSettings(Section):
    """What is told on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is told: `debug`, `info`, `warning` or `error`."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto` is `console` on a terminal and `json` elsewhere; or say `console` or `json`."""


class ShutdownSettings(Section):
    """How long a stop may take."""

    grace: Seconds = 25.0
    """How long a stop may take to finish the questions under way and write their answers."""
