"""Celery's side of the plan: the app that its worker and Beat load."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

import httpx
import psycopg
from celery import Celery

from benchmarks.compare.contestants.celery_plan import socket_of
from benchmarks.compare.load import BATCH, KOD, OLDEST_SQL, OPEN, READ, SIFRE, Load
from order_monitor.providers.znet.parser import parse_text

LOAD: Final = Load.told()
WRITE: Final = (
    "UPDATE product_orders SET external_status = 'completed', pin_code = %s, completed_at = now() "
    "WHERE id = %s AND external_status = ANY(%s)"
)
OLDEST: Final = OLDEST_SQL.replace("$1", "%s").replace("$2", "%s").replace("$3", "%s")
T = TypeVar("T")
app = Celery(broker=f"redis+socket://{socket_of(LOAD)}")
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    beat_schedule={"batch": {"task": "batch", "schedule": LOAD.times.batch}},
    beat_max_loop_interval=min(5.0, LOAD.times.batch),
)


class Kept(Generic[T]):
    """A pool of objects, each used by one caller at a time."""

    def __init__(self, make: Callable[[], T], most: int) -> None:
        """Create objects with ``make`` when all are in use, up to ``most``."""
        self._make = make
        self._free = threading.Semaphore(most)
        self._idle: list[T] = []

    @contextmanager
    def one(self) -> Iterator[T]:
        """Lend one object."""
        with self._free:
            thing = self._idle.pop() if self._idle else self._make()
            yield thing
            self._idle.append(thing)


# One connection a client: httpx's pool walks all its connections at each call, and that must not
# count against Celery.
_TLS: Final = httpx.create_ssl_context()
CLIENTS: Final = Kept(
    lambda: httpx.Client(verify=_TLS, timeout=20.0, trust_env=False), LOAD.in_flight
)
CONNECTIONS: Final = Kept(lambda: psycopg.connect(LOAD.dsn, autocommit=True), 4)


def ask(referans: str) -> str | None:
    """Return the PIN of an order that has ended."""
    asked = {"kod": KOD, "sifre": SIFRE, "tahsilat_api_islem_id": referans}
    with CLIENTS.one() as client:
        answer = parse_text(client.get(f"{LOAD.url}/servis/pin_kontrol.php", params=asked).text)
    pin = getattr(answer, "pin", None)
    return pin.reveal() if pin else None


def is_over(order_id: str) -> bool:
    """Check one order, and return whether there is nothing left to ask."""
    with CONNECTIONS.one() as connection:
        row = connection.execute(READ + "%s", (order_id,)).fetchone()
    if row is None or row[0] not in OPEN:
        return True
    pin = ask(row[1])
    if pin is not None:
        with CONNECTIONS.one() as connection:
            connection.execute(WRITE, (pin, order_id, OPEN))
    return pin is not None


def check(task: Any, order_id: str) -> None:  # noqa: ANN401 - Celery's task
    """Check an order, and retry with a countdown while it is open."""
    if not is_over(order_id):
        raise task.retry(countdown=LOAD.times.pause(task.request.retries))


def batch() -> None:
    """Check the 100 oldest open orders."""
    with CONNECTIONS.one() as connection:
        rows = connection.execute(OLDEST, (OPEN, LOAD.times.first, BATCH)).fetchall()
    for (order_id,) in rows:
        is_over(order_id)


app.task(name="check", bind=True, max_retries=None)(check)
app.task(name="batch")(batch)
