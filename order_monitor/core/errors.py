"""The program's own errors, grouped by what the caller does about them.

None contains a secret, a PIN or a driver's text.
"""

from __future__ import annotations


class OrderMonitorError(Exception):
    """Base class of our errors; the text is safe to show."""


class SettingsError(OrderMonitorError):
    """A person must change the settings, or what they point to. Exit code 2."""

    def __init__(self, problems: list[str], note: str = "") -> None:
        """Collect every mistake found, one line each; ``note`` may explain them all."""
        self.problems = problems
        self.note = note
        super().__init__("\n".join(problems))


class TableError(SettingsError):
    """The shop's table, or a right on it, does not match the settings, and a change in the database
    would fix that.

    The daemon waits for it. A command ends with exit code 1, since 2 means that waiting is useless.
    """

    def __str__(self) -> str:
        """Return one line, for the log."""
        return "; ".join(self.problems)


class ShopError(OrderMonitorError):
    """The shop's database did not do what was asked."""


class ShopUnavailableError(ShopError):
    """No connection, a cut one, a timeout, a deadlock: the outcome is unknown.

    Try again later. Exit code 3. ``short_of`` names the shortage on this machine or in this process
    (`order_monitor.core.easing.SHORTAGE_WORDS`) if that prevented the connection: then the database
    is not at fault.
    """

    def __init__(self, text: str, short_of: str = "") -> None:
        """Keep the text and the shortage."""
        self.short_of = short_of
        super().__init__(text)


class RowRejectedError(ShopError):
    """The database is available but refuses a row of the batch.

    Halve the batch; the row at fault stays open. ``code`` is the SQLSTATE. ``is_passing``: the
    refusal may go away on its own (a lock, a deadlock, a slow statement). ``is_inner``: it was
    raised inside a function, such as a trigger, so no code says anything about the server.
    ``is_servers``: it is certainly the server's problem, whatever the code.
    """

    def __init__(
        self,
        text: str,
        code: str = "",
        *,
        is_passing: bool = False,
        is_inner: bool = True,
        is_servers: bool = False,
    ) -> None:
        """Keep what the server reported, except its text."""
        self.code = code
        self.is_passing = is_passing
        self.is_inner = is_inner
        self.is_servers = is_servers
        super().__init__(text)


class ShopMisfitError(ShopError):
    """A table, a column or a right is missing: a person must act, and a later check may find it
    fixed.
    """


class RightsError(ShopMisfitError):
    """Rights are missing; ``sql`` grants this role all of them at once."""

    def __init__(self, sql: str) -> None:
        """Put the SQL into the text."""
        self.sql = sql
        super().__init__(f"this role lacks rights; run: {sql}")


class ObservedError(ShopMisfitError):
    """The shop is only observed for now, so nothing may be written: see ``observe``."""


class NotMigratedError(ShopMisfitError):
    """One of our tables, or a right on one, is missing: answers could not be written correctly, so
    nothing is asked.
    """
