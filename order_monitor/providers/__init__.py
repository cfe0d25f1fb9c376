"""Providers: the interface (`provider`), a folder for each kind, and their HTTP layer (`http`)."""
