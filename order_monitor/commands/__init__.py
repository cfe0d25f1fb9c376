"""The command line: one file a command, each thin, each composing the rooms below.

May be touched from outside: `cli` alone. May call: every room. `composition` is the one place that knows all the parts.
"""
