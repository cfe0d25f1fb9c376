"""Connections of the real transport to a server of the test's own."""

import ssl
from urllib.parse import parse_qs, urlsplit

import httpx
import respx
import trustme

from order_monitor.providers.http.transport import FreshConnections
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock

CA = trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def client_context(ca: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def client(url: str, context: ssl.SSLContext | None = None) -> Znet:
    return Znet(
        ZnetAccount(url, "k", "s", timeout=5.0),
        FreshConnections(context or client_context()),
        SystemClock(),
    )


def referans_of(head: bytes) -> str:
    return parse_qs(urlsplit(head.split(b" ")[1].decode()).query)["tahsilat_api_islem_id"][0]


def own(reference: str) -> bytes:
    return f"OK|2|PIN-{reference}|tamam".encode()


def answering(router: respx.MockRouter) -> httpx.MockTransport:
    """F6: respx sees only httpx's own transports, so its router stands in for ours."""

    async def unread(request: httpx.Request) -> httpx.Response:
        found = await router.async_handler(request)
        return httpx.Response(
            found.status_code, headers=found.headers, stream=httpx.ByteStream(found.content)
        )

    return httpx.MockTransport(unread)
