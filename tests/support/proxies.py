"""A proxy between the program and PostgreSQL that can freeze, delay, or cut the connection at the
worst moment.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """Listens on loopback and forwards everything to the server's socket."""

    def __init__(self, dsn: str) -> None:
        url = urlsplit(dsn)
        self._target = Path(parse_qs(url.query)["host"][0]) / ".s.PGSQL.5432"
        self._login, self._name = url.netloc.rpartition("@")[0], url.path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.cut_after: bytes | None = None
        """After these bytes from the client, its connection is cut when the server's reply arrives,
        and the reply is dropped.
        """
        self.cuts = 0
        self.freeze_before: bytes | None = None
        """From these bytes on nothing is forwarded: the server does not receive them."""
        self.freeze_after: bytes | None = None
        """After these bytes nothing is forwarded: the server has received them, and the client gets
        no reply.
        """
        self.frozen = asyncio.Event()
        self.only_writing = False
        """Freeze and cut only if the connection has sent an UPDATE in its current transaction."""

    @property
    def dsn(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://{self._login}@127.0.0.1:{port}{self._name}"

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Refuse new connections and cut the old ones."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()

    async def start_again(self, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, back_writer}
        doomed = asyncio.Event()
        for pump in (
            self._pump(reader, back_writer, writer, doomed, watched=True),
            self._pump(back_reader, writer, back_writer, doomed, watched=False),
        ):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        doomed: asyncio.Event,
        *,
        watched: bool,
    ) -> None:
        has_written = False
        with suppress(OSError):
            while data := await source.read(65_536):
                has_written = (has_written and b"BEGIN" not in data) or b"UPDATE" in data
                counts = watched and (has_written or not self.only_writing)
                if counts:
                    self._freeze_before(data)
                await self.flowing.wait()
                if counts and self.cut_after is not None and self.cut_after in data:
                    self.cut_after = None
                    doomed.set()
                elif not watched and doomed.is_set():
                    self.cuts += 1
                    target.transport.abort()
                    other.transport.abort()
                    return
                target.write(data)
                if counts and self.freeze_after is not None and self.freeze_after in data:
                    self.freeze_after = None
                    self._freeze()
                await target.drain()
        target.close()

    def _freeze_before(self, data: bytes) -> None:
        if self.freeze_before is not None and self.freeze_before in data:
            self.freeze_before = None
            self._freeze()

    def _freeze(self) -> None:
        self.flowing.clear()
        self.frozen.set()
