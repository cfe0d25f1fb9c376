"""The shop's database: its columns in both spellings, its orders and accounts, our events, and what
`migrate` adds. Contains every SQL statement of the program except those of `timing` and `cluster`.
"""
