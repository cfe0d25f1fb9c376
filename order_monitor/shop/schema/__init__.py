"""Which tables and columns exist, how the settings describe them, which tables are supported."""
