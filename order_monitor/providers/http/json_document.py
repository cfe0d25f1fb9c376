"""Read a JSON document so strictly that no code in it can have changed: pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


class Number(str):
    """A JSON number as it was written. ``7`` may have been the code ``007``, which JSON forbids."""

    __slots__ = ()


class _TwiceError(ValueError):
    """An object contains a key twice."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a document contains; numbers are `Number`."""

    value: Any = field(repr=False)


def read_json(text: str) -> Document | None:
    """Parse a JSON document; None if it is invalid: cut short, two documents, a duplicate key,
    nested too deeply.
    """
    try:
        value = json.loads(
            text,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_no_constant,
            object_pairs_hook=_once_each,
        )
    except (ValueError, RecursionError):
        return None
    return Document(value)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _TwiceError
    return found
