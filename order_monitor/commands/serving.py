"""What serves and tells beside the watching: health endpoint, webhook, ping. Apart, since most commands need none of it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import structlog

from order_monitor.commands.composition import layout_of, trusting_of
from order_monitor.core.clock import Clock
from order_monitor.providers.resolver import Resolver
from order_monitor.providers.transport import FreshConnections
from order_monitor.settings.model import Settings
from order_monitor.settings.telling import NotifySettings
from order_monitor.shop.database import Database
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.told import ToldRow
from order_monitor.tell.alerter import Alerter, Calendar
from order_monitor.tell.door import files_limit
from order_monitor.tell.health import Access, HealthServer, Site
from order_monitor.tell.messages import Messages
from order_monitor.tell.ping import PING_TIMEOUT, Ping
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.services import MISSING, MISSING_DO, NoLibraryError, services_of
from order_monitor.tell.webhook import Receiver, Sender
from order_monitor.watch.board import Board
from order_monitor.watch.system_clock import SystemClock


def _client(timeout: float) -> httpx.AsyncClient:
    """Return a client whose answers are its questions' own: a stray "200" on a kept connection would count as a delivery.

    Its cookie jar takes nothing: what a receiver, or a login page in its place, wants remembered is not sent back.
    """
    return httpx.AsyncClient(
        transport=FreshConnections(trusting_of(None), Resolver()),
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


def health_of(settings: Settings, probe: Readiness, site: Site) -> HealthServer | None:
    """Return the health endpoint, None where it is switched off."""
    health = settings.health
    if not health.enabled:
        return None
    token = health.token.get_secret_value() if health.token else None
    return HealthServer(probe, Access(health.host, health.port, token, health.hosts), site, files=files_limit())


def sender_of(
    settings: Settings, database: Database, is_ours: Callable[[], bool] = lambda: True, board: Board | None = None
) -> Sender | None:
    """Return the webhook, which posts while ``is_ours`` and as slowly as ``board`` says; None where there is none."""
    given = settings.webhook
    if given.url is None or given.secret is None:
        return None
    client = _client(given.timeout)
    receiver = Receiver(
        given.url.get_secret_value(),
        given.secret.get_secret_value(),
        layout_of(settings).rules,
        given.timeout,
        given.max_attempts,
    )
    outbox = Outbox(database, settings.database.schema_)
    return Sender(outbox, client, receiver, SystemClock(), is_ours=is_ours, board=board)


def alerter_of(settings: Settings, database: Database, clock: Clock, me: str, redactor: Redactor) -> Alerter | None:
    """Return what tells people, as ``me`` among the shop's processes; None where nobody is to be, or the library is missing."""
    if not settings.notify.urls:
        return None
    try:
        services = services_of([url.get_secret_value() for url in settings.notify.urls])
    except NoLibraryError:
        structlog.get_logger("order_monitor.notify").error("notify.missing", why=MISSING, do=MISSING_DO)
        return None
    row = ToldRow(database, settings.database.schema_)
    calendar = Calendar(settings.notify.daily_minutes)
    return Alerter(row, services, messages_of(settings.notify), clock, me, calendar, redactor)


def messages_of(notify: NotifySettings) -> Messages:
    """Return what writes messages about this host."""
    return Messages(notify.language, socket.gethostname())


def ping_of(settings: Settings) -> Ping | None:
    """Return the dead man's switch, None where there is none."""
    url = settings.health.ping_url
    if url is None:
        return None
    return Ping(_client(PING_TIMEOUT), url.get_secret_value(), SystemClock())
