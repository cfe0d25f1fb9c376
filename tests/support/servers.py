"""A raw HTTP server that can stall, drip, cut, lie and flood."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Server:
    """Listens on loopback, and knows which clients it is serving."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def is_busy(self) -> bool:
        return bool(self._tasks)

    async def __aenter__(self) -> Self:
        await self.listen(0)
        return self

    async def listen(self, port: int) -> None:
        """Listen on ``port``, also again after a stop."""
        self._server = await asyncio.start_server(self._accept, self._host, port, ssl=self._tls)

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # One more turn of the loop, for connections closed just now.
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        raise NotImplementedError


class RawServer(_Server):
    """Passes each request's head to ``handler``, which may write any bytes."""

    def __init__(
        self,
        handler: Handler,
        *,
        tls: ssl.SSLContext | None = None,
        greeting: bytes = b"",
        host: str = "127.0.0.1",
    ) -> None:
        """Send ``greeting`` to each client immediately."""
        super().__init__(host, tls)
        self._handler = handler
        self._greeting = greeting
        self.requests: list[bytes] = []
        self.connections = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(self._greeting)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            await self._handler(head, reader, writer)
            await writer.drain()


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class ProxyServer(_Server):
    """An HTTP and SOCKS 5 proxy that connects every requested host to ``port`` on loopback, and
    records the requests in ``asked``.
    """

    def __init__(
        self, port: int, *, login: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Accept only clients that give ``login``, if it is set."""
        super().__init__(tls=tls)
        self._to = port
        self._login = login
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.says: bytes | None = None
        """A response to HTTP clients in place of forwarding; the connection is then closed."""
        self.socks_reply = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        await (
            self._socks(reader, writer) if first == b"\x05" else self._http(first, reader, writer)
        )

    async def _http(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = first + await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.asked.append(target if method == "CONNECT" else urlsplit(target).netloc)
        given = b64encode(":".join(self._login).encode()) if self._login else b""
        if self.says is not None:
            writer.write(self.says)
            await writer.drain()
        elif b"proxy-authorization: basic " + given.lower() not in head.lower() and self._login:
            writer.write(answer(b"<html>login", status="407 Proxy Authentication Required"))
        else:
            back_reader, back = await asyncio.open_connection("127.0.0.1", self._to)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 p\r\n\r\n")
            else:
                kept = [
                    line for line in head.split(b"\r\n") if not line.lower().startswith(b"proxy-")
                ]
                kept[0] = kept[0].replace(b"http://" + urlsplit(target).netloc.encode(), b"")
                back.write(b"\r\n".join(kept))
            await self._pass_on(reader, writer, back_reader, back)

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        chosen = 2 if self._login else 0
        writer.write(bytes([5, chosen if chosen in methods else 255]))
        if chosen not in methods:
            return
        if self._login:
            await reader.readexactly(1)
            given = [
                (await reader.readexactly((await reader.readexactly(1))[0])).decode()
                for _ in range(2)
            ]
            writer.write(bytes([1, tuple(given) != self._login]))
            if tuple(given) != self._login:
                return
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        self.asked.append(f"{host}:{int.from_bytes(await reader.readexactly(2), 'big')}")
        writer.write(bytes([5, self.socks_reply, 0, 3, 4]) + b"here\0\0")
        if not self.socks_reply:
            await self._pass_on(
                reader, writer, *await asyncio.open_connection("127.0.0.1", self._to)
            )

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back_reader: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
            target.close()

        pumps = [
            asyncio.create_task(pump(reader, back)),
            asyncio.create_task(pump(back_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in pumps:
                one.cancel()
            back.close()
            await asyncio.gather(*pumps, return_exceptions=True)


def says(data: bytes, *, then: Callable[[asyncio.StreamWriter], None] = lambda _: None) -> Handler:
    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(data)
        then(writer)

    return handler
