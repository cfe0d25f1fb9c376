"""Which account is asked about an order; kept up to date while running, where accounts are the shop's own."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from order_monitor.core.gate import Pace
from order_monitor.core.login import KINDS
from order_monitor.core.order import CONFIGURED, Order, Route, SkipReason
from order_monitor.core.proxy import parse_proxy
from order_monitor.providers.provider import Provider
from order_monitor.shop.accounts import Integration
from order_monitor.watch.account import Account

NOBODYS: Final = frozenset({"MANUAL", "CHAIN_FORWARD", "__codes__", "internal_codes"})
"""What the shop writes in place of an integration's id where no provider is asked."""

_INVISIBLE: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
_LONGEST_NAME: Final = 60


Opener = Callable[[Integration], Account]
"""Makes an account of an integration.

Raises:
    ValueError: its address may not be called.
"""

AnyOpener = Callable[[Integration | None], Account]
"""The same, which makes the account of the settings where there is no integration."""


class Directory(Protocol):
    """Finds the account of an order."""

    @property
    def accounts(self) -> Mapping[str, Account]:
        """All accounts that may be asked, by their keys: what names them in every process, whatever they are called just now."""

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the order's account, or why it has none."""

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Take over the shop's accounts as they are now; return clients that are no longer needed, to be closed."""

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Give every account a new client; return those that are no longer needed, to be closed."""


@dataclass(frozen=True, slots=True)
class OneAccount:
    """The directory of a shop whose one account stands in the settings."""

    account: Account

    def __post_init__(self) -> None:
        """Let it go by the key that all orders are noted under."""
        self.account.key = CONFIGURED

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The one account."""
        return {self.account.key: self.account}

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the one account."""
        return self.account

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Nothing changes."""
        return []

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Ask through a new client; one question is let through at once, lest a corrected password wait."""
        old = self.account.ask_as(opener(None))
        self.account.gate.retry_now()
        return [old]


@dataclass(slots=True)
class _Known:
    integration: Integration
    account: Account


@dataclass(slots=True)
class ShopAccounts:
    """The accounts of the shop's ``integrations`` table, each by its id."""

    open_account: Opener
    on_secrets: Callable[[Mapping[str, Iterable[str]]], None] = lambda _: None
    _known: dict[str, _Known] = field(default_factory=dict)
    _refused: dict[str, SkipReason] = field(default_factory=dict)
    _told: dict[str, Integration] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _accounts: dict[str, Account] | None = None

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The accounts that may be asked."""
        if self._accounts is None:
            self._accounts = {key: known.account for key, known in self._known.items()}
        return self._accounts

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the account that took ``order``, or why nobody is asked."""
        known = self._known.get(order.integration) if order.integration is not None else None
        if known is not None:
            return known.account
        if order.integration in NOBODYS or order.integration is None:
            return _UNROUTED[Route.NOBODYS if order.integration in NOBODYS else Route(order.route)]
        return self._refused.get(order.integration, _UNROUTED[Route(order.route)])

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Open new accounts, change those whose login or address changed, drop the rest.

        A change takes effect without a restart: a new password lets one probe through a shut gate at once.
        """
        current = {integration.id: integration for integration in integrations}
        self._accounts, self._names = None, names_of(current.values())
        self.on_secrets({self._names[key]: _secrets(i) for key, i in current.items()})
        dropped: list[Provider] = []
        self._refused.clear()
        self._told = {key: integration for key, integration in self._told.items() if key in current}
        for integration in current.values():
            reason = _refusal(integration)
            if reason is None:
                dropped += self._take(integration)
            else:
                self._refused[integration.id] = reason
        for gone in [i for i in self._known if i not in current or i in self._refused]:
            dropped.append(self._known.pop(gone).account.provider)
        self._share_logins()
        return dropped

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Ask each account through a new client; one whose address may no longer be called goes."""
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
        if known is None:
            self._known[integration.id] = _Known(integration, fresh)
            return []
        old = known.account.ask_as(fresh)
        known.integration, known.account.name = integration, name
        known.account.gate.retry_now()
        return [old]

    def _share_logins(self) -> None:
        """Let accounts that hold one login have one pace: the provider counts its calls, whoever of us makes them."""
        paces: dict[str, Pace] = {}
        for known in self._known.values():
            account, login = known.account, known.integration.credentials.login()
            if account.login != login:
                account.login, account.pace = login, Pace(account.pace.per_second, account.pace.slack)
            account.pace = paces.setdefault(login, account.pace)


_UNROUTED: Final = {
    Route.NONE: SkipReason.NO_ROUTING,
    Route.SEVERAL: SkipReason.SEVERAL_ACCOUNTS,
    Route.ONE: SkipReason.NO_INTEGRATION,
    Route.OWN: SkipReason.NO_INTEGRATION,
    Route.NOBODYS: SkipReason.NO_PROVIDER,
}


def asked_of(directory: Directory, order: Order, now: float) -> Account | SkipReason:
    """Return the account that is asked about an open order at ``now`` (epoch seconds), or why none is: all judge by this."""
    return order.skip_reason(now) or directory.account_of(order)


def names_of(integrations: Iterable[Integration]) -> dict[str, str]:
    """Return what to call each account, by its id: the shop's own name and as much of the id as tells them all apart."""
    found = {integration.id: integration for integration in integrations}
    names = {key: label(integration) for key, integration in found.items()}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    return {key: label(found[key], whole=True) if name in shared else name for key, name in names.items()}


def label(integration: Integration, *, whole: bool = False) -> str:
    """Return an account's name for showing: the shop's own, and the beginning of the id, or the ``whole`` of it.

    Without characters that are not seen: they can turn the text around them, in a log and on a page.
    """
    name = _visible(integration.name)[:_LONGEST_NAME] or "integration"
    # A whole id stands in brackets: "a-1" with the id 2 and "a" with the id 1-2 must not look the same.
    return f"{name} [{_visible(integration.id)}]" if whole else f"{name}-{_visible(integration.id[:8])}"


def _visible(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) not in _INVISIBLE).strip()


def named(accounts: Mapping[str, Account], typed: str) -> Account | None:
    """Return the account that a person means: by its key, or by a name that no other one has."""
    if typed in accounts:
        return accounts[typed]
    found = [account for account in accounts.values() if account.name == typed]
    return found[0] if len(found) == 1 else None


def _access(integration: Integration) -> tuple[str, ...]:
    return integration.base_url, integration.kod, integration.sifre, integration.proxy, integration.token


def _secrets(integration: Integration) -> list[str]:
    try:
        proxy = parse_proxy(integration.proxy).secrets()
    except ValueError:
        proxy = [integration.proxy]
    return [integration.kod, integration.sifre, integration.token, *proxy]


def _refusal(integration: Integration) -> SkipReason | None:
    if integration.provider not in KINDS:
        return SkipReason.OTHER_PROVIDER
    return None if integration.enabled else SkipReason.DISABLED
