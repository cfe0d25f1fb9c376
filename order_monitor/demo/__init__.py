"""A stand-in provider, an embedded PostgreSQL, and a scenario: the demo's world, and the tests'.

May be touched from outside: by `commands.demo` and the tests; the program itself never imports it. May call: every room below.
"""
