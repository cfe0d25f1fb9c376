"""Write docs/settings.md from the settings themselves: ``make docs-settings``."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from order_monitor.commands.reload import LIVE
from order_monitor.settings.model import Settings
from order_monitor.settings.sources import PREFIX
from order_monitor.settings.types import parse_seconds, read_bytes

HEAD: Final = """\
<!-- Written by "make docs-settings" from the settings themselves. Change the texts there. -->
# Settings

Needed are only `database.dsn` (or `database.host` and what belongs to it), and `provider.base_url`, `kod` and `sifre` (or
`provider.source = "database"`). Everything else has a default. [`monitor.toml.example`](../monitor.toml.example) has every key,
ready to be copied.

## Where a setting comes from

1. A variable in the environment, `ORDER_MONITOR_<SECTION>__<KEY>`: each is named below. An empty one counts as not set.
2. A file named like that in small letters, `order_monitor_<section>__<key>`, in a directory of secrets: the one that
   `ORDER_MONITOR_SECRETS_DIR` names, else systemd's `$CREDENTIALS_DIRECTORY`, else `/run/secrets`.
3. `monitor.toml`: the one that `--config` names, else the one in the working directory, else `/etc/order-monitor/monitor.toml`.

The environment wins over files, files over `monitor.toml`. An unknown key is an error wherever it stands. All mistakes are
reported at once, each with its place and what would be right, none with its value.

## How a value is written

- A **duration** is a number of seconds, or a number with a unit: `90`, `"90s"`, `"10m"`, `"24h"`. The units are `ms`, `s`, `m`,
  `h` and `d`.
- A **size** is a number of bytes, or a number with a unit: `65536`, `"64KiB"`, `"1MiB"`.
- A **list** from the environment or a file is `a,b` or JSON; a **table** is JSON.
- A **secret** is kept out of the log and of every message: see [security](security.md#secrets-and-pins-are-never-shown).

**Reload** says what `systemctl reload` (SIGHUP) takes over while the daemon runs. Of the others it says in the log, as
`settings.reloaded`, that they need a restart.
"""


def page() -> str:
    """Return the whole page."""
    sections = [_section(name, field.annotation) for name, field in Settings.model_fields.items()]
    return "\n".join([HEAD, *sections])


def meanings(section: type[BaseModel]) -> dict[str, str]:
    """Return the text below each of a section's keys, by the key's name in Python."""
    found = {}
    for base in section.__bases__:
        if base is not BaseModel and issubclass(base, BaseModel):
            found.update(meanings(base))
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(tree, ast.ClassDef)
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
        ):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _section(name: str, section: Any) -> str:
    texts = meanings(section)
    lines = [
        f"## {name}\n",
        f"{' '.join((inspect.getdoc(section) or '').split())}\n",
        "| Key | Meaning | May be | Default | Reload | In the environment |",
        "|---|---|---|---|---|---|",
    ]
    for field_name, field in section.model_fields.items():
        key = field.alias or field_name
        cells = (
            f"`{key}`",
            texts[field_name],
            _kind(field.annotation, field.metadata),
            _default(field),
            "yes" if f"{name}.{key}" in LIVE else "no",
            f"`{PREFIX}{name.upper()}__{key.upper()}`",
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """Return in words what a value may be."""
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        if len(parts) > 1:
            return " or ".join(_kind(part, metadata) for part in parts)
        (annotation,) = parts
    if hasattr(annotation, "__metadata__"):
        return _kind(annotation.__origin__, [*annotation.__metadata__, *metadata])
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    readers = [getattr(part, "func", None) for part in metadata]
    if parse_seconds in readers:
        return f"duration{_limits(metadata, _as_duration)}"
    if read_bytes in readers:
        return f"size{_limits(metadata, _as_size)}"
    names = {
        bool: "`true` or `false`",
        int: "whole number",
        float: "number",
        str: "text",
        SecretStr: "text, secret",
    }
    if get_origin(annotation) is tuple and get_args(annotation)[0] is SecretStr:
        return "list of texts, secret"
    origins = {tuple: "list of texts", dict: "table of texts"}
    return (
        f"{names.get(annotation) or origins[get_origin(annotation)]}{_limits(metadata, _as_number)}"
    )


def _limits(metadata: list[Any], write: Any) -> str:
    """Return the numbers between which a value must be, as the end of a phrase."""
    limits: dict[str, Any] = {}
    for part in metadata:
        for inner in (part, *getattr(part, "metadata", ())):
            limits |= {
                name: value
                for name in ("gt", "ge", "le")
                if (value := getattr(inner, name, None)) is not None
            }
    said = {"gt": "more than {}", "ge": "{} or more"}
    if "le" in limits and "gt" not in limits:
        return f", {write(limits.get('ge', 0))} to {write(limits['le'])}"
    words = [said[name].format(write(limits[name])) for name in ("gt", "ge") if name in limits]
    return "".join(
        f", {word}"
        for word in [*words, *([f"at most {write(limits['le'])}"] if "le" in limits else [])]
    )


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    kind = _kind(field.annotation, field.metadata)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, (tuple, dict)):
        return ", ".join(f"`{item}`" for item in value) or "empty"
    write = (
        _as_duration
        if kind.startswith("duration")
        else _as_size
        if kind.startswith("size")
        else _as_number
    )
    return f"`{write(value)}`"


def _as_number(value: float) -> str:
    return f"{value:.12g}"


def _as_duration(seconds: float) -> str:
    """Write seconds in the largest unit that keeps them whole, from ten minutes on."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds >= 600 and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return "0" if not seconds else f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:.12g}s"


def _as_size(count: float) -> str:
    for size, unit in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if count >= size and count % size == 0:
            return f"{count / size:g}{unit}"
    return f"{count:g}B"


if __name__ == "__main__":
    place = Path(__file__).with_name("settings.md")
    place.write_text(page(), "utf-8")
    print(f"wrote {re.sub(r'.*/docs/', 'docs/', str(place))}")
