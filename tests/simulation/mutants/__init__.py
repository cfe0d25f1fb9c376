"""Planted bugs: each is a small change to the real code that the simulation must detect.

``python -m tests.simulation.mutants`` plants each in a copy of the package and runs seeds until one
breaks. It is an error if a bug can no longer be planted, or is not detected.
"""
