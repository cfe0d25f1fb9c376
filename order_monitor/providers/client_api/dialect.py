"""How a software speaks the client API: what an order is called in its answers, and which words say
how the order stands. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Dialect:
    """One software's way.

    ``ids`` are the keys of its own order id in an entry, the first one counts; ``own_ids`` those of
    the shop's id, by which it can be asked with ``uuid=1``: without any, it never is. An order has
    ended with one of the words ``completed`` or ``failed``, and waits with ``waiting``; any other
    word is not understood. ``pins`` are the keys of a PIN, ``messages`` those of texts. With
    ``has_replay`` a code or a message may be in ``replay_api``. With ``is_strict`` an entry with two
    different ids is nobody's, a failed order with a PIN is not understood, and neither is an
    accepted one without, if its texts may hold the code. Orders are named as a JSON list, or
    separated by commas if not ``in_brackets``; at most ``most`` a call are understood.
    ``names_host`` is whether the host is named in a header as well. ``profiles`` are the paths that
    tell the balance: the next one is asked if there is no such page.
    """

    ids: tuple[str, ...]
    own_ids: tuple[str, ...]
    completed: frozenset[str]
    failed: frozenset[str]
    waiting: frozenset[str]
    pins: tuple[str, ...]
    messages: tuple[str, ...] = ("note", "message")
    has_replay: bool = True
    is_strict: bool = False
    in_brackets: bool = True
    most: int = 100
    names_host: bool = False
    profiles: tuple[str, ...] = ("client/api/profile",)


ZDK: Final = Dialect(
    ids=("order_id", "id", "orderId"),
    own_ids=("order_uuid", "orderId", "id", "order_id"),
    completed=frozenset({"accept", "success", "ok", "done", "complete", "completed"}),
    failed=frozenset({"reject", "rejected", "failed", "fail", "error", "cancelled", "canceled"}),
    waiting=frozenset({"wait", "pending", "processing", "inprogress", "queued", "queue"}),
    pins=("pin", "code", "voucher", "serial"),
)
"""The software of barakat and apstore."""
