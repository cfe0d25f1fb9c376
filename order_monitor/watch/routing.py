"""Which account is asked about an order; the shop's accounts are kept up to date."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

import structlog

from order_monitor.core.gate import Pace, Pause
from order_monitor.core.login import INTERNAL, KIND_OF
from order_monitor.core.order import (
    CONFIGURED,
    NOBODY_ASKED,
    NOBODYS,
    Order,
    ReferenceFrom,
    Route,
    SkipReason,
)
from order_monitor.core.proxy import parse_proxy
from order_monitor.providers.provider import Provider
from order_monitor.shop.accounts.tables import Integration
from order_monitor.watch.account import Account

_INVISIBLE: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
_LONGEST_NAME: Final = 60


Opener = Callable[[Integration], Account]
"""Creates an account from an integration.

Raises:
    ValueError: its address must not be called.
"""

AnyOpener = Callable[[Integration | None], Account]
"""The same; without an integration, it creates the account in the settings."""


class Directory(Protocol):
    """Finds the account of an order."""

    @property
    def accounts(self) -> Mapping[str, Account]:
        """All accounts that may be asked, by key, which is the same in every process."""

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the order's account, or why it has none."""

    def named(self, typed: str) -> Account | None:
        """Return the account with this key, or with this name if it is unique."""
        if typed in self.accounts:
            return self.accounts[typed]
        found = [account for account in self.accounts.values() if account.name == typed]
        return found[0] if len(found) == 1 else None

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Take over the shop's current accounts; return clients that are to be closed."""

    def note_pauses(self, pauses: Mapping[str, Pause]) -> None:
        """Note what people have paused, for an account that is opened after that."""

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Give every account a new client; return those that are no longer needed, for closing."""

    async def aclose(self) -> None:
        """Close every account's client."""
        for account in self.accounts.values():
            await account.provider.aclose()

    async def __aenter__(self) -> Self:
        """Open nothing: clients are opened as accounts become known."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every account's client."""
        await self.aclose()


@dataclass(frozen=True, slots=True)
class OneAccount(Directory):
    """The directory of a shop whose only account is in the settings."""

    account: Account

    def __post_init__(self) -> None:
        """Set the key under which all orders are recorded."""
        self.account.key = CONFIGURED

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The only account."""
        return {self.account.key: self.account}

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the only account."""
        return self.account

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Do nothing."""
        return []

    def note_pauses(self, pauses: Mapping[str, Pause]) -> None:
        """Do nothing: there is no other account."""

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Ask through a new client, one call at once, so that a new password takes effect."""
        old = self.account.ask_as(opener(None))
        self.account.gate.retry_now()
        return [old]


@dataclass(slots=True)
class _Known:
    integration: Integration
    account: Account


@dataclass(slots=True)
class ShopAccounts(Directory):
    """The accounts of the shop's ``integrations`` table, by id."""

    open_account: Opener
    on_secrets: Callable[[Mapping[str, Iterable[str]]], None] = lambda _: None
    _known: dict[str, _Known] = field(default_factory=dict)
    _refused: dict[str, SkipReason] = field(default_factory=dict)
    _told: dict[str, Integration] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _tenants: dict[str, Integration] = field(default_factory=dict)
    """The integrations that are other tenants of the shop."""
    _pauses: Mapping[str, Pause] = field(default_factory=dict)
    _accounts: dict[str, Account] | None = None

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The accounts that may be asked."""
        if self._accounts is None:
            self._accounts = {key: known.account for key, known in self._known.items()}
        return self._accounts

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the account that took ``order``, or why no account is asked. Another tenant is
        asked only about a child in another database.
        """
        if order.integration is not None and order.integration in self._tenants:
            if order.reference_from != ReferenceFrom.CHILD:
                return SkipReason.WAITS_FOR_CHILD
            self._open_tenant(order.integration)
        known = self._known.get(order.integration) if order.integration is not None else None
        if known is not None:
            return known.account
        if order.integration is None:
            return _UNROUTED[Route(order.route)]
        if order.integration.casefold() in NOBODYS:
            return SkipReason.NO_PROVIDER
        return self._refused.get(order.integration, _UNROUTED[Route(order.route)])

    def named(self, typed: str) -> Account | None:
        """Return the account with this key or name; another tenant's too, opened for it."""
        for key in self._tenants:
            if typed in (key, self._names[key]):
                self._open_tenant(key)
        return Directory.named(self, typed)

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Open new accounts, update those whose login or address changed, drop the rest.

        A change takes effect without a restart: a new password lets one probe through a closed gate
        at once.
        """
        current = {integration.id: integration for integration in integrations}
        self._accounts, self._names = None, names_of(current.values())
        self.on_secrets({self._names[key]: _secrets(i) for key, i in current.items()})
        dropped: list[Provider] = []
        self._refused.clear()
        self._tenants = {key: one for key, one in current.items() if one.provider == INTERNAL}
        self._told = {key: integration for key, integration in self._told.items() if key in current}
        for integration in current.values():
            reason = _refusal(integration)
            if integration.id in self._tenants and integration.id not in self._known:
                # Opened when the first order needs it: elsewhere all tenants are in one database.
                continue
            if reason is None:
                dropped += self._take(integration)
            else:
                self._refused[integration.id] = reason
        for gone in [i for i in self._known if i not in current or i in self._refused]:
            dropped.append(self._known.pop(gone).account.provider)
        self._share_logins()
        return dropped

    def note_pauses(self, pauses: Mapping[str, Pause]) -> None:
        """Note what people have paused: a tenant is opened as its first order is taken in."""
        self._pauses = pauses

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Ask each account through a new client; drop one whose address must not be called."""
        self.open_account, self._accounts = opener, None
        old: list[Provider] = []
        for integration_id, known in list(self._known.items()):
            try:
                fresh = opener(known.integration)
            except ValueError:
                old.append(self._known.pop(integration_id).account.provider)
                self._refused[integration_id] = SkipReason.BAD_ADDRESS
            else:
                old.append(known.account.ask_as(fresh))
                known.account.gate.retry_now()
        return old

    def _open_tenant(self, key: str) -> None:
        """Open another tenant's account, if that was not tried since the accounts were read."""
        if key in self._known or key in self._refused:
            return
        reason = _refusal(self._tenants[key])
        if reason is not None:
            self._refused[key] = reason
            return
        self._take(self._tenants[key])
        if key in self._known:
            self._known[key].account.paused = self._pauses.get(key)
        self._share_logins()
        self._accounts = None

    def _take(self, integration: Integration) -> list[Provider]:
        known, name = self._known.get(integration.id), self._names[integration.id]
        if known is not None and _access(known.integration) == _access(integration):
            known.integration, known.account.name = integration, name
            return []
        try:
            fresh = self.open_account(integration)
        except ValueError as error:
            self._refused[integration.id] = SkipReason.BAD_ADDRESS
            if self._told.get(integration.id) != integration:
                self._told[integration.id] = integration
                log = structlog.get_logger("order_monitor.directory")
                log.error("account.bad_address", account=name, why=str(error))  # noqa: TRY400 - ours, without frames
            return []
        fresh.key, fresh.name = integration.id, name
        fresh.kind = KIND_OF[integration.provider]
        if known is None:
            self._known[integration.id] = _Known(integration, fresh)
            return []
        old = known.account.ask_as(fresh)
        known.integration, known.account.name = integration, name
        known.account.gate.retry_now()
        return [old]

    def _share_logins(self) -> None:
        """Let accounts of one login share one pace: the provider counts a login's calls."""
        paces: dict[str, Pace] = {}
        for known in self._known.values():
            account, login = known.account, known.integration.credentials.login()
            if account.login != login:
                account.login = login
                account.pace = Pace(account.pace.per_second, account.pace.slack)
            account.pace = paces.setdefault(login, account.pace)


_UNROUTED: Final = {
    Route.NONE: SkipReason.NO_ROUTING,
    Route.SEVERAL: SkipReason.SEVERAL_ACCOUNTS,
    Route.ONE: SkipReason.NO_INTEGRATION,
    Route.OWN: SkipReason.NO_INTEGRATION,
    Route.NOBODYS: SkipReason.NO_PROVIDER,
    Route.INTERNAL: SkipReason.WAITS_FOR_CHILD,
}


def asked_of(directory: Directory, order: Order, now: float) -> Account | SkipReason:
    """Return the account that is asked about an open order at ``now`` (epoch seconds), or why none
    is. Every part of the program uses this rule.
    """
    found = directory.account_of(order)
    if isinstance(found, Account):
        return order.skip_reason(now, found.kind) or found
    if found in NOBODY_ASKED and not order.settled:
        # Nothing was sent anywhere: that it has no time and no reference is no fault.
        return found
    return order.skip_reason(now) or found


def names_of(integrations: Iterable[Integration]) -> dict[str, str]:
    """Return each account's display name, by id: the shop's own, with as much id as it needs."""
    found = {integration.id: integration for integration in integrations}
    names = {key: label(integration) for key, integration in found.items()}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    return {
        key: label(found[key], whole=True) if name in shared else name
        for key, name in names.items()
    }


def label(integration: Integration, *, whole: bool = False) -> str:
    """Return an account's display name: the shop's own name, and the beginning of the id, or the
    ``whole`` id.

    Invisible characters are removed, because they could reverse the text around them in a log or on
    a page.
    """
    name = _visible(integration.name)[:_LONGEST_NAME] or "integration"
    # A whole id is in brackets: "a-1" with the id 2 and "a" with the id 1-2 must not look the same.
    if whole:
        return f"{name} [{_visible(integration.id)}]"
    return f"{name}-{_visible(integration.id[:8])}"


def _visible(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) not in _INVISIBLE).strip()


def _access(integration: Integration) -> tuple[str, ...]:
    return (
        KIND_OF.get(integration.provider, ""),
        integration.base_url,
        integration.user,
        integration.password,
        integration.proxy,
        integration.token,
    )


def _secrets(integration: Integration) -> list[str]:
    try:
        proxy = parse_proxy(integration.proxy).secrets()
    except ValueError:
        proxy = [integration.proxy]
    return [integration.user, integration.password, integration.token, *proxy]


def _refusal(integration: Integration) -> SkipReason | None:
    if integration.provider not in KIND_OF:
        return SkipReason.OTHER_PROVIDER
    return None if integration.enabled else SkipReason.DISABLED
