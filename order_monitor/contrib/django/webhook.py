"""A receiver for order-monitor's webhook, for shops that prefer calls to polling.

It uses the same mark as the consumer, in the transaction of the same handler: if both are on by
mistake, money still moves once.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from order_monitor.contrib.django.conf import handler_of, load
from order_monitor.contrib.django.consumer import (
    BORN_HINT,
    Consumer,
    LostError,
    Taken,
    born_words,
    log,
)
from order_monitor.contrib.django.event import EVENTS
from order_monitor.contrib.django.requests import non_atomic

_LONGEST = 65_536
_HIGHEST = 2**63 - 1
_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


@csrf_exempt
@require_POST
@non_atomic
def receive(request: HttpRequest) -> HttpResponse:
    """Act on a posted event, unless it is already consumed.

    200: it is consumed. 401: it is not signed by the daemon. 404: there is no such event in this
    database. 500: the handler failed; or the event was written as consumed, so that it was not
    acted on, as the body says. 503: not now, because another consumer holds it, an earlier
    posted event of its order waits, or it pauses after a failure. The daemon posts the event again
    after any status but 200.

    Raises:
        ImproperlyConfigured: the secret is missing, or another setting is wrong.
    """
    config = load()
    if not config.webhook_secret:
        raise ImproperlyConfigured("ORDER_MONITOR['WEBHOOK_SECRET'] is missing")
    if int(request.headers.get("Content-Length") or 0) > _LONGEST:
        return HttpResponse(status=413)
    try:
        given = {name: request.headers.get(name, "") for name in _HEADERS}
        Webhook(config.webhook_secret).verify(request.body, given)
        data = json.loads(request.body)["data"]
        event_id, uid = int(data["id"]), str(data["uid"] or given["webhook-id"])
    except (WebhookVerificationError, ValueError, KeyError, TypeError):
        return HttpResponse(status=401)
    consumer = Consumer(config, handler_of(config), has_alarm=False)
    with closing(consumer.side):
        try:
            return _act(consumer, event_id, uid)
        except LostError:
            return HttpResponse(status=503)


def _act(consumer: Consumer, event_id: int, uid: str) -> HttpResponse:
    found = _found(consumer, event_id, uid)
    if found is None:
        return HttpResponse(status=404)
    if found.is_born:
        # Answering 200 would lose the event, and its money.
        said = f"{born_words(event_id, found.decided_by)} {BORN_HINT}"
        log.error("%s", said)
        return HttpResponse(said, status=500, content_type="text/plain; charset=utf-8")
    if found.is_consumed:
        return HttpResponse(status=200)
    match consumer.take_one(event_id, is_posted=True):
        case Taken.DONE:
            return HttpResponse(status=200)
        case Taken.FAILED:
            return HttpResponse(status=500)
        case _:
            found = _found(consumer, event_id, uid)
            return HttpResponse(status=200 if found and found.is_consumed else 503)


@dataclass(frozen=True, slots=True)
class _Found:
    """Whether an event is consumed, whether it was written as consumed, and who decided it."""

    is_consumed: bool
    is_born: bool
    decided_by: str


def _found(consumer: Consumer, event_id: int, uid: str) -> _Found | None:
    """Return an event's state, None if it is not in this database.

    The number alone does not identify it: after a restore, another event may have it. Events of
    older versions have no other name.
    """
    if not 0 < event_id <= _HIGHEST:
        return None
    rows = consumer.side.run(
        "SELECT consumed_at IS NOT NULL, COALESCE(consumed_at = decided_at, false), decided_by "  # noqa: S608 - parts of our own
        f"FROM {EVENTS} WHERE id = %(id)s AND COALESCE(uid::text, id::text) = %(uid)s",
        {"id": event_id, "uid": uid},
    )
    return _Found(*rows[0]) if rows else None
