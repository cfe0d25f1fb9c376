"""The migrations that create the tables."""
