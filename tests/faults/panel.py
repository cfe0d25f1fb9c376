"""The provider over a raw socket: it knows each order's end, and reports it, or misbehaves in one
of many ways.
"""

import asyncio
import random
import re
import socket
import ssl
import struct
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cache

from order_monitor.core.answer import AboutOrder, Waiting
from order_monitor.demo.standin import render
from tests.support.servers import RawServer, answer

REFERANS = re.compile(rb"tahsilat_api_islem_id=([^& ]+)")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
MIB = 1 << 20
FLOOD = 1024
"""Mebibytes of an endless answer."""


@dataclass(frozen=True)
class Story:
    """An order at the provider: it waits until ``ends_at`` (epoch seconds), and then has its end
    permanently.
    """

    order_id: str
    end: AboutOrder
    ends_at: float


class FaultyPanel:
    """Answers each question truthfully, after a moment; ``fault`` names the misbehaviour
    instead.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", latency: float = 0.05, tls: ssl.SSLContext | None = None
    ) -> None:
        self.stories: dict[str, Story] = {}
        self.fault: str | None = None
        self.calls = 0
        self.faults: Counter[str] = Counter()
        self.flooded = 0
        self._latency = latency
        self._host = host
        self._scheme = "https" if tls else "http"
        self.server = RawServer(self._handle, host=host, tls=tls)

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{self.server.port}"

    async def __aenter__(self) -> "FaultyPanel":
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.__aexit__()

    def truths(self) -> dict[str, AboutOrder]:
        """Return each order's end."""
        return {story.order_id: story.end for story in self.stories.values()}

    async def _handle(
        self, head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        found = REFERANS.search(head)
        if found is None:
            writer.write(answer(b"OK|1523.40|0"))
            return
        self.calls += 1
        body = self._truth(found[1].decode())
        await asyncio.sleep(self._latency * random.uniform(0.2, 2))
        if self.fault is None:
            writer.write(answer(body))
        else:
            self.faults[self.fault] += 1
            await getattr(self, f"_{self.fault}")(body, writer)

    def _truth(self, reference: str) -> bytes:
        story = self.stories[reference]
        return render(
            story.end if time.time() >= story.ends_at else Waiting("İşlem bekleniyor")
        ).encode()

    # --- what goes wrong

    async def _cut(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Closes in the middle of the answer."""
        writer.write(answer(body)[: -len(body) // 2])
        await writer.drain()
        writer.close()

    async def _stall(self, _: bytes, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def _drip(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Each byte arrives in time, but the whole answer does not."""
        for byte in answer(body):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.2)

    async def _flood(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        """An endless answer."""
        writer.write(HEAD + f"Content-Length: {len(body) + FLOOD * MIB}\r\n\r\n".encode() + body)
        for _ in range(FLOOD):
            writer.write(b"x" * MIB)
            await writer.drain()
            self.flooded += 1

    async def _bomb(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        """A few kilobytes that decompress to a thousand times the size."""
        bomb = _bomb()
        writer.write(
            HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb
        )

    async def _headers_only(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def _reset(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Half an answer, then a RST."""
        writer.write(answer(body)[:-4])
        await writer.drain()
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def _surplus(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        """Another order's answer after the right one."""
        other = random.choice(list(self.stories.values()))
        writer.write(answer(body) + answer(render(other.end).encode()))


FAULTS = ("cut", "stall", "drip", "flood", "bomb", "headers_only", "reset", "surplus")


@cache
def _bomb() -> bytes:
    """Return fifty megabytes of zeros, compressed below the limit of an answer's size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    packed = b"".join(packer.compress(bytes(MIB)) for _ in range(50)) + packer.flush()
    assert len(packed) < 65_536
    return packed
