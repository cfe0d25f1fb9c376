"""A stand-in provider, an embedded PostgreSQL and a scenario, for the demo and the tests.

The program itself does not import them.
"""
