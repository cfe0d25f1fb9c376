"""The demo's orders: how each will go at the provider, and what must stand in the database at the end. Seeded, so repeatable."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import Final

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.pin import Pin
from order_monitor.demo.standin import Script

GIVE_UP_AFTER: Final = 600.0
_LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_NEVER: Final = 10**12
_STATUSES: Final = ("sent", "sent", "sent", "pending", "processing")


@dataclass(frozen=True, slots=True)
class Planned:
    """One order: its row, its script at the provider, and its end (None: stays as it is, because nobody can ask)."""

    id: str
    tenant_id: str
    status: str
    sent_at: float | None
    referans: str | None
    script: Script | None
    expected: tuple[str, Pin | None]


def write_story(count: int, seed: int, seconds: float, now: float) -> list[Planned]:
    """Plan ``count`` orders sent before ``now`` that end within ``seconds``, and a few that cannot be asked about."""
    chance = random.Random(seed)  # noqa: S311 - a story, not a secret
    tenants = [_uuid(chance) for _ in range(3)]
    orders = [_order(n, chance, tenants, seconds, now) for n in range(count)]
    odd: list[tuple[str, float | None, str | None]] = [
        ("sent", now - 50, None),
        ("sent", now - 90, ""),
        ("pending", None, "1760000000000001"),
        ("sent", now + 7200, "1760000000000002"),
        ("teleported", now - 30, "1760000000000003"),
    ]
    for status, sent_at, referans in odd:
        orders.append(Planned(_uuid(chance), tenants[0], status, sent_at, referans, None, (status, None)))
    return orders


def _order(n: int, chance: random.Random, tenants: list[str], seconds: float, now: float) -> Planned:
    referans = f"{1_760_885_915_000 + n * 7}{chance.randrange(1000):03d}"
    sent_at = now - chance.uniform(0, 180)
    ends_at = now + min(chance.lognormvariate(0.0, 0.8) * seconds * 0.2, seconds * 0.7)
    expected: tuple[str, Pin | None]
    lot = chance.random()
    if lot < 0.58:
        pin = Pin("-".join("".join(chance.choices(_LETTERS, k=4)) for _ in range(4)))
        script, expected = Script(Completed(pin, "Yüklendi"), ends_at), ("completed", pin)
    elif lot < 0.78:
        script, expected = Script(Completed(None, "Yüklendi"), ends_at), ("completed", None)
    elif lot < 0.97:
        reason = chance.choice(["İşlem iptal edildi", "Oyuncu bulunamadı", "Stok yok | iade edildi"])
        script, expected = Script(Cancelled(reason), ends_at), ("failed", None)
    else:
        # Sent so long ago that patience ends during the demo.
        sent_at = now - GIVE_UP_AFTER + chance.uniform(0.1, 0.6) * seconds
        script, expected = Script(Waiting("İşlem bekleniyor"), _NEVER), ("failed", None)
    if chance.random() < 0.2:
        script.hiccups = chance.choices(["refuse", "garble", "stall", "busy", "cut"], [5, 3, 2, 1, 1], k=1)
    return Planned(_uuid(chance), chance.choice(tenants), chance.choice(_STATUSES), sent_at, referans, script, expected)


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))
