"""Settings that decide money: which those are, how their values are written, and settings that use the stored ones.

A process whose own differ from those that the others go by would write a word that the shop does not know, or fail an order that
the others still wait for. So they stand in the shop's database, and whoever differs asks and writes nothing: see
`shop/money_settings.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from order_monitor.core.errors import SettingsError
from order_monitor.core.folding import words as folded
from order_monitor.settings.model import Settings
from order_monitor.shop.money_settings import digest_of

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
)
"""The keys that decide money. New ones go to the end, and none is ever taken out: digests of several versions are compared so."""

_FOLDED: Final = "provider.no_pin"


def money_of(settings: Settings) -> dict[str, str]:
    """Return what these settings say of money, by key, each value in the one way it is written; no secret is among them."""
    return {key: _text(key, _value(settings, key)) for key in MONEY}


def money_digest(settings: Settings) -> str:
    """Return the digest of what these settings say of money."""
    return digest_of(money_of(settings))


def with_money(settings: Settings, stored: Mapping[str, str]) -> Settings:
    """Return the settings with the ``stored`` values that differ from their own, and all else as it is.

    Raises:
        SettingsError: what is stored does not go with the rest of the file, or is of a kind this version does not know.
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
            # Only what was given, as in the file: a section looks at what was, and what was not.
            sections[section] = type(old).model_validate(old.model_dump(by_alias=True, exclude_unset=True) | values)
        except ValidationError as error:
            for found in error.errors(include_url=False, include_input=False):
                where = ".".join((section, *(str(part) for part in found["loc"])))
                problems.append(f"{where}: with the settings in force: {found['msg'].removeprefix('Value error, ')}")
    if problems:
        raise SettingsError(problems)
    return settings.model_copy(update=sections)


def _value(settings: Settings, key: str) -> Any:  # noqa: ANN401 - whatever a setting may be
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def _text(key: str, value: object) -> str:
    """Write a value so that two that mean the same are written alike."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, tuple):
        return json.dumps(sorted(set(_folded(value) if key == _FOLDED else value)), ensure_ascii=False)
    return str(value)


def _folded(words: Iterable[str]) -> set[str]:
    """Return the words as PINs are compared with them, so that words which no PIN is told apart by are one."""
    return set(map(folded, words))
