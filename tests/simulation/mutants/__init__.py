"""Planted bugs: each a small change to the real code that the simulation must see, or it sees nothing.

``python -m tests.simulation.mutants`` plants each in a copy of the package and runs seeds until one breaks. A bug that can no
longer be planted, or is not seen, is an error.
"""
