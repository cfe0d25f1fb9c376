"""Resolve names: one look-up serves many calls, and cached addresses serve while the resolver is
unavailable.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from order_monitor.providers.http.failures import (
    NAME_NOT_FOUND,
    RESOLVER_FAILED,
    ExhaustedError,
    NamedFailureError,
    NotResolvedError,
    exhausted,
    exhausted_now,
)

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses that may be connected to for a host and port.

Raises:
    httpx.TransportError: there is none.
"""

REFRESH: Final = 20.0
"""Seconds after which a name is looked up again while calls still use the cached address."""

LIFE: Final = 40.0
"""Seconds after which calls wait for the look-up: a change of address is seen within a minute."""

STALE: Final = 3600.0
"""Seconds for which a cached address is used while the resolver does not answer."""

PATIENCE: Final = 1.0
"""Seconds that a call waits for the resolver if an address is cached."""

_TRY_EVERY: Final = 5.0
_LONGEST: Final = 20.0
_MOST: Final = 1000
_AT_A_TIME: Final = 4
"""Maximum number of concurrent look-ups: each takes a thread of the pool that also resolves the
database's host name.
"""

_NO_SUCH_NAME: Final = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if hasattr(socket, name)
)


async def addresses_of(host: str, port: int) -> list[str]:
    """Return every address of ``host``, in the system's order of preference.

    Raises:
        NotResolvedError: it has none, or the resolver failed.
        ExhaustedError: the look-up could not be made, because this machine has run out of
            something.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise NotResolvedError(NAME_NOT_FOUND) from None
    except RuntimeError:
        raise ExhaustedError("no_threads") from None
    except OSError as error:
        if (shortage := exhausted(error) or exhausted_now()) is not None:
            raise shortage from None
        raise NotResolvedError(
            NAME_NOT_FOUND if error.errno in _NO_SUCH_NAME else RESOLVER_FAILED
        ) from None
    if not found:
        raise NotResolvedError(NAME_NOT_FOUND)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


@dataclass(slots=True)
class _Known:
    addresses: list[str]
    at: float
    failed_at: float = float("-inf")


class Resolver:
    """Caches addresses for less than a minute, or for `STALE` seconds while the resolver fails.

    One look-up per host at a time. "No such name" is an answer and removes the cached addresses.
    """

    def __init__(
        self, look_up: Resolve = addresses_of, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Resolve with ``look_up``; measure time with ``monotonic``."""
        self._ask = look_up
        self._monotonic = monotonic
        self._known: dict[str, _Known] = {}
        self._under_way: dict[str, asyncio.Task[list[str]]] = {}
        self._places = asyncio.Semaphore(_AT_A_TIME)

    async def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of ``host``.

        Raises:
            NotResolvedError: it has none, or the resolver failed and nothing is cached.
            ExhaustedError: the look-up could not be made, because this machine has run out of
                something.
        """
        if _is_address(host):
            return [host]
        known, now = self._known.get(host), self._monotonic()
        if known is None or now - known.at >= STALE:
            return await asyncio.shield(self._look_up(host, port))
        age = now - known.at
        if age >= REFRESH and now - known.failed_at >= _TRY_EVERY:
            look_up = self._look_up(host, port)
            if age >= LIFE:
                return await self._newer(look_up, known)
        return known.addresses

    async def _newer(self, look_up: asyncio.Task[list[str]], known: _Known) -> list[str]:
        """Return the result of ``look_up``, or the ``known`` addresses if it is slow or fails."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(look_up)
        except TimeoutError:
            known.failed_at = self._monotonic()
        except NamedFailureError as error:
            if str(error) == NAME_NOT_FOUND:
                raise
        return known.addresses

    def _look_up(self, host: str, port: int) -> asyncio.Task[list[str]]:
        """Return the one look-up of ``host``; it continues even if a caller stops waiting."""
        task = self._under_way.get(host)
        if task is None:
            task = self._under_way[host] = asyncio.create_task(
                self._asked(host, port), name="resolver"
            )
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _asked(self, host: str, port: int) -> list[str]:
        try:
            async with self._places, asyncio.timeout(_LONGEST):
                found = await self._ask(host, port)
        except TimeoutError:
            self._failed(host)
            raise NotResolvedError(RESOLVER_FAILED) from None
        except NamedFailureError as error:
            if str(error) == NAME_NOT_FOUND:
                self._known.pop(host, None)
            self._failed(host)
            raise
        finally:
            del self._under_way[host]
        self._known.pop(host, None)
        self._known[host] = _Known(found, self._monotonic())
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        return found

    def _failed(self, host: str) -> None:
        if host in self._known:
            self._known[host].failed_at = self._monotonic()


@lru_cache(maxsize=_MOST)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
