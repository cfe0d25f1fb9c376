"""Find and read the settings; for every mistake, report where it is and how to correct it."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from order_monitor.core.errors import SettingsError
from order_monitor.core.login import ZNET
from order_monitor.providers.registry import KINDS
from order_monitor.settings.model import Settings, known_keys, secret_keys
from order_monitor.settings.sections import NotifySettings
from order_monitor.settings.sources import (
    PREFIX,
    Found,
    Keys,
    Named,
    NamedSource,
    Places,
    Together,
    TomlSource,
    read_toml,
    secret_files,
    variables,
)

DEFAULT_PATHS: Final = (Path("monitor.toml"), Path("/etc/order-monitor/monitor.toml"))
_WORDS: Final = {
    **dict.fromkeys(("bool_parsing", "bool_type"), "should be true or false"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "should be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "should be a number"),
    **dict.fromkeys(("tuple_type", "list_type"), 'should be a list, like ["one", "another"]'),
    "string_type": "should be a text, in quotes",
    "dict_type": 'should be a table, like { name = "value" }',
}
"""The message for a value of the wrong type, by pydantic's name for the error."""


class _LastRead:
    """Where the settings of this process were read last."""

    places: ClassVar[Places] = {}
    path: ClassVar[Path | None] = None


def load(
    config: Path | None, environ: Mapping[str, str] | None = None, *, need: tuple[str, ...] = ()
) -> Settings:
    """Return the settings.

    Args:
        config: a file that must exist; None looks at `DEFAULT_PATHS`.
        environ: the environment, by default this process's own.
        need: the sections that the caller requires: ``database``, ``provider``.

    Raises:
        SettingsError: lists every mistake, each with its place, none with a value.
    """
    found, settings, mistakes = _read(_find(config), os.environ if environ is None else environ)
    problems = [
        *found.problems,
        *_missing(found.values, need, found.path),
        *(_explain(e, found.places, found.path) for e in mistakes),
    ]
    if settings is None or problems:
        raise SettingsError(problems, "" if found.path else _not_found()) from None
    _LastRead.places, _LastRead.path = found.places, found.path
    return settings


def _read(
    path: Path | None, environ: Mapping[str, str], only: str | None = None
) -> tuple[Found, Settings | None, list[ErrorDetails]]:
    """Return what all sources give, the settings (None if there are mistakes) and the mistakes.

    Args:
        path: the settings file, if there is one.
        environ: the environment.
        only: the section outside the file that counts, or None for all.

    Raises:
        SettingsError: the file cannot be read.
    """
    found = Found(path)
    in_file = TomlSource(Settings, found)
    given = [
        [one for one in named if only in {None, one.keys[0]}]
        for named in (secret_files(environ, found.problems), variables(environ))
    ]
    misplaced = _misplaced([one for named in given for one in named], in_file.toml_data)
    found.problems += misplaced.values()
    secrets, environment = (
        NamedSource(Settings, [one for one in named if one.keys not in misplaced], found)
        for named in given
    )
    sources = (environment, secrets, in_file, Together(Settings, found))
    try:
        # pydantic's plugin for mypy leaves this argument out.
        return found, Settings(_build_sources=(sources, {})), []  # type: ignore[call-arg]
    except ValidationError as error:
        return found, None, error.errors(include_url=False, include_input=False)


def _misplaced(given: list[Named], tree: Mapping[str, Any]) -> dict[Keys, str]:
    """Return the mistakes in the names of values outside the file.

    pydantic-settings would pass over such a value, or put it in the place of what the file says.
    """
    places = {one.keys: one.place for one in given}
    problems: dict[Keys, str] = {}
    for keys, place in places.items():
        if len(keys) < 2 and keys[0] not in known_keys():  # noqa: PLR2004 - section and key
            problems[keys] = (
                f"{place}: unknown; names are {PREFIX}<SECTION>__<KEY>{_nearest(keys[0])}"
            )
        node: Any = tree
        for number, key in enumerate(keys[:-1], 1):
            node = node.get(key, {}) if isinstance(node, dict) else node
            if keys[:number] in places or not isinstance(node, dict):
                above = ".".join(keys[:number])
                problems[keys] = f"{place}: unknown key; {above} has no keys below it"
                break
    return problems


def placed(problem: str) -> str:
    """Return a mistake found only after reading, which begins with its key, with where that key was
    set, as `load` names it.
    """
    key, colon, rest = problem.partition(": ")
    return f"{place_of(key)}: {rest}" if colon and is_key(key) else problem


def is_key(key: str) -> bool:
    """Whether this names a setting, like ``database.time_zone``, or something in one, like
    ``database.columns.id``.
    """
    section, _, name = key.partition(".")
    return name.partition(".")[0] in known_keys().get(section, ())


def place_of(key: str) -> str:
    """Return where a setting is set: a file and the key, a variable of the environment, or a file
    of the secrets.
    """
    return _where(tuple(key.split(".")), _LastRead.places, _LastRead.path)


def _not_found() -> str:
    """Report where we looked for a settings file: a user who has one expects it to be read."""
    places = " and ".join(str(path.absolute()) for path in DEFAULT_PATHS)
    return f"no settings file was found: looked for {places}; --config PATH names another (monitor.toml.example is a beginning)"


def readable_secrets(config: Path | None) -> tuple[Path, list[str]] | None:
    """Return the settings file and the secrets in it that every user of this machine can read.

    None if there are none.
    """
    path = _find(config)
    if path is None or not _is_open_to_all(path):
        return None
    tree = read_toml(path)
    held = [
        f"{section}.{key}"
        for section, keys in secret_keys().items()
        for key in keys
        if isinstance(found := tree.get(section), dict) and key in found
    ]
    return (path, held) if held else None


def _is_open_to_all(path: Path) -> bool:
    """Whether every user can read a file: its own mode and all directories above it."""
    try:
        whole = path.resolve()
        ways = all(folder.stat().st_mode & stat.S_IXOTH for folder in whole.parents)
        return ways and bool(whole.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def load_notify(config: Path | None, environ: Mapping[str, str] | None = None) -> NotifySettings:
    """Return the ``[notify]`` section, even if others are wrong: a mistake in the settings
    is itself a reason to notify someone.

    Raises:
        SettingsError: the section cannot be read.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    try:
        found, _, _ = _read(_find(config), environ, only="notify")
    except SettingsError as error:
        problems += error.problems
        found, _, _ = _read(None, environ, only="notify")
    problems += found.problems
    try:
        notify = _notify_of(found.values.get("notify", {}))
    except ValidationError as error:
        raise SettingsError(
            [
                _explain(e, found.places, found.path)
                for e in error.errors(include_url=False, include_input=False)
            ]
        ) from None
    if not notify.urls and problems:
        raise SettingsError(problems)
    return notify


def _notify_of(given: Any) -> NotifySettings:  # noqa: ANN401 - the content of a file
    """Return the section; if part of it is wrong, only its addresses."""
    try:
        return Settings(notify=given).notify
    except ValidationError:
        if not isinstance(given, dict) or "urls" not in given:
            raise
        addresses: Any = {"urls": given["urls"]}
        return Settings(notify=addresses).notify


def _find(config: Path | None) -> Path | None:
    if config is not None:
        if not config.is_file():
            raise SettingsError([f"{config}: there is no such file"])
        return config
    return next((path for path in DEFAULT_PATHS if path.is_file()), None)


def _nearest(wrong: str) -> str:
    names = [f"{section}__{key}" for section, keys in known_keys().items() for key in keys]
    close = difflib.get_close_matches(
        wrong.replace("_", ""), [n.replace("_", "") for n in names], n=1, cutoff=0.7
    )
    match = next((n for n in names if close and n.replace("_", "") == close[0]), None)
    return f"; did you mean {PREFIX}{match.upper()}?" if match else ""


def _explain(error: ErrorDetails, places: Places, path: Path | None) -> str:
    keys = tuple(str(part) for part in error["loc"])
    where = _where(keys, places, path)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{_did_you_mean(keys)}"
    text = _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ").removeprefix(
        "Input "
    )
    return f"{where}: {text}"


def _where(keys: tuple[str, ...], places: Places, path: Path | None) -> str:
    """Return where ``keys`` were set.

    For a whole section, every place outside the file that set something in it.
    """
    place = next((places[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in places), None)
    below = ", ".join(place for found, place in places.items() if found[: len(keys)] == keys)
    return place or below or (f"{path}: {'.'.join(keys)}" if path else ".".join(keys))


def _did_you_mean(keys: tuple[str, ...]) -> str:
    known = known_keys()
    names = known.get(keys[0], list(known)) if len(keys) > 1 else list(known)
    if close := difflib.get_close_matches(keys[-1], names, n=1):
        return f"; did you mean {'.'.join((*keys[:-1], close[0]))}?"
    return f"; there are {', '.join(names)}"


def _missing(sections: Mapping[str, Any], need: tuple[str, ...], path: Path | None) -> list[str]:
    lacking = []
    database, provider = (sections.get(name, {}) for name in ("database", "provider"))
    if "database" in need and isinstance(database, dict) and not {"dsn", "host"} & set(database):
        lacking.append("database.dsn")
    # Mistakes in another source are reported separately; which keys it would need is not known.
    if (
        "provider" in need
        and isinstance(provider, dict)
        and provider.get("source", "config") == "config"
    ):
        kind = provider.get("kind", ZNET)
        found = KINDS.get(kind) if isinstance(kind, str) else None
        needed = found.needed or () if found is not None else ()
        lacking += [f"provider.{key}" for key in needed if key not in provider]
    home = path or DEFAULT_PATHS[0]
    return [
        f"{home}: {key}: missing; set it there, or as {PREFIX}{key.upper().replace('.', '__')}, "
        f"or in a secrets file named {PREFIX.lower()}{key.replace('.', '__')}"
        for key in lacking
    ]
