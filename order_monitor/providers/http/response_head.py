"""Read the head of a response, and the sizes of its chunks, as leniently as curl and browsers.
Pure.

Panels send heads that violate the standard: header names with a space, a PHP warning, a space
before the colon. On a connection that carries one question nothing depends on such a line, and a
strict reader would lose the answer with it. Headers that determine where the body ends are passed
on unchanged, so that h11, which frames the body, rejects contradictions. Chunk sizes are passed on
in the standard form: panels that write chunks themselves end lines with a bare line feed.
"""

from __future__ import annotations

import re
from typing import Final

_END: Final = re.compile(rb"\n\r{0,2}\n")
_LONGEST_END: Final = 4
_STATUS: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?HTTP(?:/([0-9]+)(?:\.([0-9]+))?)?[ \t]+([0-9]{3})(?![0-9]).*",
    re.IGNORECASE | re.DOTALL,
)
_NAME: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_SWITCHING: Final = b"101"
_CHUNKED: Final = b"chunked"
_CODINGS: Final = frozenset(
    {
        _CHUNKED,
        b"gzip",
        b"x-gzip",
        b"deflate",
        b"x-deflate",
        b"compress",
        b"x-compress",
        b"br",
        b"zstd",
    }
)
"""Codings that really change a body.

Other words (``none``, ``identity``, ``8bit``) have no effect.
"""

_SIZE: Final = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?", re.DOTALL)
_LONGEST_LINE: Final = 4096
_LINES_LIMIT: Final = 131_072
"""Maximum bytes of the lines between the chunks of a body: sizes, extensions and the trailer."""

_CHUNKS: Final = 1000
_SMALLEST_CHUNK: Final = 64
"""Number of chunks allowed at any size, and the average size in bytes required beyond that number.
"""

HEADS: Final = 20
"""Maximum number of heads for one question: the response's and the interim ones (100, 102, 103)."""

LINES: Final = 1000
"""Maximum number of lines in a head."""


class HeadReader:
    """Takes bytes as they arrive and returns them with every head cleaned up: the response's and
    those of interim responses.
    """

    def __init__(self, limit: int) -> None:
        """Accept at most ``limit`` bytes of heads, including blank lines before them."""
        self._limit = limit
        self._taken = 0
        self._heads = 0
        self._held = bytearray()
        self._looked_at = 0
        self._is_body = False
        self._chunks: _ChunkReader | None = None

    def feed(self, data: bytes) -> bytes:
        """Return what can be passed on; nothing while a head is incomplete.

        Empty ``data`` means the end of the stream: everything held back is returned.

        Raises:
            ValueError: the heads are longer than the limit, or too many; or the body is not
                chunked as announced.
        """
        if self._is_body:
            return self._chunks.feed(data) if self._chunks is not None else data
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
            if self._is_body and tidy.endswith(_IN_CHUNKS):
                self._chunks = _ChunkReader()
        if self._is_body or not data:
            ready += (
                self._chunks.feed(bytes(self._held))
                if self._chunks is not None and self._held
                else self._held
            )
            self._held.clear()
        elif self._taken + len(self._held) > self._limit:
            msg = "the head is too long"
            raise ValueError(msg)
        return bytes(ready)

    def _take(self, count: int) -> None:
        """Count bytes against the limit, complete heads too: many may arrive in one piece."""
        self._taken += count
        if self._taken > self._limit:
            msg = "the head is too long"
            raise ValueError(msg)

    def _end(self) -> int:
        """Return the length of the head, 0 while its end has not arrived."""
        if not self._looked_at:
            # Blank lines before the status line come from a response that ended a line too late.
            blank = len(self._held) - len(self._held.lstrip(b"\r\n"))
            del self._held[:blank]
            self._take(blank)
        found = _END.search(self._held, self._looked_at)
        self._looked_at = max(0, len(self._held) - _LONGEST_END)
        return found.end() if found else 0


def tidied(head: bytes) -> tuple[bytes, bytes | None]:
    """Return a complete head reduced to valid header lines, and its status.

    If it has no status line, return it unchanged, and None.
    """
    first, *lines = (line.rstrip(b"\r") for line in head.rstrip(b"\r\n").split(b"\n"))
    found = _STATUS.fullmatch(first)
    if found is None:
        return head, None
    version = b"1.0" if (found[1], found[2]) == (b"1", b"0") else b"1.1"
    kept = [b"HTTP/" + version + b" " + found[3] + b" "]
    codings: list[bytes] = []
    for name, value in _headers(lines):
        if name.lower() == _CODING:
            codings += [
                part.partition(b";")[0].strip(b" \t\"'").lower() for part in value.split(b",")
            ]
        elif name.lower() == _FRAMING:
            # An empty value means nothing, as for every client: the body ends with the connection.
            kept += [name + b": " + value] if value else []
        else:
            kept.append(name + b": " + _CONTROLS.sub(b" ", value).strip())
    # A panel and the server before it may both send the header; the body is chunked only once.
    needed = dict.fromkeys(coding for coding in codings if coding in _CODINGS)
    if needed:
        kept.append(b"Transfer-Encoding: " + b", ".join(needed))
    return b"\r\n".join(kept) + b"\r\n\r\n", found[3]


def _headers(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Return names and values, with folded lines joined and lines without a valid header name left
    out.
    """
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


_IN_CHUNKS: Final = b"\r\nTransfer-Encoding: chunked\r\n\r\n"


class _ChunkReader:
    """Takes a chunked body as it arrives and returns it with chunk sizes and line ends in standard
    form, without a trailer.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._taken = 0
        self._count = 0
        self._size = 0
        self._left = 0
        """Bytes of the current chunk still to come."""
        self._is_behind_chunk = False
        self._is_last = False
        self._is_over = False

    def feed(self, data: bytes) -> bytes:
        """Return what can be passed on.

        Empty ``data`` means the end of the stream, which may replace the blank line after the last
        chunk.

        Raises:
            ValueError: a chunk size is missing; the lines between chunks are too long, or there are
                too many chunks.
        """
        ready = bytearray()
        self._held += data
        while not self._is_over and (self._left or b"\n" in self._held):
            if self._left:
                piece = bytes(self._held[: self._left])
                if not piece:
                    break
                del self._held[: len(piece)]
                self._left -= len(piece)
                ready += piece + (b"" if self._left else b"\r\n")
                self._is_behind_chunk = not self._left
            else:
                ready += self._line()
        if not data and self._is_last and not self._is_over:
            self._is_over = True
            ready += b"\r\n"
        if not self._left and not self._is_over and len(self._held) > _LONGEST_LINE:
            msg = "a line between chunks is too long"
            raise ValueError(msg)
        if self._taken > _LINES_LIMIT:
            msg = "too much between chunks"
            raise ValueError(msg)
        return bytes(ready)

    def _line(self) -> bytes:
        """Take one line: the end of a chunk, a size, or a line of the trailer."""
        end = self._held.index(b"\n")
        line = bytes(self._held[:end]).rstrip(b"\r")
        del self._held[: end + 1]
        self._taken += end + 1
        if self._is_last:
            self._is_over = not line
            return b"" if line else b"\r\n"
        if self._is_behind_chunk and not line:
            self._is_behind_chunk = False
            return b""
        found = None if self._is_behind_chunk else _SIZE.fullmatch(line)
        if found is None:
            msg = "no size of a chunk"
            raise ValueError(msg)
        self._count += 1
        if self._count > _CHUNKS and self._size < self._count * _SMALLEST_CHUNK:
            msg = "too many chunks that are too small"
            raise ValueError(msg)
        self._left = int(found[1], 16)
        self._size += self._left
        self._is_last = not self._left
        return b"%x\r\n" % self._left
