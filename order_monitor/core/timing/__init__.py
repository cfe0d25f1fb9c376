"""Learned timing: when to ask about an order, from how long its product's orders took until now.

Pure: no clock, no I/O, no randomness of its own. From outside: `planner.Timing`, `terms.Terms` and `precedence.precedence`.
docs/timing.md has the formulas, their sources and their limits.
"""
