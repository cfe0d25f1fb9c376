"""The admin for support people without a shell: order histories, events and reviews to read, and
actions.

All pages are read-only. Each change is an action with its own permission: it runs the command that
an operator would type, and is recorded in the admin's log with its reason, its user and its
outcome.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from order_monitor.contrib.django.actions import ACTIONS
from order_monitor.contrib.django.command_line import Said, run
from order_monitor.contrib.django.conf import load
from order_monitor.contrib.django.consumer import Side, say_done, try_again
from order_monitor.contrib.django.models import (
    NOT_FOR_A_PERSON,
    Attempt,
    OrderEvent,
    Pause,
    Review,
)
from order_monitor.contrib.django.requests import non_atomic


class ReadOnly(admin.ModelAdmin):
    """Nothing can be added, changed or deleted here."""

    actions: Any = None
    show_full_result_count = False

    def get_urls(self) -> list[URLPattern]:
        """Keep each page out of the request's transaction: an action's entry in the log must be
        committed before the action runs, which it does in another connection.
        """
        found = super().get_urls()
        for one in found:
            one.callback = non_atomic(one.callback)
        return list(found)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Always false."""
        return False

    has_add_permission = has_delete_permission = has_change_permission

    @admin.display(description="order")
    def order(self, obj: Any) -> str:
        """Return a link to the order's history."""
        url = reverse("admin:order_monitor_story", args=[obj.order_id])
        return str(format_html('<a href="{}">{}</a>', url, obj.order_id))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The list, with this user's actions above it."""
        allowed = [
            (name, one)
            for name, one in ACTIONS.items()
            if request.user.has_perm(_full(one.permission))
        ]
        return super().changelist_view(
            request, {"order_monitor_actions": allowed, **(extra_context or {})}
        )

    change_list_template = "order_monitor/change_list.html"


@admin.register(OrderEvent)
class OrderEventAdmin(ReadOnly):
    """The events, and the pages of an order's history and of the actions."""

    list_display = (
        *("id", "order", "outcome", "has_pin", "repeat", "decided_at", "decided_by", "consumed_at"),
    )
    list_filter = ("outcome", "repeat", ("consumed_at", admin.EmptyFieldListFilter), "source")
    search_fields = ("order_id", "reference")

    def get_urls(self) -> list[URLPattern]:
        """Add the two pages."""
        view = self.admin_site.admin_view
        more = [
            path(
                "order/<path:order_id>/", non_atomic(view(self.story)), name="order_monitor_story"
            ),
            path("do/<slug:name>/", non_atomic(view(self.act)), name="order_monitor_act"),
        ]
        return [*more, *super().get_urls()]

    def story(self, request: HttpRequest, order_id: str) -> HttpResponse:
        """Show one order's history: the output of ``order-monitor explain``, its events and its
        reviews.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        said = run(load(), ["explain", "--", order_id])
        events = list(OrderEvent.objects.filter(order_id__iexact=order_id)[:200])
        context = {
            **self.admin_site.each_context(request),
            "title": f"Order {order_id}",
            "order_id": order_id,
            "told": said.text,
            "events": events,
            "attempts": list(Attempt.objects.filter(pk__in=[one.pk for one in events])),
            "reviews": list(_reviews().filter(order_id__iexact=order_id)[:200]),
            "actions": [
                (name, one)
                for name, one in ACTIONS.items()
                if "order" in one.form.base_fields and request.user.has_perm(_full(one.permission))
            ],
        }
        return render(request, "order_monitor/story.html", context)

    @method_decorator(sensitive_post_parameters("pin"))
    @method_decorator(sensitive_variables("given", "form"))
    def act(self, request: HttpRequest, name: str) -> HttpResponse:
        """Show an action's form, and run the action."""
        action = ACTIONS.get(name)
        if action is None:
            raise Http404
        if not request.user.has_perm(_full(action.permission)):
            raise PermissionDenied
        if request.method == "POST":
            form = action.form(request.POST)
            if form.is_valid():
                given = form.cleaned_data
                who = request.user.get_username()
                said = self._do(request, name, action.command(given, who), given)
                level = messages.SUCCESS if said.code == 0 else messages.ERROR
                self.message_user(request, said.text or f"exit code {said.code}", level)
                if about := given.get("order"):
                    return redirect("admin:order_monitor_story", order_id=about)
                return redirect("admin:order_monitor_orderevent_changelist")
        else:
            form = action.form(
                initial={
                    key: request.GET[key] for key in action.form.base_fields if key in request.GET
                }
            )
        context = {**self.admin_site.each_context(request), "title": action.title, "form": form}
        return render(request, "order_monitor/act.html", context)

    def _do(
        self, request: HttpRequest, name: str, arguments: list[str], given: dict[str, Any]
    ) -> Said:
        """Run the command; log the request before it runs, and the outcome afterwards."""
        about = given.get("order") or given.get("account") or "all accounts"
        told = f"{name} {about}: {given['reason']}"
        entry = _noted(request, OrderEvent, about, told)
        said = run(load(), arguments, given=given.get("pin") or None)
        entry.change_message = f"{told} (exit code {said.code}: {said.text[:1000]})"
        entry.save(update_fields=["change_message"])
        return said


def _reviews() -> QuerySet[Review]:
    return Review.objects.exclude(kind__in=NOT_FOR_A_PERSON)


@admin.register(Review)
class ReviewAdmin(ReadOnly):
    """Reviews that wait for a person."""

    list_display = (
        *("id", "order", "kind", "detail", "account", "opened_at", "closed_at", "closed_by"),
    )
    list_filter = (("closed_at", admin.EmptyFieldListFilter), "kind")
    search_fields = ("order_id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Review]:
        """Return them, without what waits for another answer."""
        return super().get_queryset(request).exclude(kind__in=NOT_FOR_A_PERSON)


@admin.register(Pause)
class PauseAdmin(ReadOnly):
    """Which accounts are paused."""

    list_display = ("account", "reason", "paused_by", "paused_at", "until")


@admin.register(Attempt)
class AttemptAdmin(ReadOnly):
    """Events on which the handler has failed."""

    list_display = ("event_id", "order", "attempts", "last_at", "next_at", "set_aside_at", "error")
    list_filter = (("set_aside_at", admin.EmptyFieldListFilter),)
    search_fields = ("order_id",)
    actions = ("try_again", "say_done")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Whether this user may retry or skip them."""
        return bool(request.user.has_perm(_full("retry_event")))

    @admin.action(description="Try again now", permissions=["retry"])
    def try_again(self, request: HttpRequest, queryset: Any) -> None:
        """Allow all their attempts again."""
        ids = [one.event_id for one in queryset]
        for one in queryset:
            _noted(request, Attempt, one.event_id, "tried again")
        with closing(Side(load().alias)) as side:
            self.message_user(request, f"{try_again(side, ids)} to be tried again")

    @admin.action(description="It is done: mark as consumed", permissions=["retry"])
    def say_done(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Mark them as consumed, with a reason."""
        reason = request.POST.get("reason", "").strip()
        if not reason:
            context = {
                **self.admin_site.each_context(request),
                "title": "Mark as consumed",
                "events": list(queryset),
            }
            return render(request, "order_monitor/done.html", context)
        with closing(Side(load().alias)) as side:
            for event_id in [one.event_id for one in queryset]:
                _noted(request, Attempt, event_id, f"done: {reason}")
                if say_done(side, event_id, reason, request.user.get_username()):
                    self.message_user(request, f"event {event_id} is done")
                else:
                    self.message_user(request, f"event {event_id} is not set aside", messages.ERROR)
        return None


def _full(permission: str) -> str:
    return f"order_monitor.{permission}"


def _noted(request: HttpRequest, model: Any, about: Any, told: str) -> LogEntry:
    return LogEntry.objects.create(
        user_id=request.user.pk,
        content_type_id=ContentType.objects.get_for_model(model).pk,
        object_id=str(about),
        object_repr=str(about)[:200],
        action_flag=CHANGE,
        change_message=told,
    )
