"""Another tenant's answers, in both versions of the platform: asked by the child's own id, believed
only where they name it.
"""

import json
from typing import Any

import httpx
import pytest
import respx

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Waiting,
)
from order_monitor.core.pin import NO_PIN_WORDS, Pin
from order_monitor.providers.client_api.client import ClientApi
from order_monitor.providers.client_api.parser import Check, parse_check
from order_monitor.providers.client_api.settings import ClientApiSettings
from order_monitor.providers.kind import AccountAccess, ClientOptions
from order_monitor.providers.provider import Balance, NoBalance
from order_monitor.providers.tenant.dialect import TENANT
from order_monitor.providers.tenant.kind import TENANT_KIND
from order_monitor.watch.system_clock import SystemClock
from tests.support.connections import answering

TOKEN = "TOKEN-CANARY/9?"
CHILD = "3306d930-0000-4000-8000-000000000001"
PARENT = "3306d930-0000-4000-8000-00000000000a"
PIN = "AB12-CD34-EF56"
OPTIONS = ClientOptions(
    5.0, 20.0, 65_536, "order-monitor", NO_PIN_WORDS, 100, ClientApiSettings(replay="pin")
)
MISSING = Refused("missing", "the answer does not name the order")
NOBODY = Garbled("not_understood", "the answer names no order")
IN_TEXT = Garbled("unreadable_pin", "accepted (its texts may hold the code)")


def client(router: respx.MockRouter, base_url: str = "https://tenant.example:8443") -> ClientApi:
    access = AccountAccess(base_url, token=TOKEN)
    opened = TENANT_KIND.open(access, OPTIONS, answering(router), SystemClock())
    assert isinstance(opened, ClientApi)
    return opened


def read(document: Any, status: int = 200) -> Check | Answer:
    """Return what an answer to a question about one child is read as."""
    raw = json.dumps(document).encode()
    return parse_check(status, {}, raw, [CHILD], now=0.0, max_body=65_536, dialect=TENANT)


def nest(**entry: Any) -> Any:
    return [{"id": CHILD, "order_uuid": PARENT, "quantity": 1, **entry}]


def django(**entry: Any) -> Any:
    more = {"externalStatus": "done", "externalOrderId": CHILD, "providerReferans": "176088"}
    return [{"orderId": CHILD, "quantity": 1, "pin": "", "note": "", **more, **entry}]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (nest(status="accept", pin=PIN, note="tamam"), Completed(Pin(PIN), "tamam")),
        (nest(status="accept"), Completed(None)),
        (nest(status="reject", note="stok yok"), Cancelled("stok yok")),
        (nest(status="wait", message="bekliyor"), Waiting("bekliyor")),
        (django(status="approved", pin=PIN), Completed(Pin(PIN))),
        (django(status="approved"), Completed(None)),
        (django(status="rejected", note="iptal"), Cancelled("iptal")),
        *((django(status=word), Waiting("")) for word in ("pending", "sent", "PENDING")),
        # A code from stock stands in a text, and a text may be a code: a person looks.
        (django(status="approved", note=PIN), IN_TEXT),
        (nest(status="accept", message=f"kod {PIN}"), IN_TEXT),
        (nest(status="reject", pin=PIN), Garbled("unreadable_pin", "failed, and has a PIN")),
        (nest(status="accept", pin=1234567), Garbled("unreadable_pin", "accepted (a number in the PIN's place)")),
        # Its external status is no end: the shop writes that without moving money.
        (django(status="pending", externalStatus="failed"), Waiting("")),
        *(
            (nest(status=word), Garbled("unknown_state", f"status {word!r}"))
            for word in ("done", "failed", "completed", "accepted", "")
        ),
        ([], MISSING),
        ([{"id": PARENT, "status": "accept", "pin": PIN}], MISSING),
        ([{"id": PARENT, "order_uuid": CHILD, "status": "accept", "pin": PIN}], MISSING),
        ([{"order_id": CHILD, "status": "accept", "pin": PIN}], NOBODY),
        ([{"externalOrderId": CHILD, "status": "approved", "pin": PIN}], NOBODY),
        ([{"id": CHILD, "orderId": PARENT, "status": "accept", "pin": PIN}], NOBODY),
        ([{"status": "accept", "pin": PIN}], NOBODY),
        (
            [*nest(status="accept", pin=PIN), *nest(status="reject")],
            Garbled("two_answers", "the answer contains the order twice, with different values"),
        ),
    ],
)  # fmt: skip
def test_what_an_answer_says_about_the_child(document: Any, expected: Answer) -> None:
    found = read(document)
    assert isinstance(found, Check)
    assert found.answers == {CHILD: expected}


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (200, {"code": 120, "message": "Api Token is required!"}, Blocked("refused_120", "Api Token is required!")),
        (200, {"code": "429", "message": "slow"}, Busy("http_429", message="slow")),
        (200, {"code": 105, "message": "x"}, Refused("105", "x")),
        (401, {"error": "UNAUTHORIZED"}, Blocked("http_401", "UNAUTHORIZED")),
        (200, {"detail": "x"}, Garbled("not_understood", "no list of orders")),
    ],
)  # fmt: skip
def test_what_says_nothing_about_any_order(status: int, document: Any, expected: Answer) -> None:
    assert read(document, status) == expected


async def test_the_question_names_the_tenant_and_the_child_and_never_a_parent() -> None:
    router = respx.MockRouter()
    route = router.get("https://tenant.example:8443/client/api/check").respond(
        json=nest(status="accept", pin=PIN)
    )
    tenant = client(router)
    assert (await tenant.ask(CHILD)).answer == Completed(Pin(PIN))
    request = route.calls[0].request
    assert request.headers["api-token"] == TOKEN
    assert request.headers["x-tenant-host"] == "tenant.example"
    assert dict(request.url.params) == {"orders": CHILD}
    others = [f"3306d930-0000-4000-8000-{n:012d}" for n in range(120)]
    assert tenant.batch == 50, "what is beyond that is left out without a word"
    assert tenant.calls_of(others) == 3
    await tenant.ask_many(others)
    asked = [call.request.url.params for call in route.calls][1:]
    assert [len(one["orders"].split(",")) for one in asked] == [50, 50, 20]
    assert not any("uuid" in one for one in asked)
    assert "CANARY" not in repr(tenant.__dict__["_account"])


async def test_the_balance_is_found_in_both_versions() -> None:
    router = respx.MockRouter()
    router.get("https://tenant.example:8443/client/api/profile").mock(
        side_effect=[httpx.Response(200, json={"balance": "7.5"}), httpx.Response(404)]
    )
    elsewhere = router.get("https://tenant.example:8443/api-dj/users/profile")
    elsewhere.mock(side_effect=[httpx.Response(200, json={"balance": 8.25})])
    tenant = client(router, "https://tenant.example:8443/client/api")
    assert await tenant.balance() == Balance("7.5")
    assert await tenant.balance() == Balance("8.25")
    nobody = respx.MockRouter()
    nobody.get(url__startswith="https://tenant.example").respond(404)
    assert isinstance(await client(nobody).balance(), NoBalance)


def test_without_a_token_it_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="no token"):
        TENANT_KIND.open(
            AccountAccess("https://tenant.example"),
            OPTIONS,
            httpx.AsyncHTTPTransport(),
            SystemClock(),
        )
