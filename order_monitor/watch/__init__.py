"""The loop, and the way of one order through it, which is one walk with no turning back.

`discovery` finds it, `dispatcher` chooses it when it is due, `inquiry` asks, `judgement` understands the answer, `writer` carries
it into the database, `settlement` takes note of what became of it.

May be touched from outside: `engine` (the walk as one whole), `lifecycle` (its start, drain and end), `observer` (being told).
May call: shop, providers, core.
"""
