"""Each kind of provider is known to the rest of the program too."""

import json
from typing import Any

import pytest
import respx

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.login import PROTOCOLS, Credentials
from order_monitor.providers.kind import AccountAccess, ClientOptions
from order_monitor.providers.registry import KINDS, ProviderKeys
from order_monitor.watch.system_clock import SystemClock
from tests.support.connections import answering


def test_each_kind_has_its_protocol() -> None:
    assert set(KINDS) == set(PROTOCOLS)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.configured])
def test_two_logins_of_one_panel_are_two(kind: str) -> None:
    """Otherwise they would share a pace, a brake and the claims of their PINs."""
    configured = KINDS[kind].configured
    assert configured is not None
    keys = KINDS[kind].needed or ()
    found = set()
    for number in "12":
        given = ProviderKeys.model_validate(
            {key: f"{key}-{number}" for key in keys if key != "base_url"}
        )
        access = configured("https://panel.example.com", given)
        of = Credentials.of(kind, access.base_url, access.user, access.token)
        found.add(of.login())
    assert len(found) == 2


def opened(kind: str, body: str, **changes: Any) -> Any:
    """Return a client of this kind, as the program opens it, whose provider says ``body``."""
    options: dict[str, Any] = {
        "connect_timeout": 1.0,
        "timeout": 2.0,
        "max_body": 65_536,
        "user_agent": "x",
        "no_pin": ("hazirlaniyor",),
        "batch": 50,
        "own": ProviderKeys(),
        **changes,
    }
    access = AccountAccess("https://panel.example.com", "kod", "sifre", "token")
    router = respx.MockRouter()
    router.route().respond(text=body)
    return KINDS[kind].open(access, ClientOptions(**options), answering(router), SystemClock())


async def test_the_shops_words_for_no_pin_reach_the_client() -> None:
    """The word would be written as the PIN."""
    znet = opened("znet", "OK|2|hazirlaniyor|tamam")
    assert (await znet.ask("1760885915220128")).answer == Completed(None, "tamam")


async def test_an_answer_about_many_orders_may_be_longer_than_one_about_one() -> None:
    """Refused as too long, none of them would ever be answered."""
    ids = [f"0b7a0a3e-1111-4000-8000-{n:012}" for n in range(50)]
    orders = [{"order_id": name, "status": "wait", "replay_api": ["x" * 150]} for name in ids]
    body = json.dumps({"status": "OK", "data": orders})
    client = opened("client_api", body, max_body=4096)
    answers = (await client.ask_many(ids)).answers
    assert {type(answer) for answer in answers.values()} == {Waiting}
