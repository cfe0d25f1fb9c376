"""The tables, columns and indexes that order-monitor itself needs."""

from django.db import migrations

from order_monitor.contrib.django.operation import MigrateOrderMonitor


class Migration(migrations.Migration):
    """The same as ``order-monitor migrate``.

    If it is run again by hand, it reports that there is nothing to do.
    """

    initial = True
    # CREATE INDEX CONCURRENTLY cannot run inside a transaction.
    atomic = False
    dependencies = ()
    operations = (MigrateOrderMonitor(),)
