"""What happens to the process from beside: slow clients on its health port, a full disk under its
log.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import httpx

from tests.faults.stage import Shop

CLIENTS = 300


async def dripping(port: int) -> None:
    """Send a request a byte at a time, and come back when shown out."""
    while True:
        writer = None
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            for byte in b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"x" * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.5)
        except OSError:
            await asyncio.sleep(0.1)
        finally:
            if writer is not None:
                writer.transport.abort()


async def test_slow_clients_on_the_health_port(shop: Shop, tmp_path: Path) -> None:
    """Orders go on, and a probe gets its answer."""
    async with shop.daemon(tmp_path) as run:
        port = int((await run.event("health.listening"))["port"])
        slow = [asyncio.create_task(dripping(port)) for _ in range(CLIENTS)]
        answered = 0
        async with shop.under_load(), httpx.AsyncClient(trust_env=False, timeout=5) as client:
            await asyncio.sleep(1)
            for _ in range(20):
                with suppress(httpx.TransportError):
                    answered += (
                        await client.get(f"http://127.0.0.1:{port}/livez")
                    ).status_code == 200
                await asyncio.sleep(0.3)
        await shop.end(
            f"{CLIENTS} slow clients on the health port, {answered} of 20 probes answered",
            at_least=50,
        )
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)
    assert answered >= 18


async def test_the_disk_is_full_under_the_log(shop: Shop, tmp_path: Path) -> None:
    """Each line of the log fails.

    Each order is written, and the exit code is that of a clean stop.
    """
    (tmp_path / "monitor.toml").write_text(shop.config())
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "order_monitor"),
            cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=full,
            stderr=full,
            env={k: v for k, v in os.environ.items() if not k.startswith("ORDER_MONITOR_")},
        )
    finally:
        os.close(full)
    try:
        async with shop.under_load():
            await asyncio.sleep(4)
        await shop.end("the disk full under the log", at_least=50)
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
