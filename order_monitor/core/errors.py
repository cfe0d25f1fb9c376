"""The program's own errors, by what the caller does about them. None carries a secret, a PIN or a driver's text."""

from __future__ import annotations


class OrderMonitorError(Exception):
    """Any failure of ours; the text is fit to be shown."""


class SettingsError(OrderMonitorError):
    """The settings, or what they point to, must be changed by a person. Exit code 2."""

    def __init__(self, problems: list[str], note: str = "") -> None:
        """Gather every mistake found, one line each; ``note`` is what may explain them all."""
        self.problems = problems
        self.note = note
        super().__init__("\n".join(problems))


class TableError(SettingsError):
    """The shop's table, or a right on it, is not as the settings say, and a change in the database would mend that.

    The daemon waits for it; a command ends with exit code 1, since 2 is for what no waiting mends.
    """

    def __str__(self) -> str:
        """One line, for the log."""
        return "; ".join(self.problems)


class ShopError(OrderMonitorError):
    """The shop's database did not do what was asked."""


class ShopUnavailableError(ShopError):
    """No connection, a cut one, a timeout, a deadlock: the outcome is unknown. Try again later. Exit code 3.

    ``short_of`` is what this machine or process has run out of (`order_monitor.core.easing.SHORTAGE_WORDS`), where that is why
    there is no connection: then the database is not at fault.
    """

    def __init__(self, text: str, short_of: str = "") -> None:
        """Keep why there was none."""
        self.short_of = short_of
        super().__init__(text)


class RowRejectedError(ShopError):
    """The database, which is well, refuses something about a row of the batch. Halve it; the row at fault stays open.

    ``code`` is its SQLSTATE. ``is_passing`` tells that the refusal may end by itself (a lock, a deadlock, a statement too slow);
    ``is_inner`` that it came out of a function, as a trigger is: then no code says anything of the server; ``is_servers`` that it
    is the server's matter for certain, whatever its code.
    """

    def __init__(
        self, text: str, code: str = "", *, is_passing: bool = False, is_inner: bool = True, is_servers: bool = False
    ) -> None:
        """Keep what the server said of it, save its text."""
        self.code = code
        self.is_passing = is_passing
        self.is_inner = is_inner
        self.is_servers = is_servers
        super().__init__(text)


class ShopMisfitError(ShopError):
    """A table, a column or a right is missing: a person must act, and the next look may find it mended."""


class RightsError(ShopMisfitError):
    """Rights are missing; ``sql`` is what gives this role all of them in one go."""

    def __init__(self, sql: str) -> None:
        """Say so, with the SQL."""
        self.sql = sql
        super().__init__(f"this role lacks rights; run: {sql}")


class NotMigratedError(ShopMisfitError):
    """A table of ours, or a right on one, is missing: what is answered could not be written as it must be, so nothing is asked."""
