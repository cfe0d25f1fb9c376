"""Columns of the consumer's two tables."""

from django.db import migrations, models

from order_monitor.contrib.django.fields import RawArray
from order_monitor.contrib.django.operation import AddKept


class Migration(migrations.Migration):
    """Both have a default in the database, for consumers that still run an older version."""

    dependencies = (("order_monitor", "0002_consumer"),)

    operations = (
        AddKept(
            model_name="attempt",
            name="failing",
            field=models.BooleanField(
                db_default=False,
                help_text="The handler failed on it, and has acted on no other event since.",
            ),
        ),
        AddKept(
            model_name="start",
            name="late",
            field=RawArray(base_field=models.BigIntegerField(), db_default=[], size=None),
        ),
    )
