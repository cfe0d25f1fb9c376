"""The provider of all contestants: znet's answers from a separate process, over bare protocols, so
that it is never the bottleneck.

``python -m benchmarks.compare.provider`` prints its port on standard output; after that each line
of JSON on standard input is a command, answered by one line. It ends when its standard input
closes, so it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from typing import Any, Final, Self, cast

from benchmarks.compare.processes import stopped

_LINE: Final = 1 << 28
_REFERANS: Final = b"tahsilat_api_islem_id="


class Books:
    """When each order ends, and when each was asked about."""

    def __init__(
        self, latency: float = 0.0, ends: dict[str, float] | None = None, *, all_end: bool = False
    ) -> None:
        """Start with no questions recorded.

        Args:
            latency: seconds from question to answer.
            ends: when an order is decided (epoch seconds), by reference; the others always wait.
            all_end: every order is decided already.
        """
        self.latency, self.ends, self.all_end = latency, ends or {}, all_end
        self.asked: dict[str, list[float]] = defaultdict(list)
        self.told: dict[str, float] = {}
        self.total = self.in_flight = self.peak = 0

    def begin(self, referans: str) -> None:
        """Record a question."""
        self.asked[referans].append(time.time())
        self.total += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    def end(self, referans: str) -> str:
        """Return the answer."""
        self.in_flight -= 1
        now = time.time()
        if not self.all_end and self.ends.get(referans, now + 1) > now:
            return "OK|1| |bekleniyor"
        self.told.setdefault(referans, now)
        return f"OK|2|PIN-{referans}|tamam"


class Panel:
    """The provider; each run starts with fresh books."""

    def __init__(self) -> None:
        """Create the first books."""
        self.books = Books()

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out a command: ``reset``, ``count`` or ``report``."""
        match command.pop("do"):
            case "reset":
                self.books = Books(**command)
                return {}
            case "count":
                books = self.books
                return {
                    "total": books.total,
                    "repeated": books.total - len(books.asked),
                    "peak": books.peak,
                }
            case _:
                return {"asked": self.books.asked, "told": self.books.told}


class Line(asyncio.Protocol):
    """One connection, kept open until the client closes it."""

    def __init__(self, panel: Panel) -> None:
        """Answer for ``panel``."""
        self._panel = panel
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each complete question."""
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for head in heads:
            self._asked(head)

    def _asked(self, head: bytes) -> None:
        target = head.split(b" ", 2)[1]
        closes = b"connection: close" in head.lower()
        if _REFERANS not in target:
            self._say("OK|1000.00|0", closes=closes)
            return
        referans = target.partition(_REFERANS)[2].partition(b"&")[0].decode()
        books = self._panel.books
        books.begin(referans)
        if books.latency:
            asyncio.get_running_loop().call_later(
                books.latency, self._answer, books, referans, closes
            )
        else:
            self._answer(books, referans, closes)

    def _answer(self, books: Books, referans: str, closes: bool) -> None:  # noqa: FBT001 - the loop passes no names
        self._say(books.end(referans), closes=closes)

    def _say(self, text: str, *, closes: bool) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
        self._transport.write(
            f"{head}Connection: {'close' if closes else 'keep-alive'}\r\n\r\n{text}".encode()
        )
        if closes:
            self._transport.close()


async def serve() -> None:
    """Serve on a free loopback port until standard input closes."""
    loop, panel = asyncio.get_running_loop(), Panel()
    server = await loop.create_server(lambda: Line(panel), "127.0.0.1", 0, backlog=4096)
    commands = asyncio.StreamReader(limit=_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    _print({"port": server.sockets[0].getsockname()[1]})
    while line := await commands.readline():
        _print(panel.obey(json.loads(line)))


def _print(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


class Provider:
    """The provider's process, for the duration of the ``async with`` block."""

    url: str
    pid: int

    async def __aenter__(self) -> Self:
        """Start it."""
        command = (sys.executable, "-m", "benchmarks.compare.provider")
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, limit=_LINE
        )
        self.pid = self._process.pid
        self.url = f"http://127.0.0.1:{(await self._line())['port']}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it."""
        await stopped(self._process)

    async def reset(self, **how: Any) -> None:  # noqa: ANN401 - the arguments of `Books`
        """Reset, with the arguments of `Books`."""
        await self._do("reset", **how)

    async def count(self) -> dict[str, int]:
        """Return the number of questions, of questions about an order asked about before, and of
        the most questions at one time.
        """
        return await self._do("count")

    async def report(self) -> dict[str, Any]:
        """Return when each order was ``asked`` about, and when its end was first ``told``."""
        return await self._do("report")

    async def _do(self, what: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._line()

    async def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer


if __name__ == "__main__":
    asyncio.run(serve())
