"""What this machine has run out of is named as such: really used up, as far as that can be done
without harm to others.
"""

import asyncio
import errno
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from order_monitor.core.answer import Completed, Unreachable
from order_monitor.providers.http.failures import ExhaustedError, exhausted
from order_monitor.providers.http.resolver import Resolver
from order_monitor.providers.http.transport import FreshConnections
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock
from tests.support.connections import client_context, own, referans_of
from tests.support.limits import no_files_left
from tests.support.servers import RawServer, answer

ERRNOS = {
    errno.EADDRNOTAVAIL: "no_local_ports",
    errno.EMFILE: "no_files",
    errno.ENFILE: "no_files",
    errno.ENOBUFS: "no_memory",
    errno.ENOMEM: "no_memory",
}


async def answers(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(own(referans_of(head))))


async def test_no_files_left() -> None:
    """For the connection, and for the resolver, which does not say so itself.

    With files again all is well.
    """
    async with RawServer(answers) as server:
        transport = FreshConnections(client_context(), Resolver())
        for host in ("127.0.0.1", "panel.example"):
            znet = Znet(
                ZnetAccount(f"http://{host}:{server.port}", "k", "s"), transport, SystemClock()
            )
            with no_files_left():
                reply = await znet.ask("1")
            assert (reply.answer, reply.requests) == (Unreachable("no_files"), 1)
        znet = Znet(
            ZnetAccount(f"http://127.0.0.1:{server.port}", "k", "s"), transport, SystemClock()
        )
        assert isinstance((await znet.ask("1")).answer, Completed)
        await znet.aclose()


USES_UP_PORTS = """
import asyncio, json
from order_monitor.providers.http.transport import FreshConnections, trusting
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock

async def main():
    async def lets_the_client_close(reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 8\\r\\n\\r\\nOK|1| |x")
        await reader.read()
        writer.close()
    server = await asyncio.start_server(lets_the_client_close, "127.0.0.1", 8000)
    # Connections that are held take the ports, as those that wait out their end do.
    held = [await asyncio.open_connection("127.0.0.1", 8000) for _ in range(2)]
    told = []
    for host in ("127.0.0.1", "[2001:db8::1]"):
        znet = Znet(ZnetAccount(f"http://{host}:8000", "k", "s"), FreshConnections(trusting(None)), SystemClock())
        reply = await znet.ask("1")
        told.append([reply.answer.why, reply.requests])
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.mark.slow
def test_no_local_ports_left() -> None:
    """In a network of its own, with two ports.

    That there is no way to an IPv6 address at all is another matter.
    """
    network = 'ip link set lo up && echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range && exec "$@"'
    command = ["unshare", "--net", "sh", "-c", network, "sh", sys.executable, "-c", USES_UP_PORTS]
    if subprocess.run(
        ["unshare", "--net", "ip", "link"], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the right to make a network")
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["no_local_ports", 1], ["connect_error", 2]]


@pytest.mark.parametrize(("number", "why"), ERRNOS.items())
async def test_each_of_the_systems_words_for_it(
    number: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise OSError(number, "x")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fails)
    znet = Znet(
        ZnetAccount("http://127.0.0.1:1", "k", "s"),
        FreshConnections(client_context()),
        SystemClock(),
    )
    reply = await znet.ask("1")
    assert (reply.answer, reply.requests) == (Unreachable(why), 1)


@pytest.mark.parametrize(
    "number",
    [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM, errno.ETIMEDOUT],
)
def test_what_is_not_ours(number: int) -> None:
    assert exhausted(OSError(number, "x")) is None


async def test_a_connection_that_breaks_for_want_of_memory_is_ours_too() -> None:
    async with RawServer(answers) as server:
        connections = FreshConnections(client_context())
        wire = await connections.connect(httpx.URL(f"http://127.0.0.1:{server.port}"), 5.0)
        wire.connection_lost(OSError(errno.ENOBUFS, "x"))
        with pytest.raises(ExhaustedError, match="no_memory"):
            await wire.receive()
        wire.close()
