"""What an order, an answer, a schedule, a gate and a decision are: pure, and to be read alone.

May be touched from outside: all of it. Calls nothing: no I/O, no library, no clock and no randomness of its own.
Begin with `order`, `answer`, `schedule` and `decision`; `queue` and `backlog` keep order, `gate` and `recording` connect them.
"""
