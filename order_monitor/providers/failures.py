"""Failures on the way that have a name of their own: the resolver's, the proxy's, and what this machine has run out of."""

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
    """A failure whose text is one of `FAILURE_WORDS`."""


class ProxyFailedError(NamedFailureError, httpx.ProxyError):
    """The proxy did not connect, or answered in the provider's place."""


class NotResolvedError(NamedFailureError, httpx.ConnectError):
    """A host's name led to no address."""


class NotResolvedInTimeError(NamedFailureError, httpx.ConnectTimeout):
    """The resolver did not answer in time."""


class ExhaustedError(NamedFailureError, httpx.ConnectError):
    """Something has run out on this machine or in this process: the provider is not at fault."""


def exhausted(error: BaseException | None, address: str = "") -> ExhaustedError | None:
    """Return what ``error``, met on connecting to ``address``, says has run out here; None where it says nothing of the kind."""
    why = "" if isinstance(error, socket.gaierror) else shortage_of(error)
    if why == "no_local_ports" and address and not _has_way_to(address):
        return None
    return ExhaustedError(why) if why else None


def exhausted_now() -> ExhaustedError | None:
    """Return what keeps a socket from being made just now: the resolver does not say why it could not ask anybody."""
    try:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)):
            return None
    except OSError as error:
        return exhausted(error)


def _has_way_to(address: str) -> bool:
    """Whether this machine has an address to reach ``address`` from. Without one the same error comes as without ports.

    Nothing is sent, and UDP has ports of its own.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            probe.connect((address, _DISCARD))
    except OSError:
        return False
    return True
