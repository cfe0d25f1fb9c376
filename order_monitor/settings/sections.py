"""The sections of the settings: what may be set, and what a value must be like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic import model_validator as check_section

from order_monitor.core.order import NEVER_SENT
from order_monitor.core.pin import NO_PIN_WORDS
from order_monitor.core.proxy import parse_proxy
from order_monitor.providers.registry import CONFIGURED, ProviderKeys
from order_monitor.providers.secret import Secret
from order_monitor.settings.types import (
    Budget,
    Certificates,
    Integer,
    Moment,
    Name,
    Number,
    PingAddress,
    PositiveSeconds,
    PostAddress,
    Seconds,
    SigningSecret,
    Size,
    Status,
    Word,
    check_url,
    read_addresses,
    read_json,
    read_list,
    read_time_of_day,
)
from order_monitor.shop.dsn import Address, parse_dsn

if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[CONFIGURED]

FINAL_STATUSES = ("completed", "delivered", "done", "cancelled", "canceled", "failed", "rejected")
"""The statuses known to end an order in the shops' tables."""

_GOOD_ENDS = ("completed", "delivered", "done")
_BAD_ENDS = ("cancelled", "canceled", "failed", "rejected")
_MAY_BE_OPEN = ("delivered", "done")
"""Final words that a shop may yet mean otherwise (handed to the provider): `check` warns of them
among the open ones.
"""

_WATAN: dict[str, object] = {
    "open": [
        *("sent", "pending", "processing", "queued", "unknown", "timeout", "connection_error"),
        *("unauthorized", "not_found", "wait"),
    ],
    "completed": "done",
    "failed": "failed",
    "processing": "processing",
    "settled": ["approved", "rejected"],
}
"""The words of the shop software watan: what its polling stores while an order is open too."""

_WATAN_KNOWN = ("approved", "forwarded", "manual_required")
"""Its further words: an end, and what no provider is asked about."""


class Section(BaseModel):
    """A table of monitor.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class DatabaseSettings(Section):
    """Where the shop's orders are."""

    dsn: SecretStr | None = None
    """The shop's database in one line.

    Either this, or `host`, `port`, `user`, `password` and `name`.
    """
    host: str | None = Field(default=None, min_length=1)
    """The server, or the folder of its Unix socket."""
    port: Integer = Field(default=5432, ge=1, le=65_535)
    """The server's port."""
    user: str | None = Field(default=None, min_length=1)
    """The role to log in as."""
    password: Secret | None = None
    """Its password, any characters, nothing to escape. Better kept in a secrets file."""
    name: str | None = Field(default=None, min_length=1)
    """The database's name."""
    # PostgreSQL counts in whole milliseconds, takes 0 for "never", and holds twice this in 31 bits.
    statement_timeout: Seconds = Field(default=30.0, ge=0.001, le=1_000_000)
    """The longest a single statement may take."""
    time_zone: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_+\-/:]+$")
    """The zone of time columns that have none of their own.

    Needed only where there are such columns.
    """
    schema_: Name = Field(default="public", alias="schema")
    """The schema in which the orders table is."""
    table: Name = "product_orders"
    """The orders table."""
    columns: Annotated[dict[str, Name], BeforeValidator(read_json)] = {}
    """Columns that go by other names, like `{ note = "remark" }`.

    Those with the usual names are found by looking.
    """
    lookup: Annotated[tuple[Name, ...], BeforeValidator(read_list)] = ()
    """Further columns that an operator may find an order by, like `["order_number"]`.

    Never the PIN's.
    """
    pins: Literal["column", "elsewhere"] = "column"
    """Where PINs stay: in their `"column"`, or `"elsewhere"` where a trigger of the shop's moves
    them out of it at once.
    """
    pool_size: Integer = Field(default=4, ge=2, le=100)
    """How many connections to keep open at most."""

    @field_validator("dsn")
    @classmethod
    def _dsn_is_readable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            for key, path in parse_dsn(value.get_secret_value()).files():
                # Opening a pipe without a writer would block the start for ever.
                if Path(path).exists() and not Path(path).is_file():
                    raise ValueError(f"{key} after '?' names no plain file")
        return value

    @field_validator("columns")
    @classmethod
    def _columns_are_known(cls, value: dict[str, str]) -> dict[str, str]:
        from order_monitor.shop.schema.columns import LOGICAL  # noqa: PLC0415 - only names are needed, and only here

        unknown = sorted(set(value) - set(LOGICAL))
        if unknown:
            raise ValueError(
                f"no such column: {', '.join(unknown)}; there are {', '.join(LOGICAL)}"
            )
        return value

    @check_section(mode="after")
    def _one_address(self) -> Self:
        parts = {"host", "port", "user", "password", "name"}
        if self.dsn is not None and self.model_fields_set & parts:
            raise ValueError("give either dsn, or host, port, user, password and name")
        return self

    def address(self) -> Address | None:
        """Return where to connect, None where neither ``dsn`` nor ``host`` is given."""
        if self.dsn is not None:
            return parse_dsn(self.dsn.get_secret_value())
        if self.host is None:
            return None
        password = self.password.get_secret_value() if self.password else None
        return Address((self.host,), (self.port,), self.user, password, self.name)


class _Accounts(Section):
    """Where the accounts are."""

    source: Literal["config", "database"] = "config"
    """Where accounts stand: `"config"` (the one account below) or `"database"` (`package_routing`
    and `integrations`).
    """
    kind: Kind = "znet"
    """What the one account speaks; `base_url` and the login of that kind are needed."""
    allow_http: bool = False
    """Whether an address may begin with `http://`, which shows the login to the network."""
    allow_private: bool = False
    """Whether an address from the shop's tables may lead to a private or loopback host.

    `base_url` always may.
    """
    refresh: Seconds = 60.0
    """How often the shop's accounts are read again, with `source = "database"`."""
    base_url: str | None = None
    """The panel's address."""

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        allow_http = bool(info.data.get("allow_http"))
        return value if value is None else check_url(value, allow_http=allow_http)


class ProviderSettings(ProviderKeys, _Accounts):
    """The accounts at providers."""

    connect_timeout: PositiveSeconds = 5.0
    """How long to wait for a connection."""
    timeout: PositiveSeconds = 20.0
    """How long a whole question may take, connection and answer together."""
    max_body: Size = 65_536
    """The longest answer that is read, in bytes or as `"64KiB"`."""
    user_agent: str = Field(default="order-monitor", pattern=r"^[\x20-\x7e]+$")
    """What the provider sees as our name."""
    no_pin: Annotated[tuple[Status, ...], BeforeValidator(read_list)] = NO_PIN_WORDS
    """Words that mean "no PIN" where a PIN would stand, in any case, in addition to signs alone.

    Add `"0"` where your panel writes that.
    """
    unique_pins: bool = True
    """Whether a PIN that another order of the account was given lately is kept back for an operator to
    look at.
    """
    reference_reuse: Literal["none", "newest"] = "none"
    """Whose an answer is where several orders of an account have one reference: `"none"` of theirs,
    or the `"newest"` one's.
    """
    ca_file: Annotated[str, Certificates] | None = Field(default=None, min_length=1)
    """A file of CA certificates (PEM) to trust in addition to the public ones, for a panel
    with its own authority.
    """
    batch: Integer = Field(default=50, ge=1, le=100)
    """How many orders go into one call, of a provider that takes several (a client API)."""
    chains: Literal["shop", "monitor"] = "shop"
    """Who ends an order that another tenant of the shop took (`integrations.provider` is `internal`):
    the `"shop"`, or this `"monitor"`, as the child's order ends.
    """
    proxy: SecretStr | None = None
    """A proxy to ask through: `http://`, `https://`, `socks5://` or `socks5h://`, with login and
    port. Never for loopback.
    """
    balance_interval: Seconds = 900.0
    """How often each account's balance is read; 0 never."""
    low_balance: Number | None = Field(default=None, ge=0)
    """Below which balance a warning is logged."""

    @field_validator("proxy")
    @classmethod
    def _is_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_proxy(value.get_secret_value())
        return value


class ScheduleSettings(Section):
    """When an order is asked about."""

    first_check: Seconds = 60.0
    """How long after an order was sent it is asked about for the first time."""
    base: PositiveSeconds = 30.0
    """The pause between the first and the second question; each later pause is twice as long."""
    cap: PositiveSeconds = 600.0
    """The longest pause between two questions."""
    jitter: Number = Field(default=0.1, ge=0, le=1)
    """How much pauses are stretched, so that orders sent together are not asked about together: 0
    not at all, 1 up to twofold.
    """
    give_up_after: PositiveSeconds = 86_400.0
    """How long after it was sent an order that is still waiting is failed."""
    give_up_blind: bool = False
    """Whether it is failed at that age even if the provider could not be asked: the player may have
    got the goods all the same.
    """
    give_up_unknown: bool = False
    """Whether an order that the provider does not know is failed after `give_up_after` of such
    answers, not left to an operator.
    """
    confirm_cancelled: Seconds = 0.0
    """After how long a second answer must agree before a cancellation is believed.

    0 believes the first. Nothing is asked in between; `--once` waits.
    """
    brake_hold: Seconds = 3600.0
    """How long a sudden flood of cancellations is held back before it may be believed.

    0 believes each at once.
    """
    ignore_before: Moment = ""
    """Orders sent before it are left alone: a date, or a duration before the first `migrate`.

    Not set: 7 days before that.
    """
    recheck_after: Seconds = 0.0
    """How long after its end an order is looked at once more, by the daemon.

    A contradiction is only reported. 0 never.
    """
    late_after: Seconds = 0.0
    """How long after it was sent an open order gets the event `order.late`, once and by the daemon, which
    moves no money. 0 never.
    """
    await_pin: Seconds = 900.0
    """How long an order that ended without a PIN is asked on for it, where others of its package
    had one; 0 not at all.
    """
    strategy: Literal["backoff", "learned"] = "backoff"
    """When to ask: `"backoff"` by the pauses above.

    `"learned"` when an end is likely, by what orders of its package took.
    """
    budget: Budget = "equal"
    """With `"learned"`: `"equal"` makes as many calls as backoff would.

    A number makes that many a second for an account.
    """
    min_interval: PositiveSeconds = 5.0
    """With `"learned"`: the shortest pause between two questions about an order."""
    half_life: PositiveSeconds = 604_800.0
    """With `"learned"`: how fast what was seen fades, so that a change of the provider's habits is
    followed.
    """
    scan_interval: PositiveSeconds = 10.0
    """How often to look for new orders."""
    record_sync: bool = True
    """Whether each question is noted in the `last_sync_at` column, where there is one."""
    observe: bool = False
    """Whether to ask and decide without writing: what would be written goes into an own table and
    the log. It may stand above all sections.
    """

    @check_section(mode="after")
    def _in_order(self) -> Self:
        if self.cap < self.base:
            raise ValueError("cap must not be smaller than base")
        if "min_interval" in self.model_fields_set and self.min_interval > self.cap:
            raise ValueError("min_interval must not be longer than cap")
        if self.give_up_after <= self.first_check:
            raise ValueError("give_up_after must be longer than first_check")
        return self


class LimitSettings(Section):
    """How hard the provider may be asked."""

    concurrency: Integer = Field(default=20, ge=1, le=1000)
    """How many questions may be under way at a time."""
    calls_per_second: Number = Field(default=10.0, gt=0, le=100_000)
    """How many questions an account gets in a second at most."""
    gate_after: Integer = Field(default=5, ge=1, le=1000)
    """After how many failures in a row an account is left alone, save for single tries."""


class ClusterSettings(Section):
    """Several processes over one shop, each account asked by one of them."""

    enabled: bool = False
    """Whether processes over the same table share its accounts, by PostgreSQL's advisory locks.

    It takes one more connection.
    """


class StatusSettings(Section):
    """What the shop calls the states of an order."""

    preset: Literal["none", "watan"] = "none"
    """Whose words are meant where this section does not say so: `"watan"` has those of that shop
    software.
    """
    open: Annotated[tuple[Word, ...], BeforeValidator(read_list), Field(min_length=1)] = (
        "sent",
        "pending",
        "processing",
        "queued",
    )
    """The external statuses of orders that are asked about; `processing` must be among them."""
    completed: Word = "completed"
    """What is written when the provider has completed an order."""
    failed: Word = "failed"
    """What is written when the provider has cancelled an order, or it was given up."""
    processing: Word = "processing"
    """What is written while the provider works on an order."""
    settled: Annotated[tuple[Word, ...], BeforeValidator(read_list)] = ()
    """Words of the shop's own `status` column with which an order is left alone.

    None by default.
    """

    @check_section(mode="before")
    @classmethod
    def _filled(cls, given: object) -> object:
        """Take the preset's words for what is not given: from here on they are settings as any."""
        if not isinstance(given, dict) or given.get("preset") != "watan":
            return given
        return {**_WATAN, **given}

    @property
    def known(self) -> tuple[str, ...]:
        """The external statuses that are not open and need no mention: ends, and what no provider is asked about."""
        more = _WATAN_KNOWN if self.preset == "watan" else ()
        words = (*FINAL_STATUSES, NEVER_SENT, *more, self.completed, self.failed)
        return tuple(dict.fromkeys(word for word in words if word not in self.open))

    @check_section(mode="after")
    def _consistent(self) -> Self:
        if self.processing not in self.open:
            raise ValueError(
                "processing must be one of open, or an order in progress would never be asked about again"
            )
        # Shops compare their words in any case of letters.
        ends = {self.completed.casefold(), self.failed.casefold()}
        if ends & {word.casefold() for word in self.open}:
            raise ValueError("completed and failed must not be among open")
        if any(
            word.casefold() in FINAL_STATUSES and word.casefold() not in _MAY_BE_OPEN
            for word in self.open
        ):
            raise ValueError(
                "open holds a word for an order that has ended; asked about again, it would be delivered or refunded twice"
            )
        if self.completed.casefold() in _BAD_ENDS or self.failed.casefold() in _GOOD_ENDS:
            raise ValueError("completed and failed must not mean the opposite")
        if len(ends) == 1:
            raise ValueError("completed and failed must differ")
        return self

    def doubtful(self) -> list[str]:
        """Return the words among ``open`` that end an order in most shops."""
        return [word for word in self.open if word.casefold() in _MAY_BE_OPEN]


class HealthSettings(Section):
    """The endpoint that says how the daemon is."""

    LOOPBACK: ClassVar = ("127.0.0.1", "::1", "localhost")
    enabled: bool = True
    """Whether to serve the endpoints and the page."""
    allow_open: bool = False
    """Whether everybody is served without a token, also where `host` is not a loopback address."""
    token: Secret | None = None
    """What a caller must send as `Authorization: Bearer` for all but `/livez` and `/readyz`."""
    host: str = Field(default="127.0.0.1", min_length=1)
    """The address to listen on; one that others can reach needs `token`, or `allow_open`."""
    port: Integer = Field(default=8080, ge=0, le=65_535)
    """The port to listen on; 0 takes any free one and logs it."""
    hosts: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(read_list)
    ] = ()
    """Names it is called by, in addition to localhost and the address in `host`.

    Calls by any other name are refused.
    """
    # Whoever knows it can pretend that all is well, so it is kept like a password.
    ping_url: Annotated[SecretStr, PingAddress] | None = None
    """An address that is called after each good minute (or pass), with `/fail` behind it after a
    bad one.
    """

    @check_section(mode="after")
    def _closed_by_default(self) -> Self:
        is_open = self.enabled and self.host not in self.LOOPBACK and self.token is None
        if is_open and not self.allow_open:
            raise ValueError(
                "host is not a loopback address: set token, or allow_open = true to answer everybody"
            )
        return self


class EventSettings(Section):
    """Who consumes the events, one of which is added at each change of status."""

    consumer: Literal["table", "webhook", "none"] = "table"
    """Who does: the shop's own code, from the `"table"`.

    The `"webhook"`; or `"none"`, and then they count as consumed at once.
    """


class WebhookSettings(Section):
    """Who is notified of each event by HTTP, with the signature of the Standard Webhooks specification."""

    # Often holds a token of the receiver's, so it is kept like a password.
    url: Annotated[SecretStr, PostAddress] | None = None
    """Where each event is posted to. Needs `secret`."""
    secret: Annotated[SecretStr, SigningSecret] | None = None
    """What each post is signed with, after the Standard Webhooks specification: `whsec_` and
    base64.
    """
    timeout: PositiveSeconds = 10.0
    """How long one post may take."""
    max_attempts: Integer = Field(default=12, ge=1, le=100)
    """After how many posts in vain an event is put aside as a dead letter."""

    @check_section(mode="after")
    def _both_or_none(self) -> Self:
        if (self.url is None) != (self.secret is None):
            raise ValueError("give both url and secret, or neither")
        return self


class NotifySettings(Section):
    """Messages to people by Telegram, mail, Slack and others when something needs attention.

    Needs the extra `notify`.
    """

    # Each holds a token or a password.
    urls: Annotated[tuple[SecretStr, ...], BeforeValidator(read_addresses)] = ()
    """Where messages go: addresses as Apprise takes them, like `tgram://TOKEN/CHAT` or
    `mailto://user:password@mail.example.com`.
    """
    language: Literal["en", "tr", "ar"] = "en"
    """The language of the messages: `en`, `tr` or `ar`."""
    daily_at: Annotated[str | None, BeforeValidator(read_time_of_day)] = None
    """When the line about the last 24 hours is sent each day, by this machine's time zone, like
    `08:00`.
    """

    @property
    def daily_minutes(self) -> int | None:
        """Minutes after midnight at which the daily line is due; None for never."""
        if self.daily_at is None:
            return None
        hours, _, minutes = self.daily_at.partition(":")
        return int(hours) * 60 + int(minutes)


class LogSettings(Section):
    """What is logged on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged: `debug`, `info`, `warning` or `error`."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto` is `console` on a terminal and `json` elsewhere; or say `console` or `json`."""


class ShutdownSettings(Section):
    """How long a stop may take."""

    grace: Seconds = 25.0
    """How long a stop may take to finish the questions under way and write their answers."""


class NoteSettings(Section):
    """What people read in the shop."""

    customer_column: Name | None = None
    """A column that customers read, like `manualNote`: where it is empty at an order's end, it gets the
    provider's message, without a PIN.
    """
    author: str = Field(
        default="order-monitor", min_length=1, max_length=50, pattern=r"^\S(.*\S)?$"
    )
    """Who has written the entries in the `notes` column, like `system`."""
