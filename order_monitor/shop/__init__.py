"""The shop's database: its address, its columns in either spelling, its orders."""
