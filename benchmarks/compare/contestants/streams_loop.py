"""Ask in an endless loop over asyncio's streams: the limit of Python. Run as a process."""

from __future__ import annotations

import asyncio
import itertools
from urllib.parse import urlsplit

from benchmarks.compare.load import KOD, SIFRE, Load, referans


async def ask(host: str, port: int, order: str) -> list[bytes]:
    """Return the fields of the answer about an order, over a new connection."""
    reader, writer = await asyncio.open_connection(host, port)
    path = f"/servis/pin_kontrol.php?kod={KOD}&sifre={SIFRE}&tahsilat_api_islem_id={order}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2].split(b"|")


async def ask_for_ever(load: Load) -> None:
    """Keep the load's number of calls in flight."""
    address, numbers = urlsplit(load.url), itertools.count()
    host, port = address.hostname, address.port
    assert host is not None
    assert port is not None

    async def work() -> None:
        while True:
            fields = await ask(host, port, referans(next(numbers)))
            assert fields[0] == b"OK"

    await asyncio.gather(*[work() for _ in range(load.in_flight)])


if __name__ == "__main__":
    asyncio.run(ask_for_ever(Load.told()))
