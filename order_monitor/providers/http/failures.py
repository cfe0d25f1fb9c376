"""Named failures that are not the provider's: of the resolver, of the proxy, and shortages on this
machine.
"""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Final

import httpx

from order_monitor.core.easing import SHORTAGE_WORDS, shortage_of

PROXY_UNREACHABLE: Final = "proxy_unreachable"
PROXY_LOGIN: Final = "proxy_login"
PROXY_REFUSED: Final = "proxy_refused"
PROXY_FAILED: Final = "proxy_failed"
PROXY_PROTOCOL: Final = "proxy_protocol_error"
RESOLVER_FAILED: Final = "resolver_failed"
NAME_NOT_FOUND: Final = "name_not_found"

FAILURE_WORDS: Final = {
    PROXY_UNREACHABLE: "no connection to the proxy",
    PROXY_LOGIN: "the proxy does not accept its login, or wants one",
    PROXY_REFUSED: "the proxy refuses to pass the question on, or answered it itself",
    PROXY_FAILED: "the proxy cannot reach the provider",
    PROXY_PROTOCOL: "what answers at the proxy's address is no such proxy",
    RESOLVER_FAILED: "the resolver (DNS) of this machine does not answer",
    NAME_NOT_FOUND: "there is no host of that name",
    **SHORTAGE_WORDS,
}
"""Each reason in words."""

_DISCARD: Final = 9


class NamedFailureError(httpx.TransportError):
    """A failure whose text is a key of `FAILURE_WORDS`."""


class ProxyFailedError(NamedFailureError, httpx.ProxyError):
    """The proxy did not connect, or answered instead of the provider."""


class NotResolvedError(NamedFailureError, httpx.ConnectError):
    """A host name did not resolve to any address."""


class NotResolvedInTimeError(NamedFailureError, httpx.ConnectTimeout):
    """The resolver did not answer in time."""


class ExhaustedError(NamedFailureError, httpx.ConnectError):
    """Something has run out on this machine or in this process: the provider is not at fault."""


def exhausted(error: BaseException | None, address: str = "") -> ExhaustedError | None:
    """Return the shortage that ``error``, raised on connecting to ``address``, points to.

    None if it points to none.
    """
    why = "" if isinstance(error, socket.gaierror) else shortage_of(error)
    if why == "no_local_ports" and address and not _has_way_to(address):
        return None
    return ExhaustedError(why) if why else None


def exhausted_now() -> ExhaustedError | None:
    """Return the shortage that prevents opening a socket now, None if there is none. The resolver
    does not report why it could not send its query.
    """
    try:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)):
            return None
    except OSError as error:
        return exhausted(error)


def _has_way_to(address: str) -> bool:
    """Whether this machine has a source address from which ``address`` can be reached.

    Without one the error is the same as without free ports. Nothing is sent, and UDP has its own
    ports.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            probe.connect((address, _DISCARD))
    except OSError:
        return False
    return True
