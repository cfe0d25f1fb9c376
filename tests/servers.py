"""A raw HTTP server that can stall, drip, cut, lie and flood."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Gives each request's head to ``handler``, which writes whatever bytes it likes."""

    def __init__(
        self, handler: Handler, *, tls: ssl.SSLContext | None = None, greeting: bytes = b"", host: str = "127.0.0.1"
    ) -> None:
        """Say ``greeting`` to whoever connects, before anything is asked."""
        self._host = host
        self._handler = handler
        self._tls = tls
        self._greeting = greeting
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[bytes] = []
        self.connections = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> "RawServer":
        await self.listen(0)
        return self

    async def listen(self, port: int) -> None:
        """Listen on ``port``, again after an end too."""
        self._server = await asyncio.start_server(self._accept, self._host, port, ssl=self._tls)

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            writer.write(self._greeting)
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                await self._handler(head, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body
