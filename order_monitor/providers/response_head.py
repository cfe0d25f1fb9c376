"""The head of a response, read as curl and browsers read it. Pure.

Panels put into their heads what no book allows: names with a blank, a PHP warning, a blank before the colon. On a connection that
carries one question nothing hangs on such a line, and a strict reader would lose the answer with it. What says where the body ends
is handed on as it came, so that whoever frames the body refuses what contradicts itself.
"""

from __future__ import annotations

import re
from typing import Final

_END: Final = re.compile(rb"\n\r?\n")
_LONGEST_END: Final = 3
_STATUS: Final = re.compile(rb"HTTP/([0-9])(?:\.([0-9]))?[ \t]+([0-9]{3})(?:[ \t].*)?", re.IGNORECASE | re.DOTALL)
_NAME: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_SWITCHING: Final = b"101"
HEADS: Final = 20
"""How many heads may come for one question: the response's, and those that announce it (100, 102, 103)."""

LINES: Final = 1000
"""How many lines a head may have."""


class HeadReader:
    """Takes bytes as they come, and gives them back with every head tidied: that of the response and those announcing it."""

    def __init__(self, limit: int) -> None:
        """Take no more than ``limit`` bytes of heads, blank lines before them included."""
        self._limit = limit
        self._taken = 0
        self._heads = 0
        self._held = bytearray()
        self._looked_at = 0
        self._is_body = False

    def feed(self, data: bytes) -> bytes:
        """Return what can be handed on; nothing while a head is not complete. No ``data`` is the end: all that is held comes.

        Raises:
            ValueError: the heads are longer than the limit, or too many.
        """
        if self._is_body:
            return data
        self._held += data
        ready = bytearray()
        while not self._is_body and (found := self._end()):
            head = bytes(self._held[:found])
            del self._held[:found]
            self._looked_at = 0
            self._take(found)
            self._heads += 1
            if self._heads > HEADS or head.count(b"\n") > LINES:
                msg = "too many heads, or lines in one"
                raise ValueError(msg)
            tidy, status = tidied(head)
            ready += tidy
            self._is_body = status is None or not status.startswith(b"1") or status == _SWITCHING
        if self._is_body or not data:
            ready += self._held
            self._held.clear()
        elif self._taken + len(self._held) > self._limit:
            msg = "the head is too long"
            raise ValueError(msg)
        return bytes(ready)

    def _take(self, count: int) -> None:
        """Count what was taken of the limit, whole heads too: many of them come in one piece."""
        self._taken += count
        if self._taken > self._limit:
            msg = "the head is too long"
            raise ValueError(msg)

    def _end(self) -> int:
        """Return how long the head is, 0 while its end has not come."""
        if not self._looked_at:
            # Blank lines before the status line are somebody's last response that ended a line too late.
            blank = len(self._held) - len(self._held.lstrip(b"\r\n"))
            del self._held[:blank]
            self._take(blank)
        found = _END.search(self._held, self._looked_at)
        self._looked_at = max(0, len(self._held) - _LONGEST_END)
        return found.end() if found else 0


def tidied(head: bytes) -> tuple[bytes, bytes | None]:
    """Return a whole head with only lines that are headers, and its status; as it came, and None, where it has no status line."""
    first, *lines = (line.removesuffix(b"\r") for line in head.rstrip(b"\r\n").split(b"\n"))
    found = _STATUS.fullmatch(first)
    if found is None:
        return head, None
    version = b"1.0" if (found[1], found[2]) == (b"1", b"0") else b"1.1"
    kept = [b"HTTP/" + version + b" " + found[3] + b" "]
    codings: list[bytes] = []
    for name, value in _headers(lines):
        if name.lower() == _CODING:
            codings += [part.strip() for part in value.split(b",")]
        elif name.lower() == _FRAMING:
            kept.append(name + b": " + value)
        else:
            kept.append(name + b": " + _CONTROLS.sub(b" ", value).strip())
    # Said twice by a panel and the server before it, the body is still in chunks once; "identity" is nothing at all.
    needed = dict.fromkeys(coding.lower() for coding in codings if coding.lower() not in (b"", b"identity"))
    if needed:
        kept.append(b"Transfer-Encoding: " + b", ".join(needed))
    return b"\r\n".join(kept) + b"\r\n\r\n", found[3]


def _headers(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Return names and values: folded lines joined, what has no name that a header may have left out."""
    found: list[tuple[bytes, bytes]] = []
    is_kept = False
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if is_kept:
                name, value = found[-1]
                found[-1] = (name, (value + b" " + line.strip()).strip())
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        is_kept = bool(colon) and _NAME.fullmatch(name) is not None
        if is_kept:
            found.append((name, value.strip(b" \t")))
    return found
