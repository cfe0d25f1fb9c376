"""The program's own errors."""

from order_monitor.core.errors import (
    RightsError,
    RowRejectedError,
    SettingsError,
    ShopUnavailableError,
    TableError,
)


def test_every_mistake_in_the_settings_is_told_a_line_each() -> None:
    error = SettingsError(["a is missing", "b is no number"])
    assert error.problems == ["a is missing", "b is no number"]
    assert str(error) == "a is missing\nb is no number"
    assert (error.note, SettingsError([], "why").note) == ("", "why")


def test_what_is_wrong_with_the_table_is_told_in_one_line() -> None:
    error = TableError(["a is missing", "b is no number"])
    assert str(error) == "a is missing; b is no number"
    assert error.problems == ["a is missing", "b is no number"]


def test_a_shortage_of_this_machine_is_told_apart_from_a_database_that_is_away() -> None:
    assert (str(ShopUnavailableError("away")), ShopUnavailableError("away").short_of) == (
        "away",
        "",
    )
    assert ShopUnavailableError("away", "no_files").short_of == "no_files"


def test_missing_rights_are_told_with_the_sql_that_gives_them() -> None:
    error = RightsError("GRANT SELECT ON t TO r")
    assert error.sql == "GRANT SELECT ON t TO r"
    assert str(error) == "this role lacks rights; run: GRANT SELECT ON t TO r"


def test_a_refusal_stays_unless_it_is_said_to_pass() -> None:
    error = RowRejectedError("refused")
    assert (str(error), error.code, error.is_passing, error.is_inner) == (
        "refused",
        "",
        False,
        True,
    )
    assert not error.is_servers
    assert RowRejectedError("refused", is_servers=True).is_servers
    error = RowRejectedError("locked", "55P03", is_passing=True, is_inner=False)
    assert (error.code, error.is_passing, error.is_inner) == ("55P03", True, False)
