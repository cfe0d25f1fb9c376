"""The database checks of `check`."""
