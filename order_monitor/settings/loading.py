"""Find and read the settings; for every mistake, report where it is and how to correct it."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
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

PREFIX: Final = "ORDER_MONITOR_"
SECRETS_DIR: Final = f"{PREFIX}SECRETS_DIR"
DEFAULT_PATHS: Final = (Path("monitor.toml"), Path("/etc/order-monitor/monitor.toml"))
DEFAULT_SECRETS: Final = Path("/run/secrets")
_LONGEST_SECRET: Final = 65_536
"""Maximum length of a secrets file in characters."""

# Kubernetes sets these in every container of a namespace with a Service named "order-monitor".
_NOT_OURS: Final = re.compile(
    r"(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?)"
)

_WORDS: Final = {
    **dict.fromkeys(("bool_parsing", "bool_type"), "should be true or false"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "should be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "should be a number"),
    **dict.fromkeys(("tuple_type", "list_type"), 'should be a list, like ["one", "another"]'),
    "string_type": "should be a text, in quotes",
    "dict_type": 'should be a table, like { name = "value" }',
}
"""The message for a value of the wrong type, by pydantic's name for the error."""

Place = dict[tuple[str, ...], str]

_ABOVE: Final = {"observe": "schedule"}
"""Settings that may be written above all sections, with the section they belong to."""


class _Read:
    """Where the settings of this process were read last."""

    places: ClassVar[Place] = {}
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
    environ = os.environ if environ is None else environ
    places: Place = {}
    problems: list[str] = []
    path = _find(config)
    tree = _read_toml(path) if path else {}
    _lower(tree, path, problems)
    _merge(tree, _secret_files(environ, problems), places, problems)
    _merge(tree, _variables(environ), places, problems)
    # Unknown sections never reach pydantic-settings: some names would be its own arguments.
    sections = {name: tree.pop(name) for name in known_keys() if name in tree}
    problems += [
        f"{_where((name,), places, path)}: unknown key{_did_you_mean((name,))}" for name in tree
    ]
    problems += _missing(sections, need, path)
    try:
        settings = Settings(**sections)
    except ValidationError as error:
        problems += [
            _explain(e, places, path) for e in error.errors(include_url=False, include_input=False)
        ]
    else:
        if not problems:
            _Read.places, _Read.path = places, path
            return settings
    raise SettingsError(problems, "" if path else _not_found()) from None


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
    return _where(tuple(key.split(".")), _Read.places, _Read.path)


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
    tree = _read_toml(path)
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
    tree: dict[str, Any] = {}
    places: Place = {}
    problems: list[str] = []
    path = None
    try:
        path = _find(config)
        tree = _read_toml(path) if path else {}
    except SettingsError as error:
        problems += error.problems
    for flat in (_secret_files(environ, problems), _variables(environ)):
        _merge(
            tree, {keys: one for keys, one in flat.items() if keys[0] == "notify"}, places, problems
        )
    given = tree.get("notify", {})
    try:
        notify = _notify_of(given)
    except ValidationError as error:
        raise SettingsError(
            [
                _explain(e, places, path)
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


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at [^)]*\)", str(error))
        raise SettingsError(
            [f"{path}: not valid TOML {where[0] if where else ''}".rstrip()]
        ) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{path}: not valid UTF-8"]) from None
    except (ValueError, RecursionError):  # a number with thousands of digits, thousands of brackets
        raise SettingsError([f"{path}: not valid TOML"]) from None
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from None


def _variables(environ: Mapping[str, str]) -> dict[tuple[str, ...], tuple[str, str]]:
    """Return key path → (value, place). An empty variable counts as not set."""
    found = {}
    for name, value in environ.items():
        key = name[len(PREFIX) :]
        if (
            name.upper().startswith(PREFIX)
            and name != SECRETS_DIR
            and value
            and not _NOT_OURS.fullmatch(key.upper())
        ):
            found[tuple(key.lower().split("__"))] = (value, name)
    return found


def _secret_files(
    environ: Mapping[str, str], problems: list[str]
) -> dict[tuple[str, ...], tuple[str, str]]:
    """Read ``order_monitor_<section>__<key>`` files; an explicitly named directory must exist."""
    named = environ.get(SECRETS_DIR) or environ.get("CREDENTIALS_DIRECTORY")
    directory = Path(named) if named else DEFAULT_SECRETS
    try:
        files = sorted(directory.iterdir())
    except OSError:
        if named:
            problems.append(
                f"{directory}: there is no such directory of secrets, or it cannot be read"
            )
        return {}
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for file in files:
        if file.name.upper().startswith(PREFIX) and not file.is_dir():
            # Reading a pipe would block until another process writes to it; a device may be
            # endless.
            if file.exists() and not file.is_file():
                problems.append(f"{file}: is no plain file, and was not opened")
                continue
            try:
                value = _start_of(file).decode("utf-8-sig").rstrip("\r\n")
            except (OSError, UnicodeDecodeError):
                problems.append(f"{file}: cannot be read as text")
                continue
            if len(value) > _LONGEST_SECRET:
                problems.append(f"{file}: is too long for a secret")
                continue
            found[tuple(file.name[len(PREFIX) :].lower().split("__"))] = (value, str(file))
    return found


def _start_of(file: Path) -> bytes:
    """Return at most as many bytes of a file as a secret may have.

    What the kernel shows as a regular file may be endless or block.

    Raises:
        OSError: it cannot be read, or would block.
    """
    with os.fdopen(
        os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0
    ) as opened:
        return opened.read(4 * _LONGEST_SECRET) or b""


def _merge(
    tree: dict[str, Any],
    flat: dict[tuple[str, ...], tuple[str, str]],
    places: Place,
    problems: list[str],
) -> None:
    for given, (value, place) in sorted(flat.items(), key=lambda item: len(item[0])):
        keys = (_ABOVE[given[0]], *given) if given[0] in _ABOVE else given
        if len(keys) < 2 and keys[0] not in known_keys():  # noqa: PLR2004 - section and key
            problems.append(
                f"{place}: unknown; names are {PREFIX}<SECTION>__<KEY>{_nearest(keys[0])}"
            )
            continue
        node: Any = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            problems.append(f"{place}: unknown key; {'.'.join(keys[:-1])} has no keys below it")
            continue
        node[keys[-1]] = value
        places[keys] = place


def _lower(tree: dict[str, Any], path: Path | None, problems: list[str]) -> None:
    """Move what a file has above all sections, as ``observe = true``, into its section."""
    for name, section in _ABOVE.items():
        node = tree.setdefault(section, {}) if name in tree else None
        if not isinstance(node, dict):
            continue
        if name in node:
            problems.append(f"{path}: {name}: given twice; {section}.{name} is the same setting")
        node[name] = tree.pop(name)


def _nearest(wrong: str) -> str:
    names = [f"{section}__{key}" for section, keys in known_keys().items() for key in keys]
    close = difflib.get_close_matches(
        wrong.replace("_", ""), [n.replace("_", "") for n in names], n=1, cutoff=0.7
    )
    match = next((n for n in names if close and n.replace("_", "") == close[0]), None)
    return f"; did you mean {PREFIX}{match.upper()}?" if match else ""


def _explain(error: ErrorDetails, places: Place, path: Path | None) -> str:
    keys = tuple(str(part) for part in error["loc"])
    where = _where(keys, places, path)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{_did_you_mean(keys)}"
    text = _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ").removeprefix(
        "Input "
    )
    return f"{where}: {text}"


def _where(keys: tuple[str, ...], places: Place, path: Path | None) -> str:
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
