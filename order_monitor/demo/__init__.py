"""A whole world of its own to watch the program in: a PostgreSQL, a provider, and orders. The program never imports it."""
