"""Who is asked: the seam (`provider`), znet's client and its parser, its transport, and the guard on addresses.

May be touched from outside: `provider`, `znet`, `transport`, `address_guard`. May call: core.
"""
