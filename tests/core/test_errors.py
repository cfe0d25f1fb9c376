"""The program's own errors."""

from order_monitor.core.errors import RowRejectedError, SettingsError


def test_every_mistake_in_the_settings_is_told_a_line_each() -> None:
    error = SettingsError(["a is missing", "b is no number"])
    assert error.problems == ["a is missing", "b is no number"]
    assert str(error) == "a is missing\nb is no number"


def test_a_refusal_stays_unless_it_is_said_to_pass() -> None:
    error = RowRejectedError("refused")
    assert (str(error), error.code, error.is_passing, error.is_inner) == ("refused", "", False, True)
    error = RowRejectedError("locked", "55P03", is_passing=True, is_inner=False)
    assert (error.code, error.is_passing, error.is_inner) == ("55P03", True, False)
