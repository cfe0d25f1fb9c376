"""The actions that support people can run from the admin: each is a command, with a reason and the
user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django import forms

Fields = dict[str, Any]


class ReasonForm(forms.Form):
    """The fields of every action."""

    reason = forms.CharField(
        max_length=500,
        widget=forms.TextInput(attrs={"size": 60}),
        help_text="Why; it is kept with your name.",
    )


class OrderForm(ReasonForm):
    """An action on one order."""

    order = forms.CharField(max_length=255, help_text="Its id, or its reference.")


class ResolveForm(OrderForm):
    """A decision about one order."""

    how = forms.ChoiceField(
        choices=(
            ("completed", "It was delivered"),
            ("failed", "It was not delivered: the customer gets the money back"),
            ("reopen", "Reopen it: its end was wrong, and the shop has not acted on it"),
            ("meant", "Its reference is its own, although another order has it too"),
        )
    )
    pin = forms.CharField(
        required=False,
        strip=False,
        max_length=4000,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Only where it was delivered and its PIN is missing. It is not shown again.",
    )

    def clean(self) -> Fields:
        """Only a delivery can have a PIN."""
        given: Fields = super().clean() or {}
        if given.get("pin") and given.get("how") != "completed":
            self.add_error("pin", "A PIN can only be given for an order that was delivered.")
        return given


class CloseForm(OrderForm):
    """Close a review."""

    kind = forms.CharField(
        required=False, max_length=100, help_text="Only what is of this kind; empty for all of it."
    )


class AccountForm(ReasonForm):
    """An action on an account."""

    account = forms.CharField(max_length=255, help_text="Its name, or its id.")


class ResumeForm(ReasonForm):
    """Lift a pause."""

    account = forms.CharField(
        required=False, max_length=255, help_text="Its name or id; empty, with ends, for all."
    )
    ends = forms.BooleanField(required=False, help_text="What holds the ends.")
    without_name = "Name an account, or let go the ends of all."

    def clean(self) -> Fields:
        """Only ends can be held, and let go, for all accounts together."""
        given: Fields = super().clean() or {}
        if not given.get("account") and not given.get("ends"):
            self.add_error("account", self.without_name)
        return given


class PauseForm(ResumeForm):
    """Pause an account, or its ends."""

    ends = forms.BooleanField(required=False, help_text="Go on asking, and hold the ends.")
    seconds = forms.IntegerField(
        required=False, min_value=1, help_text="How long; empty: until it is resumed."
    )
    without_name = "Name an account, or hold the ends of all."


@dataclass(frozen=True, slots=True)
class Action:
    """One action.

    ``command`` builds the arguments from the form's values and the user.
    """

    title: str
    permission: str
    form: type[ReasonForm]
    command: Callable[[Fields, str], list[str]]


# Values are joined to their options, and positional arguments come after "--": no user input is
# parsed as an option.


def _by(given: Fields, who: str) -> list[str]:
    return [f"--reason={given['reason']}", f"--by={who}"]


def _resolve(given: Fields, who: str) -> list[str]:
    pin = ["--pin-stdin"] if given["pin"] else []
    return ["resolve", f"--{given['how']}", *pin, *_by(given, who), "--", given["order"]]


def _close(given: Fields, who: str) -> list[str]:
    kind = [f"--kind={given['kind']}"] if given["kind"] else []
    return ["review", f"--close={given['order']}", *kind, *_by(given, who)]


def _pause(given: Fields, who: str) -> list[str]:
    seconds = [f"--for={given['seconds']}s"] if given["seconds"] else []
    return ["pause", *seconds, *_by(given, who), *_whose(given)]


def _resume(given: Fields, _: str) -> list[str]:
    return ["resume", *_whose(given)]


def _whose(given: Fields) -> list[str]:
    account = ["--", given["account"]] if given["account"] else []
    return ["--ends"] * bool(given["ends"]) + account


ACTIONS: Final[dict[str, Action]] = {
    "ask": Action(
        "Ask about an order now",
        "ask_order",
        OrderForm,
        lambda given, _: ["ask", "--", given["order"]],
    ),
    "resolve": Action("Decide how an order ended", "resolve_order", ResolveForm, _resolve),
    "close": Action("Close a review", "close_review", CloseForm, _close),
    "pause": Action("Pause an account", "pause_account", PauseForm, _pause),
    "resume": Action("Resume an account", "pause_account", ResumeForm, _resume),
    "release": Action(
        "Release what the brake holds",
        "release_account",
        AccountForm,
        lambda given, who: ["release", f"--by={who}", "--", given["account"]],
    ),
}
