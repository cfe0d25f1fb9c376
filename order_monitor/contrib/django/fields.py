"""A column type that this app reads by SQL alone."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import Field


class RawArray(ArrayField):
    """An array that no form and no lookup of Django uses.

    Django 6.0 wants ``django.contrib.postgres`` among the installed apps for those, and refuses
    every command without it.
    """

    def check(self, **kwargs: Any) -> list[Any]:
        """Check what is checked of every field."""
        return Field.check(self, **kwargs)
