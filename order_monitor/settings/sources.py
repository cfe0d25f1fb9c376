"""The sources of the settings: pydantic-settings' own, which remember where each value came from.

A mistake in the settings names its place, and no file of secrets may make the program wait.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    TomlConfigSettingsSource,
)

from order_monitor.core.errors import SettingsError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

PREFIX: Final = "ORDER_MONITOR_"
SECRETS_DIR: Final = f"{PREFIX}SECRETS_DIR"
DEFAULT_SECRETS: Final = Path("/run/secrets")
_LONGEST_SECRET: Final = 65_536
"""Maximum length of a secrets file in characters."""

# Kubernetes sets these in every container of a namespace with a Service named "order-monitor".
_NOT_OURS: Final = re.compile(
    r"(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?)"
)

_ABOVE: Final = {"observe": "schedule"}
"""Settings that may be written above all sections, with the section they belong to."""

Keys = tuple[str, ...]
Places = dict[Keys, str]


@dataclass
class Found:
    """What the sources found: where each value outside the file was set, every mistake, and all
    values together.
    """

    path: Path | None
    places: Places = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Named:
    """A value with a flat name, as ``database__dsn``, and where it was set."""

    keys: Keys
    value: str
    place: str


class TomlSource(TomlConfigSettingsSource):
    """``monitor.toml``.

    Raises:
        SettingsError: the file cannot be read.
    """

    def __init__(self, settings: type[BaseSettings], found: Found) -> None:
        """Read the file, if there is one."""
        self._found = found
        # Absolute, a name that begins with "~" is taken as it is.
        super().__init__(settings, toml_file=found.path and found.path.absolute())

    def _read_files(self, files: Any, deep_merge: bool = False) -> dict[str, Any]:  # noqa: ANN401, FBT001, FBT002 - as in the base
        # The base passes over a file that is gone: then the defaults would be in force.
        return {} if self._found.path is None else self._read_file(self._found.path)

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        tree = read_toml(Path(str(file_path)))
        for name, section in _ABOVE.items():
            node = tree.setdefault(section, {}) if name in tree else None
            if not isinstance(node, dict):
                continue
            if name in node:
                self._found.problems.append(
                    f"{file_path}: {name}: given twice; {section}.{name} is the same setting"
                )
            node[name] = tree.pop(name)
        return tree


class NamedSource(EnvSettingsSource):
    """Values with flat names: variables of the environment, or files of secrets."""

    def __init__(self, settings: type[BaseSettings], named: list[Named], found: Found) -> None:
        """Take the values; of two with one name, the last counts."""
        self._named = named
        found.places.update({one.keys: one.place for one in named})
        super().__init__(settings, env_prefix="", env_nested_delimiter="__", case_sensitive=False)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {"__".join(one.keys): one.value for one in self._named}

    def __call__(self) -> dict[str, Any]:
        """Return the values of all sections, and those that no section is named for: mistakes."""
        known = self.settings_cls.model_fields
        unknown: dict[str, Any] = {
            one.keys[0]: {} for one in self._named if one.keys[0] not in known
        }
        return unknown | super().__call__()


class Together(PydanticBaseSettingsSource):
    """The last source: adds nothing, and keeps what all others gave together."""

    def __init__(self, settings: type[BaseSettings], found: Found) -> None:
        """Take the object that keeps them."""
        self._found = found
        super().__init__(settings)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return that there is no value."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return nothing."""
        self._found.values = dict(self.current_state)
        return {}


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a file of settings says.

    Raises:
        SettingsError: it cannot be read, or is not TOML.
    """
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


def variables(environ: Mapping[str, str]) -> list[Named]:
    """Return what the environment sets. An empty variable counts as not set."""
    return [
        _named(name, value, name)
        for name, value in environ.items()
        if name.upper().startswith(PREFIX)
        and name != SECRETS_DIR
        and value
        and not _NOT_OURS.fullmatch(name[len(PREFIX) :].upper())
    ]


def secret_files(environ: Mapping[str, str], problems: list[str]) -> list[Named]:
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
        return []
    found = []
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
            found.append(_named(file.name, value, str(file)))
    return found


def _named(name: str, value: str, place: str) -> Named:
    keys = tuple(name[len(PREFIX) :].lower().split("__"))
    return Named((_ABOVE[keys[0]], *keys) if keys[0] in _ABOVE else keys, value, place)


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
