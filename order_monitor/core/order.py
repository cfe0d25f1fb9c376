"""What an order is to this program: the few columns that decide whether, when and about what to ask."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

CLOCK_SKEW: Final = 300.0
"""Seconds a ``sent_at`` may lie ahead before it is taken for a mistake rather than for clock skew."""

SAME_TIME: Final = 1.0
"""Seconds by which two readings of ``sent_at`` may differ and still be one: columns round in more ways than one."""

CONFIGURED: Final = "default"
"""The key of the account that stands in the settings."""

OLDEST_SENT_AT: Final = 946_684_800.0
"""2000-01-01 UTC. An older ``sent_at`` (epoch zero, ``-infinity``) is a default or a fault, never a date."""


class SkipReason(StrEnum):
    """Why an open order is not asked about; a closed set, because it becomes a metric's label."""

    NO_REFERENCE = "no_reference"
    NO_SENT_AT = "no_sent_at"
    NO_ROUTING = "no_routing"
    NO_INTEGRATION = "no_integration"
    SEVERAL_ACCOUNTS = "several_accounts"
    DISABLED = "disabled"
    OTHER_PROVIDER = "other_provider"
    NO_PROVIDER = "no_provider"
    BAD_ADDRESS = "bad_address"
    UNKNOWN_STATUS = "unknown_status"
    SENT_IN_FUTURE = "sent_in_future"
    BEFORE_START = "before_start"
    SETTLED_BY_SHOP = "settled_by_shop"

    @property
    def is_mendable(self) -> bool:
        """Whether a person can do something about it: what is meant so, as an order that a person delivers, is no fault."""
        return self not in _MEANT


_MEANT: Final = frozenset(
    {SkipReason.OTHER_PROVIDER, SkipReason.NO_PROVIDER, SkipReason.BEFORE_START, SkipReason.SETTLED_BY_SHOP}
)


class Route(IntEnum):
    """How the shop says which account took an order; nobody's is what comes from its stock of codes, or is done by hand."""

    NONE = 0
    ONE = 1
    SEVERAL = 2
    OWN = 3
    NOBODYS = 4


class Order(NamedTuple):
    """One open row of the shop's table. Times are seconds since the epoch, UTC, by the database's clock.

    A tuple, because a million are made of rows, looked at and dropped each time that all are read. ``integration`` is the id of the
    provider account that took the order, where accounts are the shop's own, and ``route`` (a `Route`) how that is known;
    ``package`` is what was bought. ``registered`` tells that this dispatch of it is noted, ``understood`` that an answer about it
    was understood before, ``odd_at`` since when none is, by its own fault; ``settled`` that the shop's own status says it is
    over. ``ended_at`` is None while it is open.
    """

    id: str
    status: str
    sent_at: float | None
    referans: str
    tenant_id: str | None = None
    last_sync_at: float | None = None
    integration: str | None = None
    route: int = Route.ONE
    package: str | None = None
    registered: bool = False
    understood: bool = False
    odd_at: float | None = None
    settled: bool = False
    ended_at: float | None = None

    @property
    def awaits_pin(self) -> bool:
        """Whether the order has ended, and only its PIN is asked for."""
        return self.ended_at is not None

    def skip_reason(self, now: float) -> SkipReason | None:
        """Say why this order cannot be asked about at ``now``, or None where it can.

        A ``sent_at`` that is no date at all counts as missing: it would otherwise decide a deadline.
        """
        if self.settled and not self.awaits_pin:
            return SkipReason.SETTLED_BY_SHOP
        if not self.referans.strip():
            return SkipReason.NO_REFERENCE
        if self.sent_at is None or not self.sent_at >= OLDEST_SENT_AT:
            return SkipReason.NO_SENT_AT
        if self.sent_at > now + CLOCK_SKEW:
            return SkipReason.SENT_IN_FUTURE
        return None
