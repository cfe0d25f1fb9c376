"""The consumer's two tables; the others belong to order-monitor and are only declared here."""

from django.db import migrations, models

from order_monitor.contrib.django.models import KeyField
from order_monitor.contrib.django.operation import CreateKept


class Migration(migrations.Migration):
    """Undoing it keeps the two tables, and doing it again goes on with them."""

    dependencies = (("order_monitor", "0001_order_monitor"),)

    operations = (
        migrations.CreateModel(
            name="OrderEvent",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("order_id", KeyField()),
                ("tenant_id", KeyField(null=True)),
                ("from_status", models.TextField(null=True)),
                ("to_status", models.TextField()),
                ("has_pin", models.BooleanField()),
                ("message", models.TextField(null=True)),
                ("checks", models.IntegerField(null=True)),
                ("sent_at", models.DateTimeField(null=True)),
                ("decided_at", models.DateTimeField()),
                ("consumed_at", models.DateTimeField(null=True)),
                ("decided_by", models.TextField()),
                ("repeat", models.BooleanField()),
                ("outcome", models.TextField(null=True)),
                ("source", models.TextField(null=True)),
                ("cause", models.TextField(null=True)),
                ("account", models.TextField(null=True)),
                ("reference", models.TextField(null=True)),
                ("uid", models.UUIDField(null=True)),
            ],
            options={
                "verbose_name": "order event",
                "db_table": "order_monitor_events",
                "ordering": ("-id",),
                "permissions": (
                    ("ask_order", "Can have an order asked about now"),
                    ("resolve_order", "Can decide how an order ended"),
                    ("pause_account", "Can pause and resume an account"),
                    ("release_account", "Can release what the brake holds of an account"),
                ),
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="Pause",
            fields=[
                ("account", models.TextField(primary_key=True, serialize=False)),
                ("reason", models.TextField()),
                ("paused_by", models.TextField()),
                ("paused_at", models.DateTimeField()),
                ("until", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "order_monitor_pauses",
                "ordering": ("account",),
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="Review",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("order_id", KeyField()),
                ("kind", models.TextField()),
                ("detail", models.TextField(null=True)),
                ("account", models.TextField(null=True)),
                ("opened_at", models.DateTimeField()),
                ("closed_at", models.DateTimeField(null=True)),
                ("closed_by", models.TextField(null=True)),
                ("resolution", models.TextField(null=True)),
            ],
            options={
                "db_table": "order_monitor_review",
                "ordering": ("-id",),
                "permissions": (("close_review", "Can close a review"),),
                "managed": False,
            },
        ),
        CreateKept(
            name="Attempt",
            fields=[
                ("event_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("order_id", models.TextField()),
                ("attempts", models.IntegerField()),
                (
                    "unfinished",
                    models.IntegerField(
                        help_text="How many of the last ones ended with their consumer."
                    ),
                ),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
                ("next_at", models.DateTimeField()),
                ("set_aside_at", models.DateTimeField(null=True)),
                ("error", models.TextField()),
            ],
            options={
                "verbose_name": "event in trouble",
                "verbose_name_plural": "events in trouble",
                "db_table": "order_monitor_attempts",
                "ordering": ("event_id",),
                "permissions": (
                    ("retry_event", "Can have an event tried again, or say that it is done"),
                ),
            },
        ),
        CreateKept(
            name="Start",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("since", models.BigIntegerField()),
                ("set_at", models.DateTimeField()),
            ],
            options={
                "db_table": "order_monitor_consumer",
            },
        ),
    )
