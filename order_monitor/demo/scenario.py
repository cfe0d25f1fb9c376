"""The demo's accounts and orders: how each order proceeds at its provider, and what the database
must contain at the end. Seeded, so repeatable.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from order_monitor.core.answer import AboutOrder, Cancelled, Completed, Waiting
from order_monitor.core.pin import Pin
from order_monitor.demo.standin import Script

GIVE_UP_AFTER: Final = 600.0
_LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_NEVER: Final = 10**12
_STATUSES: Final = ("sent", "sent", "sent", "pending", "processing")


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """A row of ``integrations``; ``provider`` is the shop's word for the protocol.

    ``is_asked`` is false for another tenant, to whom orders go without any call.
    """

    name: str
    provider: str
    is_asked: bool = True

    @property
    def id(self) -> str:
        """Its id, the same in every run."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.demo.example"))

    @property
    def kod(self) -> str:
        """The dealer's name at this account's panel."""
        return f"demo-{self.name.replace(' ', '-')}"


FIRST_PANEL: Final = DemoAccount("panel 1", "znet")
SECOND_PANEL: Final = DemoAccount("panel 2", "znet")
CLIENT_API: Final = DemoAccount("client API", "barakat")
TENANTS: Final = DemoAccount("tenants", "internal", is_asked=False)
ACCOUNTS: Final = (FIRST_PANEL, SECOND_PANEL, CLIENT_API, TENANTS)

_SHARES: Final = {FIRST_PANEL: 0.3, SECOND_PANEL: 0.25, CLIENT_API: 0.45}
_ALL: Final = {"refuse": 5, "garble": 3, "stall": 2, "busy": 1, "cut": 1}
# One that spoils a whole call holds up each of its orders for seconds, which no setting shortens.
_HICCUPS: Final = {
    FIRST_PANEL: _ALL,
    SECOND_PANEL: _ALL,
    CLIENT_API: {"refuse": 5, "garble": 3},
}
_EACH_CHAIN: Final = 40
"""There is one chain of tenants in so many orders."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One order: its row, its script at the provider, and its expected end (unchanged if it cannot
    be asked about).

    An order that another tenant took has no script: it ends as ``child`` does. ``root`` is the
    first order of its chain.
    """

    id: str
    tenant_id: str
    status: str
    sent_at: float | None
    reference: str | None
    script: Script | None
    expected: tuple[str, Pin | None]
    account: DemoAccount = FIRST_PANEL
    child: str | None = None
    root: str | None = None

    @property
    def provider_id(self) -> str:
        """The id of the integration that took it."""
        return self.account.id

    @property
    def external_order_id(self) -> str | None:
        """What its row has as the provider's order id: the child's id, where there is one."""
        return self.child

    @property
    def ends(self) -> bool:
        """Whether it ends during the demo."""
        return self.script is not None or self.child is not None


def write_story(count: int, seed: int, seconds: float, now: float) -> list[Planned]:
    """Plan ``count`` orders sent before ``now`` that end within ``seconds``, some of them in chains
    of three tenants, and a few that cannot be asked about.
    """
    chance = random.Random(seed)  # noqa: S311 - a story, not a secret
    tenants = [_uuid(chance) for _ in range(3)]
    chains = max(1, count // _EACH_CHAIN) if count >= len(tenants) else 0
    alone = count - chains * len(tenants)
    orders = [_order(n, chance, tenants, seconds, now) for n in range(alone)]
    for n in range(alone, alone + chains):
        orders += _chain(n, chance, tenants, seconds, now)
    odd: list[tuple[str, float | None, str | None]] = [
        ("sent", now - 50, None),
        ("sent", now - 90, ""),
        ("pending", None, "1760000000000001"),
        ("sent", now + 7200, "1760000000000002"),
        ("teleported", now - 30, "1760000000000003"),
    ]
    for status, sent_at, reference in odd:
        orders.append(
            Planned(_uuid(chance), tenants[0], status, sent_at, reference, None, (status, None))
        )
    return orders


def scripts_at(account: DemoAccount, orders: Iterable[Planned]) -> dict[str, Script]:
    """Return the scripts of an account's orders, by reference."""
    return {
        o.reference: o.script
        for o in orders
        if o.account == account and o.reference and o.script is not None
    }


def _order(
    n: int, chance: random.Random, tenants: list[str], seconds: float, now: float
) -> Planned:
    account = chance.choices(list(_SHARES), list(_SHARES.values()), k=1)[0]
    sent_at = now - chance.uniform(0, 180)
    ends_at = _ends_at(chance, seconds, now)
    lot = chance.random()
    if lot < 0.97:
        end, expected = _end(chance, lot / 0.97)
        script = Script(end, ends_at)
    else:
        # Sent so long ago that the time limit is reached during the demo.
        sent_at = now - GIVE_UP_AFTER + chance.uniform(0.1, 0.6) * seconds
        script, expected = Script(Waiting("İşlem bekleniyor"), _NEVER), ("failed", None)
    if chance.random() < 0.2:
        hiccups = _HICCUPS[account]
        script.hiccups = chance.choices(list(hiccups), list(hiccups.values()), k=1)
    return Planned(
        _uuid(chance),
        chance.choice(tenants),
        chance.choice(_STATUSES),
        sent_at,
        _reference(n, chance, account),
        script,
        expected,
        account,
    )


def _chain(
    n: int, chance: random.Random, tenants: list[str], seconds: float, now: float
) -> list[Planned]:
    """Plan one order of each tenant: each but the last was taken by the next one."""
    sent_at = now - chance.uniform(0, 180)
    ids = [_uuid(chance) for _ in tenants]
    end, expected = _end(chance, chance.random())
    last = Planned(
        ids[-1],
        tenants[-1],
        "sent",
        sent_at,
        _reference(n, chance, SECOND_PANEL),
        Script(end, _ends_at(chance, seconds, now)),
        expected,
        SECOND_PANEL,
        root=ids[0],
    )
    # The shop writes an order's own id as the reference of what it gave to another tenant.
    parents = [
        replace(
            last,
            id=order_id,
            tenant_id=tenant_id,
            reference=order_id,
            script=None,
            account=TENANTS,
            child=child,
            root=ids[0] if order_id != ids[0] else None,
        )
        for order_id, child, tenant_id in zip(ids, ids[1:], tenants, strict=False)
    ]
    return [*parents, last]


def _end(chance: random.Random, lot: float) -> tuple[AboutOrder, tuple[str, Pin | None]]:
    """Return how an order ends, and what its row must be then; ``lot`` is from 0 to 1."""
    if lot < 0.6:
        pin = Pin("-".join("".join(chance.choices(_LETTERS, k=4)) for _ in range(4)))
        return Completed(pin, "Yüklendi"), ("completed", pin)
    if lot < 0.8:
        return Completed(None, "Yüklendi"), ("completed", None)
    reason = chance.choice(["İşlem iptal edildi", "Oyuncu bulunamadı", "Stok yok | iade edildi"])
    return Cancelled(reason), ("failed", None)


def _ends_at(chance: random.Random, seconds: float, now: float) -> float:
    return now + min(chance.lognormvariate(0.0, 0.8) * seconds * 0.2, seconds * 0.7)


def _reference(n: int, chance: random.Random, account: DemoAccount) -> str:
    """Return what the account's provider calls its ``n``-th order."""
    number = f"{1_760_885_915_000 + n * 7}{chance.randrange(1000):03d}"
    return f"ID_{number}" if account is CLIENT_API else number


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))
