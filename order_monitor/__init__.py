"""Finds out how open orders ended, and writes it into the shop's database."""

__version__ = "0.2.0"
