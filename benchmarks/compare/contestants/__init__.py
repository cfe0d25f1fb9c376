"""One module per contestant.

Code that runs inside a contestant's processes is separate from code that the comparison itself
imports.
"""
