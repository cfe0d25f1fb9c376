"""The tables: order-monitor's own, which are read-only here, and this app's two."""

from __future__ import annotations

from typing import Any

from django.db import models

from order_monitor.contrib.django.fields import RawArray


class KeyField(models.Field):
    """A column with the orders' own key, of any type in the database; its value here is text."""

    def get_internal_type(self) -> str:
        """Search it as text."""
        return "TextField"

    def from_db_value(self, value: Any, *_: object) -> str | None:
        """Return the key as text."""
        return None if value is None else str(value)


class OrderEvent(models.Model):
    """A change of an order's status.

    The consumer sets ``consumed_at`` in the transaction that acts on it.
    """

    id = models.BigIntegerField(primary_key=True)
    order_id = KeyField()
    tenant_id = KeyField(null=True)
    from_status = models.TextField(null=True)
    to_status = models.TextField()
    has_pin = models.BooleanField()
    message = models.TextField(null=True)
    checks = models.IntegerField(null=True)
    sent_at = models.DateTimeField(null=True)
    decided_at = models.DateTimeField()
    consumed_at = models.DateTimeField(null=True)
    decided_by = models.TextField()
    repeat = models.BooleanField()
    outcome = models.TextField(null=True)
    source = models.TextField(null=True)
    cause = models.TextField(null=True)
    account = models.TextField(null=True)
    reference = models.TextField(null=True)
    uid = models.UUIDField(null=True)

    class Meta:
        managed = False
        db_table = "order_monitor_events"
        ordering = ("-id",)
        verbose_name = "order event"
        permissions = (
            ("ask_order", "Can have an order asked about now"),
            ("resolve_order", "Can decide how an order ended"),
            ("pause_account", "Can pause and resume an account"),
            ("release_account", "Can release what the brake holds of an account"),
        )

    def __str__(self) -> str:
        """Return the event in words."""
        return f"event {self.pk}: {self.order_id} {self.outcome}"


NOT_FOR_A_PERSON = ("cancel_unconfirmed", "pin_held")
"""Kinds of review that are not for a person: a cancellation that waits for a second answer, and a
PIN that was read while the order's end was held.
"""


class Review(models.Model):
    """A decision about an order that a person must make."""

    id = models.BigIntegerField(primary_key=True)
    order_id = KeyField()
    kind = models.TextField()
    detail = models.TextField(null=True)
    account = models.TextField(null=True)
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    closed_by = models.TextField(null=True)
    resolution = models.TextField(null=True)

    class Meta:
        managed = False
        db_table = "order_monitor_review"
        ordering = ("-id",)
        permissions = (("close_review", "Can close a review"),)

    def __str__(self) -> str:
        """Return the review in words."""
        return f"{self.kind}: {self.order_id}"


class Pause(models.Model):
    """An account that is not asked, or whose ends are held."""

    account = models.TextField(primary_key=True)
    reason = models.TextField()
    paused_by = models.TextField()
    paused_at = models.DateTimeField()
    until = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "order_monitor_pauses"
        ordering = ("account",)

    def __str__(self) -> str:
        """Return the account."""
        return self.account


class Attempt(models.Model):
    """The attempts to act on an event: the row exists during an attempt, and until one succeeds."""

    event_id = models.BigIntegerField(primary_key=True)
    order_id = models.TextField()
    attempts = models.IntegerField()
    unfinished = models.IntegerField(
        help_text="How many of the last ones ended with their consumer."
    )
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    next_at = models.DateTimeField()
    set_aside_at = models.DateTimeField(null=True)
    error = models.TextField()
    failing = models.BooleanField(
        db_default=False,
        help_text="The handler failed on it, and has acted on no other event since.",
    )

    class Meta:
        db_table = "order_monitor_attempts"
        ordering = ("event_id",)
        verbose_name = "event in trouble"
        verbose_name_plural = "events in trouble"
        permissions = (("retry_event", "Can have an event tried again, or say that it is done"),)

    def __str__(self) -> str:
        """Return the event's number in words."""
        return f"event {self.pk}: {self.order_id}"


class Start(models.Model):
    """The first event to act on: one row, whose key is always 1.

    ``late`` are lower numbers that were not in the table when it was set, and are acted on too.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    since = models.BigIntegerField()
    late = RawArray(models.BigIntegerField(), db_default=[])
    set_at = models.DateTimeField()

    class Meta:
        db_table = "order_monitor_consumer"

    def __str__(self) -> str:
        """Return the start in words."""
        return f"from event {self.since} on"
