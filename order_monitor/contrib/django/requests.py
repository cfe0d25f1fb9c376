"""Keeps views out of the transaction that ``ATOMIC_REQUESTS`` opens around each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction


def non_atomic(view: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a view, for every database: what it writes is committed at once, and what it runs in
    other connections sees it.
    """
    for alias in connections.settings:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view
