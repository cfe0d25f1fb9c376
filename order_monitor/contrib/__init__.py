"""Ready-made code for the shop's side: a Django app.

The program itself imports nothing from here. Code here uses the program only from outside: its
tables and its command line.
"""
