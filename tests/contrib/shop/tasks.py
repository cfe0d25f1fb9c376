"""The plan's Celery tasks, as in the shop, with faster time."""

import os
import time
import urllib.request
from typing import Any

from celery import Celery, shared_task
from django.db.models.functions import Now

from tests.contrib.shop.models import ProductOrder
from tests.contrib.shop.money import apply_order_status_change

SECOND = float(os.environ.get("CELERY_SECOND", "1"))
FINAL = ("completed", "delivered", "done", "cancelled", "failed", "rejected")
app = Celery("shop", broker=os.environ.get("SHOP_REDIS", ""))
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    beat_schedule={"batch": {"task": "batch", "schedule": 300 * SECOND}},
)


def fetch_status(order: ProductOrder) -> tuple[str, str]:
    """Ask the provider; return its answer, and the PIN."""
    address = f"{os.environ['SHOP_PANEL']}/servis/pin_kontrol.php?tahsilat_api_islem_id={order.provider_referans}"
    with urllib.request.urlopen(address, timeout=20) as answer:
        words = answer.read().decode().split("|")
    return {"1": "processing", "2": "done", "3": "failed"}[words[1]], words[2].strip()


@shared_task(bind=True, name="check", max_retries=288)
def check_order_status(
    self: Any, order_id: str, tenant_id: str | None = None, attempt: int = 1
) -> None:
    order = ProductOrder.objects.get(pk=order_id)
    if order.external_status in FINAL:
        return
    if time.time() - order.sent_at.timestamp() > 24 * 3600:
        # A bare UPDATE: the shop's own status and the wallet stay unchanged.
        ProductOrder.objects.filter(pk=order_id).update(
            external_status="failed", note="Timeout: No response after 24h"
        )
        return
    status, pin = fetch_status(order)
    if status in FINAL:
        order.external_status, order.pin_code = status, pin or None
        order.save(update_fields=["external_status", "pin_code"])
        apply_order_status_change(order, "approved" if status == "done" else "rejected", "celery")
        return
    if order.external_status != status:
        ProductOrder.objects.filter(pk=order_id, external_status__in=("sent", "pending")).update(
            external_status=status
        )
    raise self.retry(countdown=10 * SECOND, args=(order_id, tenant_id, attempt + 1))


@shared_task(name="batch")
def check_pending_orders_batch() -> None:
    waiting = ProductOrder.objects.filter(
        external_status__in=("pending", "sent"), sent_at__lt=Now()
    )
    for order in waiting[:100]:
        check_order_status.apply_async((str(order.pk), str(order.tenant_id)), countdown=5 * SECOND)
