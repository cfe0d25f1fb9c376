"""For the dispatch: stores an order's reference in the database before the order is sent."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

COLUMN: Final = "provider_referans"
_LONGEST: Final = 255


def new_reference() -> str:
    """Return a reference in znet's format: digits, the time in milliseconds and three more."""
    return f"{time.time_ns() // 1_000_000}{secrets.randbelow(1000):03d}"


def remember_reference(order: Any, reference: str | int) -> None:
    """Save the reference of an order, and no other field.

    The save is committed on return. Call it before the order is sent: an order that was sent
    without a reference can never be asked about. For a client API, first save the order's own id,
    and then the provider's id as soon as it has answered.

    Raises:
        ValueError: it is empty, too long, or not text.
        RuntimeError: a transaction is open, so that a crash after the sending would undo the
            reference.
        ObjectDoesNotExist: the order is not in the table.
    """
    from django.db import router, transaction  # noqa: PLC0415 - a project imports this before its apps are ready

    text = str(reference).strip()
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise ValueError(f"a reference is 1 to {_LONGEST} printable characters")
    model = type(order)
    (field,) = (one for one in model._meta.concrete_fields if one.column == COLUMN)
    alias = router.db_for_write(model, instance=order)
    with transaction.atomic(using=alias, durable=True):
        done = model._base_manager.using(alias).filter(pk=order.pk).update(**{field.name: text})
    if not done:
        raise model.DoesNotExist(f"there is no order {order.pk}")
    # A later save() of this object must not restore the old one.
    setattr(order, field.attname, text)
