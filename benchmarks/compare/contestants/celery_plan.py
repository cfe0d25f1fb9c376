"""The original plan: Celery, Redis and Beat.

One task per order with countdown retries, and a batch every 5 minutes.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.compare.contestants.contestant import Contestant, Put, python
from benchmarks.compare.load import Load
from benchmarks.compare.processes import Command

_APP = "benchmarks.compare.contestants.celery_app"


def socket_of(load: Load) -> Path:
    """Return Redis's address."""
    return Path(load.directory) / "redis.sock"


def broker(load: Load) -> list[Command]:
    """Return the command for a private Redis that writes nothing to disk."""
    options = {
        "port": "0",
        "unixsocket": str(socket_of(load)),
        "save": "",
        "appendonly": "no",
        "dir": load.directory,
    }
    written = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [
        Command(
            "broker",
            (shutil.which("redis-server") or "redis-server", *written),
            socket=socket_of(load),
        )
    ]


def commands(load: Load) -> list[Command]:
    """Return the commands for one worker, with as many greenlets as calls in flight, and for
    Beat.
    """
    celery = ("-m", "celery", "-A", _APP)
    worker = ("worker", "--pool=gevent", f"--concurrency={load.in_flight}", "--loglevel=WARNING")
    beat = (
        "beat",
        f"--schedule={load.directory}/beat",
        "--loglevel=WARNING",
        f"--pidfile={load.directory}/beat.pid",
    )
    return [python(load, *celery, *worker), python(load, *celery, *beat)]


@asynccontextmanager
async def producer(load: Load) -> AsyncIterator[Put]:
    """Send tasks as the shop would."""
    from celery import Celery  # noqa: PLC0415 - it may not be installed

    with (
        Celery(broker=f"redis+socket://{socket_of(load)}") as app,
        app.producer_pool.acquire() as sender,
    ):

        def send(order_ids: Sequence[str], delay: float) -> None:
            for order_id in order_ids:
                app.send_task("check", (order_id,), countdown=delay or None, producer=sender)

        async def put(order_ids: Sequence[str], delay: float) -> None:
            await asyncio.to_thread(send, order_ids, delay)

        yield put


def untaken(load: Load) -> int:
    """Return how many tasks the worker has not fetched yet: tasks with a countdown wait in its
    memory.
    """
    from redis import Redis  # noqa: PLC0415 - it may not be installed

    with Redis(unix_socket_path=str(socket_of(load)), socket_timeout=10) as redis:
        return int(redis.llen("celery"))


CELERY = Contestant(
    "Celery + Redis + Beat",
    "the plan: a task an order with countdown retries, and a batch of 100 from Beat every 5 minutes; one worker with the gevent "
    "pool, which alone of Celery's pools holds hundreds of waiting calls in one process; kept connections, psycopg",
    commands,
    packages=("celery", "gevent", "redis", "psycopg"),
    program="redis-server",
    producer=producer,
    broker=broker,
    untaken=untaken,
)
