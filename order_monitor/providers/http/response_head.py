"""Read a response: its head as leniently as curl and browsers, its end strictly. Pure.

Panels send heads that violate the standard: header names with a space, a PHP warning, a space
before the colon. On a connection that carries one question nothing depends on such a line, and a
strict reader would lose the answer with it. Headers that determine where the body ends (RFC 9112,
6.3) must not contradict each other. Panels that write chunks themselves end lines with a bare line
feed. A general HTTP library took a fifth of a question's CPU for the same.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_END: Final = re.compile(rb"\n\r{0,2}\n")
_LONGEST_END: Final = 4
_STATUS: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?HTTP(?:/[0-9]+(?:\.[0-9]+)?)?[ \t]+([0-9]{3})(?![0-9]).*",
    re.IGNORECASE | re.DOTALL,
)
_NAME: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING: Final = b"content-length"
_LENGTH: Final = re.compile(rb"[0-9]{1,20}")
_CODING: Final = b"transfer-encoding"
_FIRST_INTERIM, _SWITCHING, _FIRST_FINAL = 100, 101, 200
_WITHOUT_BODY: Final = frozenset({204, 304})
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


class Head(NamedTuple):
    """A response's status, and its valid header lines in their order.

    ``codings`` are the ones that change the body, each once.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    codings: tuple[bytes, ...] = ()


class ResponseReader:
    """Takes the bytes of one response as they arrive, and returns those of its body.

    ``head`` is the response's once it is complete; heads of interim responses are skipped.
    ``is_over``: the body is complete, and anything further is ignored.
    """

    def __init__(self, limit: int) -> None:
        """Accept at most ``limit`` bytes of heads, including blank lines before them."""
        self.head: Head | None = None
        self.is_over = False
        self._limit = limit
        self._taken = 0
        self._heads = 0
        self._held = bytearray()
        self._looked_at = 0
        self._left: int | None = None
        """Bytes of the body still to come; None if it ends with the connection, or is chunked."""
        self._chunks: _ChunkReader | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the body among ``data``, which is empty at the end of the stream.

        Raises:
            ValueError: the heads are longer than the limit, or too many; no response is there, or
                it contradicts itself about its end, or is cut short; or the body is not chunked as
                announced.
        """
        if self.head is not None:
            return self._of_body(data)
        self._held += data
        while self.head is None and (found := self._end()):
            head = bytes(self._held[:found])
            del self._held[:found]
            self._looked_at = 0
            self._take(found)
            self._heads += 1
            if self._heads > HEADS or head.count(b"\n") > LINES:
                raise ValueError("too many heads, or lines in one")
            self.head = self._begun(head)
        if self.head is not None:
            return self._of_body(bytes(self._held)) if self._held else b""
        if not data:
            raise ValueError("cut short")
        if self._taken + len(self._held) > self._limit:
            raise ValueError("the head is too long")
        return b""

    def _begun(self, data: bytes) -> Head | None:
        """Return the response's head, None if ``data`` is the head of an interim one."""
        head = head_of(data)
        if head is None or head.status < _FIRST_INTERIM or head.status == _SWITCHING:
            raise ValueError("no response")
        length = _length_of(head)
        if head.status < _FIRST_FINAL:
            return None
        if head.status in _WITHOUT_BODY:
            self._left = 0
        elif not head.codings:
            self._left = length
        elif head.codings == (_CHUNKED,):
            self._chunks = _ChunkReader()
        else:
            raise ValueError("a coding that is not understood")
        self.is_over = self._left == 0
        return head

    def _of_body(self, data: bytes) -> bytes:
        if self.is_over:
            return b""
        if self._chunks is not None:
            found = self._chunks.feed(data)
            self.is_over = self._chunks.is_over
        elif self._left is None:
            found, self.is_over = data, not data
        else:
            found = data[: self._left]
            self._left -= len(found)
            self.is_over = not self._left
        if not data and not self.is_over:
            raise ValueError("cut short")
        return found

    def _take(self, count: int) -> None:
        """Count bytes against the limit, complete heads too: many may arrive in one piece."""
        self._taken += count
        if self._taken > self._limit:
            raise ValueError("the head is too long")

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


def head_of(data: bytes) -> Head | None:
    """Read a complete head; None if it has no status line."""
    first, *lines = (line.rstrip(b"\r") for line in data.rstrip(b"\r\n").split(b"\n"))
    found = _STATUS.fullmatch(first)
    if found is None:
        return None
    headers: list[tuple[bytes, bytes]] = []
    codings: list[bytes] = []
    for name, value in _headers(lines):
        if name.lower() == _CODING:
            codings += [
                part.partition(b";")[0].strip(b" \t\"'").lower() for part in value.split(b",")
            ]
        elif name.lower() == _FRAMING:
            # An empty value means nothing, as for every client: the body ends with the connection.
            headers += [(name, value)] if value else []
        else:
            headers.append((name, _CONTROLS.sub(b" ", value).strip()))
    # A panel and the server before it may both send the header; the body is chunked only once.
    needed = tuple(dict.fromkeys(coding for coding in codings if coding in _CODINGS))
    return Head(int(found[1]), headers, needed)


def _length_of(head: Head) -> int | None:
    """Return the announced length of the body, None if there is none.

    Raises:
        ValueError: it is no number, or there are several.
    """
    lengths = {
        part.strip(b" \t")
        for name, value in head.headers
        if name.lower() == _FRAMING
        for part in value.split(b",")
    }
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(length := lengths.pop()):
        raise ValueError("lengths that contradict each other, or are none")
    return int(length)


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


class _ChunkReader:
    """Takes a chunked body as it arrives and returns what is in the chunks."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._taken = 0
        self._count = 0
        self._size = 0
        self._left = 0
        """Bytes of the current chunk still to come."""
        self._is_behind_chunk = False
        self._is_last = False
        self.is_over = False

    def feed(self, data: bytes) -> bytes:
        """Return what of the body has arrived.

        Empty ``data`` means the end of the stream, which may replace the blank line after the last
        chunk.

        Raises:
            ValueError: a chunk size is missing; the lines between chunks are too long, or there are
                too many chunks.
        """
        ready = bytearray()
        self._held += data
        while not self.is_over and (self._left or b"\n" in self._held):
            if self._left:
                piece = bytes(self._held[: self._left])
                if not piece:
                    break
                del self._held[: len(piece)]
                self._left -= len(piece)
                ready += piece
                self._is_behind_chunk = not self._left
            else:
                self._line()
        self.is_over = self.is_over or (not data and self._is_last)
        if not self._left and not self.is_over and len(self._held) > _LONGEST_LINE:
            raise ValueError("a line between chunks is too long")
        if self._taken > _LINES_LIMIT:
            raise ValueError("too much between chunks")
        return bytes(ready)

    def _line(self) -> None:
        """Take one line: the end of a chunk, a size, or a line of the trailer."""
        end = self._held.index(b"\n")
        line = bytes(self._held[:end]).rstrip(b"\r")
        del self._held[: end + 1]
        self._taken += end + 1
        if self._is_last:
            self.is_over = not line
            return
        if self._is_behind_chunk and not line:
            self._is_behind_chunk = False
            return
        found = None if self._is_behind_chunk else _SIZE.fullmatch(line)
        if found is None:
            raise ValueError("no size of a chunk")
        self._count += 1
        if self._count > _CHUNKS and self._size < self._count * _SMALLEST_CHUNK:
            raise ValueError("too many chunks that are too small")
        self._left = int(found[1], 16)
        self._size += self._left
        self._is_last = not self._left
