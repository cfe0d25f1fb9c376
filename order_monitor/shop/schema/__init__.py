"""Which tables and columns exist, how the settings describe them, and which kinds of table are
supported.
"""
