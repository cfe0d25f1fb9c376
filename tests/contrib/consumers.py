"""The Django app with other settings, and its consumer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.test import override_settings

from order_monitor.contrib.django import Event
from order_monitor.contrib.django.conf import Handler, load
from order_monitor.contrib.django.consumer import Consumer
from tests.contrib import project
from tests.contrib.shop.money import handle


@contextmanager
def configured(**changes: Any) -> Iterator[None]:
    given = {**project.ORDER_MONITOR, **changes}
    with override_settings(
        ORDER_MONITOR={name: value for name, value in given.items() if value is not None}
    ):
        yield


@contextmanager
def consuming(handler: Handler = handle, **changes: Any) -> Iterator[Consumer]:
    made = Consumer(replace(load(), **{"first_pause": 60, **changes}), handler)
    try:
        yield made
    finally:
        made.side.close()


def drain(consumer: Consumer, times: int = 1) -> None:
    """Run it this many times over everything, with all pauses skipped."""
    for _ in range(times):
        consumer.side.run("UPDATE order_monitor_attempts SET next_at = clock_timestamp()")
        consumer.run_once(consumer.newest())


def failing(*order_ids: str, error: Exception | None = None) -> Handler:
    """Return a handler that fails for these orders, after it has moved their money."""

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        if event.order_id in order_ids:
            raise error or ValueError("no")

    return handler
