"""Which orders can be asked about, and by which reference."""

import pytest

from order_monitor.core.login import CLIENT_API
from order_monitor.core.order import CLOCK_SKEW, Order, ReferenceFrom, SkipReason

NOW = 1e9
PANEL = "znet"
UUID = "0B9A4C3e-1111-4222-8333-444455556666"


def order(reference: str, source: ReferenceFrom = ReferenceFrom.COLUMN) -> Order:
    return Order("a", "sent", NOW - 60, reference, reference_from=source)


@pytest.mark.parametrize("kind", ["", PANEL, CLIENT_API])
@pytest.mark.parametrize("source", ReferenceFrom)
def test_nobody_is_asked_without_a_reference(kind: str, source: ReferenceFrom) -> None:
    assert order(" ", source).skip_reason(NOW, kind) is SkipReason.NO_REFERENCE


@pytest.mark.parametrize("source", ReferenceFrom)
@pytest.mark.parametrize("reference", ["123", "x-9", UUID])
def test_a_client_api_is_asked_by_any_reference(reference: str, source: ReferenceFrom) -> None:
    assert order(reference, source).skip_reason(NOW, CLIENT_API) is None


@pytest.mark.parametrize("kind", ["", PANEL])
def test_the_shops_own_id_is_no_reference_for_others(kind: str) -> None:
    """A dealer panel would refuse it, or take it for another order's."""
    assert order(UUID, ReferenceFrom.ORDER_ID).skip_reason(NOW, kind) is SkipReason.NO_REFERENCE
    assert order("123", ReferenceFrom.ORDER_ID).skip_reason(NOW, kind) is SkipReason.NO_REFERENCE


@pytest.mark.parametrize("kind", ["", PANEL])
@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (" 123 ", None),
        ("x-9", SkipReason.BAD_REFERENCE),
        ("12x", SkipReason.BAD_REFERENCE),
        ("١٢٣", SkipReason.BAD_REFERENCE),
        (UUID, SkipReason.BAD_REFERENCE),
    ],
)
def test_a_panel_is_asked_by_a_providers_order_id_only_if_that_is_a_number(
    kind: str, reference: str, reason: SkipReason | None
) -> None:
    found = order(reference, ReferenceFrom.EXTERNAL_ID).skip_reason(NOW, kind)
    assert found is reason


def test_a_panel_is_asked_by_any_reference_of_the_column_but_a_uuid() -> None:
    assert order("x-9").skip_reason(NOW, PANEL) is None
    assert order(f" {UUID} ").skip_reason(NOW, PANEL) is SkipReason.BAD_REFERENCE
    assert order(f"{UUID}0").skip_reason(NOW, PANEL) is None
    assert order(UUID).skip_reason(NOW) is None, "its account is not known yet"


@pytest.mark.parametrize("kind", ["", PANEL, CLIENT_API])
def test_a_reference_of_any_length_is_none(kind: str) -> None:
    assert order(f" {'7' * 500} ").skip_reason(NOW, kind) is None
    assert order("7" * 501).skip_reason(NOW, kind) is SkipReason.BAD_REFERENCE


@pytest.mark.parametrize("kind", ["", PANEL])
def test_another_tenants_order_is_asked_about_by_its_uuid(kind: str) -> None:
    assert order(UUID, ReferenceFrom.CHILD).skip_reason(NOW, kind) is None


def test_what_the_shop_calls_over_is_left_alone_unless_its_pin_is_awaited() -> None:
    settled = order("123")._replace(settled=True)
    assert settled.skip_reason(NOW) is SkipReason.SETTLED_BY_SHOP
    assert settled._replace(reference="").skip_reason(NOW) is SkipReason.SETTLED_BY_SHOP
    assert settled._replace(ended_at=NOW).skip_reason(NOW) is None
    assert order("123")._replace(ended_at=NOW).skip_reason(NOW) is None


def test_a_time_in_the_future_is_a_mistake_beyond_the_clocks_skew() -> None:
    sent = order("123")
    assert sent._replace(sent_at=NOW + CLOCK_SKEW).skip_reason(NOW) is None
    found = sent._replace(sent_at=NOW + CLOCK_SKEW + 0.1).skip_reason(NOW)
    assert found is SkipReason.SENT_IN_FUTURE
    assert sent._replace(sent_at=None).skip_reason(NOW) is SkipReason.NO_SENT_AT
    assert sent._replace(sent_at=float("nan")).skip_reason(NOW) is SkipReason.NO_SENT_AT
