"""The shop's accounts, their logins, and their pauses."""
