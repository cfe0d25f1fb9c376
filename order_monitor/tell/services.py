"""The services that messages are sent to, through the library Apprise (extra ``notify``): Telegram,
mail, Slack and a hundred more.

Apprise blocks: each message is sent from a separate thread. Nothing waits for it longer than
`TIMEOUT`, and a service that hangs does not delay the others.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from order_monitor.core.text import visible
from order_monitor.tell.messages import Message

if TYPE_CHECKING:
    from apprise import Apprise

TIMEOUT: Final = 30.0
"""Seconds that sending one message may take."""

MISSING: Final = "the library apprise is not installed"
MISSING_DO: Final = "pip install 'order-monitor[notify]'"

_UNKNOWN: Final = "Apprise does not know such an address"
_HANGS: Final = "the message before is still being sent"
_SHORTEST_SECRET: Final = 4
_LONGEST_REASON: Final = 200


class NoLibraryError(Exception):
    """Apprise is not installed."""


class Service:
    """One address of ``notify.urls``."""

    def __init__(
        self,
        number: int,
        url: str,
        sender: Apprise | None,
        name: str = "",
        timeout: float = TIMEOUT,
    ) -> None:
        """Send with ``sender``.

        Without one every send fails, because the address is not understood.
        """
        self._timeout = timeout
        self.url = url
        self.name = f"{number} ({name})" if name else str(number)
        """The name to show: its position in the settings and its kind. The address is a secret."""
        self._sender = sender
        self._thread: threading.Thread | None = None

    @property
    def problem(self) -> str:
        """Why nothing can be sent there at all; empty if it can."""
        return "" if self._sender else _UNKNOWN

    async def send(self, message: Message) -> str:
        """Send a message within ``timeout`` seconds.

        Return why it did not arrive, empty if it did. Raises nothing.
        """
        sender = self._sender
        if sender is None:
            return _UNKNOWN
        if self._thread is not None and self._thread.is_alive():
            return _HANGS
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()

        def settle(why: str) -> None:
            if not done.done():
                done.set_result(why)

        def work() -> None:
            why = self._blocking(sender, message)
            # The program may have ended, or stopped waiting, in the meantime.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, why)

        self._thread = threading.Thread(target=work, name=f"notify {self.name}", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(self._timeout):
                return await done
        except TimeoutError:
            return "timeout"

    def _blocking(self, sender: Apprise, message: Message) -> str:
        try:
            result = sender.notify(
                body=message.body,
                title=message.title,
                notify_type=message.kind,
                body_format="text",
                timeout=self._timeout,
            )
            said = [
                entry.message
                for entry in result.logs()
                if entry.level in ("WARNING", "ERROR", "CRITICAL")
            ]
        except Exception as error:  # noqa: BLE001 - a hundred services' code, none of it ours
            return type(error).__name__
        return "" if result else self._without_secrets("; ".join(said)) or "refused"

    def _without_secrets(self, text: str) -> str:
        """Return a service's message without any part of the address: its path may contain a token,
        and the part before the host a password.
        """
        parts = {self.url, *re.split(r"[/:@?&=,]+", self.url)}
        for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
            if len(part) >= _SHORTEST_SECRET:
                text = text.replace(part, "****")
        return visible(text)[:_LONGEST_REASON]


def services_of(urls: Sequence[str], timeout: float = TIMEOUT) -> list[Service]:
    """Return the services at these addresses; each may take ``timeout`` seconds per message.

    Raises:
        NoLibraryError: the library is not installed.
    """
    try:
        from apprise import Apprise, AppriseAsset, PersistentStoreMode
    except ImportError:
        raise NoLibraryError(f"{MISSING}: {MISSING_DO}") from None
    # Its log lines name hosts and repeat answers. What matters in them is returned, without
    # secrets.
    logging.getLogger("apprise").propagate = False
    asset = AppriseAsset(
        app_id="order-monitor",
        app_desc="order-monitor",
        async_mode=False,
        secure_logging=True,
        storage_mode=PersistentStoreMode.MEMORY,
        pgp_autogen=False,
        pem_autogen=False,
    )
    return [
        _service(number, url, Apprise(asset=asset), timeout) for number, url in enumerate(urls, 1)
    ]


def _service(number: int, url: str, sender: Apprise, timeout: float) -> Service:
    try:
        # Importing a hundred services' modules warns about deprecated code in them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plugin = sender.instantiate(url, asset=sender.asset)
    except Exception:  # noqa: BLE001 - what is wrong with one of them must not keep the program from starting
        plugin = None
    if plugin is None:
        return Service(number, url, None, timeout=timeout)
    sender.add(plugin)
    return Service(number, url, sender, str(plugin.service_name), timeout)
