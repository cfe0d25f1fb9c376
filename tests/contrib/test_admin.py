"""The admin: support people read, and take the actions that their permissions allow, through the
real commands.
"""

import html
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.auth.models import User as Person
from django.db import connections
from django.test import Client
from django.urls import reverse

from order_monitor.contrib.django import admin
from order_monitor.contrib.django.actions import ACTIONS
from order_monitor.contrib.django.command_line import Said
from order_monitor.contrib.django.models import NOT_FOR_A_PERSON
from order_monitor.shop import reviews
from tests.contrib.conftest import DjangoShop
from tests.contrib.consumers import configured, consuming, drain, failing

VIEWS = ("view_orderevent", "view_review", "view_pause", "view_attempt")


@pytest.fixture
def support(django_shop: DjangoShop) -> Client:
    """A user who may read everything."""
    person = Person.objects.create_user("zeynep", password="x", is_staff=True)
    person.user_permissions.add(*Permission.objects.filter(codename__in=VIEWS))
    client = Client()
    client.force_login(person)
    return client


def allow(*names: str) -> None:
    Person.objects.get().user_permissions.add(*Permission.objects.filter(codename__in=names))


def text(response: Any) -> str:
    return str(response.content.decode())


def do(client: Client, name: str, **given: Any) -> Any:
    return client.post(
        f"/admin/order_monitor/orderevent/do/{name}/",
        {"reason": "a customer asked", **given},
        follow=True,
    )


def said(response: Any) -> str:
    return html.unescape(text(response))


@pytest.mark.long
def test_everything_can_be_read_and_nothing_changed(
    support: Client, django_shop: DjangoShop
) -> None:
    order_id = django_shop.ended(provider_referans="1790000000123456")
    django_shop.sql.execute(
        "INSERT INTO order_monitor_review (order_id, kind, detail) VALUES (%s, 'pin_missing', 'x')",
        [order_id],
    )
    django_shop.sql.execute(
        "INSERT INTO order_monitor_pauses (account, reason, paused_by) VALUES ('default', 'slow', 'me')"
    )
    with consuming(failing(order_id), max_attempts=1) as consumer:
        drain(consumer)
    for name, holds in (
        ("orderevent", order_id),
        ("review", "pin_missing"),
        ("pause", "slow"),
        ("attempt", "ValueError: no"),
    ):
        shown = text(support.get(reverse(f"admin:order_monitor_{name}_changelist")))
        assert holds in shown, name
        assert "/do/" not in shown
        assert support.get(reverse(f"admin:order_monitor_{name}_add")).status_code == 403
    (event_id,) = django_shop.unconsumed
    assert (
        support.post(
            f"/admin/order_monitor/orderevent/{event_id}/delete/", {"post": "yes"}
        ).status_code
        == 403
    )
    assert 'type="submit"' not in re.sub(
        r"<form id=\"logout.*?</form>",
        "",
        text(support.get(f"/admin/order_monitor/orderevent/{event_id}/change/")),
        flags=re.DOTALL,
    )
    found = text(support.get("/admin/order_monitor/orderevent/", {"q": order_id[:13]}))
    assert order_id in found
    assert order_id not in text(
        support.get("/admin/order_monitor/orderevent/", {"q": "ffffffff-0000"})
    )


@pytest.mark.long
def test_a_story_has_all_of_it(support: Client, django_shop: DjangoShop) -> None:
    order_id = django_shop.order(pinCode="AB12-CD34-CANARY")
    django_shop.event(order_id, has_pin=True)
    django_shop.sql.execute(
        "INSERT INTO order_monitor_review (order_id, kind) VALUES (%s, 'pin_missing')", [order_id]
    )
    with consuming(failing(order_id)) as consumer:
        drain(consumer)
    shown = text(support.get(f"/admin/order_monitor/orderevent/order/{order_id}/"))
    assert f"r-{order_id[:8]}" in shown, "what explain says"
    for holds in ("pin_missing", "completed", "ValueError: no"):
        assert holds in shown
    assert "CANARY" not in shown
    assert support.get("/admin/order_monitor/orderevent/order/--version/").status_code == 200


@pytest.mark.long
@pytest.mark.parametrize("kind", NOT_FOR_A_PERSON)
def test_what_waits_for_another_answer_is_no_review(
    support: Client, django_shop: DjangoShop, kind: str
) -> None:
    assert kind in reviews.NOT_FOR_A_PERSON
    order_id = django_shop.order(status="sent")
    django_shop.sql.execute(
        "INSERT INTO order_monitor_review (order_id, kind, detail) VALUES (%s, %s, 'canary')",
        [order_id, kind],
    )
    listed = text(support.get(reverse("admin:order_monitor_review_changelist")))
    assert order_id not in listed
    assert "canary" not in text(support.get(f"/admin/order_monitor/orderevent/order/{order_id}/"))


@pytest.mark.long
@pytest.mark.parametrize("name", ACTIONS)
def test_each_action_has_its_permission(
    support: Client, django_shop: DjangoShop, name: str
) -> None:
    order_id = django_shop.order(status="sent")
    address = f"/admin/order_monitor/orderevent/do/{name}/"
    assert (
        do(support, name, order=order_id, how="failed", account="default", ends="on").status_code
        == 403
    )
    assert support.get(address).status_code == 403
    assert Client().get(address).status_code == 302
    allow(ACTIONS[name].permission)
    assert 'name="reason"' in text(support.get(address))
    assert 'name="reason"' in text(do(support, name, reason="", order=order_id)), "asked again"
    assert support.get("/admin/order_monitor/orderevent/do/drop/").status_code == 404
    assert LogEntry.objects.count() == 0
    assert django_shop.all('SELECT "externalStatus" FROM product_orders') == ["sent"]


@pytest.mark.long
def test_an_order_is_resolved(support: Client, django_shop: DjangoShop) -> None:
    allow("resolve_order")
    order_id = django_shop.order(status="sent")
    answer = do(support, "resolve", order=order_id, how="completed", pin="AB12-CD34-CANARY")
    assert "now 'done' with its PIN, by zeynep" in said(answer)
    assert "CANARY" not in text(answer)
    assert django_shop.one('SELECT "externalStatus", "pinCode" FROM product_orders') == (
        "done",
        "AB12-CD34-CANARY",
    )
    assert django_shop.one("SELECT decided_by, source, message FROM order_monitor_events") == (
        "zeynep",
        "person",
        "a customer asked",
    )
    entry = LogEntry.objects.get()
    assert (entry.user.get_username(), entry.object_id) == ("zeynep", order_id)
    assert "resolve" in entry.change_message
    assert "a customer asked (exit code 0" in entry.change_message
    assert "CANARY" not in entry.change_message
    again = do(support, "resolve", order=order_id, how="failed")
    assert "only open orders are changed" in said(again)
    assert django_shop.one("SELECT count(*) FROM order_monitor_events") == 1


@pytest.mark.long
def test_a_pin_goes_with_a_delivery_alone(support: Client, django_shop: DjangoShop) -> None:
    allow("resolve_order")
    shown = text(
        do(
            support,
            "resolve",
            order=django_shop.order(status="sent"),
            how="failed",
            pin="AB12-CANARY",
        )
    )
    assert "only be given for an order that was delivered" in shown
    assert "CANARY" not in shown


@pytest.mark.long
def test_what_is_typed_is_no_option(support: Client, django_shop: DjangoShop) -> None:
    allow("resolve_order", "ask_order", "close_review", "pause_account", "release_account")
    django_shop.order(status="sent")
    for name in ACTIONS:
        answer = do(
            support,
            name,
            order="--failed",
            account="--help",
            how="reopen",
            reason="--by=me",
            kind="--json",
        )
        assert "Usage" not in said(answer), name
    assert django_shop.all("SELECT count(*) FROM order_monitor_pauses") == [0]
    assert django_shop.unconsumed == []


@pytest.mark.long
def test_an_order_is_asked_about(support: Client, django_shop: DjangoShop) -> None:
    """The provider is unreachable here: the command reports that, and the admin's log records
    it.
    """
    allow("ask_order")
    order_id = django_shop.order(status="sent")
    assert order_id in said(do(support, "ask", order=order_id))
    assert "exit code 1" in LogEntry.objects.get().change_message


@pytest.mark.long
def test_a_review_is_closed(support: Client, django_shop: DjangoShop) -> None:
    allow("close_review")
    order_id = django_shop.order()
    django_shop.sql.execute(
        "INSERT INTO order_monitor_review (order_id, kind) VALUES (%s, 'pin_missing')", [order_id]
    )
    assert "nothing of kind not_known is open" in said(
        do(support, "close", order=order_id, kind="not_known")
    )
    assert "1 closed by zeynep" in said(do(support, "close", order=order_id))
    assert django_shop.one("SELECT closed_by, resolution FROM order_monitor_review") == (
        "zeynep",
        "a customer asked",
    )


@pytest.mark.long
def test_an_account_is_paused_resumed_and_released(
    support: Client, django_shop: DjangoShop
) -> None:
    allow("pause_account", "release_account")
    assert "paused for 3600 s by zeynep" in said(
        do(support, "pause", account="default", seconds="3600")
    )
    assert django_shop.one("SELECT paused_by, reason FROM order_monitor_pauses") == (
        "zeynep",
        "a customer asked",
    )
    assert "resumed" in said(do(support, "resume", account="default"))
    assert "its ends are held" in said(do(support, "pause", ends="on"))
    assert "written again" in said(do(support, "resume", ends="on"))
    assert "Name an account" in text(do(support, "pause"))
    assert "Name an account" in text(do(support, "resume"))
    assert "nothing is held of default" in said(do(support, "release", account="default"))
    assert LogEntry.objects.count() == 5


@pytest.mark.long
def test_events_in_trouble_are_seen_to(support: Client, django_shop: DjangoShop) -> None:
    order_id = django_shop.ended()
    (event_id,) = django_shop.unconsumed
    with consuming(failing(order_id), max_attempts=1) as consumer:
        drain(consumer)
    address = reverse("admin:order_monitor_attempt_changelist")
    chosen = {"_selected_action": [str(event_id)]}
    support.post(address, {"action": "try_again", **chosen})
    assert django_shop.attempt(event_id)[:2] == (1, True), "not allowed"
    allow("retry_event")
    support.post(address, {"action": "try_again", **chosen})
    assert django_shop.attempt(event_id)[:2] == (0, False)
    with consuming(failing(order_id), max_attempts=1) as consumer:
        drain(consumer)
    assert "Why:" in text(support.post(address, {"action": "say_done", **chosen}))
    assert django_shop.unconsumed == [event_id]
    support.post(address, {"action": "say_done", "reason": "paid by hand", **chosen})
    assert (django_shop.unconsumed, django_shop.moved) == ([], [])
    assert "done: paid by hand" in [entry.change_message for entry in LogEntry.objects.all()]


@pytest.mark.long
def test_the_log_is_committed_before_the_action(
    support: Client, django_shop: DjangoShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ATOMIC_REQUESTS too: whatever becomes of the request, the log says what was done."""
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    allow("ask_order", "retry_event")
    order_id = django_shop.ended()
    (event_id,) = django_shop.unconsumed
    logged: list[int] = []

    def looks(*_: Any, **__: Any) -> Any:
        logged.append(django_shop.one("SELECT count(*) FROM django_admin_log"))
        return Said(0, "fine")

    monkeypatch.setattr(admin, "run", looks)
    monkeypatch.setattr(admin, "try_again", looks)
    do(support, "ask", order=order_id)
    with consuming(failing(order_id), max_attempts=1) as consumer:
        drain(consumer)
    address = reverse("admin:order_monitor_attempt_changelist")
    support.post(address, {"action": "try_again", "_selected_action": [str(event_id)]})
    assert logged == [1, 1, 2], "one look is that of the order's story"


@pytest.mark.long
def test_a_command_that_is_not_there_is_told(support: Client, django_shop: DjangoShop) -> None:
    allow("ask_order")
    with configured(COMMAND=["/nowhere/order-monitor"]):
        assert "cannot be run" in said(do(support, "ask", order="1234"))
    with configured(COMMAND=["sh", "-c", "sleep 60"], COMMAND_TIMEOUT=0.2):
        assert "took longer than 0.2 s" in said(do(support, "ask", order="1234"))
