"""What an order is to this program: the few columns that decide whether, when and what to ask."""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from order_monitor.core.login import knows_own_ids

NEVER_SENT: Final = "not_sent"
"""The external status of an order that was not sent to any provider yet."""

CLOCK_SKEW: Final = 300.0
"""Seconds a ``sent_at`` may lie in the future before it counts as a mistake, not as clock skew."""

SAME_TIME: Final = 1.0
"""Seconds by which two readings of ``sent_at`` may differ and still be the same: column types round
in different ways.
"""

CONFIGURED: Final = "default"
"""The key of the account that is configured in the settings."""

OLDEST_SENT_AT: Final = 946_684_800.0
"""2000-01-01 UTC.

An older ``sent_at`` (epoch zero, ``-infinity``) is a default or a fault, not a real date.
"""

LONGEST_REFERENCE: Final = 500
"""A longer reference is none of a provider's, and PostgreSQL may not take it into the index by which
dispatches are found.
"""

_UUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE
)


class SkipReason(StrEnum):
    """Why an open order is not asked about; a closed set, because it is a metric label."""

    NO_REFERENCE = "no_reference"
    BAD_REFERENCE = "bad_reference"
    NO_SENT_AT = "no_sent_at"
    NO_ROUTING = "no_routing"
    NO_INTEGRATION = "no_integration"
    SEVERAL_ACCOUNTS = "several_accounts"
    DISABLED = "disabled"
    OTHER_PROVIDER = "other_provider"
    NO_PROVIDER = "no_provider"
    WAITS_FOR_CHILD = "waits_for_child"
    BAD_ADDRESS = "bad_address"
    UNKNOWN_STATUS = "unknown_status"
    SENT_IN_FUTURE = "sent_in_future"
    BEFORE_START = "before_start"
    SETTLED_BY_SHOP = "settled_by_shop"

    @property
    def is_mendable(self) -> bool:
        """Whether a person should fix it. False for what is intended, such as an order that a
        person delivers.
        """
        return self not in _MEANT


_MEANT: Final = frozenset(
    {
        SkipReason.OTHER_PROVIDER,
        SkipReason.NO_PROVIDER,
        SkipReason.WAITS_FOR_CHILD,
        SkipReason.BEFORE_START,
        SkipReason.SETTLED_BY_SHOP,
    }
)


class Route(IntEnum):
    """How the shop says which account took an order.

    ``NOBODYS``: no account, because it comes from the shop's stock of codes or is done by hand.
    ``INTERNAL``: another tenant of the shop took it, as an order of its own.
    """

    NONE = 0
    ONE = 1
    SEVERAL = 2
    OWN = 3
    NOBODYS = 4
    INTERNAL = 5


NOBODY_ASKED: Final[frozenset[SkipReason]] = frozenset(
    {SkipReason.NO_PROVIDER, SkipReason.WAITS_FOR_CHILD}
)
"""Orders that were sent to no provider: they need no time and no reference, and are only counted."""


NOBODYS: Final = frozenset({"manual", "chain_forward", "__codes__", "internal_codes", "codes"})
"""What the shop writes in place of an integration's id where no provider is asked, in any case."""


class ReferenceFrom(IntEnum):
    """Where an order's reference stands: in its own column, in the provider's order id, or nowhere.

    Where it stands nowhere the reference is the order's own id, which only a client API knows.
    ``CHILD``: another tenant took the order, and the reference is its order's id, which is in
    another database.
    """

    COLUMN = 0
    EXTERNAL_ID = 1
    ORDER_ID = 2
    CHILD = 3


_EXTERNAL_ID: Final = ReferenceFrom.EXTERNAL_ID
_ORDER_ID: Final = ReferenceFrom.ORDER_ID
_CHILD: Final = ReferenceFrom.CHILD
"""To look a member up in its class takes three times as long."""


class Order(NamedTuple):
    """One open row of the shop's table.

    Times are seconds since the epoch, UTC, by the database's clock. A tuple, because a full read
    makes a million of them from rows, looks at them and drops them. ``integration`` is the id of
    the provider account that took the order, if accounts come from the shop's tables, and ``route``
    (a `Route`) how that is known; ``package`` is what was bought. ``registered``: this dispatch of
    it is recorded. ``understood``: an answer about it was understood before. ``odd_at``: since when
    no answer is understood, through the order's own fault. ``settled``: the shop's own status says
    it is over. ``reference_from`` (a `ReferenceFrom`): where the reference is stored. ``ended_at``
    is None while it is open.
    """

    id: str
    status: str
    sent_at: float | None
    reference: str
    tenant_id: str | None = None
    last_sync_at: float | None = None
    integration: str | None = None
    route: int = Route.ONE
    package: str | None = None
    registered: bool = False
    understood: bool = False
    odd_at: float | None = None
    settled: bool = False
    reference_from: int = ReferenceFrom.COLUMN
    ended_at: float | None = None

    @property
    def awaits_pin(self) -> bool:
        """Whether the order has ended and only its PIN is still asked for."""
        return self.ended_at is not None

    @property
    def has_reference(self) -> bool:
        """Whether the shop saved a reference, whatever a provider can do with it."""
        return bool(self.reference.strip()) and self.reference_from != ReferenceFrom.ORDER_ID

    def skip_reason(self, now: float, kind: str = "") -> SkipReason | None:
        """Return why this order cannot be asked about at ``now``, None if it can.

        ``kind`` is its account's protocol (`order_monitor.core.login`), empty if that is unknown. A
        ``sent_at`` that is not a real date counts as missing: it would otherwise set a deadline.
        """
        if self.settled and not self.awaits_pin:
            return SkipReason.SETTLED_BY_SHOP
        if (reason := self._reference_problem(kind)) is not None:
            return reason
        sent_at = self.sent_at
        if sent_at is None or not sent_at >= OLDEST_SENT_AT:
            return SkipReason.NO_SENT_AT
        return SkipReason.SENT_IN_FUTURE if sent_at > now + CLOCK_SKEW else None

    def _reference_problem(self, kind: str) -> SkipReason | None:
        """Say why an account of this ``kind`` cannot be asked by the order's reference.

        A client API also knows an order by the shop's own id. A dealer panel never does: there a
        UUID would be refused, or would name another order.
        """
        reference, source = self.reference.strip(), self.reference_from
        if not reference:
            return SkipReason.NO_REFERENCE
        if len(reference) > LONGEST_REFERENCE:
            return SkipReason.BAD_REFERENCE
        if knows_own_ids(kind) or source == _CHILD:
            return None
        if source == _ORDER_ID:
            return SkipReason.NO_REFERENCE
        if reference.isdigit() and reference.isascii():
            return None
        is_uuid = kind != "" and _UUID.fullmatch(reference) is not None
        return SkipReason.BAD_REFERENCE if source == _EXTERNAL_ID or is_uuid else None
