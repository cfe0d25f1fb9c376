"""The shop's money. Nothing here is idempotent, on purpose: a repetition shows."""

from typing import Any

from django.db import transaction
from django.db.models import F

from order_monitor.contrib.django import Event
from tests.contrib.shop.models import ProductOrder, User, WalletEntry


def move(order: ProductOrder, kind: str, amount: Any, told_by: str) -> None:
    WalletEntry.objects.create(
        user_id=order.user_id, order_id=order.pk, kind=kind, amount=amount, told_by=told_by[:40]
    )
    User.objects.filter(pk=order.user_id).update(balance=F("balance") + amount)


@transaction.atomic
def apply_order_status_change(order: ProductOrder, status: str, told_by: str) -> None:
    """Approve, which debits the wallet, or reject, which refunds the held amount: propagated up the
    chain of orders.
    """
    if status == "approved":
        move(order, "debit", -order.price, told_by)
    else:
        move(order, "refund", order.price, told_by)
    ProductOrder.objects.filter(pk=order.pk).update(status=status)
    for parent in parents_of(order):
        word = "done" if status == "approved" else "failed"
        ProductOrder.objects.filter(pk=parent.pk).update(
            external_status=word, pin_code=order.pin_code
        )
        apply_order_status_change(parent, status, told_by)


def parents_of(order: ProductOrder) -> Any:
    """Return the order of the next tenant up, for which this one was placed."""
    if order.root_order_id is None:
        return ProductOrder.objects.none()
    return ProductOrder.objects.select_for_update().filter(pk=order.root_order_id)


def pass_pin_on(order: ProductOrder) -> None:
    """Copy a late PIN up the chain; no money moves."""
    for parent in parents_of(order):
        ProductOrder.objects.filter(pk=parent.pk).update(pin_code=order.pin_code)
        parent.pin_code = order.pin_code
        pass_pin_on(parent)


def handle(event: Event, order: ProductOrder) -> None:
    if event.moves_money:
        apply_order_status_change(
            order, "approved" if event.outcome == "completed" else "rejected", "consumer"
        )
    elif event.has_pin:
        pass_pin_on(order)
