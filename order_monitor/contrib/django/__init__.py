"""A Django app that acts on each of order-monitor's events once, and lets support people manage
orders.

The main parts: ``Event``, which a handler receives together with the order; ``remember_reference``
and ``new_reference``, for the dispatch; ``manage.py consume_order_events``. docs/django.md explains
how to use them.
"""

from order_monitor.contrib.django.event import Event
from order_monitor.contrib.django.reference import new_reference, remember_reference

__all__ = ["Event", "new_reference", "remember_reference"]
