"""The project's ``ORDER_MONITOR`` settings."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import router
from django.utils.module_loading import import_string

from order_monitor.contrib.django.event import Event

NAME: Final = "ORDER_MONITOR"

Handler = Callable[[Event, Any], object]
"""Handles an event.

It also receives the order, or None if an event that moves no money has lost its order.
"""


@dataclass(frozen=True, slots=True)
class Config:
    """The settings, with their names in lower case. Durations are in seconds."""

    order_model: str = ""
    """The model of the orders table, like ``"orders.ProductOrder"``."""
    handler: str = ""
    """The dotted path of the handler: ``"orders.events.handle"``."""
    money_models: tuple[str, ...] = ()
    """The models in which the handler moves money: they must be in the events' database."""
    other_databases: tuple[str, ...] = ()
    """Aliases of further databases to which the handler may write.

    Writes there are not rolled back with the event.
    """
    handler_timeout: float = 60.0
    """The time limit of the handler for one event."""
    max_attempts: int = 12
    """The number of attempts after which an event is set aside."""
    first_pause: float = 5.0
    """The pause after the first failed attempt; it doubles with each further one."""
    longest_pause: float = 3600.0
    """The longest of these pauses."""
    poll: float = 5.0
    """The polling interval when no notification arrives."""
    command: tuple[str, ...] = (sys.executable, "-m", "order_monitor")
    """The ``order-monitor`` command, for the admin and for ``manage.py migrate``."""
    config: str | None = None
    """Its settings file; by default the command looks in its usual places."""
    command_timeout: float = 120.0
    """The time limit of such a command."""
    webhook_secret: str | None = None
    """The webhook's secret, ``whsec_…``, for the shipped receiver."""

    def __repr__(self) -> str:
        """Leave out the secret."""
        return f"Config(order_model={self.order_model!r}, handler={self.handler!r})"

    @property
    def model(self) -> Any:
        """The orders' model.

        Raises:
            ImproperlyConfigured: there is no model of that name.
        """
        return model_of("ORDER_MODEL", self.order_model)

    @property
    def alias(self) -> str:
        """The alias of the database to which orders are written, and which must contain the
        events.
        """
        return str(router.db_for_write(self.model))


def load() -> Config:
    """Return the project's settings.

    Raises:
        ImproperlyConfigured: a key is unknown, or a value has the wrong type.
    """
    given = getattr(settings, NAME, {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"{NAME} must be a dict")
    known = {one.name.upper(): one for one in fields(Config)}
    if unknown := sorted(set(given) - set(known)):
        raise ImproperlyConfigured(
            f"{NAME} has no key {', '.join(unknown)}; there are {', '.join(known)}"
        )
    values = {}
    for key, value in given.items():
        default = known[key].default
        values[known[key].name] = _fitting(key, value, default)
    return Config(**values)


def _fitting(key: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if isinstance(value, str) or not all(isinstance(one, str) for one in value):
            raise ImproperlyConfigured(f"{NAME}[{key!r}] must be a list of strings")
        return tuple(value)
    if isinstance(default, (int, float)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ImproperlyConfigured(f"{NAME}[{key!r}] must be a number above 0")
        return value
    if value is not None and not isinstance(value, str):
        raise ImproperlyConfigured(f"{NAME}[{key!r}] must be a string")
    return value


def model_of(key: str, name: str) -> Any:
    """Return the model of this name.

    Raises:
        ImproperlyConfigured: it does not exist; the message names the setting ``key``.
    """
    if not name:
        raise ImproperlyConfigured(
            f"{NAME}[{key!r}] is missing: the model, like 'orders.ProductOrder'"
        )
    try:
        return apps.get_model(name)
    except (LookupError, ValueError):
        raise ImproperlyConfigured(f"{NAME}[{key!r}]: there is no model {name!r}") from None


def handler_of(config: Config, path: str | None = None) -> Handler:
    """Return the handler at a dotted path.

    Raises:
        ImproperlyConfigured: it does not exist, or does not accept an event and an order.
    """
    path = path or config.handler
    where = f"{NAME}['HANDLER']"
    if not path:
        raise ImproperlyConfigured(
            f"{where} is missing: the dotted path of a function (event, order)"
        )
    try:
        handler = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"{where}: {error}") from None
    if not callable(handler) or inspect.iscoroutinefunction(handler):
        raise ImproperlyConfigured(f"{where}: {path} is no plain function")
    try:
        inspect.signature(handler).bind(None, None)
    except TypeError:
        raise ImproperlyConfigured(f"{where}: {path} must take (event, order)") from None
    return handler
