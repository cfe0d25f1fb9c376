"""The app's configuration in a Django project."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class OrderMonitorConfig(AppConfig):
    """``INSTALLED_APPS = [..., "order_monitor.contrib.django"]``."""

    name = "order_monitor.contrib.django"
    label = "order_monitor"
    verbose_name = "Order monitor"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from order_monitor.contrib.django.checks import check_database, check_settings  # noqa: PLC0415 - needs the apps

        checks.register(check_settings)
        checks.register(check_database, checks.Tags.database)
