"""Which account is asked about an order; kept up to date while running, where accounts are the shop's own."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from order_monitor.core.gate import Pause
from order_monitor.core.order import Order, SkipReason
from order_monitor.providers.provider import Provider
from order_monitor.shop.accounts import Integration
from order_monitor.watch.account import Account

ZNET: Final = "znet"
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
        """All accounts that may be asked, by name."""

    @property
    def by_key(self) -> Mapping[str, Account]:
        """The same, by what names them in every process, whatever they are called just now."""

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the order's account, or why it has none."""

    def pauses(self, pauses: Mapping[str, Pause]) -> Mapping[str, Pause]:
        """Return what people have paused, by the accounts' names here."""

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Take over the shop's accounts as they are now; return clients that are no longer needed, to be closed."""

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Give every account a new client; return those that are no longer needed, to be closed."""


@dataclass(frozen=True, slots=True)
class OneAccount:
    """The directory of a shop whose one account stands in the settings."""

    account: Account

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The one account."""
        return {self.account.name: self.account}

    @property
    def by_key(self) -> Mapping[str, Account]:
        """The one account."""
        return self.accounts

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the one account."""
        return self.account

    def pauses(self, pauses: Mapping[str, Pause]) -> Mapping[str, Pause]:
        """Return them as they are."""
        return pauses

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Nothing changes."""
        return []

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Ask through a new client; one question is let through at once, lest a corrected password wait."""
        old, self.account.provider = self.account.provider, opener(None).provider
        self.account.gate.retry_now()
        return [old]


@dataclass(slots=True)
class _Known:
    integration: Integration
    account: Account


@dataclass(slots=True)
class ShopAccounts:
    """The accounts of the shop's ``integrations`` table."""

    open_account: Opener
    on_secrets: Callable[[list[str]], None] = lambda _: None
    _known: dict[str, _Known] = field(default_factory=dict)
    _refused: dict[str, SkipReason] = field(default_factory=dict)
    _told: dict[str, Integration] = field(default_factory=dict)
    _named: dict[str, Account] | None = None

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The accounts that may be asked."""
        if self._named is None:
            self._named = {known.account.name: known.account for known in self._known.values()}
        return self._named

    @property
    def by_key(self) -> Mapping[str, Account]:
        """The same by the integrations' ids: their names may change."""
        return {key: known.account for key, known in self._known.items()}

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the account that took ``order``, or why nobody is asked."""
        if order.integration is None:
            return SkipReason.NO_INTEGRATION if order.routed else SkipReason.NO_ROUTING
        known = self._known.get(order.integration)
        return known.account if known else self._refused.get(order.integration, SkipReason.NO_INTEGRATION)

    def pauses(self, pauses: Mapping[str, Pause]) -> Mapping[str, Pause]:
        """Return them by the names that the accounts had when they were opened: the shop may have renamed one before or since."""
        now = {label(known.integration): known for known in self._known.values()}
        found: dict[str, Pause] = {}
        for name, pause in pauses.items():
            known = now.get(name)
            same = [known] if known else [k for k in self._known.values() if name.endswith(_tail(k.integration))]
            found.update((k.account.name, pause) for k in same)
        return found

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Open new accounts, change those whose login or address changed, drop the rest.

        A change takes effect without a restart: a new password lets one probe through a shut gate at once.
        """
        current = {integration.id: integration for integration in integrations}
        self._named = None
        self.on_secrets([secret for i in current.values() for secret in (i.kod, i.sifre)])
        dropped: list[Provider] = []
        self._refused.clear()
        for integration in current.values():
            reason = _refusal(integration)
            if reason is None:
                dropped += self._take(integration)
            else:
                self._refused[integration.id] = reason
        for gone in [i for i in self._known if i not in current or i in self._refused]:
            dropped.append(self._known.pop(gone).account.provider)
        return dropped

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Ask each account through a new client; one whose address may no longer be called goes."""
        self.open_account, self._named = opener, None
        old = [known.account.provider for known in self._known.values()]
        for integration_id, known in list(self._known.items()):
            try:
                known.account.provider = opener(known.integration).provider
            except ValueError:
                del self._known[integration_id]
                self._refused[integration_id] = SkipReason.BAD_ADDRESS
            else:
                known.account.gate.retry_now()
        return old

    def _take(self, integration: Integration) -> list[Provider]:
        known = self._known.get(integration.id)
        if known is not None and _login(known.integration) == _login(integration):
            known.integration = integration
            return []
        try:
            fresh = self.open_account(integration)
        except ValueError as error:
            self._refused[integration.id] = SkipReason.BAD_ADDRESS
            if self._told.get(integration.id) != integration:
                self._told[integration.id] = integration
                log = structlog.get_logger("order_monitor.directory")
                log.error("account.bad_address", account=label(integration), why=str(error))  # noqa: TRY400 - ours, without frames
            return []
        if known is None:
            self._known[integration.id] = _Known(integration, fresh)
            return []
        old, known.account.provider = known.account.provider, fresh.provider
        known.integration = integration
        known.account.gate.retry_now()
        return [old]


def label(integration: Integration) -> str:
    """Return an account's name: the shop's own, and enough of the id to tell two of the same name apart.

    Without characters that are not seen: they can turn the text around them, in a log and on a page.
    """
    name = "".join(c for c in integration.name if unicodedata.category(c) not in _INVISIBLE).strip()[:_LONGEST_NAME]
    return f"{name or 'integration'}{_tail(integration)}"


def formerly(account: str, integrations: Iterable[Integration], names: Iterable[str]) -> list[str]:
    """Return those ``names`` that an account had before the shop renamed it; none where another account's end like its own."""
    tails = {label(integration): _tail(integration) for integration in integrations}
    own = tails.get(account)
    if own is None or list(tails.values()).count(own) > 1:
        return []
    return [name for name in names if name not in tails and name.endswith(own)]


def _tail(integration: Integration) -> str:
    """Return the end of an account's name, which no renaming changes."""
    return f"-{integration.id[:8]}"


def _login(integration: Integration) -> tuple[str, str, str]:
    return integration.base_url, integration.kod, integration.sifre


def _refusal(integration: Integration) -> SkipReason | None:
    if integration.provider != ZNET:
        return SkipReason.OTHER_PROVIDER
    return None if integration.enabled else SkipReason.DISABLED
