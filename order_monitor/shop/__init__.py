"""The shop's database: its columns in both spellings, its orders and accounts, our events, and what `migrate` adds.

May be touched from outside: everything but SQL. Every statement of the program is in this room. May call: core.
"""
