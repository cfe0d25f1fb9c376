"""Each kind of provider is known to the rest of the program too."""

import pytest

from order_monitor.core.login import PROTOCOLS, Credentials
from order_monitor.providers.registry import KINDS, ProviderKeys


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
