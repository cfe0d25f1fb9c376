"""Settings that decide about money: which ones they are, how their values are stored, and how the
stored values are applied.

A process whose values differ from those of the others would write a status word that the shop does
not know, or fail an order that the others still wait for. So the values in force are stored in the
shop's database, and a process that differs asks and writes nothing: see `shop/money_settings.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from order_monitor.core.errors import SettingsError
from order_monitor.core.folding import words as folded
from order_monitor.settings.model import Settings
from order_monitor.shop.money_settings import OBSERVE

_CONSUMER: Final = "events.consumer"
_READ: Final = ("table", "webhook")
"""Values that write the same: an event that the shop takes."""

MONEY: Final = (
    "statuses.open",
    "statuses.completed",
    "statuses.failed",
    "statuses.processing",
    "schedule.give_up_after",
    "schedule.give_up_blind",
    "schedule.confirm_cancelled",
    "provider.no_pin",
    "provider.unique_pins",
    "provider.reference_reuse",
    "database.pins",
    "schedule.give_up_unknown",
    "schedule.brake_hold",
    "schedule.ignore_before",
    "statuses.settled",
    "provider.replay",
    "provider.chains",
    OBSERVE,
    _CONSUMER,
)
"""The keys that decide about money.

Add new ones at the end and never remove any: digests of different versions are compared.
"""

_FOLDED: Final = "provider.no_pin"


def money_of(settings: Settings) -> dict[str, str]:
    """Return the money settings by key, each value in its canonical form.

    None of them is a secret.
    """
    return {key: _text(key, settings.value(key)) for key in MONEY}


def with_money(settings: Settings, stored: Mapping[str, str]) -> Settings:
    """Return the settings with the ``stored`` values in place of their own; all else is unchanged.

    Raises:
        SettingsError: a stored value does not fit the rest of the file, or this version does not
            know its type.
    """
    own = money_of(settings)
    changed: dict[str, dict[str, str]] = {}
    for key in MONEY:
        if stored.get(key, own[key]) != own[key]:
            section, _, name = key.partition(".")
            changed.setdefault(section, {})[name] = stored[key]
    problems: list[str] = []
    sections: dict[str, object] = {}
    for section, values in changed.items():
        old = getattr(settings, section)
        try:
            # Only keys that were set, as in the file: a section's validation depends on that.
            sections[section] = type(old).model_validate(
                old.model_dump(by_alias=True, exclude_unset=True) | values
            )
        except ValidationError as error:
            for found in error.errors(include_url=False, include_input=False):
                where = ".".join((section, *(str(part) for part in found["loc"])))
                problems.append(
                    f"{where}: with the settings in force: {found['msg'].removeprefix('Value error, ')}"
                )
    if problems:
        raise SettingsError(problems)
    return settings.model_copy(update=sections)


def _text(key: str, value: object) -> str:
    """Write a value in a form that is the same for equivalent values."""
    if key == _CONSUMER and value in _READ:
        return _READ[0]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, tuple):
        # Folded as for comparing PINs, equivalent words become one.
        words = map(folded, value) if key == _FOLDED else value
        return json.dumps(sorted(set(words)), ensure_ascii=False)
    return str(value)
