"""Benchmarks of the program's cost; the program imports nothing from here."""
