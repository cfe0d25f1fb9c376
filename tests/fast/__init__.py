"""The program over the event loop of the extra ``fast``."""
