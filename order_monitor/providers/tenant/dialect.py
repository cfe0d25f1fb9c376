"""How the shop's platform answers about its own orders: in two versions, whose answers differ. Pure.

Both are asked in the same way, by the id of the child itself: by the parent's (``uuid=1``) a child
is not found any more once it was sent on. One answers with ``id`` and wait, accept or reject, the
other with ``orderId`` and the order's own status. Codes from stock stand in a text, not in ``pin``.
"""

from __future__ import annotations

from typing import Final

from order_monitor.providers.client_api.dialect import Dialect

TENANT: Final = Dialect(
    ids=("id", "orderId"),
    own_ids=(),
    completed=frozenset({"accept", "approved"}),
    failed=frozenset({"reject", "rejected"}),
    waiting=frozenset({"wait", "pending", "sent"}),
    pins=("pin",),
    has_replay=False,
    is_strict=True,
    in_brackets=False,
    most=50,
    names_host=True,
    profiles=("client/api/profile", "api-dj/users/profile"),
)
